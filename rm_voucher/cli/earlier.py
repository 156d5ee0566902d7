"""Reads the files of results that earlier runs left: whole or torn, in any format."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from rm_voucher.cli.tables.columns import RECIPIENT_NAMES, choose_column, find_ours, keys_of
from rm_voucher.cli.tables.model import Cell, Problems, is_blank, text_of
from rm_voucher.cli.tables.read import open_reader
from rm_voucher.cli.tables.write import harmless
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.files import open_plain

# How a run named its columns before there were others beside them.
_FIRST = ["recipient", "code", "qr_url", "status", "error"]


class NoResultsError(Exception):
    """A file is none that a run wrote."""


def results_in(path: Path, *, is_partial: bool, column: str) -> Iterator[dict[str, str]]:
    """Iterate over the rows of a file of results, by our names of the columns.

    Of a torn row the last ones are missing. The recipient is in the ``column`` of that name, or in
    the one that is called like it. Raises `NoResultsError` for any other file, and `OSError`.
    """
    with os.fdopen(open_plain(path), "rb") as file:
        try:
            yield from _by_name(_rows_in(path, file, is_partial=is_partial), column)
        except (ConfigurationError, csv.Error, UnicodeDecodeError) as exc:
            raise NoResultsError from exc


def codes_in(path: Path, columns: Sequence[str]) -> Iterator[str]:
    """Iterate over the codes in a file with exactly these columns. Raises as `results_in`.

    A file to which a person added a column is another one: what stands in that is nowhere else.
    """
    own = [list(columns), list(map(harmless, columns)), list(keys_of(columns)), _FIRST]
    with os.fdopen(open_plain(path), "rb") as file:
        try:
            rows = _rows_in(path, file, is_partial=False)
            header = [text_of(cell) for cell in next(rows, [])]
            if header not in own:
                raise NoResultsError
            ours = find_ours(header)
            place = ours.code if ours else header.index("code")
            for cells in rows:
                if is_blank(cells):
                    continue
                if len(cells) <= place:
                    raise NoResultsError
                if code := text_of(cells[place]):
                    yield code
        except (ConfigurationError, csv.Error, UnicodeDecodeError, ValueError) as exc:
            raise NoResultsError from exc


def _by_name(rows: Iterator[list[Cell]], column: str) -> Iterator[dict[str, str]]:
    header = [text_of(cell) for cell in next(rows, [])]
    ours = find_ours(header)
    if ours is not None:
        places = dict(zip(("code", "qr_url", "voucher_status", "error"), ours.columns, strict=True))
    elif header == _FIRST:
        places = {"code": 1, "qr_url": 2, "voucher_status": 3, "error": 4}
    else:
        raise NoResultsError
    if header.count(column) == 1:
        places["recipient"] = header.index(column)
    else:
        with contextlib.suppress(ConfigurationError):  # whoever needs it says so
            places["recipient"] = choose_column(
                header, column=None, names=RECIPIENT_NAMES, what="recipient"
            )
    for cells in rows:
        yield {name: text_of(cells[at]) for name, at in places.items() if at < len(cells)}


def _rows_in(path: Path, file: IO[bytes], *, is_partial: bool) -> Iterator[list[Cell]]:
    """Iterate over the rows, the header first."""
    if is_partial:  # of our own making, and torn where a run was killed
        text = (line.decode(errors="replace") for line in file)
        yield from map(list, csv.reader(text))
    else:
        problems = Problems()
        for _, cells in open_reader(file, str(path)).rows(problems):
            yield cells
        if problems.count:
            raise NoResultsError
