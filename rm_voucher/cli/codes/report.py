"""Runs an operation over a file of codes: asks first, does it, writes, and tells the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import attrs
import typer

from rm_voucher import ConfigurationError, VoucherClient, VoucherError
from rm_voucher.cli.asking import confirm
from rm_voucher.cli.codes.file import Codes
from rm_voucher.cli.codes.journal import Journal
from rm_voucher.cli.codes.operations import FAILED, Operation
from rm_voucher.cli.codes.run import Flights, Run, Sink, Summary
from rm_voucher.cli.connect import (
    find_settings,
    in_words,
    is_memory,
    is_real,
    make_memory_emulator,
    say_notes,
)
from rm_voucher.cli.failures import error_object, exit_code_of
from rm_voucher.cli.interrupts import INTERRUPTED, Stopping, run_until_interrupted
from rm_voucher.cli.options import flow_policy
from rm_voucher.cli.output import OutputError, csv_line, json_line
from rm_voucher.cli.progress import client_progress
from rm_voucher.cli.screen import note, say, write_out
from rm_voucher.cli.tables.columns import keys_of
from rm_voucher.cli.tables.model import text_of
from rm_voucher.cli.tables.write import harmless, open_writer
from rm_voucher.text import counted, printable


@attrs.frozen(kw_only=True)
class FileOptions:
    """What a person says of the files, the speed and the consent of such a run."""

    codes: Path
    column: str | None = None
    encoding: str | None = None
    sheet: str | None = None
    output: Path | None = None
    excel: bool = False
    concurrency: int = 64
    rate: float | None = None
    yes: bool = False
    as_json: bool = False


def run_codes(
    operation: Operation,
    options: FileOptions,
    environment: str | None,
    *,
    used_at: datetime | None = None,
) -> NoReturn:
    """Do it for each code of a file, and exit."""
    with contextlib.ExitStack() as stack:
        codes = stack.enter_context(
            Codes(
                options.codes,
                operation,
                column=options.column,
                encoding=options.encoding,
                sheet=options.sheet,
            )
        )
        flights = Flights()
        client, consent = _connect(operation, options, environment, flights)
        sink: _FileSink | _Stream = (
            _FileSink(options, operation, codes, client.account)
            if options.output is not None
            else _Stream(codes, as_json=options.as_json)
        )
        stack.callback(sink.close)
        for words in codes.in_words():
            note(words)
        if consent and len(codes) > 1:
            confirm(
                f"{consent}: type their number, {len(codes)}, to go on",
                str(len(codes)),
                yes=options.yes,
                nothing=f"Nothing was {operation.done}.",
            )
        run = Run(
            client,
            operation,
            codes,
            sink,
            flights=flights,
            concurrency=options.concurrency,
            used_at=used_at,
        )
        summary = run.summary
        try:
            _work(run, client, operation)
        except VoucherError:  # of the first code, and it would have been that of all
            sink.forget()
            raise
        try:
            sink.finish()
        except OutputError as exc:
            summary.unwritten = exc
    _tell(summary, operation, options)
    raise typer.Exit(_exit_code(summary))


def _connect(
    operation: Operation, options: FileOptions, environment: str | None, flights: Flights
) -> tuple[VoucherClient, str]:
    """Return the client, and what a person must consent to, if anything."""
    flow = flow_policy(options.rate)
    if is_memory(environment):
        note("The environment is 'memory', an embedded emulator that begins empty.")
        return make_memory_emulator().client(flow=flow, hooks=[flights]), ""
    settings = find_settings(environment)
    say_notes(settings)
    where = settings.environment()
    consent = ""
    if is_real(where) and operation.judge is not None:
        consent = f"{in_words(where)}: these vouchers are real, and will be {operation.done}"
    return settings.client(concurrency=options.concurrency, flow=flow, hooks=[flights]), consent


def _work(run: Run, client: VoucherClient, operation: Operation) -> None:
    async def work() -> None:
        async with (
            client_progress(operation.doing, run.summary.total, lambda: client.flow) as shown,
            client,
        ):
            run.on_progress = lambda summary: shown.update(
                summary.ended,
                **{operation.done: summary.done},
                failed=summary.failed,
                unknown=summary.unresolved,
            )
            await run.work()

    try:
        run_until_interrupted(work(), stopping=_stopping(run, operation))
    except (KeyboardInterrupt, asyncio.CancelledError):
        run.summary.interrupted = True


def _stopping(run: Run, operation: Operation) -> Stopping:
    """Return what each Ctrl-C says, and does."""

    def first() -> str:
        if not run.in_flight:
            return "Stopping. Nothing is in flight."
        return (
            "Stopping: waiting for the calls in flight, so that it is known what was "
            f"{operation.done}."
        )

    def second() -> str:
        if not (number := run.in_flight):
            return "Stopping: what has come is being written. Once more ends it now."
        return (
            f"Still waiting for {counted(number, 'call')} in flight. Once more ends now: then it "
            f"is unknown whether they were {operation.done}, and the same command again looks."
        )

    def third() -> str:
        return f"Ending now: the outcome of {counted(run.in_flight, 'call')} is unknown."

    return Stopping(
        first=first, second=second, third=third, stop=run.interrupt, end_now=run.end_now
    )


class _FileSink(Sink):
    """A file, written from its journal at the end, in the order of the codes' file."""

    def __init__(
        self, options: FileOptions, operation: Operation, codes: Codes, account: str
    ) -> None:
        assert options.output is not None  # noqa: S101 - for the type checker
        self._codes, self._excel, self._path = codes, options.excel, options.output
        self._goes_on = self._path.exists() and codes.go_on_from(self._path)
        self._journal = Journal(self._path, operation, codes, account)

    def begin(self, first: int, last: int, begun_at: datetime | None) -> None:
        self._journal.begin(first, last, begun_at)

    def put(self, number: int, ours: Mapping[str, str]) -> None:
        self._journal.put(number, ours)

    def forget(self) -> None:
        """Forget the run: nothing was done."""
        self._journal.forget()

    def finish(self) -> None:
        """Write the file, and remove the journal. Raises `OutputError`."""
        if self._journal.is_empty and self._goes_on:
            return  # there was nothing to do, and the file says so already
        table = self._codes.table
        try:
            with open_writer(
                self._path,
                self._codes.header,
                like=table.format,
                excel=self._excel,
                exact={self._codes.name},
                # What another operation wrote has proofs of its own: it is kept.
                is_replaced=lambda: self._goes_on,
            ) as writer:
                for number in range(len(table)):
                    writer.add(self._codes.cells(number, self._journal.ours(number)))
        except OSError as exc:
            raise self._unwritten(f"{exc.strerror}.") from exc
        except ConfigurationError as exc:
            raise self._unwritten(str(exc)) from exc
        self._journal.remove()

    def close(self) -> None:
        """Let go of the journal; one that has nothing is removed."""
        if self._journal.is_empty:
            self._journal.remove()
        self._journal.close()

    def _unwritten(self, why: str) -> OutputError:
        return OutputError(
            f"{self._path} can't be written: {why} What was done is in {self._journal.path}: run "
            "it again, which writes the file."
        )


