"""What a person gave comes back whole: each column, each row, in its place, with its voucher."""

import csv
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from openpyxl import load_workbook
from support.answers import ok, rm_error

from rm_voucher import Response

ROWS = [
    ["Ali", "member 1", "Jalan 1,\nKL", "0123"],
    ["Mei", "member 2", "=1+1", "-5"],
    ["", "", "", ""],
    ["José", "member 3", "@SUM(A1)", "+60 12-345 6789"],
    ["Raj", "member 4", "", "\tx"],
]
HEADER = ["Name", "Member", "Address", "Note"]
OURS = ["code", "qr_url", "voucher_status", "error"]


@pytest.fixture
def members(tmp_path: Path) -> Path:
    path = tmp_path / "members.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=";").writerows([HEADER, *ROWS])
    return path


def table(path: Path) -> list[list[Any]]:
    """Return all cells of a file of results; a cell without anything is empty text."""
    if path.suffix == ".xlsx":
        book = load_workbook(path)
        assert book.active is not None
        return [["" if cell is None else cell for cell in row] for row in book.active.values]
    if path.suffix == ".jsonl":
        lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        return [list(lines[0]), *[[cell or "" for cell in line.values()] for line in lines]]
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.reader(file, delimiter=";"))


def theirs(path: Path) -> list[list[Any]]:
    return [row[:4] for row in table(path)]


def of(path: Path, name: str) -> dict[str, str]:
    """Return one column of ours by the recipient, without the blank row."""
    header, *rows = table(path)
    return {row[1]: row[header.index(name)] for row in rows if row[1]}


@pytest.mark.parametrize("ending", ["csv", "xlsx", "jsonl"])
def test_whole_output(rm, embedded, tmp_path: Path, members: Path, ending: str) -> None:
    """All columns and the order are kept in each format; answers come in another order."""
    out = tmp_path / f"out.{ending}"
    script = iter([3, 2, 1, 0])
    embedded.on_issue = lambda answer: (next(script), answer())[1]
    ended = rm("issue", "B", "--recipients", members, "--output", out, "--concurrency", 4)
    assert ended.code == 0
    harmless = {"=1+1": "'=1+1", "@SUM(A1)": "'@SUM(A1)", "\tx": "'\tx"} if ending == "csv" else {}
    assert theirs(out) == [HEADER, *[[harmless.get(cell, cell) for cell in row] for row in ROWS]]
    assert table(out)[0][4:] == OURS
    assert sorted(of(out, "code").values()) == sorted(embedded.issued)
    assert set(of(out, "voucher_status").values()) == {"issued"}
    assert table(out)[3] == [""] * 8
    assert sorted(tmp_path.iterdir()) == sorted([members, out])
    assert out.stat().st_mode & 0o777 == 0o600


def test_csv_is_written_as_it_was_read(rm, embedded, tmp_path: Path, members: Path) -> None:
    """Delimiter, line ends and byte order mark are those of the person's file."""
    out = tmp_path / "out.csv"
    rm("issue", "B", "--recipients", members, "--output", out)
    data = out.read_bytes()
    assert data.startswith(b"\xef\xbb\xbfName;Member;Address;Note;code;")
    assert data.count(b"\r\n") == 6
    plain = tmp_path / "plain.csv"
    plain.write_text("Email\na@b.my\n")
    rm("issue", "B", "--recipients", plain, "--output", out)
    assert out.read_bytes().startswith(b"Email,code,")
    rm("issue", "B", "--recipients", plain, "--output", out, "--excel")
    assert out.read_bytes().startswith(b"\xef\xbb\xbfEmail,code,")


def test_numbers_of_a_workbook_stay_numbers(rm, embedded, tmp_path: Path) -> None:
    """In an .xlsx a number stays one, but codes and telephone numbers are text."""
    import xlsxwriter

    path, out = tmp_path / "in.xlsx", tmp_path / "out.xlsx"
    with xlsxwriter.Workbook(path) as book:
        page = book.add_worksheet()
        page.write_row(0, 0, ["Phone", "Points", "VIP"])
        page.write_row(1, 0, [60123456789, 12.5, True])
    assert rm("issue", "B", "--recipients", path, "--output", out).code == 0
    assert table(out)[1][:4] == ["60123456789", 12.5, True, embedded.issued[0]]
    row = rm("issue", "B", "--recipients", path, "--json").json[0]
    assert (row["Phone"], row["Points"], row["VIP"]) == ("60123456789", 12.5, True)


@pytest.mark.parametrize("ending", ["csv", "xlsx", "jsonl"])
def test_whole_output_after_an_interruption(
    rm, embedded, tmp_path: Path, members: Path, ending: str
) -> None:
    """Who was not asked has a row, in its place; the output is the input of the next run."""
    out = tmp_path / f"out.{ending}"

    def interrupt(answer: Callable[[], Response]) -> Response:
        if not embedded.issued:
            signal.raise_signal(signal.SIGINT)
        return answer()

    embedded.on_issue = interrupt
    options = ("--output", out, "--concurrency", 1)
    assert rm("issue", "B", "--recipients", members, *options).code == 130
    assert len(theirs(out)) == 6
    first = of(out, "code")
    statuses = list(of(out, "voucher_status").values())
    served = statuses.count("issued")
    assert 0 < served < 4
    assert statuses == ["issued"] * served + ["not_asked"] * (4 - served)
    embedded.on_issue = lambda answer: answer()
    whole = tmp_path / f"whole.{ending}"
    ended = rm("issue", "B", "--recipients", out, "--output", whole)
    assert ended.code == 0
    assert (
        "2 recipients with a code, or that may have one, will not be asked for again" in ended.err
    )
    assert theirs(whole) == theirs(out)
    assert table(whole)[0] == table(out)[0]
    codes = of(whole, "code")
    assert sorted(codes.values()) == sorted(embedded.issued)
    assert {name: code for name, code in codes.items() if first[name]} == {
        name: code for name, code in first.items() if code
    }


