"""The codes of a file, and the columns beside them: which rows are asked, and which were done."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Self

from rm_voucher import APIError, ConfigurationError
from rm_voucher.cli.codes.operations import FAILED, NOT_ASKED, OURS, UNRESOLVED, Operation, row_of
from rm_voucher.cli.tables.columns import CODE_NAMES, find_written, name_ours, refuse_remains
from rm_voucher.cli.tables.columns import OURS as ISSUED
from rm_voucher.cli.tables.index import Index
from rm_voucher.cli.tables.model import Cell, Row, text_of
from rm_voucher.cli.tables.read import Table, open_table
from rm_voucher.converters import parse_time
from rm_voucher.text import counted
from rm_voucher.wire.requests import segment

# What becomes of a row.
_PASSED, _ASKED, _DONE, _IN_DOUBT = range(4)
_ISSUED = ("issued", "unkept")
# What a spreadsheet makes of a long number, and what it writes in the place of a value.
_SHORTENED = re.compile(r"\d([.,]\d+)?E\+?\d+", re.IGNORECASE)
_EXACT_DIGITS = 15


class Codes:
    """The codes of a file, checked, with a private copy of it, which `close` gives up.

    The file may be the output of ``issue``: rows whose voucher was not issued for certain are
    passed over. It may be the output of such a run as this: what is done there is not asked again,
    and what is unresolved is looked up first.

    Raises `ConfigurationError` with all that is wrong in the file.
    """

    def __init__(
        self,
        path: Path,
        operation: Operation,
        *,
        column: str | None = None,
        encoding: str | None = None,
        sheet: str | None = None,
    ) -> None:
        self._operation = operation
        self._beside: Table | None = None
        self.table: Table = open_table(
            path, column=column, names=CODE_NAMES, what="code", encoding=encoding, sheet=sheet
        )
        try:
            if column is None:
                self._refuse_remains()
            self._column = self.table.column or 0
            earlier = find_written(OURS, self.table.header)
            self.header: tuple[str, ...] = self.table.header
            if earlier is None:
                self.header += name_ours(OURS, self.table.header)
            self._places = earlier or tuple(range(len(self.table.header), len(self.header)))
            self._becomes = bytearray()
            self._doubts: dict[int, datetime | None] = {}
            self._read(has_outcomes=earlier is not None)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the copies up."""
        self.table.close()
        if self._beside is not None:
            self._beside.close()

    def __len__(self) -> int:
        """Return how many are asked for."""
        return self._becomes.count(_ASKED) + self._becomes.count(_IN_DOUBT)

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Iterate over the rows that are asked for: their numbers and codes."""
        for number, becomes in enumerate(self._becomes):
            if becomes in (_ASKED, _IN_DOUBT):
                yield number, self.code(number)

    def code(self, number: int) -> str:
        """Return the code of a row."""
        return self.table.row(number).text(self._column)

    @property
    def passed(self) -> int:
        """How many rows have no code that was issued."""
        return self._becomes.count(_PASSED)

    @property
    def done(self) -> int:
        """With how many it was done before."""
        return self._becomes.count(_DONE)

    @property
    def name(self) -> str:
        """What the column of the codes is called."""
        return self.table.header[self._column]

    def note(self, number: int, outcome: str, used_at: str) -> None:
        """Take note of the outcome of a row in an earlier run, with the instant that was sent."""
        if self._becomes[number] == _PASSED or self._operation.judge is None:
            return
        self._becomes[number] = _ASKED
        if outcome == UNRESOLVED:
            self.doubt(number, instant(used_at))
            return
        self._doubts.pop(number, None)
        if outcome == self._operation.done:
            self._becomes[number] = _DONE

    def doubt(self, number: int, used_at: datetime | None) -> None:
        """Take note that a call may have been made for a row, with the instant that was sent.

        The first instant stays: a row in doubt is asked with no other.
        """
        if self._becomes[number] in (_ASKED, _IN_DOUBT):
            self._becomes[number] = _IN_DOUBT
            self._doubts.setdefault(number, used_at)  # it is asked with that again

    def is_in_doubt(self, number: int) -> bool:
        """Return whether a call may have been made for a row already."""
        return self._becomes[number] == _IN_DOUBT

    def doubted(self, number: int) -> datetime | None:
        """Return the instant that was sent then, if one was."""
        return self._doubts.get(number)

    def go_on_from(self, path: Path) -> bool:
        """Take the outcomes of an output file of an earlier run; return whether it is one.

        It is one if it has the same rows, with the same codes, and nothing that another operation
        has written. Raises `ConfigurationError` for what can't be read.
        """
        try:
            beside = open_table(path, column=self.header[self._column], names=())
        except ConfigurationError:  # another kind of file: it is kept beside the new one
            return False
        places = find_written(OURS, beside.header)
        if places is None or beside.header != self.header or not self._has_same_codes(beside):
            beside.close()
            return False
        at = dict(zip(OURS, places, strict=True))
        for row in beside:
            outcome, used_at = row.text(at["outcome"]), row.text(at["used_at"])
            if self._becomes[row.number] != _PASSED and not self._may_be_ours(outcome, used_at):
                beside.close()
                return False
        self._beside = beside
        for row in beside:
            self.note(row.number, row.text(at["outcome"]), row.text(at["used_at"]))
        return True

    def _may_be_ours(self, outcome: str, used_at: str) -> bool:
        """Return whether this operation may have written a row."""
        if outcome == UNRESOLVED:
            return self._operation.judge is not None and (
                not used_at or self._operation.may_have_used_at
            )
        return outcome in ("", self._operation.done, FAILED, NOT_ASKED)

    def cells(self, number: int, ours: Mapping[str, str] | None) -> list[Cell]:
        """Return a row as it is written: theirs, and ours, or what an earlier run wrote."""
        row = self.table.row(number)
        cells = [*row.cells, *[""] * (len(self.header) - len(row.cells))]
        becomes = self._becomes[number]
        if ours is None and self._beside is not None and becomes != _PASSED:
            before = self._beside.row(number).cells
            ours = {name: text_of(before[at]) for name, at in zip(OURS, self._places, strict=True)}
        if ours is None and becomes == _ASKED:
            ours = {"outcome": NOT_ASKED}
        if ours is None and becomes == _IN_DOUBT:
            ours = row_of(UNRESOLVED, used_at=self.doubted(number), error=self._operation.doubt)
        if ours is not None:
            for name, at in zip(OURS, self._places, strict=True):
                cells[at] = ours.get(name, "")
        return cells

    def _refuse_remains(self) -> None:
        try:
            refuse_remains(self.table.header)
        except ConfigurationError as exc:
            raise ConfigurationError(
                f"{self.table.title}: {exc}, or name the codes with --column."
            ) from None

    def _read(self, *, has_outcomes: bool) -> None:
        seen = Index()
        at = dict(zip(OURS, self._places, strict=True))
        for row in self.table:
            self._becomes.append(self._judge(row, seen))
            if has_outcomes and self._becomes[-1] == _ASKED:
                self.note(row.number, row.text(at["outcome"]), row.text(at["used_at"]))
        self.table.refuse_problems()
        if self.passed == len(self._becomes):
            raise ConfigurationError(
                f"{self.table.title} has no codes in the column {self.name!r}."
            )

    def _judge(self, row: Row, seen: Index) -> int:
        code, results = row.text(self._column), self.table.results
        if not code:
            return _PASSED
        if results is not None and row.text(results.voucher_status) not in _ISSUED:
            return _PASSED
        cell = row.cells[self._column]
        digits = len(re.sub(r"\D", "", code))
        if _SHORTENED.fullmatch(code) or (not isinstance(cell, str) and digits > _EXACT_DIGITS):
            self.table.problem(row.line, "a code that a spreadsheet has shortened to a number")
            return _PASSED
        try:
            segment("code", code)
        except APIError as exc:
            self.table.problem(row.line, exc.hint.removesuffix("."))
            return _PASSED
        if self._operation.judge is None:  # twice looked up is no harm
            return _ASKED
        folded = code.casefold()  # whether codes are case-sensitive is not documented
        for number in seen.find(folded):
            if self.code(number).casefold() == folded:
                line = self.table.row(number).line
                self.table.problem(row.line, f"the code of line {line:,} again")
                return _PASSED
        seen.add(folded, row.number)
        return _ASKED

    def _has_same_codes(self, other: Table) -> bool:
        return len(other) == len(self.table) and all(
            other.row(number).text(self._column) == self.code(number)
            for number in range(len(other))
        )

    def in_words(self) -> list[str]:
        """Return what a person is told of the file before anything is done."""
        told = list(self.table.notes)
        for name, at in zip(OURS, self._places, strict=True):
            is_of_issue = self.table.results is not None and name in ISSUED  # no surprise
            if self.header[at] != name and not is_of_issue:
                told.append(f"The file has a column {name!r}: ours is {self.header[at]!r}.")
        if self.passed:
            told.append(
                f"{counted(self.passed, 'row')} without a code that was issued: passed over."
            )
        if self.done:
            told.append(
                f"{counted(self.done, 'code')} {self._operation.done} before: not asked again."
            )
        if doubts := self._becomes.count(_IN_DOUBT):
            told.append(
                f"{counted(doubts, 'code')} that an earlier run may have {self._operation.done}: "
                "looked up first."
            )
        return told


def instant(text: str) -> datetime | None:
    """Return the instant that a cell or a line names, if it names one."""
    try:
        return parse_time(text)
    except ValueError:  # a person may have written something else there
        return None