class _Stream(Sink):
    """Standard output: CSV, or a line of JSON each, as they end."""

    def __init__(self, codes: Codes, *, as_json: bool) -> None:
        self._codes, self._as_json = codes, as_json
        self._keys = keys_of(codes.header)
        self._ended = bytearray(len(codes.table))
        self._has_begun = False

    def begin(self, first: int, last: int, begun_at: datetime | None) -> None:
        """Nothing is kept of a run into a pipe."""

    def put(self, number: int, ours: Mapping[str, str]) -> None:
        self._ended[number] = 1
        self._write(number, ours)

    def forget(self) -> None:
        """Nothing was written."""

    def finish(self) -> None:
        """Write the rows that were not asked for."""
        for number, is_written in enumerate(self._ended):
            if not is_written:
                self._write(number, None)

    def close(self) -> None:
        """Nothing is left to do."""

    def _write(self, number: int, ours: Mapping[str, str] | None) -> None:
        try:
            if not self._has_begun and not self._as_json:
                write_out(csv_line(tuple(printable(harmless(name)) for name in self._codes.header)))
            self._has_begun = True
            cells = self._codes.cells(number, ours)
            if self._as_json:
                write_out(json_line(dict(zip(self._keys, cells, strict=True))))
            else:
                write_out(csv_line(tuple(self._cell(at, text_of(c)) for at, c in enumerate(cells))))
        except OSError as exc:
            raise OutputError(f"Standard output can't be written: {exc.strerror}.") from exc

    def _cell(self, at: int, text: str) -> str:
        is_code = self._codes.header[at] == self._codes.name
        return printable(text if is_code else harmless(text))


def _tell(summary: Summary, operation: Operation, options: FileOptions) -> None:
    where = f" → {options.output}" if options.output else ""
    say(
        f"{summary.asked:,} asked: {summary.done:,} {operation.done}, {summary.failed:,} failed, "
        f"{summary.unresolved:,} unknown{where}"
    )
    if summary.not_asked:
        say(f"Stopped early: {summary.not_asked:,} were not asked for.")
    if summary.stopped is not None:
        say(f"What stopped it: {summary.stopped}")
    elif summary.first_error is not None:
        say(f"The first error: {summary.first_error}")
    if summary.unresolved:
        say(_advice(operation, options))
    elif options.output and (summary.not_asked or summary.failed):
        say("The same command again asks only for what is missing.")
    if summary.unwritten is not None:
        say(str(summary.unwritten))
    if options.as_json:
        error = summary.stopped or summary.unwritten or summary.first_error
        found = {
            "asked": summary.asked,
            operation.done: summary.done,
            "failed": summary.failed,
            "unresolved": summary.unresolved,
            "not_asked": summary.not_asked,
            "output": options.output and os.fsencode(options.output).decode(errors="replace"),
            "exit_code": _exit_code(summary),
            "error": None if error is None else error_object(error),
        }
        with contextlib.suppress(OSError):  # nobody reads it
            write_out(json_line(found))


def _advice(operation: Operation, options: FileOptions) -> str:
    unknown = f"The rows with the outcome 'unresolved' may have been {operation.done}."
    if operation.has_used_at and options.output:
        return (
            f"{unknown} The same command again looks them up, and says what their 'used_at' "
            f"proves. What it can't prove, you decide: write '{operation.done}' or '{FAILED}' into "
            "'outcome'."
        )
    decide = "Look each up ('rm-voucher get CODE'), and decide: nothing proves who did it."
    if not options.output:
        return f"{unknown} {decide}"
    return (
        f"{unknown} {decide} Write '{operation.done}' or '{FAILED}' into its 'outcome' in "
        f"{options.output}: the same command again takes your word, and asks for those that failed."
    )


def _exit_code(summary: Summary) -> int:
    """4 comes before all others, because somebody must look into it."""
    if summary.unresolved:
        return 4
    if summary.stopped is not None:
        return max(exit_code_of(summary.stopped), 1)
    if summary.interrupted:
        return INTERRUPTED
    return 1 if summary.failed or summary.unwritten else 0