def test_unknown_outcome_is_not_asked_again(rm, served, tmp_path: Path, members: Path) -> None:
    """A row that may have a voucher stays as it is; one that failed is asked for."""
    served.emulator.add_batch("Breakfast", key="B", quantity=10)
    out = tmp_path / "out.csv"
    script = iter([ok({}, 500), rm_error("VOUCHER_BATCH_NOT_ENOUGH_QUANTITY"), None, None])
    served.on_issue = lambda answer: next(script) or answer()
    options = ("--output", out, "--concurrency", 1)
    assert rm("issue", "B", "--recipients", members, *options).code == 4
    before = of(out, "voucher_status")
    assert before["member 1"] == "unresolved"
    served.on_issue = lambda answer: answer()
    assert rm("issue", "B", "--recipients", out, *options).code == 0
    after = of(out, "voucher_status")
    assert after == {**dict.fromkeys(before, "issued"), "member 1": "unresolved"}
    assert of(out, "error")["member 1"]
    assert sorted(filter(None, of(out, "code").values())) == sorted(served.issued())


def test_duplicates_keep_their_rows(rm, embedded, tmp_path: Path) -> None:
    """A recipient that stands there twice gets one voucher, in the first row."""
    path, out = tmp_path / "r.csv", tmp_path / "out.csv"
    path.write_text("Email;N\na@b.my;1\nc@d.my;2\na@b.my;3\n")
    options = ("--output", out, "--skip-duplicates")
    ended = rm("issue", "B", "--recipients", path, *options)
    assert (ended.code, len(embedded.issued)) == (0, 2)
    rows = table(out)
    assert [row[1] for row in rows] == ["N", "1", "2", "3"]
    assert rows[3][2:] == ["", "", "duplicate", "It stands in line 2 too."]
    assert rm("issue", "B", "--recipients", out, "--output", out).code == 0
    assert (table(out), len(embedded.issued)) == (rows, 2)


def test_a_column_of_theirs_has_our_name(rm, embedded, tmp_path: Path) -> None:
    """Theirs stays as it is; ours is called otherwise, which is said, and found again."""
    path, out = tmp_path / "r.csv", tmp_path / "out.csv"
    path.write_text("Code;Email\nA1;a@b.my\n")
    ended = rm("issue", "B", "--recipients", path, "--output", out)
    assert "has a column 'code' of its own: that of the results is called 'rm_code'." in ended.err
    rows = table(out)
    assert rows[0] == ["Code", "Email", "rm_code", "qr_url", "voucher_status", "error"]
    assert rows[1][:3] == ["A1", "a@b.my", embedded.issued[0]]
    assert rm("issue", "B", "--recipients", out, "--output", out).code == 0
    assert (table(out), len(embedded.issued)) == (rows, 1)


def test_standard_output_has_all_rows(rm, embedded, members: Path) -> None:
    """Rows come as they are ready, with all columns; blank rows follow."""
    ended = rm("issue", "B", "--recipients", members, "--json", "--concurrency", 1)
    rows = ended.json[:-1]
    assert [row["Member"] for row in rows] == [*(f"member {n}" for n in range(1, 5)), ""]
    assert list(rows[0]) == [*HEADER, *OURS]
    assert rm("issue", "B", "--recipients", members).rows[1]["Address"] == "'=1+1"


def test_problems_are_said_in_lines(rm, embedded, tmp_path: Path) -> None:
    """Each problem has its line, twenty of them, and a count; nothing is issued."""
    path = tmp_path / "r.csv"
    path.write_text("recipient\n" + "=1+1\n" * 30)
    ended = rm("issue", "B", "--recipients", path)
    lines = ended.err.splitlines()
    assert (ended.code, len(lines), embedded.issued) == (2, 22, [])
    assert lines[0] == f"Error: {path} has more than one problem:"
    assert lines[-1] == "  and 10 more"


def test_options_without_a_file(rm, embedded, tmp_path: Path) -> None:
    """What is about a file needs one: exit 2."""
    for options in (["--column", "x"], ["--skip-duplicates"], ["--sheet", "x"]):
        assert "are about --recipients" in rm("issue", "B", *options).err
    assert "--excel is about --output" in rm("issue", "B", "--excel").err
    assert embedded.issued == []


def test_a_sheet_that_can_not_hold_it(rm, embedded, tmp_path: Path) -> None:
    """A cell that is too long for an .xlsx is a mistake before anything is issued."""
    path = tmp_path / "r.csv"
    path.write_text(f"Email,Note\na@b.my,{'x' * 40_000}\n")
    ended = rm("issue", "B", "--recipients", path, "--output", tmp_path / "out.xlsx")
    assert (ended.code, embedded.issued) == (2, [])
    assert "An .xlsx holds 32,767 characters in a cell, and line 2 has more" in ended.err
    assert list(tmp_path.iterdir()) == [path]
