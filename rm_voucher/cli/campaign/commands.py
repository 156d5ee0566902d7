"""``rm-voucher campaign``: who has what, a report, who is asked again, both lists compared."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from rm_voucher import ConfigurationError
from rm_voucher.cli.campaign.figures import (
    Figures,
    is_same,
    shown_code,
    shown_time,
    to_json,
)
from rm_voucher.cli.campaign.gather import DEFAULT_ZONE, Sources, gathered
from rm_voucher.cli.campaign.page import BEGINNING, DIFFERENCES, STRANGERS, render
from rm_voucher.cli.campaign.rows import (
    to_resend,
    write_differences,
    write_resend,
    write_standings,
)
from rm_voucher.cli.campaign.standing import MEANINGS, Difference, Standing
from rm_voucher.cli.options import EnvironmentOption, JsonOption, NamespaceOption, without_password
from rm_voucher.cli.output import json_line, refuse_no_file, say, tell, write_out
from rm_voucher.files import replace_private
from rm_voucher.text import counted

_DIFFERS, _UNKNOWN = 1, 4
_MANY = 20  # rows, on a screen

campaign_app = typer.Typer(
    name="campaign",
    no_args_is_help=True,
    help="After a campaign was issued: who has what, a report, who is to be asked again.",
)

BatchArgument = Annotated[str, typer.Argument(metavar="BATCH", help="The batch's key.")]
LedgerOption = Annotated[
    str | None,
    typer.Option(
        help="The ledger that it was issued with: sqlite:///FILE, postgresql://… or env:NAME for "
        "the URL in a variable."
    ),
]
ResultsOption = Annotated[
    Path | None,
    typer.Option(help="The file that 'rm-voucher issue' wrote, where there is no ledger."),
]
RecipientsOption = Annotated[
    Path | None,
    typer.Option(
        help="Your list of recipients: its rows, columns and order are kept, and who is not in the "
        "ledger, or the results, was never asked."
    ),
]
ColumnOption = Annotated[
    str | None, typer.Option(help="The column of the recipients, by its header.")
]
EncodingOption = Annotated[
    str | None, typer.Option(help="The encoding of a CSV file, such as big5 or gbk.")
]
RevealOption = Annotated[
    bool, typer.Option("--reveal", help="Show codes in full. Whoever reads one can use it.")
]
ZoneOption = Annotated[str, typer.Option("--timezone", help="The time zone that a day begins in.")]


@campaign_app.command()
def status(
    batch: BatchArgument,
    ledger: LedgerOption = None,
    results: ResultsOption = None,
    recipients: RecipientsOption = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Write a row for each recipient: .csv, .xlsx or .jsonl, by the name."),
    ] = None,
    column: ColumnOption = None,
    encoding: EncodingOption = None,
    namespace: NamespaceOption = None,
    timezone: ZoneOption = DEFAULT_ZONE,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who is served, redeemed, used, expired, held, refused and never asked.

    The exit code is 4 if somebody is held, that is, may have a voucher that nobody has seen.
    """
    sources = _sources(batch, ledger, results, recipients, column, encoding, namespace, environment)
    with gathered(sources) as campaign:
        if output is not None:
            write_standings(campaign, output)
        figures = campaign.figures(timezone)
    if as_json:
        write_out(json_line(to_json(figures)))
    else:
        _tell_standings(figures, sources)
    if output is not None:
        say(f"{output}: {counted(figures.recipients, 'recipient')}.")
    if figures.standings[Standing.HELD]:
        raise typer.Exit(_UNKNOWN)


