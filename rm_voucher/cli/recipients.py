"""Reads the recipients of a bulk issue from a table: once, and all before anything is issued."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from rm_voucher.cli.tables.columns import OURS, is_phone, name_ours, refuse_codes
from rm_voucher.cli.tables.index import Index
from rm_voucher.cli.tables.model import Cell, Row, text_of
from rm_voucher.cli.tables.read import Table, open_table
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.text import comparable, counted

MAX_CHARS = 1_000
# Embeddings, overrides and isolates: they turn what follows around, in every file and terminal.
_TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
# What begins a formula in a spreadsheet, in a keyboard's other width, too.
_FORMULA = re.compile("[=+@\uff1d\uff0b\uff0d\uff20-]")
# A telephone number, or a name in a network: nothing in it can call or refer to anything.
_NO_FORMULA = re.compile(r"[+-][\d ().-]+|@[\w.-]+")
_SHORTENED = re.compile(r"[+-]?\d([.,]\d+)?E\+?\d+", re.IGNORECASE)
_ERROR = re.compile(r"#(N/A|REF!|VALUE!|NAME\?|DIV/0!|NULL!|NUM!|SPILL!|CALC!)")
_EXACT_DIGITS = 15  # of a number in a spreadsheet
# What becomes of a row; blank rows and rows with a problem are nobody's.
_NOBODY, _ASKED, _CARRIED, _DUPLICATE = range(4)
SERVED = ("issued", "unkept", "unresolved", "given_up")


class Recipient(str):
    """A recipient, and the row of the table that it stands in."""

    __slots__ = ("number",)

    number: int

    @classmethod
    def at(cls, number: int, name: str) -> Self:
        """Make one of a row's number and the text in it."""
        made = cls(name)
        made.number = number
        return made


