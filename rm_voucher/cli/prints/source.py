"""Reads an output file of ``issue``: the rows whose vouchers may be handed to people.

Only an issued row is one: an unresolved row may have a code that is somebody else's, and an unkept
one waits for its ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import attrs

from rm_voucher.cli.tables.columns import RECIPIENT_NAMES, choose_column, refuse_remains
from rm_voucher.cli.tables.index import Index
from rm_voucher.cli.tables.model import Row
from rm_voucher.cli.tables.read import Table, open_table
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.models import mask
from rm_voucher.text import counted

_HANDED_ON = {"issued", "ISSUED", "REDEEMED"}
"""What a row says of a voucher that its recipient may have; RM's words stand in a listing."""
# What `campaign status` writes last, and what it says of whoever has yet to use the voucher.
_OF_STATUS = ("standing", "status", "assigned_at", "redeemed_at", "used_at", "expires_at")
_SERVED = "served"
_MAX_URL_BYTES = 2_000
_KINDS = 8  # of rows without a voucher that are told apart: a column may hold anything


@attrs.frozen
class Slip:
    """A voucher to hand to somebody."""

    row: Row
    recipient: str
    code: str = attrs.field(repr=mask)
    qr_url: str = attrs.field(repr=mask)


class Results:
    """The rows of an output file, checked; it may be iterated over many times, and is closed.

    ``column`` says whose a voucher is, and ``option`` names it; without ``has_recipient`` nobody
    asks. Only with ``has_shared_codes`` two rows may have one code. Raises `ConfigurationError`,
    and with what is wrong on lines `TableError`.
    """

    def __init__(
        self,
        path: Path,
        *,
        column: str | None = None,
        option: str = "--column",
        has_recipient: bool = True,
        has_shared_codes: bool = False,
    ) -> None:
        self.table: Table = open_table(path, names=())
        self._has_shared_codes = has_shared_codes
        try:
            self._find_columns()
            self._recipient = self._find_recipient(column, option) if has_recipient else None
            self.vouchers: int = self._check()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the copy of the file up."""
        self.table.close()

    @property
    def code_name(self) -> str:
        """What the column of the codes is called."""
        return self.table.header[self._code]

    def _find_columns(self) -> None:
        header, ours = self.table.header, self.table.results
        self._status: int | None
        self._standing = _find_standing(header)
        if ours is not None:
            self._code, self._qr_url, self._status = ours.code, ours.qr_url, ours.voucher_status
            return
        try:
            refuse_remains(header)
        except ConfigurationError as exc:
            raise ConfigurationError(f"{self.table.title}: {exc}.") from None
        missing = [name for name in ("code", "qr_url") if header.count(name) != 1]
        if missing:
            raise ConfigurationError(
                f"{self.table.title} has no column {missing[0]!r}: name a file that 'rm-voucher "
                "issue' wrote."
            )
        self._code, self._qr_url = header.index("code"), header.index("qr_url")
        self._status = header.index("status") if "status" in header else None

    def _find_recipient(self, column: str | None, option: str) -> int:
        header = self.table.header
        try:
            return choose_column(header, column=column, names=RECIPIENT_NAMES, what="recipient")
        except ConfigurationError as exc:
            raise ConfigurationError(
                f"{self.table.title}: {str(exc).replace('--column', option)}."
            ) from None

    def _check(self) -> int:
        """Count the vouchers. A code that two rows have, or that was altered, is a problem."""
        table = self.table
        self.left_out: Counter[str] = Counter()
        """How many rows have no voucher to hand on, by their status."""
        vouchers, codes = 0, Index()
        for row in table:
            why = self._why_left_out(row)
            if why is None:
                vouchers += 1
                self._look_at_code(row, codes)
            elif why:
                known = why in self.left_out or len(self.left_out) < _KINDS
                self.left_out[why if known else "with another status"] += 1
        table.refuse_problems()
        if not vouchers:
            reason = self.left_out_in_words() or "it has no rows"
            raise ConfigurationError(f"{table.title} has no voucher to hand on: {reason}.")
        return vouchers

    def _look_at_code(self, row: Row, codes: Index) -> None:
        table, code = self.table, row.text(self._code)
        if not isinstance(row.cells[self._code], str):
            table.problem(
                row.line,
                "the code is a number, which a spreadsheet made of it and may have changed: take "
                "the file as it was written",
            )
        if self._has_shared_codes:
            return
        for number in codes.find(code):
            if (other := table.row(number)).text(self._code) == code:
                table.problem(
                    row.line,
                    f"line {other.line:,} has the same code, and one of the two people would find "
                    "it used: remove a row, or give --shared-codes for a batch with one code for "
                    "all",
                )
                return  # the first is found at once, for the next one, too
        codes.add(code, row.number)

    def _why_left_out(self, row: Row) -> str | None:
        """Return why a row has no voucher to hand on: its status, nothing for a blank row."""
        if row.is_blank:
            return ""
        status = "issued" if self._status is None else row.text(self._status)
        if status not in _HANDED_ON:
            return status or "without a status"
        if self._standing is not None and (standing := row.text(self._standing)) != _SERVED:
            return standing or "without a standing"
        if not row.text(self._code):
            return f"{status} without a code"
        return None if _is_url(row.text(self._qr_url)) else f"{status} without a QR URL"

    def __iter__(self) -> Iterator[Slip]:
        return (slip for _, slip in self.rows() if slip is not None)

    def rows(self) -> Iterator[tuple[Row, Slip | None]]:
        """Iterate over all rows, with the voucher of each that may be handed on."""
        for row in self.table:
            slip = None
            if self._why_left_out(row) is None:
                recipient = "" if self._recipient is None else row.text(self._recipient)
                slip = Slip(row, recipient, row.text(self._code), row.text(self._qr_url))
            yield row, slip

    def left_out_in_words(self) -> str:
        """Return how many rows were left out and why, or nothing."""
        if not self.left_out:
            return ""
        parts = ", ".join(f"{number:,} {why}" for why, number in sorted(self.left_out.items()))
        return f"{counted(self.left_out.total(), 'row')} without a voucher to hand on: {parts}"


def _find_standing(header: Sequence[str]) -> int | None:
    """Return where ``campaign status`` wrote how each stands, or None: it is no file of that."""
    last = tuple(name.removeprefix("rm_") for name in header[-len(_OF_STATUS) :])
    return len(header) - len(_OF_STATUS) if last == _OF_STATUS else None


def _is_url(text: str) -> bool:
    return (
        text.startswith(("https://", "http://"))
        and text.isprintable()
        and len(text.encode()) <= _MAX_URL_BYTES
    )
