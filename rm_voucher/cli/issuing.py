"""Runs a bulk issue from the command line."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from rm_voucher import BulkIssue, BulkResult, BulkSummary, VoucherClient, VoucherError, bulk_issue
from rm_voucher.cli.interrupts import Stopping, run_until_interrupted
from rm_voucher.cli.output import OutputError
from rm_voucher.cli.progress import Progress, client_progress
from rm_voucher.cli.recipients import Recipients
from rm_voucher.cli.repeats import stop_reason_of
from rm_voucher.cli.report import Report
from rm_voucher.cli.results import Results
from rm_voucher.cli.resume import ids_in_ledger, keep_codes, refuse_codes_of_others
from rm_voucher.cli.screen import note
from rm_voucher.ledger import Ledger
from rm_voucher.shared import SharedStore
from rm_voucher.text import counted


def run_issue(
    client: VoucherClient,
    batch: str,
    recipients: Iterable[str],
    report: Report,
    *,
    concurrency: int,
    results: Results,
    ledger: Ledger | None = None,
    shared: SharedStore | None = None,
) -> None:
    """Issue to all, write each result and fill the report. Ctrl-C waits for calls in flight."""
    begun: list[BulkIssue[str]] = []

    def written(result: BulkResult[str]) -> bool:
        report.add(result)
        if not result.was_asked:
            return True  # as all others that the run did not come to
        try:
            results.add(result)
        except OutputError as exc:  # noted here, because a cancellation may replace it
            report.unwritten = exc
            return False
        return True

    async def issue() -> None:
        async with (
            client_progress("issuing", report.total, lambda: client.flow) as shown,
            shared or contextlib.nullcontext(),
            client,
            ledger or contextlib.nullcontext(),
        ):
            request_id = None
            if ledger is not None:
                request_id = await _resume(ledger, batch, recipients, results)
            results.begin()
            run = bulk_issue(
                client,
                batch,
                recipients,
                concurrency=concurrency,
                ledger=ledger,
                request_id=request_id,
                on_progress=_Showing(shown, report.total, ledger),
            )
            begun.append(run)
            try:
                async with run:
                    async for result in run:
                        if not written(result):
                            break
            except VoucherError as exc:
                report.stopped = exc
            finally:
                report.summary = run.summary
                for result in run.undelivered:
                    written(result)
                if ledger is not None:
                    await _look_back(ledger, batch, report)

    try:
        run_until_interrupted(issue(), stopping=_stopping(begun, has_ledger=ledger is not None))
    except (KeyboardInterrupt, asyncio.CancelledError):
        report.interrupted = True


async def _look_back(ledger: Ledger, batch: str, report: Report) -> None:
    """Take note of what a person has to do, by the ledger."""
    with contextlib.suppress(VoucherError):  # the run has said what is wrong with it
        report.held = (await ledger.counts(batch)).unresolved
        report.stop_reason = await stop_reason_of(ledger, batch)


async def _resume(
    ledger: Ledger, batch: str, recipients: Iterable[str], results: Results
) -> Callable[[str], str]:
    """Pick up what earlier runs left; return the function that gives a recipient its id."""
    await keep_codes(ledger, batch, results.unkept())
    if not isinstance(recipients, Recipients):
        return str
    await refuse_codes_of_others(ledger, recipients)
    ids = await ids_in_ledger(ledger, recipients)
    return lambda name: ids.get(name) or str(name)


class _Showing:
    """Shows a run's counts, and why it waits at its end. Called after each result."""

    def __init__(self, shown: Progress, total: int, ledger: Ledger | None) -> None:
        self._shown = shown
        self._total = total
        self._settle_s = 0.0 if ledger is None else ledger.settings.settle_s
        self._held = 0
        self._has_said = False

    def __call__(self, summary: BulkSummary) -> None:
        self._shown.update(
            summary.asked - summary.in_flight,
            issued=summary.issued,
            failed=summary.failed,
            unknown=summary.unresolved,
        )
        if summary.asked < self._total or summary.in_flight > summary.held:
            return
        if summary.held > self._held:  # each may be the last to become unknown
            self._shown.countdown(self._settle_s, f"settling {summary.held:,} unknown")
        elif not summary.held:
            self._shown.countdown(0, "")
        self._held = summary.held
        if summary.held and not self._has_said:
            self._has_said = True
            note(
                f"{counted(summary.held, 'outcome')} {'is' if summary.held == 1 else 'are'} "
                f"unknown: waiting {self._settle_s:,.0f} s, so that "
                "what the calls did can be seen in the batch's listing."
            )


def _stopping(begun: list[BulkIssue[str]], *, has_ledger: bool) -> Stopping:
    """Return what each Ctrl-C says of a run, and how the third ends it."""

    def in_flight() -> int:
        return sum(run.in_flight for run in begun)

    def first() -> str:
        if not in_flight():
            return "Stopping. Nothing is in flight."
        return "Stopping: waiting for the calls in flight, so that no code is lost."

    def second() -> str:
        if not (number := in_flight()):
            return "Stopping: what has come is being written. Once more ends it now."
        lost = (
            "the ledger has them, and the next run with it looks what became of them."
            if has_ledger
            else "a voucher that was issued by one has no row with its code."
        )
        return (
            f"Still waiting for {counted(number, 'call')} in flight. Once more ends now, and their "
            f"outcomes stay unknown: {lost}"
        )

    def third() -> str:
        if not (number := in_flight()):
            return "Ending now."
        return f"Ending now: the outcome of {counted(number, 'call')} is unknown."

    def end_now() -> None:
        for run in begun:
            run.end_now()

    return Stopping(first=first, second=second, third=third, end_now=end_now)
