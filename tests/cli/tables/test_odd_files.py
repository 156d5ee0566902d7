"""Files of other programs' making, and broken ones: read as they are meant, or a sentence."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter
from openpyxl.worksheet._read_only import ReadOnlyWorksheet

from rm_voucher import ConfigurationError
from rm_voucher.cli import results
from rm_voucher.cli.earlier import NoResultsError, codes_in, results_in
from rm_voucher.cli.results import ResultFile
from rm_voucher.cli.tables import read, xlsx_reader
from rm_voucher.cli.tables.columns import OURS
from rm_voucher.cli.tables.read import open_table
from rm_voucher.cli.tables.write import open_writer

SHEET = "xl/worksheets/sheet1.xml"


def edited(path: Path, edit: Callable[[bytes], bytes]) -> Path:
    """Change the sheet of an .xlsx as no library would write it."""
    with zipfile.ZipFile(path) as parts:
        content = {name: parts.read(name) for name in parts.namelist()}
    content[SHEET] = edit(content[SHEET])
    with zipfile.ZipFile(path, "w") as parts:
        for name, data in content.items():
            parts.writestr(name, data)
    return path


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.xlsx"
    with xlsxwriter.Workbook(path) as made:
        page = made.add_worksheet()
        page.write_row(0, 0, ["Phone", "When"])
        page.write_number(1, 0, 60123456789)
        shown = made.add_format({"num_format": "yyyy-mm-dd hh:mm"})
        page.write_datetime(1, 1, datetime(2026, 11, 30, 8, 30), shown)
    return path


def test_a_number_with_a_point(book: Path) -> None:
    """A whole number is one, however a program wrote it; a time is shown as RFC 3339 has it."""
    edited(book, lambda xml: xml.replace(b"60123456789<", b"6.0123456789E10<"))
    with open_table(book) as table:
        assert table.row(0).cells == [60123456789, "2026-11-30 08:30:00"]


def test_a_sheet_that_is_torn(book: Path) -> None:
    """What begins well and ends in the middle is no list."""
    edited(book, lambda xml: xml[: xml.index(b"</sheetData>") - 20])
    with pytest.raises(ConfigurationError, match=r"is no whole \.xlsx"):
        open_table(book)


def test_a_sheet_that_is_torn_after_its_first_rows(
    book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a row was read already."""
    monkeypatch.setattr(xlsx_reader, "_AT_ONCE", 1)
    edited(book, lambda xml: xml[: xml.index(b"</sheetData>") - 20])
    with pytest.raises(ConfigurationError, match=r"is no whole \.xlsx"):
        open_table(book, sheet="Sheet1")


