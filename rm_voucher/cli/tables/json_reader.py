"""Reads JSON lines, as a run of ours writes them: an object each, with the columns as keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import orjson

from rm_voucher.cli.tables.csv_reader import MAX_LINE_CHARS
from rm_voucher.cli.tables.model import Cell, Format, Problems


class JsonReader:
    """The rows of the file, read once, as ``(line, cells)``. The first object has all columns."""

    format: Format = Format(kind="jsonl")

    def __init__(self, file: IO[bytes], title: str) -> None:
        self.title = title
        self.notes: list[str] = []
        self._file = file

    def rows(self, problems: Problems) -> Iterator[tuple[int, list[Cell]]]:
        """Iterate over all rows, the names of the columns first. What is no object is a problem."""
        keys: list[str] = []
        line = 0
        while text := self._file.readline(4 * MAX_LINE_CHARS + 1):
            line += 1
            if len(text) > 4 * MAX_LINE_CHARS:
                problems.add(line, f"longer than {4 * MAX_LINE_CHARS:,} bytes")
                return
            if not text.strip():
                continue
            try:
                found = orjson.loads(text)
            except orjson.JSONDecodeError:
                found = None
            if not isinstance(found, dict) or not found or (keys and found.keys() - {*keys}):
                problems.add(line, "no JSON object with the columns of the first line")
                continue
            if not keys:
                keys = list(found)
                yield line, [*keys]
            yield line, [_cell(found.get(key)) for key in keys]


def _cell(value: Any) -> Cell:
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    return orjson.dumps(value).decode()
