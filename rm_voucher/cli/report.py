"""The end of a bulk issue: its counts, its exit code, and what a person does next."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path
from typing import Any

import attrs

from rm_voucher import (
    BatchStoppedError,
    BulkResult,
    BulkSummary,
    IdempotencyConflictError,
    VoucherError,
)
from rm_voucher.cli.failures import error_object, exit_code_of
from rm_voucher.cli.interrupts import INTERRUPTED
from rm_voucher.cli.options import without_password
from rm_voucher.cli.output import json_line
from rm_voucher.cli.results import is_unkept
from rm_voucher.cli.screen import say, write_out

_DOCTOR = "'rm-voucher doctor' says what is wrong with the settings."
_STOPPED = (
    "Don't read a new baseline before you know who has a code: whoever has none in the ledger is "
    "issued to after that."
)
_CONFLICT = (
    "A recipient's text is an id for one batch in the whole ledger: give each campaign a ledger of "
    "its own."
)
_AGAIN = "Run it again with the same ledger: it issues only what is missing."
_DECIDE = (
    "Others may issue from this batch, so a person decides who has a voucher of those whose "
    "outcome is unknown; to run it again changes nothing for them."
)
_COMPARE = (
    "For the rows that are 'unresolved' a voucher may exist: compare the batch's vouchers "
    "before you issue to them again."
)
_REST = "Those without a voucher, and only those, may be issued to again."


@attrs.define
class Report:
    """The end of a run: counts, errors, exit code and advice."""

    total: int
    ledger: str | None = attrs.field(default=None, repr=False)
    """The URL of the ledger, if there is one."""
    namespace: str | None = None
    is_exclusive: bool = False
    """Whether nothing but the ledger issues from the batch, so that a run settles by itself."""
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

    @property
    def not_asked(self) -> int:
        """How many recipients the run did not come to."""
        return self.total - self.summary.asked

    def next_steps(self, output: Path | None = None) -> list[str]:
        """Return what a person does next. To run it again stands there only where that helps."""
        if not (self.exit_code or self.not_asked):
            return []
        steps = [_DOCTOR] if self.refused_credentials else []
        if self.ledger is None:
            if self.summary.unresolved:
                steps.append(_COMPARE)
            if (
                output is not None
                and not self.unwritten
                and (self.summary.failed or self.not_asked)
            ):
                steps.append(
                    f"To issue to the others, give {output} as --recipients: who has a voucher, or "
                    "may have one, is not asked for again."
                )
            elif self.not_asked and self.summary.issued:
                steps.append(_REST)
            return steps
        match self.stopped or self.first_error:
            case BatchStoppedError():
                steps += [_STOPPED, self._status(self.ledger)]
            case IdempotencyConflictError():
                steps.append(_CONFLICT)
            case _ if self._is_held:
                steps += [_DECIDE, self._status(self.ledger)]
                if self.summary.failed or self.not_asked:
                    steps.append("To run it again issues to the others only.")
            case _:
                steps += [_AGAIN, self._status(self.ledger)]
        return steps

    @property
    def _is_held(self) -> bool:
        """Whether an outcome is unknown that no other run settles."""
        return self.summary.unresolved > self.unkept and not (self.is_exclusive or self.interrupted)

    def _status(self, ledger: str) -> str:
        part = f" --namespace {shlex.quote(self.namespace)}" if self.namespace else ""
        return f"'rm-voucher ledger status {without_password(ledger)}{part}' shows what is open."

    def write(self, output: Path | None, *, as_json: bool) -> None:
        """Report in sentences on standard error, and with a line of JSON on standard output."""
        spare = f", {self.summary.spare:,} spare" if self.summary.spare else ""
        where = f" → {output}" if output else ""
        say(
            f"{self.summary.asked:,} asked: {self.summary.issued:,} issued, "
            f"{self.summary.failed:,} failed, {self.summary.unresolved:,} unknown{spare}{where}"
        )
        if self.not_asked:
            say(f"Stopped early: {self.not_asked:,} were not asked for.")
        if self.first_error is not None:
            say(f"The first error: {self.first_error}")
        if self.stopped is not None:
            say(str(self.stopped))
        if self.unkept:
            say(
                f"{self.unkept:,} codes arrived that the ledger could not keep. They are in the "
                "rows that are 'unkept', which the next run with the same --output gives to it."
            )
        if steps := self.next_steps(output):
            say(" ".join(steps))
        if self.unwritten is not None:
            say(str(self.unwritten))
        if as_json:
            with contextlib.suppress(OSError):  # nobody reads it
                write_out(json_line(self._as_object(output)))

    def _as_object(self, output: Path | None) -> dict[str, Any]:
        counted = ("asked", "issued", "failed", "unresolved")
        error = self.stopped or self.unwritten or self.first_error
        return {
            **{name: getattr(self.summary, name) for name in counted},
            "not_asked": self.not_asked,
            "output": output and os.fsencode(output).decode(errors="replace"),
            "exit_code": self.exit_code,
            "error": None if error is None else error_object(error),
        }
