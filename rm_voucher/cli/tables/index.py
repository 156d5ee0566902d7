"""A set of texts that fits into 16 bytes each, however long they are. Pure.

Two million Python strings in a set are 300 MB. Here a slot is a part of the text's hash and the
number of its row; whoever asks compares the text itself, which is in a file.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

_LOAD = 0.6


class Index:
    """Finds the numbers of rows by a text. A number may be another text's: look."""

    def __init__(self) -> None:
        self._count = 0
        self._make(1 << 10)

    def _make(self, size: int) -> None:
        self._mask = size - 1
        self._hashes = array("I", bytes(4 * size))
        self._rows = array("I", bytes(4 * size))  # the number + 1, or 0: free

    def __len__(self) -> int:
        return self._count

    def add(self, text: str, number: int) -> None:
        """Add a row, also under a text that is there."""
        if self._count + 1 > _LOAD * (self._mask + 1):
            self._grow()
        self._count += 1
        self._put(hash(text) & 0xFFFF_FFFF, number + 1)

    def _put(self, digest: int, row: int) -> None:
        mask, rows = self._mask, self._rows
        slot = digest & mask
        while rows[slot]:
            slot = (slot + 1) & mask
        self._hashes[slot] = digest
        rows[slot] = row

    def _grow(self) -> None:
        hashes, rows = self._hashes, self._rows
        self._make(2 * len(rows))
        for digest, row in zip(hashes, rows, strict=True):
            if row:
                self._put(digest, row)

    def find(self, text: str) -> Iterator[int]:
        """Iterate over the rows that may have been added under a text."""
        mask, hashes, rows = self._mask, self._hashes, self._rows
        digest = hash(text) & 0xFFFF_FFFF
        slot = digest & mask
        while row := rows[slot]:
            if hashes[slot] == digest:
                yield row - 1
            slot = (slot + 1) & mask
