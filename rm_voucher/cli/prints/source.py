"""Reads an output file of ``issue``: the rows whose vouchers may be handed to people.

Only an issued row is one: an unresolved row may have a code that is somebody else's, and an unkept
one waits for its ledger.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.files import open_plain
from rm_voucher.models import mask
from rm_voucher.text import counted

_STATUS = ("voucher_status", "status")
_HANDED_ON = {"issued", "ISSUED", "REDEEMED"}
"""What a row says of a voucher that its recipient may have; RM's words stand in a listing."""
_MAX_URL_BYTES = 2_000


@attrs.frozen
class Slip:
    """A voucher to hand to somebody."""

    row: int
    """Its place among the rows under the header, from 1."""
    recipient: str
    code: str = attrs.field(repr=mask)
    qr_url: str = attrs.field(repr=mask)
    cells: Mapping[str, str] = attrs.field(repr=False)
    """All of its row, by the columns' names."""


class Results:
    """An output file, which may be iterated over many times.

    ``recipient`` is the column that says whose a voucher is. Raises `ConfigurationError`.
    """

    def __init__(self, path: Path, *, recipient: str | None = None) -> None:
        self.path = path
        with os.fdopen(self._open(), newline="", encoding="utf-8-sig") as file:
            self.columns = next(csv.reader(file), [])
        missing = [name for name in ("code", "qr_url") if name not in self.columns]
        if missing:
            raise ConfigurationError(
                f"{path} has no column {missing[0]!r}: name a file that 'rm-voucher issue' wrote."
            )
        self._status = next((name for name in _STATUS if name in self.columns), None)
        self._recipient = self.column(recipient or "recipient") if self.columns else ""
        self.left_out: Counter[str] = Counter()
        """How many rows have no voucher to hand on, by their status; of the last iteration."""

    def column(self, name: str) -> str:
        """Return a column's name. Raises `ConfigurationError` if there is none of it."""
        if name in self.columns:
            return name
        raise ConfigurationError(
            f"{self.path} has no column {name!r}; it has {', '.join(self.columns)}."
        )

    def __iter__(self) -> Iterator[Slip]:
        self.left_out.clear()
        for row, cells in enumerate(self._rows(), start=1):
            status = cells.get(self._status, "") if self._status else "issued"
            code, qr_url = cells.get("code", ""), cells.get("qr_url", "")
            if status not in _HANDED_ON or not code:
                self.left_out[status or "no status"] += 1
            elif not _is_url(qr_url):
                self.left_out["issued without a QR URL"] += 1
            else:
                yield Slip(row, cells.get(self._recipient, ""), code, qr_url, cells)

    def _rows(self) -> Iterator[dict[str, str]]:
        try:
            with os.fdopen(self._open(), newline="", encoding="utf-8-sig") as file:
                rows = csv.reader(file)
                next(rows, None)
                for row in rows:
                    if row:
                        yield dict(zip(self.columns, row, strict=False))
        except (OSError, UnicodeDecodeError, csv.Error) as exc:
            raise ConfigurationError(f"{self.path} can't be read: {exc}.") from exc

    def _open(self) -> int:
        try:
            return open_plain(self.path)
        except OSError as exc:
            raise ConfigurationError(f"{self.path} can't be read: {exc.strerror}.") from exc

    def left_out_in_words(self) -> str:
        """Return how many rows were left out and why, or nothing."""
        if not self.left_out:
            return ""
        parts = ", ".join(f"{number:,} {why}" for why, number in sorted(self.left_out.items()))
        return f"{counted(self.left_out.total(), 'row')} without a voucher to hand on: {parts}"


def _is_url(text: str) -> bool:
    return (
        text.startswith(("https://", "http://"))
        and text.isprintable()
        and len(text.encode()) <= _MAX_URL_BYTES
    )