class Recipients:
    """The recipients of a file, checked; with a private copy of it, which `close` gives up.

    Without ``allow_similar`` no two of them look the same: see `text.comparable`. With
    ``skip_duplicates`` a recipient that stands there again is passed over. In a file that is the
    output of a run those who have a code, or may have one, are not asked for; with a ledger
    (``has_ledger``) they are, once the ledger has shown that it knows them.

    Raises `ConfigurationError` with all that is wrong in the file.
    """

    def __init__(
        self,
        path: Path,
        *,
        column: str | None = None,
        encoding: str | None = None,
        sheet: str | None = None,
        allow_similar: bool = False,
        skip_duplicates: bool = False,
        has_ledger: bool = False,
    ) -> None:
        self.path = path
        self.allow_similar = allow_similar
        self._skip_duplicates = skip_duplicates
        self._has_ledger = has_ledger
        self._forms = Index()
        self._becomes = bytearray()
        self._asked = 0
        self.carried: int = 0
        self.duplicates: int = 0
        self.table: Table = open_table(path, column=column, encoding=encoding, sheet=sheet)
        try:
            self._refuse_codes()
            self._column = self.table.column or 0
            zeros = _LostZeros(is_phone(self.table.header[self._column]))
            for row in self.table:
                self._becomes.append(self._judge(row, zeros))
            self.table.refuse_problems()
            if not self._forms:
                raise ConfigurationError(f"{self.title} has no recipients under its header.")
            self._tell(zeros)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the copy up."""
        self.table.close()

    @property
    def title(self) -> str:
        """How the file is called in a sentence."""
        return self.table.title

    @property
    def notes(self) -> list[str]:
        """What a person should be told of the file."""
        return self.table.notes

    def __len__(self) -> int:
        """Return how many are asked for."""
        return self._asked

    def __iter__(self) -> Iterator[Recipient]:
        return (name for _, name in self.lines())

    def lines(self) -> Iterator[tuple[int, Recipient]]:
        """Iterate over those who are asked for, with their lines."""
        for number, becomes in enumerate(self._becomes):
            if becomes == _ASKED:
                row = self.table.row(number)
                yield row.line, Recipient.at(number, self._name(row))

    def has_another_form_of(self, name: str) -> bool:
        """Return whether no recipient is this name, and one looks the same."""
        names = [self._name(self.table.row(number)) for number in self.rows_like(name)]
        return bool(names) and name not in names

    def rows_like(self, name: str) -> list[int]:
        """Return the numbers of the rows of recipients that look like a name."""
        form = comparable(name)
        return [row.number for row, known in self._known(form) if comparable(known) == form]

    def has_voucher(self, number: int) -> bool:
        """Return whether a row has a code, or may have one, from an earlier run."""
        return self._has_voucher(self.table.row(number))

    def unasked(self, number: int) -> Mapping[str, str]:
        """Return our columns of a row that was not asked for: why not, or what it had before."""
        becomes = self._becomes[number]
        if becomes == _NOBODY:
            return {}
        if becomes == _CARRIED:
            return self.before(number)
        if becomes == _DUPLICATE:
            name = self._name(self.table.row(number))
            first = next(row for row, known in self._known(comparable(name)) if known == name)
            return {
                "voucher_status": "duplicate",
                "error": f"It stands in line {first.line:,} too.",
            }
        return {"voucher_status": "not_asked"}

    def before(self, number: int) -> dict[str, str]:
        """Return our columns of a row as an earlier run wrote them; nothing in another file."""
        ours, row = self.table.results, self.table.row(number)
        if ours is None:
            return {}
        return {
            "code": row.text(ours.code),
            "qr_url": row.text(ours.qr_url),
            "voucher_status": row.text(ours.voucher_status),
            "error": row.text(ours.error),
        }

    def _refuse_codes(self) -> None:
        try:
            refuse_codes(self.table.header)
        except ConfigurationError as exc:
            raise ConfigurationError(f"{self.title}: {exc}.") from None

    def _name(self, row: Row) -> str:
        return row.text(self._column)

    def _known(self, form: str) -> Iterator[tuple[Row, str]]:
        for number in self._forms.find(form):
            row = self.table.row(number)
            yield row, self._name(row)

    def _judge(self, row: Row, zeros: _LostZeros) -> int:
        """Say what becomes of a row; take note of what is wrong with it."""
        if row.is_blank:
            return _NOBODY
        name = self._name(row)
        if wrong := _mistake(row.cells[self._column], name):
            self.table.problem(row.line, wrong)
            return _NOBODY
        form = comparable(name)
        becomes = _CARRIED if self._has_voucher(row) else _ASKED
        for other, known in self._known(form):
            if known == name:
                if self._skip_duplicates and becomes is _ASKED:
                    self.duplicates += 1
                    return _DUPLICATE
                if self._is_noted_duplicate(row):
                    return _CARRIED
                self.table.problem(
                    row.line,
                    f"{name!r} stands there twice, first in line {other.line:,}: remove one, or "
                    "give --skip-duplicates",
                )
                return _NOBODY
            if not self.allow_similar and comparable(known) == form:
                self.table.problem(
                    row.line,
                    f"{name!a} looks the same as {known!a} in line {other.line:,}: remove one, or "
                    "give --allow-similar if they are two people",
                )
                return _NOBODY
        self._forms.add(form, row.number)
        zeros.add(row.line, name)
        if becomes is _CARRIED and not self._has_ledger:
            self.carried += 1
            return _CARRIED
        self._asked += 1
        return _ASKED

    def _has_voucher(self, row: Row) -> bool:
        ours = self.table.results
        return ours is not None and bool(
            row.text(ours.code) or row.text(ours.voucher_status) in SERVED
        )

    def _is_noted_duplicate(self, row: Row) -> bool:
        ours = self.table.results
        return ours is not None and row.text(ours.voucher_status) == "duplicate"

    def _tell(self, zeros: _LostZeros) -> None:
        if self.table.results is None:
            for name, called in zip(OURS, name_ours(OURS, self.table.header), strict=True):
                if called != name:
                    self.notes.append(
                        f"{self.title} has a column {name!r} of its own: that of the results is "
                        f"called {called!r}."
                    )
        if self.carried:
            self.notes.append(
                f"{self.title} is the output of a run: {counted(self.carried, 'recipient')} with a "
                "code, or that may have one, will not be asked for again."
            )
        if self.duplicates:
            self.notes.append(
                f"{self.title}: {counted(self.duplicates, 'duplicate')} will be passed over."
            )
        if lost := zeros.sentence():
            self.notes.append(f"{self.title}: {lost}")


class _LostZeros:
    """Notes ids and telephone numbers that a spreadsheet took for numbers."""

    def __init__(self, is_phone: bool) -> None:  # noqa: FBT001
        self._is_phone = is_phone
        self._width = 0  # of those that begin with a zero
        self._has_one_width = True
        self._shorter: dict[int, tuple[int, int, str]] = {}  # by width: how many, the first

    def add(self, line: int, name: str) -> None:
        """Look at a recipient."""
        if not (name.isascii() and name.isdigit()):
            return
        width = len(name)
        if name[0] == "0":
            self._has_one_width &= self._width in (0, width)
            self._width = width
        else:
            count, first, text = self._shorter.get(width, (0, line, name))
            self._shorter[width] = (count + 1, first, text)

    def sentence(self) -> str:
        """Return what is to be said, or nothing."""
        found = []
        for width, (count, line, text) in self._shorter.items():
            mixed = self._width > width and (self._has_one_width or self._is_phone)
            mobile = self._is_phone and width in (9, 10) and text[0] == "1"
            if mixed or mobile:
                found.append((line, count, text))
        if not found:
            return ""
        line, _, text = min(found)
        count = sum(row[1] for row in found)
        return (
            f"{counted(count, 'recipient')} may have lost a zero at the beginning, the first is "
            f"{text!r} in line {line:,}. A spreadsheet drops it from what it takes for a number."
        )


def _mistake(cell: Cell, recipient: str) -> str:
    """Return what is wrong with a recipient, or nothing."""
    if not recipient:
        return "no recipient: remove the line or fill it in"
    if len(recipient) > MAX_CHARS:
        return f"a recipient of more than {MAX_CHARS:,} characters"
    is_number = isinstance(cell, (int, float)) and not isinstance(cell, bool)
    if _SHORTENED.fullmatch(recipient) or (
        is_number and len(text_of(cell).lstrip("-")) > _EXACT_DIGITS
    ):
        return (
            f"{recipient!r} is a number that a spreadsheet has shortened: make the column text, "
            "and enter it anew"
        )
    if _ERROR.fullmatch(recipient):
        return f"{recipient!r}, the error of a formula"
    if _FORMULA.match(recipient) and not _NO_FORMULA.fullmatch(recipient):
        return f"a recipient that starts with {recipient[0]!r} is a formula to a spreadsheet"
    shown = comparable(recipient)
    if shown and shown != shown.strip():  # the same person, in another's name
        return "a recipient with a space at an end, beside a character that can't be seen"
    for position, char in enumerate("" if recipient.isprintable() else recipient, start=1):
        if unicodedata.category(char) == "Cc":
            return "a recipient with a control character"
        if unicodedata.bidirectional(char) in _TURNS:
            where = f"U+{ord(char):04X} at position {position}"
            return f"a recipient with {where}, which turns text around"
    return "" if shown else "a recipient in which nothing can be seen"
