"""``rm-voucher ledger``: look at a ledger, settle what is unknown, take its codes out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import attrs
import typer

from rm_voucher import ConfigurationError, IssuedVoucher, VoucherClient
from rm_voucher.cli.asking import confirm
from rm_voucher.cli.common import examples
from rm_voucher.cli.connect import is_memory, make_client
from rm_voucher.cli.decisions import (
    ADOPT,
    TO_ISSUE,
    Plan,
    carry_out,
    make_plan,
    problem_of_code,
    read_decisions,
    write_held,
)
from rm_voucher.cli.interrupts import run_until_interrupted
from rm_voucher.cli.options import (
    SETTLE_S,
    EnvironmentOption,
    ExclusiveOption,
    JsonOption,
    NamespaceOption,
    NoBalanceCheckOption,
    SettleOption,
    open_ledger,
)
from rm_voucher.cli.output import csv_line, json_line, table_line
from rm_voucher.cli.results import ResultFile
from rm_voucher.cli.screen import say, tell, write_out
from rm_voucher.converters import format_time
from rm_voucher.ledger import AttemptState, Ledger, Reconciliation

_UNKNOWN = 4
_MANY = 20  # attempts, on a screen
_COLUMNS = ("request", "batch", "state", "code", "qr_url", "error")

ledger_app: typer.Typer = typer.Typer(
    name="ledger",
    no_args_is_help=True,
    add_completion=False,
    help="Look at a ledger, settle what is unknown, take its codes out.",
)

UrlArgument = Annotated[
    str,
    typer.Argument(
        metavar="URL", help="sqlite:///FILE, postgresql://…, or env:NAME for the URL in a variable"
    ),
]
BatchArgument = Annotated[str, typer.Argument(metavar="BATCH", help="The batch's key.")]
BatchOption = Annotated[str | None, typer.Option(help="Only this batch.")]


@ledger_app.command()
@examples(
    "rm-voucher ledger status sqlite:///campaign.db",
)
def status(
    url: UrlArgument,
    batch: BatchOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how a ledger stands, also while it is in use.

    The exit code is 4 if an outcome is unknown.
    """

    async def show(ledger: Ledger) -> None:
        counts = await ledger.counts(batch)
        attempts = await ledger.attempts(batch)
        stopped = {
            row.key: row.stop_reason
            for row in await ledger.batches()
            if row.stop_reason is not None and batch in (None, row.key)
        }
        whole = await ledger.stop_reason()
        account = await ledger.account()
        others = sorted((await ledger.namespaces()).keys() - {namespace or ""})
        figures = attrs.asdict(counts)
        if as_json:
            unknown = [
                {
                    "attempt": attempt.id,
                    "batch": attempt.batch,
                    "state": attempt.state.value,
                    "sent_at": _time(attempt.sent_at),
                }
                for attempt in attempts
            ]
            write_out(
                json_line(
                    {
                        **figures,
                        "attempts": unknown,
                        "stopped": stopped,
                        "stopped_ledger": whole,
                        "account": account,
                        "other_namespaces": others,
                    }
                )
            )
        else:
            for name, number in figures.items():
                tell(f"{name}: {number:,}")
            if account is not None:
                tell(f"account: {account}")
            if others:
                tell(f"other namespaces, see --namespace: {', '.join(map(repr, others))}")
            held = [attempt for attempt in attempts if attempt.state is AttemptState.UNRESOLVED]
            for attempt in held[:_MANY]:
                tell(
                    f"to resolve: attempt {attempt.id}, sent {_time(attempt.sent_at)}, "
                    f"batch {attempt.batch}"
                )
            if len(held) > _MANY:
                tell(f"to resolve: {len(held) - _MANY:,} more; --json shows all")
            if whole is not None:
                tell(f"each batch is stopped until its new baseline: {whole}")
            for key, reason in stopped.items():
                tell(f"batch {key} is stopped: {reason}")
        if counts.unresolved or counts.ambiguous or attempts:
            raise typer.Exit(_UNKNOWN)

    _run(open_ledger(url, namespace=namespace, read_only=True), show)