@campaign_app.command()
def report(
    batch: BatchArgument,
    output: Annotated[
        Path | None, typer.Option(help="Write the report to this HTML file; only you can read it.")
    ] = None,
    ledger: LedgerOption = None,
    results: ResultsOption = None,
    recipients: RecipientsOption = None,
    column: ColumnOption = None,
    encoding: EncodingOption = None,
    namespace: NamespaceOption = None,
    timezone: ZoneOption = DEFAULT_ZONE,
    reveal: RevealOption = False,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a report that a browser shows: counts, days, what is held and why, and what differs.

    The file needs no network and no script. --json writes the same figures to standard output.
    """
    if output is None and not as_json:
        raise ConfigurationError("Name the report's file with --output, or give --json.")
    if output is not None:
        _refuse_other(output)
    sources = _sources(batch, ledger, results, recipients, column, encoding, namespace, environment)
    with gathered(sources) as campaign:
        figures = campaign.figures(timezone)
    if output is not None:
        try:
            replace_private(output, render(figures, reveal=reveal).encode())
        except OSError as exc:
            raise ConfigurationError(f"{output} can't be written: {exc.strerror}.") from exc
        say(f"{output}: {counted(figures.recipients, 'recipient')}.")
    if as_json:
        write_out(json_line(to_json(figures, reveal=reveal)))


@campaign_app.command()
def resend(
    batch: BatchArgument,
    output: Annotated[
        Path, typer.Option(help="Write them to this file: .csv, .xlsx or .jsonl, by the name.")
    ],
    ledger: LedgerOption = None,
    results: ResultsOption = None,
    recipients: RecipientsOption = None,
    column: ColumnOption = None,
    encoding: EncodingOption = None,
    namespace: NamespaceOption = None,
) -> None:
    """Write those who have no code, refused or never asked, as recipients of another run.

    All their own columns are kept. Who is held is never among them: they may have a voucher.
    Nothing is asked or sent.
    """
    sources = _sources(batch, ledger, results, recipients, column, encoding, namespace, None)
    refuse_no_file(output)
    with gathered(sources, with_listing=False) as campaign:
        standings = Counter(row.standing for row in campaign.join.rows())
        again = Counter(row.standing for row in to_resend(campaign))
        if again:
            write_resend(campaign, output)
    for standing in (Standing.REFUSED, Standing.NEVER_ASKED):
        if missing := standings[standing] - again[standing]:
            say(f"{missing:,} {_words(standing)} are not in your list: they are left out.")
    if standings[Standing.HELD]:
        say(
            f"Left out: {standings[Standing.HELD]:,} held. Each of them may have a voucher that "
            "nobody has seen, and would get a second one."
        )
    if standings[Standing.GIVEN_UP]:
        say(f"Left out: {standings[Standing.GIVEN_UP]:,} given up, as a person decided.")
    if not again:
        say("Nobody is to be asked again: no file is written.")
        return
    parts = " and ".join(f"{number:,} {_words(standing)}" for standing, number in again.items())
    say(f"{output}: {counted(again.total(), 'recipient')}, {parts}.")
    say(f"Next: {_issue_command(sources, output)}")


@campaign_app.command()
def reconcile(
    batch: BatchArgument,
    ledger: LedgerOption = None,
    results: ResultsOption = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Write a row for each difference: .csv, .xlsx or .jsonl, by the name."),
    ] = None,
    column: ColumnOption = None,
    encoding: EncodingOption = None,
    namespace: NamespaceOption = None,
    reveal: RevealOption = False,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare RM's list with ours, both ways. Only reads.

    The exit code is 1 if they differ, and 4 if they don't and the outcome of a call is unknown.
    """
    sources = _sources(batch, ledger, results, None, column, encoding, namespace, environment)
    with gathered(sources) as campaign:
        if output is not None:
            write_differences(campaign, output)
        figures = campaign.figures(DEFAULT_ZONE)
    held = figures.standings[Standing.HELD]
    if as_json:
        shown = to_json(figures, reveal=reveal)
        names = ("listing", "strangers", "differences", "differing")
        write_out(json_line({"held": held, **{name: shown[name] for name in names}}))
    else:
        _tell_differences(figures, sources, reveal=reveal)
    if not is_same(figures):
        raise typer.Exit(_DIFFERS)
    if held:
        raise typer.Exit(_UNKNOWN)


def _sources(
    batch: str,
    ledger: str | None,
    results: Path | None,
    recipients: Path | None,
    column: str | None,
    encoding: str | None,
    namespace: str | None,
    environment: str | None,
) -> Sources:
    return Sources(
        batch=batch,
        ledger=ledger,
        results=results,
        recipients=recipients,
        column=column,
        encoding=encoding,
        namespace=namespace,
        environment=environment,
    )


def _refuse_other(path: Path) -> None:
    """Raise `ConfigurationError` where another file than a report has the name."""
    refuse_no_file(path)
    try:
        with path.open("rb") as file:
            is_report = file.read(len(BEGINNING)).decode(errors="replace") == BEGINNING
    except FileNotFoundError:
        return
    except OSError as exc:
        raise ConfigurationError(f"{path} can't be read: {exc.strerror}.") from exc
    if not is_report:
        raise ConfigurationError(f"{path} is there, and is no report: name another file.")


def _tell_standings(figures: Figures, sources: Sources) -> None:
    label = figures.listing.batch.label or sources.batch
    tell(f"{label}: {counted(figures.recipients, 'recipient')}, {figures.with_code:,} with a code")
    shown = {each: number for each in Standing if (number := figures.standings[each])}
    wide = max((len(f"{number:,}") for number in shown.values()), default=0)
    names = max((len(each.value) for each in shown), default=0)
    for each, number in shown.items():
        tell(f"  {number:>{wide},}  {_words(each):<{names}}  {MEANINGS[each]}")
    for kept in figures.held[:_MANY]:
        since = f", sent {shown_time(kept.sent_at)}" if kept.sent_at is not None else ""
        attempt = f" (attempt {kept.attempt})" if kept.attempt else ""
        tell(f"held: {kept.recipient}{since}: {kept.error}{attempt}")
    if (more := figures.standings[Standing.HELD] - _MANY) > 0:
        tell(f"held: {more:,} more; the report and --output show them")
    for reason, number in figures.refused.most_common(_MANY):
        tell(f"refused: {number:,}: {reason or 'no reason was kept'}")
    if figures.again:
        tell(f"{figures.again:,} rows name a recipient who stands there already.")
    _tell_listing(figures)
    if not is_same(figures):
        say(
            "Our list and RM's differ. What differs is shown by 'rm-voucher campaign reconcile "
            f"{_named(sources)}'."
        )
    if figures.standings[Standing.HELD] and sources.ledger is not None:
        say(
            "Who is held is settled by 'rm-voucher ledger reconcile', and what that can't tell "
            "by 'rm-voucher ledger resolve'."
        )


def _tell_listing(figures: Figures) -> None:
    listing = figures.listing
    if listing.unreadable:
        tell(
            f"{counted(listing.unreadable, 'voucher')} of RM's listing can't be read: codes that "
            "are not listed may be theirs."
        )
    if figures.is_short:
        tell(
            f"RM lists {figures.issued:,} issued vouchers, and by the batch's balance "
            f"{listing.issued_by_balance:,} are: the listing may not be complete. Try again later."
        )


def _tell_differences(figures: Figures, sources: Sources, *, reveal: bool) -> None:
    tell(
        f"{figures.issued:,} issued vouchers are listed by RM, and {figures.with_code:,} are on "
        "our list."
    )
    for kind, number in figures.differences.items():
        tell(f"{DIFFERENCES[kind]}: {number:,}")
        rows = [each for each in figures.differing if each.difference is kind]
        for each in rows[:_MANY]:
            who = f", {each.kept.recipient}" if each.kept else ""
            at = each.listed and shown_time(each.listed.assigned_at)
            status = f", {each.listed.status}" if each.listed else ""
            issued = f", issued {at}" if at else ""
            tell(f"  {shown_code(each.code, reveal=reveal)}{who}{status}{issued}")
        if number > _MANY:
            tell(f"  {number - _MANY:,} more; --output writes them all")
    for state, number in figures.strangers.items():
        if state in STRANGERS:
            tell(f"also listed: {number:,} {STRANGERS[state]}")
    _tell_listing(figures)
    if is_same(figures):
        tell("The two lists are the same.")
    elif sources.ledger is not None and figures.differences[Difference.UNKNOWN]:
        say("'rm-voucher ledger reconcile' finds out whose the unknown ones are.")
    if held := figures.standings[Standing.HELD]:
        say(f"{held:,} held: each of them may have one of the vouchers that nobody has.")


def _words(standing: Standing) -> str:
    return standing.value.replace("_", " ")


def _named(sources: Sources) -> str:
    """Return the arguments that name the sources, for another command."""
    if sources.ledger is None:
        given = f"--results {shlex.quote(str(sources.results))}"
    else:
        given = f"--ledger {shlex.quote(without_password(sources.ledger))}"
        if sources.namespace is not None:
            given += f" --namespace {shlex.quote(sources.namespace)}"
    return f"{shlex.quote(sources.batch)} {given}"


def _issue_command(sources: Sources, file: Path) -> str:
    output = file.with_name(f"{file.stem}-vouchers{file.suffix}")
    kept = _named(sources) if sources.ledger is not None else shlex.quote(sources.batch)
    return (
        f"rm-voucher issue {kept} --recipients {shlex.quote(str(file))} "
        f"--output {shlex.quote(str(output))}"
    )
