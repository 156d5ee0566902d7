"""``rm-voucher campaign``: who has what, a report, who is asked again, both lists compared."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from rm_voucher import ConfigurationError
from rm_voucher.cli.campaign.figures import is_same, to_json
from rm_voucher.cli.campaign.gather import DEFAULT_ZONE, Sources, gathered
from rm_voucher.cli.campaign.page import BEGINNING, render
from rm_voucher.cli.campaign.rows import (
    to_resend,
    write_differences,
    write_resend,
    write_standings,
)
from rm_voucher.cli.campaign.standing import Standing
from rm_voucher.cli.campaign.told import issue_command, tell_differences, tell_standings, words_of
from rm_voucher.cli.common import RARE, examples
from rm_voucher.cli.options import EncodingOption, EnvironmentOption, JsonOption, NamespaceOption
from rm_voucher.cli.output import json_line, refuse_no_file
from rm_voucher.cli.screen import note, say, write_out
from rm_voucher.files import replace_private
from rm_voucher.text import counted

_DIFFERS, _UNKNOWN = 1, 4

campaign_app: typer.Typer = typer.Typer(
    name="campaign",
    no_args_is_help=True,
    add_completion=False,
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
OthersOption = Annotated[
    bool,
    typer.Option(
        "--other-people",
        help="Your list is of people who were not in the campaign before: go on although hardly "
        "anybody of it is in the ledger, or in the results.",
        rich_help_panel=RARE,
    ),
]
SheetOption = Annotated[
    str | None,
    typer.Option(
        help="The sheet of an .xlsx; by default the first with content. Where there is a list, "
        "its own.",
        rich_help_panel=RARE,
    ),
]
RevealOption = Annotated[
    bool, typer.Option("--reveal", help="Show codes in full. Whoever reads one can use it.")
]
ZoneOption = Annotated[str, typer.Option("--timezone", help="The time zone that a day begins in.")]


@campaign_app.command()
@examples(
    "rm-voucher campaign status BATCH_KEY --ledger sqlite:///campaign.db",
    "rm-voucher campaign status BATCH_KEY --ledger sqlite:///campaign.db --recipients members.csv "
    "--output status.xlsx",
)
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
    sheet: SheetOption = None,
    namespace: NamespaceOption = None,
    other_people: OthersOption = False,
    timezone: ZoneOption = DEFAULT_ZONE,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who is served, redeemed, used, expired, held, refused and never asked.

    The exit code is 4 if somebody is held, that is, may have a voucher that nobody has seen.
    """
    sources = _sources(
        batch,
        ledger,
        results,
        recipients,
        column,
        encoding,
        sheet,
        namespace,
        environment,
        other_people,
    )
    with gathered(sources) as campaign:
        if output is not None:
            write_standings(campaign, output)
        figures = campaign.figures(timezone)
    if as_json:
        write_out(json_line(to_json(figures)))
    else:
        tell_standings(figures, sources)
    if output is not None:
        note(f"{output}: {counted(figures.recipients, 'recipient')}.")
    if figures.standings[Standing.HELD]:
        raise typer.Exit(_UNKNOWN)


@campaign_app.command()
@examples(
    "rm-voucher campaign report BATCH_KEY --ledger sqlite:///campaign.db --output report.html",
    "rm-voucher campaign report BATCH_KEY --results vouchers.csv --output report.html --json",
)
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
    sheet: SheetOption = None,
    namespace: NamespaceOption = None,
    other_people: OthersOption = False,
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
    sources = _sources(
        batch,
        ledger,
        results,
        recipients,
        column,
        encoding,
        sheet,
        namespace,
        environment,
        other_people,
    )
    with gathered(sources) as campaign:
        figures = campaign.figures(timezone)
    if output is not None:
        try:
            replace_private(output, render(figures, reveal=reveal).encode())
        except OSError as exc:
            raise ConfigurationError(f"{output} can't be written: {exc.strerror}.") from exc
        note(f"{output}: {counted(figures.recipients, 'recipient')}.")
    if as_json:
        write_out(json_line(to_json(figures, reveal=reveal)))


@campaign_app.command()
@examples(
    "rm-voucher campaign resend BATCH_KEY --ledger sqlite:///campaign.db --recipients members.csv "
    "--output again.csv",
)
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
    sheet: SheetOption = None,
    namespace: NamespaceOption = None,
    other_people: OthersOption = False,
) -> None:
    """Write those who have no code, refused or never asked, as recipients of another run.

    All their own columns are kept. Who is held is never among them: they may have a voucher.
    Nothing is asked or sent.
    """
    sources = _sources(
        batch,
        ledger,
        results,
        recipients,
        column,
        encoding,
        sheet,
        namespace,
        None,
        other_people,
    )
    refuse_no_file(output)
    with gathered(sources, with_listing=False) as campaign:
        standings = Counter(row.standing for row in campaign.join.rows())
        again = Counter(row.standing for row in to_resend(campaign))
        if again:
            write_resend(campaign, output)
    for standing in (Standing.REFUSED, Standing.NEVER_ASKED):
        if missing := standings[standing] - again[standing]:
            say(f"{missing:,} {words_of(standing)} are not in your list: they are left out.")
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
    parts = " and ".join(f"{number:,} {words_of(standing)}" for standing, number in again.items())
    say(f"{output}: {counted(again.total(), 'recipient')}, {parts}.")
    say(f"Next: {issue_command(sources, output)}")
    if sources.ledger is not None:
        say("Add what else the campaign was issued with, such as --exclusive.")


@campaign_app.command()
@examples(
    "rm-voucher campaign reconcile BATCH_KEY --ledger sqlite:///campaign.db",
    "rm-voucher campaign reconcile BATCH_KEY --results vouchers.csv --output differences.xlsx",
)
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
    sheet: SheetOption = None,
    namespace: NamespaceOption = None,
    reveal: RevealOption = False,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare RM's list with ours, both ways. Only reads.

    The exit code is 1 if they differ, and 4 if they don't and the outcome of a call is unknown.
    """
    sources = _sources(
        batch, ledger, results, None, column, encoding, sheet, namespace, environment
    )
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
        tell_differences(figures, sources, reveal=reveal)
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
    sheet: str | None,
    namespace: str | None,
    environment: str | None,
    other_people: bool = False,  # noqa: FBT001 - as a command has it
) -> Sources:
    return Sources(
        batch=batch,
        ledger=ledger,
        results=results,
        recipients=recipients,
        column=column,
        encoding=encoding,
        sheet=sheet,
        namespace=namespace,
        environment=environment,
        other_people=other_people,
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
