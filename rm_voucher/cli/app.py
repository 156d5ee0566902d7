"""The commands. Each is thin: it reads options, awaits the library, and writes the outcome.

Exit codes: 0 all done, 1 some failed, 2 a mistake in the command line, files or settings, 3 the
credentials were refused, 4 the outcome of a call is unknown, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import attrs
import typer
from typer.main import get_command

from rm_voucher import (
    ConfigurationError,
    Environment,
    InvalidRequestError,
    Pager,
    Voucher,
    VoucherClient,
    VoucherError,
    __version__,
)
from rm_voucher.cli.arguments import refuse_unset
from rm_voucher.cli.connect import is_memory, make_client, make_memory_client
from rm_voucher.cli.emulator import emulator
from rm_voucher.cli.issue import (
    INTERRUPTED,
    Report,
    exit_code_of,
    run_issue,
    run_until_interrupted,
)
from rm_voucher.cli.ledger import ledger_app
from rm_voucher.cli.options import (
    SETTLE_S,
    EnvironmentOption,
    ExclusiveOption,
    JsonOption,
    NamespaceOption,
    NoBalanceCheckOption,
    RateOption,
    SettleOption,
    SharedOption,
    flow_policy,
    open_ledger,
    open_shared,
    parse_instant,
)
from rm_voucher.cli.output import (
    OutputError,
    ResultFile,
    ResultStream,
    csv_line,
    json_line,
    say,
    strangers_are_harmless,
    table_line,
    tell,
    write_out,
)
from rm_voucher.cli.probe import probe
from rm_voucher.cli.recipients import Recipients
from rm_voucher.cli.webhook import webhook_app
from rm_voucher.cli.worker import worker
from rm_voucher.converters import format_time, unstructure
from rm_voucher.wire.operations import build_issue

_MISTAKE = 2

app = typer.Typer(
    name="rm-voucher",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def run() -> None:
    """Run the command line; errors of the library become a sentence and an exit code."""
    with strangers_are_harmless():
        _run()


def _run() -> None:
    try:
        command = get_command(app)
        refuse_unset(command, sys.argv[1:])
        command()
    except VoucherError as exc:
        say(f"Error: {exc}")
        # The client refuses input without a status; with one it is the server's word.
        is_mistake = isinstance(exc, ConfigurationError) or (
            isinstance(exc, InvalidRequestError) and exc.http_status is None
        )
        sys.exit(_MISTAKE if is_mistake else exit_code_of(exc))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(INTERRUPTED)
    except OSError as exc:
        say(f"Error: standard output can't be written: {exc.strerror}.")
        sys.exit(1)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it
    if wanted:
        typer.echo(f"rm-voucher {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Issue, look up, void and list Revenue Monster vouchers.

    Settings come from the environment: RM_CLIENT_ID, RM_CLIENT_SECRET, RM_PRIVATE_KEY or
    RM_PRIVATE_KEY_FILE, RM_ENVIRONMENT, RM_API_URL, RM_OAUTH_URL.
    """


@app.command()
def issue(
    batch: Annotated[str, typer.Argument(help="The batch's key.")],
    count: Annotated[
        int | None, typer.Option(min=1, help="Issue this many, for recipients 1, 2, 3 …")
    ] = None,
    recipients: Annotated[
        Path | None, typer.Option(help="Issue one to each row of a CSV file's column 'recipient'.")
    ] = None,
    allow_similar: Annotated[
        bool,
        typer.Option(
            "--allow-similar",
            help="Take recipients that look the same for different ones. Without it they are a "
            "mistake in the file.",
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="Write the results to this CSV file instead of standard output."),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=1000, help="How many calls may be in flight at once.")
    ] = 64,
    rate: RateOption = None,
    ledger: Annotated[
        str | None,
        typer.Option(
            help="Keep what is issued in this ledger, sqlite:///FILE, postgresql://… or env:NAME "
            "for the URL in a variable: run it again to resume."
        ),
    ] = None,
    namespace: NamespaceOption = None,
    shared: SharedOption = None,
    exclusive: ExclusiveOption = False,
    settle: SettleOption = SETTLE_S,
    no_balance_check: NoBalanceCheckOption = False,
    environment: EnvironmentOption = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Write JSON lines: one for each result, unless --output takes them, and at the "
            "end one with the counts.",
        ),
    ] = False,
) -> None:
    """Issue vouchers of a batch: one, --count of them, or one to each of --recipients."""
    if count is not None and recipients is not None:
        raise ConfigurationError("Give --count or --recipients, not both.")
    if ledger is None and (
        exclusive or no_balance_check or settle != SETTLE_S or namespace is not None
    ):
        raise ConfigurationError(
            "--namespace, --exclusive, --settle and --no-balance-check are about a ledger: give "
            "--ledger too."
        )
    if recipients is None and allow_similar:
        raise ConfigurationError("--allow-similar is about --recipients: give that too.")
    flow = flow_policy(rate)
    build_issue(Environment.SANDBOX, batch)  # it refuses a key that can't be sent
    with contextlib.ExitStack() as stack:
        names: Iterable[str]
        if recipients is not None:
            names = file = stack.enter_context(Recipients(recipients, allow_similar=allow_similar))
            total = len(file)
        else:
            total = count or 1
            names = map(str, range(1, total + 1))
        kept = store = None
        if is_memory(environment):
            if ledger is not None or shared is not None:
                raise ConfigurationError(
                    "--ledger and --shared need a server that outlives the command, and the "
                    "environment is 'memory': start one with 'rm-voucher emulator --batch KEY=100 "
                    "--credentials-out FILE'."
                )
            say("These are not real vouchers: the environment is 'memory', an embedded emulator.")
            client = make_memory_client(batch=batch, quantity=total, flow=flow)
        else:
            if ledger is not None:
                kept = open_ledger(
                    ledger,
                    namespace=namespace,
                    exclusive=exclusive,
                    settle_s=settle,
                    check_balance=not no_balance_check,
                )
            store = open_shared(shared, ledger)
            client = make_client(environment, concurrency=concurrency, flow=flow, shared=store)
        sink = (
            ResultFile(output, is_kept=kept is not None)
            if output
            else ResultStream(as_json=as_json)
        )
        report = Report(total, ledger=ledger, namespace=namespace)
        try:
            with sink as results:
                run_issue(
                    client,
                    batch,
                    names,
                    report,
                    concurrency=concurrency,
                    results=results,
                    ledger=kept,
                    shared=store,
                )
        except OutputError as exc:
            report.unwritten = exc
    report.write(output, as_json=as_json)
    raise typer.Exit(report.exit_code)


