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
from rm_voucher.cli.results import is_given_up, is_unkept
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
_DECIDE_OWN = (
    "Those whose outcome is unknown are held: a person decides who has a voucher, and to run it "
    "again changes nothing for them."
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
    batch: str = ""
    """The batch's key."""
    is_exclusive: bool = False
    """Whether nothing but the ledger issues from the batch, so that a run settles by itself."""
    summary: BulkSummary = attrs.field(factory=BulkSummary)
    first_error: VoucherError | None = None
    unkept: int = 0
    """How many codes the ledger could not keep."""
    given_up: int = 0
    """How many get nothing, because a person decided so. They are no failures."""
    left: int = 0
    """How many waited for their first call when the run ended. They are no failures either."""
    held: int = 0
    """How many attempts of the batch wait in the ledger for a person to decide."""
    stop_reason: str | None = None
    """Why nothing more is issued from the batch, by the ledger."""
    refused_credentials: bool = False
    interrupted: bool = False
    stopped: VoucherError | None = None
    unwritten: VoucherError | None = None

    def add(self, result: BulkResult[str]) -> None:
        """Take note of one result."""
        if is_given_up(result):
            self.given_up += 1
        elif not result.was_asked:
            self.left += 1
        elif result.error is not None:
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
        return 1 if self.failed or self.left or self.unwritten or self.stopped else 0

    @property
    def asked(self) -> int:
        """How many recipients the run came to."""
        return self.summary.asked - self.left

    @property
    def failed(self) -> int:
        """How many definitely got nothing, though they were asked for."""
        return self.summary.failed - self.given_up - self.left

    @property
    def not_asked(self) -> int:
        """How many recipients the run did not come to."""
        return self.total - self.asked

    def next_steps(self, output: Path | None = None) -> list[str]:
        """Return what a person does next. To run it again stands there only where that helps."""
        if not (self.exit_code or self.not_asked):
            return []
        steps = [_DOCTOR] if self.refused_credentials else []
        if self.ledger is None:
            if self.summary.unresolved:
                steps.append(_COMPARE)
            if output is not None and not self.unwritten and (self.failed or self.not_asked):
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
            case _ if self.stop_reason is not None:
                steps += [f"The batch is stopped: {self.stop_reason}.", _STOPPED]
                steps += self._deciding(self.ledger)
            case _ if self._is_held:
                steps += [_DECIDE if not self.is_exclusive else _DECIDE_OWN]
                steps += self._deciding(self.ledger)
                if self.failed or self.not_asked:
                    steps.append("To run it again issues to the others only.")
            case _:
                steps += [_AGAIN, self._status(self.ledger)]
        return steps

    @property
    def _is_held(self) -> bool:
        """Whether an outcome is unknown that no other run settles."""
        if self.held and self.summary.unresolved and not self.interrupted:
            return self.summary.unresolved - self.unkept <= self.held
        return self.summary.unresolved > self.unkept and not (self.is_exclusive or self.interrupted)

    def _deciding(self, ledger: str) -> list[str]:
        """Return how a person decides about those who are held."""
        if not self.batch or not self.summary.unresolved:
            return [self._status(ledger)]
        part = f"{self._part}{' --exclusive' if self.is_exclusive else ''}"
        url = shlex.quote(without_password(ledger))
        write = f"rm-voucher ledger reconcile {url} {shlex.quote(self.batch)} --output held.xlsx"
        decide = f"rm-voucher ledger resolve {url} --decisions held.xlsx{self._part}"
        return [
            f"'{write}{part}' writes who they are and what may be theirs.",
            f"Fill in its column 'decision', and give it to '{decide}'.",
        ]

    @property
    def _part(self) -> str:
        return f" --namespace {shlex.quote(self.namespace)}" if self.namespace else ""

    def _status(self, ledger: str) -> str:
        return (
            f"'rm-voucher ledger status {without_password(ledger)}{self._part}' shows what is open."
        )

    def write(self, output: Path | None, *, as_json: bool) -> None:
        """Report in sentences on standard error, and with a line of JSON on standard output."""
        spare = f", {self.summary.spare:,} spare" if self.summary.spare else ""
        given_up = f", {self.given_up:,} given up by a person" if self.given_up else ""
        where = f" → {output}" if output else ""
        say(
            f"{self.asked:,} asked: {self.summary.issued:,} issued, {self.failed:,} failed, "
            f"{self.summary.unresolved:,} unknown{given_up}{spare}{where}"
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
        error = self.stopped or self.unwritten or self.first_error
        return {
            "asked": self.asked,
            "issued": self.summary.issued,
            "failed": self.failed,
            "unresolved": self.summary.unresolved,
            "given_up": self.given_up,
            "not_asked": self.not_asked,
            "output": output and os.fsencode(output).decode(errors="replace"),
            "exit_code": self.exit_code,
            "error": None if error is None else error_object(error),
        }