@ledger_app.command()
@examples(
    "rm-voucher ledger reconcile sqlite:///campaign.db BREAKFAST",
)
def reconcile(
    url: UrlArgument,
    batch: BatchArgument,
    namespace: NamespaceOption = None,
    exclusive: ExclusiveOption = False,
    settle: SettleOption = SETTLE_S,
    no_balance_check: NoBalanceCheckOption = False,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write what is held to this table, for 'ledger resolve --decisions': a row for "
            "each attempt, with its recipient, its time and the codes that may be its own."
        ),
    ] = None,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Wait, read a batch's listing, and settle what it proves.

    What it can't settle is shown with the codes that it may have issued, for 'ledger resolve'.
    """
    client = _client(environment)

    async def settle_unknown(ledger: Ledger) -> None:
        if not as_json and await ledger.attempts(batch, (AttemptState.AMBIGUOUS,)):
            say(f"Outcomes are unknown: waiting {settle:,.0f} s, so that the listing is complete.")
        report = await ledger.reconcile(client, batch, wait=True)
        _show(report, as_json=as_json)
        if output is not None and report.held:
            await write_held(ledger, report, batch, output)
            say(f"{output}: {len(report.held):,} to be decided.")
        elif output is not None:
            say("Nothing is held: no file is written.")
        if report.held or report.open or report.stop_reason:
            raise typer.Exit(_UNKNOWN)

    kept = open_ledger(
        url,
        namespace=namespace,
        exclusive=exclusive,
        settle_s=settle,
        check_balance=not no_balance_check,
        must_exist=True,
    )
    _run(kept, settle_unknown, client)


@ledger_app.command()
@examples(
    "rm-voucher ledger resolve sqlite:///campaign.db ATTEMPT --adopt CODE",
    "rm-voucher ledger resolve sqlite:///campaign.db ATTEMPT --reissue",
)
def resolve(
    url: UrlArgument,
    attempt: Annotated[
        str | None, typer.Argument(help="The attempt, as 'ledger status' shows it.")
    ] = None,
    adopt: Annotated[
        str | None,
        typer.Option(metavar="CODE", help="It issued this code: give it to its request."),
    ] = None,
    reissue: Annotated[
        bool, typer.Option("--reissue", help="It issued nothing: its request waits again.")
    ] = False,
    write_off: Annotated[
        bool, typer.Option("--write-off", help="Give its request up; nothing is issued for it.")
    ] = False,
    decisions: Annotated[
        Path | None,
        typer.Option(
            help="Decide about many: the table that 'ledger reconcile --output' wrote, with adopt, "
            "reissue or write-off in its column 'decision', and the code beside adopt."
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Carry the decisions of a file out without a question.")
    ] = False,
    namespace: NamespaceOption = None,
    environment: EnvironmentOption = None,
) -> None:
    """Decide about an attempt whose outcome is unknown: exactly one of the three options.

    With --decisions, about many: all are shown first, and carried out when 'resolve' is typed.
    A code is looked up first: it must be an issued one of the attempt's batch.
    """
    given = (adopt is not None) + reissue + write_off
    if decisions is not None:
        if given or attempt is not None:
            raise ConfigurationError("With --decisions, the file alone says what is decided.")
        _resolve_many(url, decisions, yes=yes, namespace=namespace, environment=environment)
        return
    if given != 1:
        raise ConfigurationError("Give one of --adopt, --reissue and --write-off.")
    if attempt is None:
        raise ConfigurationError("Name the attempt, as 'ledger status' shows it.")

    client = None if adopt is None else _client(environment)

    async def decide(ledger: Ledger) -> None:
        voucher = None
        if client is not None:
            found = await client.get(adopt or "")
            of_attempt = [each.batch for each in await ledger.attempts() if each.id == attempt]
            if problem := problem_of_code(found, of_attempt[0] if of_attempt else None):
                raise ConfigurationError(f"{problem[0].upper()}{problem[1:]}.")
            voucher = IssuedVoucher(code=adopt or "", qr_url=found.qr_url or "")
        await ledger.resolve(attempt, adopt=voucher, reissue=reissue, write_off=write_off)
        done = "given up: nothing is issued for it" if write_off else "adopted: its code is given"
        say(f"attempt {attempt}: {'it waits again' if reissue else done}.")
        if reissue:
            say(TO_ISSUE)

    _run(open_ledger(url, namespace=namespace, must_exist=True), decide, client)


def _resolve_many(
    url: str, path: Path, *, yes: bool, namespace: str | None, environment: str | None
) -> None:
    decided, problems = read_decisions(path)
    needs_client = any(each.word == ADOPT for each in decided)
    plan: Plan | None = None

    async def look(ledger: Ledger) -> None:
        nonlocal plan
        plan = await make_plan(ledger, client, path, decided, problems)

    async def carry(ledger: Ledger) -> None:
        assert plan is not None  # noqa: S101 - for the type checker
        if await carry_out(ledger, plan):
            raise typer.Exit(1)

    client = _client(environment) if needs_client else None
    _run(open_ledger(url, namespace=namespace, read_only=True, must_exist=True), look, client)
    assert plan is not None  # noqa: S101
    plan.show()
    if plan.decisions:
        confirm(
            "To carry them out, type 'resolve'", "resolve", yes=yes, nothing="Nothing was changed."
        )
        _run(open_ledger(url, namespace=namespace, must_exist=True), carry)


@ledger_app.command()
@examples(
    "rm-voucher ledger baseline sqlite:///campaign.db BREAKFAST",
)
def baseline(
    url: UrlArgument,
    batch: BatchArgument,
    namespace: NamespaceOption = None,
    no_balance_check: NoBalanceCheckOption = False,
    environment: EnvironmentOption = None,
) -> None:
    """Begin anew with a batch that was stopped: take the codes that are listed as they are.

    Codes that the ledger does not know are given to nobody from then on, and unknown outcomes are
    held for 'ledger resolve'.
    """
    client = _client(environment)

    async def begin(ledger: Ledger) -> None:
        await ledger.baseline(client, batch)
        counts = await ledger.counts(batch)
        say(
            f"A new baseline: {counts.foreign:,} code(s) of others, {counts.unresolved:,} "
            "request(s) to resolve."
        )

    kept = open_ledger(
        url, namespace=namespace, check_balance=not no_balance_check, must_exist=True
    )
    _run(kept, begin, client)


@ledger_app.command()
@examples(
    "rm-voucher ledger rebind sqlite:///campaign.db",
)
def rebind(
    url: UrlArgument,
    namespace: NamespaceOption = None,
    environment: EnvironmentOption = None,
) -> None:
    """Let a ledger belong to the account of the credentials: the merchant has a new client id.

    A ledger gives its codes out for one account alone. Whoever rebinds another merchant's gives
    that merchant's vouchers away.
    """
    client = _client(environment)

    async def bind(ledger: Ledger) -> None:
        before = await ledger.account()
        await ledger.rebind(client)
        say(f"The ledger belonged to {before or 'nobody'}, and belongs to {client.account} now.")

    _run(open_ledger(url, namespace=namespace, must_exist=True), bind, client)


@ledger_app.command()
@examples(
    "rm-voucher ledger export sqlite:///campaign.db",
)
def export(
    url: UrlArgument,
    batch: BatchOption = None,
    namespace: NamespaceOption = None,
    output: Annotated[
        Path | None, typer.Option(help="Write to this CSV file, which only you can read.")
    ] = None,
) -> None:
    """Write all requests with their codes as CSV, also while the ledger is in use."""

    async def write(ledger: Ledger) -> None:
        if output is None:
            write_out(csv_line(_COLUMNS))
            async for line in _lines(ledger, batch):
                write_out(line)
            return
        with ResultFile(output, columns=_COLUMNS, is_kept=True) as file:
            for path, _ in file.unkept():
                raise ConfigurationError(
                    f"{path} has codes that are in no ledger: run the command that wrote it again, "
                    "which gives them to its ledger, or name another file."
                )
            file.begin()
            async for line in _lines(ledger, batch):
                file.add_line(line)

    _run(open_ledger(url, namespace=namespace, read_only=True), write)


async def _lines(ledger: Ledger, batch: str | None) -> AsyncIterator[str]:
    async for request, voucher in ledger.requests(batch):
        cells = (
            request.id,
            request.batch,
            request.state.value,
            voucher.code if voucher else "",
            voucher.qr_url if voucher else "",
            request.error or "",
        )
        yield table_line(dict(zip(_COLUMNS, cells, strict=True)))


def _show(report: Reconciliation, *, as_json: bool) -> None:
    if as_json:
        shown = attrs.asdict(report)
        shown["alarm"] = shown.pop("stop_reason")  # programs know it by that name
        write_out(json_line(shown))
        return
    tell(
        f"{report.listed:,} listed: {report.adopted:,} adopted, {report.not_issued:,} not issued, "
        f"{report.open:,} open, {len(report.held):,} held"
    )
    before: tuple[str, ...] = ()
    for held in report.held:
        codes = ", ".join(held.candidates) or "no code"
        if len(held.candidates) > 1 and held.candidates == before:
            codes = f"the same {len(before):,} codes"
        before = held.candidates
        tell(f"attempt {held.attempt_id}, sent {_time(held.sent_at)}: {codes}")
    if report.stop_reason:
        tell(f"The batch is stopped: {report.stop_reason}")


def _time(seconds: float) -> str:
    return format_time(datetime.fromtimestamp(seconds, UTC))


def _client(environment: str | None) -> VoucherClient:
    if is_memory(environment):
        raise ConfigurationError(
            "This asks the server, and the environment is 'memory', which knows nothing of the "
            "ledger: set the RM_… variables."
        )
    return make_client(environment)


def _run(
    ledger: Ledger,
    work: Callable[[Ledger], Coroutine[Any, Any, None]],
    client: VoucherClient | None = None,
) -> None:
    async def main() -> None:
        async with client or nullcontext(), ledger:
            await work(ledger)

    run_until_interrupted(main())
