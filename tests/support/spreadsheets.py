"""Files as people's programs save them, good and bad, each with its exact outcome.

``python tests/support/spreadsheets.py FOLDER`` writes them all, to be tried by hand.
"""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import attrs
import xlsxwriter
from openpyxl import load_workbook

TWICE = "remove one, or give --skip-duplicates"
SAID = "{}: the recipients are in the column {!r}."
NAMES = ["ali@a.my", "mei@b.my"]
PLAIN = "Name,Email\nAli,ali@a.my\nMei,mei@b.my\n"
SEMICOLON = PLAIN.replace(",", ";")
JOSE = "Name;Email\nJosé;ali@a.my\nMüller;mei@b.my\n"
CHINESE = "姓名,电邮\n陈美玲,ali@a.my\n林志明,mei@b.my\n"
FORMAT = {"delimiter": ",", "newline": "\n", "has_bom": False}


@attrs.frozen
class Case:
    """A file, how it is read, and what must come of it."""

    file: str
    content: bytes | Callable[[Path], object]
    options: dict[str, Any] = attrs.field(factory=dict)
    names: list[str] | None = None
    """The recipients, where the file is good."""
    error: str = ""
    """The whole sentence after the file's path, where it is bad."""
    notes: tuple[str, ...] = ()
    """What must be said, among other things; ``{}`` is the path."""
    format: dict[str, Any] = attrs.field(factory=dict)
    """What its format must have."""

    def write(self, folder: Path) -> Path:
        path = folder / self.file
        if callable(self.content):
            self.content(path)
        else:
            path.write_bytes(self.content)
        return path


def sheet(rows: list[list[Any]], **formats: str) -> Callable[[Path], None]:
    """Return a function that writes an .xlsx, with ``number_format``s by columns' letters."""

    def write(path: Path) -> None:
        with xlsxwriter.Workbook(path, {"in_memory": True}) as book:
            page = book.add_worksheet("List")
            for at, row in enumerate(rows):
                for column, cell in enumerate(row):
                    letter = chr(ord("A") + column)
                    shown = book.add_format({"num_format": formats.get(letter, "General")})
                    if isinstance(cell, date):
                        day = book.add_format({"num_format": "yyyy-mm-dd"})
                        page.write_datetime(at, column, cell, day)
                    elif isinstance(cell, str) and not cell.startswith("="):
                        page.write_string(at, column, cell)
                    elif cell is not None:
                        page.write(at, column, cell, shown)

    return write


def without_values(path: Path) -> None:
    """Write an .xlsx whose formula was never calculated, as programs without a calculator do."""
    sheet([["Email", "Note"], ["ali@a.my", ""], ["mei@b.my", ""]])(path)
    book = load_workbook(path)
    book.active["B3"] = '="x"&"y"'  # type: ignore[index]
    book.save(path)


def two_sheets(path: Path) -> None:
    with xlsxwriter.Workbook(path, {"in_memory": True}) as book:
        for title, name in (("June", NAMES[0]), ("July", NAMES[1])):
            page = book.add_worksheet(title)
            page.write_column(0, 0, ["Email", name])


def torn_workbook(path: Path) -> None:
    sheet([["Email"], *([name] for name in NAMES)])(path)
    path.write_bytes(path.read_bytes()[:-200])


def open_document(path: Path) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as parts:
        parts.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
    path.write_bytes(data.getvalue())


def many_problems(path: Path) -> None:
    path.write_text("recipient\n" + "=1+1\n" * 30)