@app.command()
def get(
    code: Annotated[str, typer.Argument(help="The voucher's code.")],
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look a voucher up."""
    _show_one(environment, lambda client: client.get(code), as_json=as_json)


@app.command()
def void(
    code: Annotated[str, typer.Argument(help="The voucher's code.")],
    store_id: Annotated[str | None, typer.Option(help="The store that it is used at.")] = None,
    used_at: Annotated[
        str | None,
        typer.Option(
            help="When it was used, RFC 3339 with microseconds, unique to this till: it proves "
            "whose void it was when the answer is lost."
        ),
    ] = None,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Void a voucher, that is, use it up at a shop."""
    instant = None if used_at is None else parse_instant("--used-at", used_at)
    try:
        _show_one(
            environment,
            lambda client: client.void(code, store_id=store_id, used_at=instant),
            as_json=as_json,
        )
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("Interrupted: whether the voucher was voided is unknown. Look it up.")
        raise typer.Exit(4) from None
    except OSError as exc:
        say(f"The voucher was voided, but standard output can't be written: {exc.strerror}.")


@app.command()
def vouchers(
    batch: Annotated[str, typer.Argument(help="The batch's key.")],
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the vouchers of a batch, as CSV or a line of JSON each."""
    columns = ("code", "status", "type", "amount_sen", "assigned_at", "redeemed_at", "used_at")
    _list(environment, lambda client: client.vouchers(batch), columns, as_json=as_json)


@app.command()
def batches(environment: EnvironmentOption = None, as_json: JsonOption = False) -> None:
    """List the merchant's batches, as CSV or a line of JSON each."""
    columns = ("key", "label", "status", "type", "quantity", "balance_quantity", "used_quantity")
    _list(environment, lambda client: client.batches(), columns, as_json=as_json)


app.command()(emulator)
app.command()(probe)
app.command()(worker)
app.add_typer(ledger_app)
app.add_typer(webhook_app)


def _connect(environment: str | None) -> VoucherClient:
    if is_memory(environment):
        say("The environment is 'memory', an embedded emulator that begins empty.")
        return make_memory_client()
    return make_client(environment)


def _show_one(
    environment: str | None,
    ask: Callable[[VoucherClient], Awaitable[Voucher]],
    *,
    as_json: bool,
) -> None:
    async def show() -> None:
        async with client:
            voucher = await ask(client)
        if as_json:
            write_out(json_line(unstructure(voucher)))
            return
        for field in attrs.fields(Voucher):
            value = getattr(voucher, field.name)
            if field.name != "extra" and value is not None:
                tell(f"{field.name}: {_text(value)}")

    client = _connect(environment)
    run_until_interrupted(show())


def _list(
    environment: str | None,
    ask: Callable[[VoucherClient], Pager[Any]],
    columns: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    async def show() -> None:
        if not as_json:
            write_out(csv_line(columns))
        async with client:
            async for item in ask(client):
                row = {column: _text(getattr(item, column)) for column in columns}
                write_out(json_line(unstructure(item)) if as_json else table_line(row))

    client = _connect(environment)
    run_until_interrupted(show())


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return format_time(value)
    if attrs.has(type(value)):
        return json_line(unstructure(value)).strip()
    return "" if value is None else str(value)