def test_a_workbook_that_would_fill_the_memory(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says how large it is when unpacked, and is refused before it is."""
    monkeypatch.setattr(xlsx_reader, "MAX_UNPACKED_BYTES", 1_000)
    with pytest.raises(ConfigurationError, match="is too large: save it as CSV"):
        open_table(book)


@pytest.mark.parametrize("number", [b"1048577", b"2000000000"])
def test_a_row_that_no_sheet_has(
    book: Path, number: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number in a small file is no reason to make rows without an end, or a million of them."""
    edited(book, lambda xml: xml.replace(b'<row r="2"', b'<row r="%b"' % number))
    iter_rows: Any = ReadOnlyWorksheet.iter_rows
    made = []

    def counted(sheet: ReadOnlyWorksheet, **options: int) -> Iterator[object]:
        for row in iter_rows(sheet, **options):
            made.append(row)
            yield row

    monkeypatch.setattr(ReadOnlyWorksheet, "iter_rows", counted)
    with pytest.raises(ConfigurationError, match="has a row beyond 1,048,576"):
        open_table(book)
    assert len(made) <= xlsx_reader._AT_ONCE


def test_more_rows_than_any_sheet_has(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no row says its number."""
    monkeypatch.setattr(xlsx_reader, "_MAX_ROWS", 3)
    monkeypatch.setattr(xlsx_reader, "_AT_ONCE", 1)
    end = b"</sheetData>"
    edited(book, lambda xml: xml.replace(end, b"<row><c><v>1</v></c></row>" * 3 + end))
    with pytest.raises(ConfigurationError, match="has a row beyond 3, "):
        open_table(book)


def test_a_part_that_would_fill_the_memory(book: Path) -> None:
    """Styles are read whole; they are small."""
    with zipfile.ZipFile(book, "a", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr("xl/more.xml", bytes(17 << 20))
    with pytest.raises(ConfigurationError, match="is too large: save it as CSV"):
        open_table(book)


def test_blank_rows_are_no_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blank rows between others count as rows; at the end they don't, however many."""
    monkeypatch.setattr(read, "MAX_ROWS", 5)
    path = tmp_path / "r.csv"
    path.write_text("Email\na\n\n\n\nb\n" + "\n" * 20)
    with open_table(path) as table:
        assert [row.is_blank for row in table] == [False, True, True, True, False]
    path.write_text("Email\na\n" + "\n" * 20 + "b\n")
    with open_table(path) as table, pytest.raises(ConfigurationError, match="more than 5 rows"):
        table.refuse_problems()


def test_hidden_rows(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has filtered a list may think that the others are left out."""
    monkeypatch.setattr(xlsx_reader, "_CHUNK_BYTES", 100)
    edited(book, lambda xml: xml.replace(b'<row r="2"', b'<row hidden="1" r="2"'))
    with open_table(book) as table:
        assert len(table) == 1
        assert "1 hidden row, as a filter makes them: they are read like the others" in str(
            table.notes
        )


@pytest.mark.parametrize(
    "encoding",
    ["utf-7", "unicode_escape", "raw_unicode_escape", "punycode", "idna", "base64", "u\0"],
)
def test_no_encodings_of_tables(tmp_path: Path, encoding: str) -> None:
    """Python knows more encodings than programs save tables in."""
    (tmp_path / "r.csv").write_text("Email\na\n")
    with pytest.raises(ConfigurationError, match=r"There is no encoding .* of tables"):
        open_table(tmp_path / "r.csv", encoding=encoding)


@pytest.mark.parametrize("encoding", ["UTF8", "latin-1", "windows-1252", "big5", "gbk", "sjis"])
def test_encodings_of_tables(tmp_path: Path, encoding: str) -> None:
    """Those are known under their many names."""
    (tmp_path / "r.csv").write_text("Email\na\n")
    with open_table(tmp_path / "r.csv", encoding=encoding) as table:
        assert table.row(0).cells == ["a"]


@pytest.mark.parametrize(
    ("content", "options", "sentence"),
    [
        (b"Email\n\xffJos\xe9\n", {"encoding": "utf-8"}, "is not utf-8: name its encoding"),
        (b"Email\na@b.my\xe5\x90", {}, "neither UTF-8 nor Windows-1252"),
        (b"Email\nJos\xe9 \x81 \n", {}, "neither UTF-8 nor Windows-1252"),
        (b'Email\n"' + b"x\n" * 70_000, {}, "line 2: a quotation mark that is not closed"),
        (b'{"Email":"' + b"x" * 400_001, {}, "longer than 400,000 bytes"),
        (b"a,b,c,d,e,f,g,h,i,j,k,l,m,n\n", {}, "'l' and 2 more"),
    ],
)
def test_bad(tmp_path: Path, content: bytes, options: dict[str, str], sentence: str) -> None:
    """Each has a sentence."""
    path = tmp_path / "r.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=sentence), open_table(path, **options) as table:
        table.refuse_problems()


def test_good(tmp_path: Path) -> None:
    """UTF-16 of the other kind, without its mark; JSON with a list in it; no column chosen."""
    path = tmp_path / "r.csv"
    path.write_bytes("Email,City\na@b.my,KL\n".encode("utf-16-be"))
    with open_table(path, names=()) as table:
        assert (table.column, table.row(0).cells) == (None, ["a@b.my", "KL"])
    path.write_bytes(b'{"Email":"a@b.my","Tags":["x",1]}\n')
    with open_table(path) as table:
        assert table.row(0).cells == ["a@b.my", '["x",1]']


def test_a_disk_that_is_full_when_the_workbook_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is the operating system's, whoever else would give it a name of theirs."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with (
        pytest.raises(OSError, match="No space"),
        open_writer(tmp_path / "t.xlsx", ["a"], exact=()) as writer,
    ):
        writer.add(["x"])
        monkeypatch.setattr(zipfile.ZipFile, "write", full)
    assert list(tmp_path.iterdir()) == []


def test_more_rows_than_a_sheet_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said before anything is issued."""
    monkeypatch.setattr(results, "MAX_SHEET_ROWS", 3)
    path = tmp_path / "r.csv"
    path.write_text("Email\na\nb\nc\n")
    with (
        open_table(path) as table,
        pytest.raises(ConfigurationError, match="rows under its header"),
    ):
        ResultFile(tmp_path / "out.xlsx", table=table)


@pytest.mark.parametrize(
    ("content", "codes"),
    [
        ("Email,code,qr_url,voucher_status,error\na,C1,,issued,\n", None),
        ("recipient,code,qr_url,status,error\na,C1,,issued,\n", ["C1"]),
        ("request,code\na,C1\n,\nb,\n", ["C1"]),
        ("request,code,called\na,C1,on Monday\n", None),
        ("Email,code\na,C1\n", None),
        ("Email,code,qr_url,voucher_status,error\na\n", None),
        ('Email,code,qr_url,voucher_status,error\na,"C1\n', None),
        ("\x89PNG", None),
    ],
)
def test_codes_of_an_older_file(tmp_path: Path, content: str, codes: list[str] | None) -> None:
    """The codes of a file with these columns; any other file may have what this one has not."""
    path = tmp_path / "out.csv"
    path.write_text(content, encoding="latin-1")
    if codes is None:
        with pytest.raises(NoResultsError):
            list(codes_in(path, ("request", "code")))
    else:
        assert list(codes_in(path, ("request", "code"))) == codes


def test_results_before_the_columns_had_their_names(tmp_path: Path) -> None:
    """A code that a ledger could not keep is found in the output of an older version, too."""
    path = tmp_path / "out.csv.ledger.partial"
    path.write_text("recipient,code,qr_url,status,error\na,C1,,unkept,x\nb,C2")
    first, torn = results_in(path, is_partial=True, column="Email")
    assert (first["recipient"], first["code"], first["voucher_status"]) == ("a", "C1", "unkept")
    assert torn == {"recipient": "b", "code": "C2"}
    path.write_bytes(b"\x89PNG")
    with pytest.raises(NoResultsError):
        list(results_in(path, is_partial=False, column="Email"))


@pytest.mark.parametrize("column", ["=ref", "ref"])
def test_whose_a_code_is_stands_in_its_column(tmp_path: Path, column: str) -> None:
    """Whatever was done to its name; and no other column is taken in its place."""
    path = tmp_path / "out.csv"
    with open_writer(path, ["email", column, *OURS], exact=(column,)) as writer:
        writer.add(["e", " r ", "C1", "", "unkept", ""])
    (row,) = results_in(path, is_partial=False, column=column)
    assert row["recipient"] == "r"
    (row,) = results_in(path, is_partial=False, column="phone")
    assert "recipient" not in row
