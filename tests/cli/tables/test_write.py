"""A table that is written is harmless, private, and whole or not there."""

import csv
import os
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import load_workbook

from rm_voucher import ConfigurationError
from rm_voucher.cli.tables import write
from rm_voucher.cli.tables.model import Cell, Format
from rm_voucher.cli.tables.read import open_table
from rm_voucher.cli.tables.write import harmless, open_writer, without_controls

ROW: list[Cell] = ["=1+1", "-CODE", 12, 1.5, True, None, "a\nb", "\x1b[2J", "+60 12"]
COLUMNS = ["note", "code", "n", "f", "b", "empty", "lines", "escape", "Phone"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=1+1", "'=1+1"),
        ("+1+1", "'+1+1"),
        ("-1+1", "'-1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\\r=1"),
        ("\uff1d1", "'\uff1d1"),
        ("-5.50", "-5.50"),
        ("+60 (12) 345-678", "+60 (12) 345-678"),
        ("@ali.baba", "@ali.baba"),
        ("'=1+1", "'=1+1"),
        ("a\x1bb\x9bc", "a\\x1bb\\x9bc"),
        ("a\r\nb\tc\nd", "a\r\nb\tc\nd"),
        ("தமிழ் 👩‍👩‍👧", "தமிழ் 👩‍👩‍👧"),
    ],
)
def test_harmless(text: str, shown: str) -> None:
    """A formula has an apostrophe before it; controls are shown; nothing else is changed."""
    assert harmless(text) == shown
    assert harmless(shown) == shown


@given(st.text())
def test_no_cell_is_obeyed(text: str) -> None:
    """Whatever stands in a cell begins no formula and moves no cursor."""
    shown = harmless(text)
    assert shown[:1] not in "=\t\r\uff1d" or not shown
    assert without_controls(shown) == shown
    assert not set(shown) & {"\x1b", "\x9b", "\x07", "\x08", "\x00"}


@pytest.mark.parametrize("ending", ["csv", "tsv", "xlsx", "jsonl", "ndjson"])
def test_formats(tmp_path: Path, ending: str) -> None:
    """Each format has all rows in order; codes are never altered."""
    path = tmp_path / f"t.{ending}"
    with open_writer(path, COLUMNS, exact=("code",)) as writer:
        writer.add(ROW)
        writer.add([""] * 9)
    assert path.stat().st_mode & 0o777 == 0o600
    if ending == "xlsx":
        book = load_workbook(path)
        assert book.active is not None
        header, row, *_ = book.active.values
        assert list(header) == COLUMNS
        assert list(row) == [
            "=1+1", "-CODE", 12, 1.5, True, None, "a\nb", "\\x1b[2J", "+60 12",
        ]  # fmt: skip
        assert book.active["A2"].data_type == "s"
    elif ending in ("jsonl", "ndjson"):
        assert orjson.loads(path.read_bytes().splitlines()[0]) == dict(
            zip(COLUMNS, ROW, strict=True)
        )
    else:
        with path.open(newline="") as file:
            _, cells, _ = csv.reader(file)
        assert cells == [
            "'=1+1", "-CODE", "12", "1.5", "TRUE", "", "a\nb", "\\x1b[2J", "+60 12",
        ]  # fmt: skip


@pytest.mark.parametrize("ending", ["csv", "xlsx", "jsonl"])
def test_what_was_written_is_read(tmp_path: Path, ending: str) -> None:
    """A table of ours opens as a table, with the same cells."""
    path = tmp_path / f"t.{ending}"
    written: list[list[Cell]] = [["a@b.my", 'x"y,z', "1"], ["名前", "", "_x0041_"]]
    with open_writer(path, ["Email", "A", "A"], like=Format(delimiter=";"), exact=()) as writer:
        for row in written:
            writer.add(row)
    with open_table(path, column="Email") as table:
        assert [[row.text(column) for column in range(3)] for row in table] == written


def test_an_older_file_is_kept(tmp_path: Path) -> None:
    """A file that is there has codes, perhaps: it gets a number, unless it may be replaced."""
    path = tmp_path / "t.csv"
    for number, is_replaced in enumerate([bool, bool, lambda: True]):
        with open_writer(path, ["a"], exact=(), is_replaced=is_replaced) as writer:
            writer.add([number])
    assert sorted(found.name for found in tmp_path.iterdir()) == ["t.csv", "t.csv.1"]
    assert (path.read_text(), (tmp_path / "t.csv.1").read_text()) == ("a\n2\n", "a\n0\n")


@pytest.mark.parametrize("ending", ["csv", "xlsx", "jsonl"])
def test_nothing_is_left_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """Neither a half-written file nor a temporary one stays."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with (
        pytest.raises(ZeroDivisionError),
        open_writer(tmp_path / f"t.{ending}", ["a"], exact=()) as writer,
    ):
        writer.add(["x"])
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["csv", "xlsx", "jsonl"])
def test_a_disk_that_is_full_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """The error is the operating system's, and nothing stays."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(OSError, match="No space"),
        open_writer(tmp_path / f"t.{ending}", ["a"], exact=()),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_no_sheet_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row or a cell too many is a sentence."""
    with (
        pytest.raises(ConfigurationError, match="holds 32,767 characters in a cell, and line 2"),
        open_writer(tmp_path / "t.xlsx", ["a"], exact=()) as writer,
    ):
        writer.add(["x" * 32_768])
    monkeypatch.setattr(write, "MAX_SHEET_ROWS", 2)
    with (
        pytest.raises(ConfigurationError, match=r"An \.xlsx holds 1 rows under its header"),
        open_writer(tmp_path / "t.xlsx", ["a"], exact=()) as writer,
    ):
        writer.add(["x"])
        writer.add(["x"])
    assert list(tmp_path.iterdir()) == []


def test_a_delimiter_that_only_a_first_line_says(tmp_path: Path) -> None:
    """What is written without that line has one that is found."""
    (tmp_path / "in.csv").write_text("sep=^\nemail^name\na^A\n")
    with (
        open_table(tmp_path / "in.csv") as table,
        open_writer(tmp_path / "out.csv", table.header, like=table.format, exact=()) as writer,
    ):
        writer.add(table.row(0).cells)
    with open_table(tmp_path / "out.csv") as table:
        assert (table.header, table.row(0).cells) == (("email", "name"), ["a", "A"])


def test_json_is_not_obeyed_by_a_terminal(tmp_path: Path) -> None:
    """Controls and what turns text around are escaped as JSON has it: they are the same again."""
    path, text = tmp_path / "t.jsonl", "a\x1b\x7f\x9b\u202e\u2066é"
    with open_writer(path, ["a"], exact=()) as writer:
        writer.add([text])
    assert path.read_text().strip().isprintable()
    assert orjson.loads(path.read_bytes()) == {"a": text}
