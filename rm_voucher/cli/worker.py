"""``rm-voucher worker``: issue a voucher for each message of a queue, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Annotated

import typer

from rm_voucher import ConfigurationError
from rm_voucher.cli.asking import confirm
from rm_voucher.cli.common import examples
from rm_voucher.cli.connect import (
    find_settings,
    in_words,
    is_memory,
    is_real,
    make_memory_client,
    say_notes,
)
from rm_voucher.cli.options import (
    SETTLE_S,
    EnvironmentOption,
    ExclusiveOption,
    NamespaceOption,
    NoBalanceCheckOption,
    RateOption,
    SettleOption,
    SharedOption,
    YesOption,
    flow_policy,
    named_url,
    open_ledger,
    open_shared,
)
from rm_voucher.cli.plan import label_of
from rm_voucher.cli.screen import logged_to_person, say
from rm_voucher.extras import extra

_LOGGER = logging.getLogger("rm_voucher")
_BROKER, _LEDGER = "env:RM_WORKER_BROKER", "env:RM_WORKER_LEDGER"


@examples(
    "rm-voucher worker --batch BREAKFAST --environment memory --sample 5",
    "rm-voucher worker --batch BREAKFAST --broker amqp://localhost --ledger postgresql:///campaign",
)
def worker(
    batch: Annotated[
        str, typer.Option(envvar="RM_WORKER_BATCH", help="The key of the batch to issue from.")
    ],
    broker: Annotated[
        str,
        typer.Option(
            help="Where the requests come from: amqp://…, nats://… or redis://…, or "
            "env:NAME for the URL in a variable.",
        ),
    ] = _BROKER,
    ledger: Annotated[
        str,
        typer.Option(
            help="The ledger that all workers share: postgresql://…, sqlite:///FILE for a single "
            "worker, or env:NAME for the URL in a variable.",
        ),
    ] = _LEDGER,
    requests: Annotated[
        str,
        typer.Option(envvar="RM_WORKER_REQUESTS", help="The queue that the requests come from."),
    ] = "requests",
    vouchers: Annotated[
        str, typer.Option(envvar="RM_WORKER_VOUCHERS", help="The queue that the vouchers go to.")
    ] = "vouchers",
    namespace: NamespaceOption = None,
    shared: SharedOption = None,
    exclusive: ExclusiveOption = False,
    settle: SettleOption = SETTLE_S,
    no_balance_check: NoBalanceCheckOption = False,
    rate: RateOption = None,
    prefetch: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            envvar="RM_WORKER_PREFETCH",
            help="How many messages to take at once. By default from --rate, by Little's law, and "
            "64 without.",
        ),
    ] = None,
    first_delay: Annotated[
        float,
        typer.Option(
            min=0.01,
            envvar="RM_WORKER_FIRST_DELAY",
            help="After how many seconds a message that can't be served now comes back. Each "
            "further time it is twice as long, up to a quarter of an hour.",
        ),
    ] = 5.0,
    max_attempts: Annotated[
        int,
        typer.Option(
            min=1,
            envvar="RM_WORKER_MAX_ATTEMPTS",
            help="After so many deliveries a message is parked for a person.",
        ),
    ] = 50,
    host: Annotated[
        str,
        typer.Option(envvar="RM_WORKER_HOST", help="The address of health, readiness and metrics."),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            envvar="RM_WORKER_PORT",
            help="Its port; 0 takes a free one. Without it nothing listens.",
        ),
    ] = None,
    stop: Annotated[
        float,
        typer.Option(
            min=1,
            envvar="RM_WORKER_STOP",
            help="Within how many seconds of SIGTERM or Ctrl-C it ends.",
        ),
    ] = 25.0,
    unkept: Annotated[
        Path,
        typer.Option(
            envvar="RM_WORKER_UNKEPT",
            help="The folder for codes that the ledger could not keep before the end, as while "
            "its database is away: the next worker there gives them to it.",
        ),
    ] = Path(),
    sample: Annotated[
        int, typer.Option(min=1, help="With --environment memory: how many messages to work off.")
    ] = 100,
    yes: YesOption = False,
    environment: EnvironmentOption = None,
) -> None:
    """Issue a voucher for each message of a queue, one code for each request id.

    A message is {"request_id": "order 1", "content": …}; its voucher is a message with the same two
    and the code. With --environment memory it works off some messages of its own, without an
    account, a broker or a database, and ends.
    """
    with extra("worker", "The worker", ConfigurationError):
        from rm_voucher.cli import working  # slow to import

    flow = flow_policy(rate)
    plan = working.Plan(
        batch_key=batch,
        settings=working.settings_for(
            rate, prefetch, first_delay_s=first_delay, max_attempts=max_attempts
        ),
        requests=requests,
        vouchers=vouchers,
        served=None if port is None else (host, port),
        stop_s=stop,
        folder=unkept,
    )
    if is_memory(environment):
        if broker != _BROKER or ledger != _LEDGER or shared is not None:
            raise ConfigurationError(
                "The environment is 'memory', an embedded emulator that ends with the command: it "
                "takes no --broker, --ledger or --shared."
            )
        say("These are not real vouchers: the environment is 'memory', an embedded emulator.")
        client = make_memory_client(batch=batch, quantity=sample, flow=flow)
        asyncio.run(working.try_out(client, plan, sample))
        return
    source = named_url("broker", broker)
    kept = open_ledger(
        ledger,
        namespace=namespace,
        exclusive=exclusive,
        settle_s=settle,
        check_balance=not no_balance_check,
        sweeps=True,
    )
    settings = find_settings(environment)
    say_notes(settings)
    server = settings.environment()
    say(f"Environment: {in_words(server)}: {'' if is_real(server) else 'no '}real vouchers")
    if is_real(server) and not yes:
        confirm(
            "To issue a real voucher for each message, type the batch's label",
            label_of(settings.client, batch),
            yes=yes,
        )
    store = open_shared(shared, ledger)
    client = settings.client(concurrency=plan.settings.prefetch, flow=flow, shared=store)
    with logged_to_person(_LOGGER, logging.INFO):
        asyncio.run(working.work(client, kept, store, source, plan))
