"""``rm-voucher issue``: one voucher, a number of them, or one to each recipient of a file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from rm_voucher import ConfigurationError, Environment, VoucherClient
from rm_voucher.cli.common import RARE, examples
from rm_voucher.cli.connect import (
    MEMORY,
    find_settings,
    is_memory,
    make_memory_emulator,
    say_notes,
)
from rm_voucher.cli.issuing import run_issue
from rm_voucher.cli.layout import Layout
from rm_voucher.cli.options import (
    SETTLE_S,
    ConcurrencyOption,
    DryRunOption,
    EncodingOption,
    EnvironmentOption,
    ExcelOption,
    ExclusiveOption,
    NamespaceOption,
    NoBalanceCheckOption,
    RateOption,
    SettleOption,
    SharedOption,
    SheetOption,
    YesOption,
    find_shared,
    flow_policy,
    open_ledger,
    refuse_file_of_ledger,
)
from rm_voucher.cli.output import OutputError, json_line
from rm_voucher.cli.plan import IssuePlan, make_plan
from rm_voucher.cli.recipients import Recipient, Recipients
from rm_voucher.cli.repeats import Holders, refuse_holders
from rm_voucher.cli.report import Report
from rm_voucher.cli.results import ResultFile, ResultStream, partial_of, refuse_partial
from rm_voucher.cli.screen import note, write_out
from rm_voucher.cli.tables.columns import OURS
from rm_voucher.shared import SharedStore, open_shared_store
from rm_voucher.wire.operations import build_issue


class Numbers:
    """The recipients of ``--count``: 1, 2, 3 …, as often as they are asked for."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __iter__(self) -> Iterator[Recipient]:
        return (Recipient.at(number, str(number + 1)) for number in range(self._count))