NO_COLUMN = (
    ": no column is called 'recipient' or anything like it: name it with --column. The first line "
    "must have the names of the columns; it has "
)
CASES = [
    Case(
        "plain.csv", PLAIN.encode(), names=NAMES, notes=(SAID.format("{}", "Email"),), format=FORMAT
    ),
    Case("bom.csv", PLAIN.encode("utf-8-sig"), names=NAMES, format={"has_bom": True}),
    Case(
        "utf16.txt",
        PLAIN.replace(",", "\t").encode("utf-16"),
        names=NAMES,
        format={"delimiter": "\t", "has_bom": True},
    ),
    Case("utf16be.csv", b"\xfe\xff" + PLAIN.encode("utf-16-be"), names=NAMES),
    Case(
        "utf16le-without-mark.csv", PLAIN.encode("utf-16-le"), names=NAMES, format={"has_bom": True}
    ),
    Case(
        "windows.csv",
        JOSE.replace("\n", "\r\n").encode("cp1252"),
        names=NAMES,
        notes=(
            "{} is not UTF-8: it is read as Windows-1252. Name another encoding with --encoding if names look wrong.",
        ),
        format={"delimiter": ";", "newline": "\r\n", "has_bom": True},
    ),
    Case("windows-named.csv", JOSE.encode("cp1252"), {"encoding": "windows-1252"}, names=NAMES),
    Case(
        "big5.csv",
        CHINESE.replace("电邮", "電郵").replace("陈", "陳").encode("big5", "replace"),
        {"encoding": "big5"},
        names=NAMES,
    ),
    Case(
        "gbk.csv",
        CHINESE.encode("gbk"),
        {"encoding": "GBK"},
        names=NAMES,
        notes=(SAID.format("{}", "电邮"),),
    ),
    Case(
        "gbk-not-named.csv",
        (CHINESE * 20).encode("gbk"),
        error=" is neither UTF-8 nor Windows-1252: save it as 'CSV UTF-8', or name its encoding with --encoding, such as big5 or gbk. It may be gb18030.",
    ),
    Case(
        "big5-not-named.csv",
        "姓名,電郵\n陳美玲,ali@a.my\n".encode("big5"),
        error=" is neither UTF-8 nor Windows-1252: save it as 'CSV UTF-8', or name its encoding with --encoding, such as big5 or gbk. It may be big5.",
    ),
    Case(
        "header-of-two-lines.csv",
        b'Name,"Phone\nNo."\nAli,ali@a.my\nMei,mei@b.my\n',
        names=NAMES,
        notes=(SAID.format("{}", "Phone\nNo."),),
    ),
    Case(
        "utf8-torn.csv",
        CHINESE.encode() + b"\xe5\x90,c@d.my\n",
        error=" is UTF-8, but for line 4: mend it there, or name another encoding with --encoding.",
    ),
    Case(
        "no-encoding.csv",
        PLAIN.encode(),
        {"encoding": "klingon"},
        error="There is no encoding 'klingon' of tables: utf-8, utf-16, windows-1252, big5, gbk and others are known.",
    ),
    Case("semicolon.csv", SEMICOLON.encode(), names=NAMES, format={"delimiter": ";"}),
    Case("tab.tsv", PLAIN.replace(",", "\t").encode(), names=NAMES, format={"delimiter": "\t"}),
    Case("pipe.csv", PLAIN.replace(",", "|").encode(), names=NAMES, format={"delimiter": "|"}),
    Case(
        "sep.csv",
        ("sep=;\r\n" + SEMICOLON).encode(),
        names=NAMES,
        format={"delimiter": ";", "newline": "\r\n"},
    ),
    Case(
        "commas-in-cells.csv",
        b"Email;Address\nali@a.my;1, Jalan A, KL\nmei@b.my;2, Jalan B, KL\n",
        names=NAMES,
        format={"delimiter": ";"},
    ),
    Case(
        "lines-in-cells.csv",
        b'Email,Address\r\nali@a.my,"1,\r\nJalan A"\r\nmei@b.my,x\r\n',
        names=NAMES,
    ),
    Case("old-mac.csv", PLAIN.replace("\n", "\r").encode(), names=NAMES, format={"newline": "\n"}),
    Case("no-end-of-line.csv", PLAIN.rstrip().encode(), names=NAMES),
    Case("header-only.csv", b"Name,Email\n", error=" has no recipients under its header."),
    Case("empty.csv", b"", error=" is empty."),
    Case("folder.csv", lambda path: path.mkdir(), error=" can't be read: it is a folder."),
    Case("no-header.csv", b"ali@a.my,Ali\nmei@b.my,Mei\n", error=f"{NO_COLUMN}'ali@a.my', 'Ali'."),
    Case(
        "two-candidates.csv",
        b"Name,E-mail,Phone\nAli,ali@a.my,1\n",
        error=": the recipient may be in 'E-mail' and 'Phone': name the column with --column.",
    ),
    Case(
        "column-named.csv",
        b"Name,E-mail,Phone\nAli,ali@a.my,1\nMei,mei@b.my,2\n",
        {"column": "e-mail "},
        names=NAMES,
    ),
    Case(
        "column-missing.csv",
        PLAIN.encode(),
        {"column": "Nick"},
        error=": there is no column 'Nick'; the header has 'Name', 'Email'.",
    ),
    Case("recipient-first.csv", b"Recipient,Email\nali@a.my,x\nmei@b.my,y\n", names=NAMES),
    Case("double-headers.csv", b"Email,Note,Note\nali@a.my,x,y\nmei@b.my,z,\n", names=NAMES),
    Case(
        "double-column.csv",
        b"Email,email\nali@a.my,x\n",
        error=": the recipient may be in 'Email' and 'email': name the column with --column.",
    ),
    Case("trailing-commas.csv", b"Email,,\nali@a.my,,\nmei@b.my,,\n,,\n,,\n", names=NAMES),
    Case("blank-rows.csv", b"\n\nEmail,Name\nali@a.my,Ali\n\n,\nmei@b.my,Mei\n\n\n", names=NAMES),
    Case(
        "comma-not-quoted.csv",
        b"Email,Name\nali@a.my,Tan, Ali\nmei@b.my,Mei\n",
        error=", line 2: 3 cells, and the header has 2: a cell with a ',' in it must stand in quotation marks.",
    ),
    Case(
        "quote-not-closed.csv",
        b'Email,Name\nali@a.my,"Ali\nmei@b.my,Mei\n',
        error=", line 2: a quotation mark that is not closed.",
    ),
    Case(
        "cell-of-10-mb.csv",
        b"Email,Note\nali@a.my," + b"x" * 10_000_000 + b"\n",
        error=", line 2: longer than 100,000 characters.",
    ),
    Case(
        "formulas.csv",
        b"Email,Note\nali@a.my,=1+1\n=HYPERLINK(A1),x\n",
        error=", line 3: a recipient that starts with '=' is a formula to a spreadsheet.",
    ),
    Case(
        "floats.csv",
        b"Phone\n6.01E+10\n60123456789\n",
        error=", line 2: '6.01E+10' is a number that a spreadsheet has shortened: make the column text, and enter it anew.",
    ),
    Case(
        "lost-zeros.csv",
        b"Phone\n0123456789\n123456780\n",
        names=["0123456789", "123456780"],
        notes=(
            "{}: 1 recipient may have lost a zero at the beginning, the first is '123456780' in line 3. A spreadsheet drops it from what it takes for a number.",
        ),
    ),
    Case(
        "duplicates.csv",
        b"Email\nali@a.my\nmei@b.my\nali@a.my\n",
        error=f", line 4: 'ali@a.my' stands there twice, first in line 2: {TWICE}.",
    ),
    Case(
        "duplicates-skipped.csv",
        b"Email\nali@a.my\nmei@b.my\nali@a.my\n",
        {"skip_duplicates": True},
        names=NAMES,
        notes=("{}: 1 duplicate will be passed over.",),
    ),
    Case(
        "many-problems.csv",
        many_problems,
        error=" has 30 problems: "
        + "; ".join(
            f"line {line}: a recipient that starts with '=' is a formula to a spreadsheet"
            for line in range(2, 22)
        )
        + "; and 10 more.",
    ),
    Case(
        "codes.csv",
        b"Email,code,qr_url\nali@a.my,X,\n",
        error=": the file has vouchers in it, and is not the whole output of a run: who has a code would get a second one. Give the output with its columns code, qr_url, voucher_status, error, or a file without codes.",
    ),
    Case(
        "results.csv",
        b"Email,code,qr_url,voucher_status,error\nx@a.my,C,u,issued,\nali@a.my,,,failed,x\ny@a.my,,,unresolved,x\nmei@b.my,,,not_asked,\n",
        names=NAMES,
        notes=(
            "{} is the output of a run: 2 recipients with a code, or that may have one, will not be asked for again.",
        ),
    ),
    Case("their-code.csv", b"Email,Code\nali@a.my,A1\nmei@b.my,A2\n", names=NAMES),
    Case(
        "book.xlsx",
        sheet([["Name", "Email"], ["Ali", NAMES[0]], ["Mei", NAMES[1]]]),
        names=NAMES,
        format={"kind": "xlsx"},
    ),
    Case(
        "book-named.csv",
        sheet([["Email"], [NAMES[0]], [NAMES[1]]]),
        names=NAMES,
        format={"kind": "xlsx"},
    ),
    Case("csv-named.xlsx", PLAIN.encode(), names=NAMES, format={"kind": "csv"}),
    Case(
        "lines.jsonl",
        b'{"Name":"Ali","Email":"ali@a.my"}\n\n{"Email":"mei@b.my","Name":null}\n',
        names=NAMES,
        format={"kind": "jsonl"},
    ),
    Case(
        "lines-torn.jsonl",
        b'{"Email":"ali@a.my"}\n{"Email":"mei@b',
        error=", line 2: no JSON object with the columns of the first line.",
    ),
    Case(
        "numbers.xlsx",
        sheet([["Mobile No."], [60123456789], ["+60123456780"]]),
        names=["60123456789", "+60123456780"],
    ),
    Case(
        "long-numbers.xlsx",
        sheet([["Member ID"], [1234567890123456]]),
        error=", line 2: '1234567890123456' is a number that a spreadsheet has shortened: make the column text, and enter it anew.",
    ),
    Case(
        "zeros-by-format.xlsx",
        sheet([["Member ID"], [7], [12]], A="00000"),
        names=["00007", "00012"],
    ),
    Case(
        "dates-and-gaps.xlsx",
        sheet([[], ["Born", "Email"], [date(1990, 1, 2), NAMES[0]], [], [None, NAMES[1]]]),
        names=NAMES,
    ),
    Case(
        "formula-errors.xlsx",
        sheet([["Email"], ["#N/A"]]),
        error=", line 2: '#N/A', the error of a formula.",
    ),
    Case(
        "formula-without-value.xlsx",
        without_values,
        error=", line 3: the formula in B3 has no value: open the file in a spreadsheet program and save it.",
    ),
    Case(
        "two-sheets.xlsx",
        two_sheets,
        names=NAMES[:1],
        notes=("{} has 2 sheets: 'June' is read. Name another with --sheet.",),
    ),
    Case("sheet-named.xlsx", two_sheets, {"sheet": "July"}, names=NAMES[1:]),
    Case(
        "sheet-missing.xlsx",
        two_sheets,
        {"sheet": "May"},
        error=" has no sheet 'May': it has 'June', 'July'.",
    ),
    Case(
        "torn.xlsx",
        torn_workbook,
        error=" is no whole .xlsx (BadZipFile): open it in a spreadsheet program and save it anew, or save it as CSV.",
    ),
    Case(
        "old.xls",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
        error=" is an old .xls, or has a password: save it as .xlsx or as CSV, without one.",
    ),
    Case("open.ods", open_document, error=" is an .ods: save it as .xlsx or as CSV."),
    Case(
        "encoding-of-a-book.xlsx",
        sheet([["Email"], [NAMES[0]]]),
        {"encoding": "big5"},
        error=" is no CSV file: it needs no --encoding.",
    ),
    Case(
        "sheet-of-csv.csv",
        PLAIN.encode(),
        {"sheet": "June"},
        error=" is no .xlsx: it has no sheets.",
    ),
]


if __name__ == "__main__":
    for case in CASES:
        print(case.write(Path(sys.argv[1])), case.options or "", case.error or case.names)
