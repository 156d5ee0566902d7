"""Runs a bulk issue from the command line, and reports its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, cast

import attrs

from rm_voucher import (
    AuthenticationError,
    BatchStoppedError,
    BulkResult,
    BulkSummary,
    IdempotencyConflictError,
    OutcomeUnknownError,
    SignatureError,
    VoucherClient,
    VoucherError,
    bulk_issue,
)
from rm_voucher.cli.options import without_password
from rm_voucher.cli.output import OutputError, json_line, say, write_out
from rm_voucher.cli.progress import show_progress
from rm_voucher.cli.recipients import Recipients
from rm_voucher.cli.results import Results, is_unkept
from rm_voucher.cli.resume import ids_in_ledger, keep_codes
from rm_voucher.ledger import Ledger
from rm_voucher.shared import SharedStore

INTERRUPTED = 130


def exit_code_of(error: BaseException) -> int:
    """Return the exit code for an error that ended a command or a recipient."""
    if isinstance(error, OutcomeUnknownError):
        return 4
    return 3 if isinstance(error, (AuthenticationError, SignatureError)) else 1


@attrs.define
class Report:
    """The end of a run: counts, errors, exit code and advice."""

    total: int
    ledger: str | None = attrs.field(default=None, repr=False)
    """The URL of the ledger, if there is one."""
    namespace: str | None = None
    summary: BulkSummary = attrs.field(factory=BulkSummary)
    first_error: VoucherError | None = None
    unkept: int = 0
    """How many codes the ledger could not keep."""
    refused_credentials: bool = False
    interrupted: bool = False
    stopped: VoucherError | None = None
    unwritten: VoucherError | None = None

    def add(self, result: BulkResult[str]) -> None:
        """Take note of one result."""
        if result.error is not None:
            self.first_error = self.first_error or result.error
            self.refused_credentials |= exit_code_of(result.error) == 3
            self.unkept += is_unkept(result)

    @property
    def exit_code(self) -> int:
        """4 comes before all others, because somebody must look into it."""
        if self.summary.unresolved:
            return 4
        if self.refused_credentials:
            return 3
        if self.interrupted:
            return INTERRUPTED
        return 1 if self.summary.failed or self.unwritten or self.stopped else 0

    def _advice(self, ledger: str) -> str:
        """Return the next thing to do. Another run helps neither a stopped batch nor a taken id."""
        part = f" --namespace {shlex.quote(self.namespace)}" if self.namespace else ""
        status = f"rm-voucher ledger status {without_password(ledger)}{part}"
        shows = f"'{status}' shows what is open."
        match self.stopped or self.first_error:
            case BatchStoppedError():
                return (
                    "Don't read a new baseline before you know who has a code: whoever has none in "
                    f"the ledger is issued to after that. {shows}"
                )
            case IdempotencyConflictError():
                return (
                    "A recipient's text is an id for one batch in the whole ledger: give each "
                    "campaign a ledger of its own."
                )
            case _:
                return f"Run it again with the same ledger: it issues only what is missing. {shows}"

    def write(self, output: Path | None, *, as_json: bool) -> None:
        """Report in sentences on standard error, and with a line of JSON on standard output."""
        spare = f", {self.summary.spare:,} spare" if self.summary.spare else ""
        where = f" → {output}" if output else ""
        say(
            f"{self.summary.asked:,} asked: {self.summary.issued:,} issued, "
            f"{self.summary.failed:,} failed, {self.summary.unresolved:,} unknown{spare}{where}"
        )
        if self.summary.asked < self.total:
            say(f"Stopped early: {self.total - self.summary.asked:,} were not asked for.")
        if self.first_error is not None:
            say(f"The first error: {self.first_error}")
        if self.stopped is not None:
            say(str(self.stopped))
        if self.unkept:
            say(
                f"{self.unkept:,} codes arrived that the ledger could not keep. They are in the "
                "rows with status 'unkept', which the next run with the same --output gives to it."
            )
        if self.ledger is not None and (self.exit_code or self.summary.asked < self.total):
            say(self._advice(self.ledger))
        elif self.summary.unresolved:
            say(
                "For the rows with status 'unresolved' a voucher may exist: compare the batch's "
                "vouchers before you issue to them again."
            )
        if self.unwritten is not None:
            say(str(self.unwritten))
        if as_json:
            counted = ("asked", "issued", "failed", "unresolved")
            counts = {name: getattr(self.summary, name) for name in counted}
            path = output and os.fsencode(output).decode(errors="replace")
            with contextlib.suppress(OSError):  # nobody reads it
                write_out(json_line({**counts, "output": path}))


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

    def written(result: BulkResult[str]) -> bool:
        report.add(result)
        try:
            results.add(result)
        except OutputError as exc:  # noted here, because a cancellation may replace it
            report.unwritten = exc
            return False
        return True

    async def issue() -> None:
        progress = show_progress(report.total, lambda: client.flow, bar=not results.shares_terminal)
        async with (
            progress as on_progress,
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
                on_progress=_saying_why(on_progress, report, ledger),
            )
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

    try:
        run_until_interrupted(
            issue(), say_once="Stopping: waiting for the calls in flight, so that no code is lost."
        )
    except (KeyboardInterrupt, asyncio.CancelledError):
        report.interrupted = True


async def _resume(
    ledger: Ledger, batch: str, recipients: Iterable[str], results: Results
) -> Callable[[str], str]:
    """Pick up what earlier runs left; return the function that gives a recipient its id."""
    await keep_codes(ledger, batch, results.unkept())
    if not isinstance(recipients, Recipients):
        return str
    ids = await ids_in_ledger(ledger, recipients)
    return lambda name: ids.get(name) or str(name)


def _saying_why(
    on_progress: Callable[[BulkSummary], None], report: Report, ledger: Ledger | None
) -> Callable[[BulkSummary], None]:
    """Return a function that also says why a run waits at its end."""
    said = False

    def progressed(summary: BulkSummary) -> None:
        nonlocal said
        on_progress(summary)
        if ledger is None or summary.asked < report.total or summary.in_flight > summary.held:
            return
        if summary.held and not said:
            said = True
            say(
                f"{summary.held:,} outcomes are unknown: waiting "
                f"{ledger.settings.settle_s:,.0f} s, so that what the calls did can be seen in the "
                "batch's listing."
            )

    return progressed


def run_until_interrupted(main: Coroutine[Any, Any, None], *, say_once: str = "") -> None:
    """Run like `asyncio.run`, but SIGINT, SIGTERM and SIGHUP cancel, however often they come.

    With Python's own handler a second Ctrl-C would break off in the middle of a row.
    """

    async def cancellable() -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())

        def interrupt() -> None:
            if say_once and not task.cancelling():
                say(say_once)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                asyncio.get_running_loop().add_signal_handler(number, interrupt)
        await main

    asyncio.run(cancellable())