@examples(
    "rm-voucher issue BREAKFAST --environment memory --count 10",
    "rm-voucher issue BREAKFAST --recipients members.csv --output vouchers.csv --dry-run",
    "rm-voucher issue BREAKFAST --recipients members.csv --output vouchers.csv --ledger sqlite:///campaign.db",
)
def issue(
    batch: Annotated[str, typer.Argument(help="The batch's key.")],
    count: Annotated[
        int | None, typer.Option(min=1, help="Issue this many, for recipients 1, 2, 3 …")
    ] = None,
    recipients: Annotated[
        Path | None,
        typer.Option(
            help="Issue one to each row of a spreadsheet, .csv or .xlsx, or of '-' for standard "
            "input.",
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            help="The column of the recipients. By default the one that is called recipient, "
            "email, phone, id or the like."
        ),
    ] = None,
    encoding: EncodingOption = None,
    sheet: SheetOption = None,
    skip_duplicates: Annotated[
        bool,
        typer.Option(
            "--skip-duplicates",
            help="Pass over a recipient that stands there again. Without it that is a mistake.",
        ),
    ] = False,
    allow_similar: Annotated[
        bool,
        typer.Option(
            "--allow-similar",
            help="Take recipients that look the same for different ones. Without it they are a "
            "mistake in the file.",
            rich_help_panel=RARE,
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write the results to this file instead of standard output: .csv, .xlsx or .jsonl."
        ),
    ] = None,
    excel: ExcelOption = False,
    concurrency: ConcurrencyOption = 64,
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
    dry_run: DryRunOption = False,
    partial: Annotated[
        bool,
        typer.Option(
            "--partial", help="Issue as many as the batch has, where that is fewer than are wanted."
        ),
    ] = False,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Issue a second voucher to those who have one in the file of --output already.",
            rich_help_panel=RARE,
        ),
    ] = False,
    other_people: Annotated[
        bool,
        typer.Option(
            "--other-people",
            help="The list is of other people than those who were served through the ledger. "
            "Without it a list of which the ledger knows nobody, or few, is a mistake.",
            rich_help_panel=RARE,
        ),
    ] = False,
    yes: YesOption = False,
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
        exclusive or no_balance_check or other_people or settle != SETTLE_S or namespace is not None
    ):
        raise ConfigurationError(
            "--namespace, --exclusive, --settle, --no-balance-check and --other-people are about a "
            "ledger: give --ledger too."
        )
    about_file = (column, encoding, sheet)
    if recipients is None and (about_file != (None,) * 3 or allow_similar or skip_duplicates):
        raise ConfigurationError(
            "--column, --encoding, --sheet, --allow-similar and --skip-duplicates are about "
            "--recipients: give that too."
        )
    if (excel or again) and output is None:
        raise ConfigurationError(
            f"{'--excel' if excel else '--again'} is about --output: give that too."
        )
    flow = flow_policy(rate)
    build_issue(Environment.SANDBOX, batch)  # it refuses a key that can't be sent
    with contextlib.ExitStack() as stack:
        names: Iterable[str]
        table = unasked = None
        if recipients is not None:
            names = file = stack.enter_context(
                Recipients(
                    recipients,
                    column=column,
                    encoding=encoding,
                    sheet=sheet,
                    allow_similar=allow_similar,
                    skip_duplicates=skip_duplicates,
                    has_ledger=ledger is not None,
                )
            )
            table, unasked, total = file.table, file.unasked, len(file)
            for sentence in file.notes:
                note(sentence)
        else:
            total = count or 1
            names = Numbers(total)
        kept = None
        if is_memory(environment):
            if ledger is not None or shared is not None:
                raise ConfigurationError(
                    "--ledger and --shared need a server that outlives the command, and the "
                    "environment is 'memory': start one with 'rm-voucher emulator --batch KEY=100 "
                    "--credentials-out FILE'."
                )
            note("These are not real vouchers: the environment is 'memory', an embedded emulator.")
            emulator = make_memory_emulator(batch=batch, quantity=total)
            server, client_id, profile = emulator.environment, MEMORY, None

            def connect() -> tuple[VoucherClient, SharedStore | None]:
                return emulator.client(flow=flow), None
        else:
            settings = find_settings(environment)
            say_notes(settings)
            server, client_id = settings.environment(), settings.credentials().client_id
            profile = settings.profile
            if ledger is not None:
                kept = open_ledger(
                    ledger,
                    namespace=namespace,
                    exclusive=exclusive,
                    settle_s=settle,
                    check_balance=not no_balance_check,
                )
                if output is not None:
                    refuse_file_of_ledger(output, ledger)
            store_url = find_shared(shared, ledger)

            def connect() -> tuple[VoucherClient, SharedStore | None]:
                store = None if store_url is None else open_shared_store(store_url)
                return settings.client(concurrency=concurrency, flow=flow, shared=store), store

        def decide() -> IssuePlan:
            """Show the plan; return it if it may be carried out."""
            holders = Holders(names, total, has_ledger=ledger is not None)
            if output is not None and not again and not is_memory(environment):
                whose = Layout(table, OURS).column
                holders.look_into(output, whose)
                if ledger is not None:  # and what a run through another one left
                    holders.look_into(partial_of(output, is_kept=True), whose, is_partial=True)
            plan = make_plan(
                connect,
                server,
                batch,
                names,
                total,
                client_id=client_id,
                profile=profile,
                ledger=ledger,
                namespace=namespace,
                holders=holders,
                rate_per_s=rate,
            )
            if plan.is_real or total > 1 or dry_run:
                plan.show(always=dry_run)  # that is what it is for
            refuse_holders(holders, has_ledger=ledger is not None, unseen=plan.unseen)
            if recipients is not None and not other_people:
                plan.refuse_other_people()
            if not partial:
                plan.refuse_shortage()
            return plan

        if dry_run:
            if output is not None:
                refuse_partial(output, is_kept=kept is not None)
            plan = decide()
            if as_json:
                write_out(json_line(plan.as_object()))
            raise typer.Exit
        sink = (
            ResultFile(output, table=table, unasked=unasked, is_kept=kept is not None, excel=excel)
            if output
            else ResultStream(as_json=as_json, table=table, unasked=unasked)
        )
        report = Report(
            total, ledger=ledger, namespace=namespace, batch=batch, is_exclusive=exclusive
        )
        try:
            with sink as results:
                decide().confirm(yes=yes)
                client, store = connect()
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
