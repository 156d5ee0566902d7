"""A recipients file is read whole, and found good, before anything is issued."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from rm_voucher import ConfigurationError
from rm_voucher.cli.recipients import Recipients
from rm_voucher.cli.tables import read as tables
from rm_voucher.cli.tables import source

NO_RECIPIENT = "no recipient: remove the line or fill it in"
FORMULA = "a recipient that starts with '=' is a formula to a spreadsheet"
CONTROL = "a recipient with a control character"
NO_COLUMN = (
    ": no column is called 'recipient' or anything like it: name it with --column. The first line "
    "must have the names of the columns; it has "
)
TWICE = "remove one, or give --skip-duplicates"
OPEN_QUOTE = "a quotation mark that is not closed"


def read(path: Path, **options: Any) -> list[str]:
    with Recipients(path, **options) as found:
        names = [str(name) for name in found]
        assert len(found) == len(names)
    return names


def csv_file(folder: Path, content: str | bytes) -> Path:
    path = folder / "r.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("recipient\na\nb\n", ["a", "b"]),
        ("Recipient\na\n", ["a"]),
        ("recipient\na\n\nb\n\n \t\n", ["a", "b"]),
        ("recipient\r\na\r\nb", ["a", "b"]),
        ("recipient\ra\rb\r", ["a", "b"]),
        ("name,recipient,note\nA,a,\nB,b,=1+1\n", ["a", "b"]),
        (b"\xef\xbb\xbfrecipient\na\n", ["a"]),
        ('recipient\n" a "\n"b,""c"""\n', ["a", 'b,"c"']),
        ("recipient\n+60123456789\n名前 \U0001f381\n", ["+60123456789", "名前 \U0001f381"]),
        (f"recipient\n{'x' * 1000}\n", ["x" * 1000]),
        (f"recipient,note\na,{'x' * 99_996}\n", ["a"]),
    ],
    ids=[
        "lf",
        "case",
        "blank-rows",
        "crlf",
        "cr",
        "columns",
        "bom",
        "quoted",
        "unicode",
        "longest-cell",
        "longest-line",
    ],
)
def test_recipients_good(tmp_path: Path, content: str | bytes, expected: list[str]) -> None:
    """The cells of the column 'recipient' are the recipients, whatever else the file has."""
    path = csv_file(tmp_path, content)
    assert read(path) == expected


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        ("", " is empty."),
        ("\n\n", " is empty."),
        ("a\nb\n", f"{NO_COLUMN}'a'."),
        ("recipient\n", " has no recipients under its header."),
        ("recipient\n\n\n", " has no recipients under its header."),
        ("recipient\na\nb\na\n", f", line 4: 'a' stands there twice, first in line 2: {TWICE}."),
        ('recipient\na\n" a"\n', f", line 3: 'a' stands there twice, first in line 2: {TWICE}."),
        ("recipient,name\na,A\n,B\n", f", line 3: {NO_RECIPIENT}."),
        ("name,recipient\nA,a\nB\n", f", line 3: {NO_RECIPIENT}."),
        ("recipient\na\n=1+1\n", f", line 3: {FORMULA}."),
        ('recipient\n" =HYPERLINK(""x"")"\n', f", line 2: {FORMULA}."),
        ("recipient\na\0b\n", f", line 2: {CONTROL}."),
        ("recipient\na\x1b[2Jb\n", f", line 2: {CONTROL}."),
        ("recipient\na\x7fb\n", f", line 2: {CONTROL}."),
        ('recipient\na\n"b\nb"\n', f", line 3: {CONTROL}."),
        (f"recipient\n{'x' * 1001}\n", ", line 2: a recipient of more than 1,000 characters."),
        (f"recipient\n{'x' * 100_001}", ", line 2: longer than 100,000 characters."),
        ("x" * 100_001, ", line 1: longer than 100,000 characters."),
        ('recipient\na\n"b"c\n', ", line 3: not CSV: text after a closing quotation mark."),
        ('recipient\na\n"b\n', f", line 3: {OPEN_QUOTE}."),
        ('"recipient\n', f", line 1: {OPEN_QUOTE}."),
    ],
)
def test_recipients_bad(tmp_path: Path, content: str | bytes, mistake: str) -> None:
    """A bad file is refused with a sentence that says where and what."""
    path = csv_file(tmp_path, content)
    with pytest.raises(ConfigurationError) as refused:
        read(path)
    assert str(refused.value) == f"{path}{mistake}"


def test_recipients_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with more recipients than the limit is refused at the first one too many."""
    monkeypatch.setattr(tables, "MAX_ROWS", 2)
    path = csv_file(tmp_path, "recipient\na\nb\n")
    assert read(path) == ["a", "b"]
    path = csv_file(tmp_path, "recipient\na\nb\nc\nd\n")
    with pytest.raises(ConfigurationError) as refused:
        read(path)
    assert str(refused.value) == f"{path}, line 4: more than 2 rows: split the file."


def test_recipients_of_a_gigabyte(tmp_path: Path) -> None:
    """A line without an end is refused before it fills the memory."""
    path = csv_file(tmp_path, "recipient\n")
    os.truncate(path, 1 << 30)
    with pytest.raises(ConfigurationError) as refused:
        read(path)
    assert str(refused.value) == f"{path}, line 2: longer than 100,000 characters."


def test_recipients_missing(rm, embedded, tmp_path: Path) -> None:
    """A file that isn't there, or is a folder, is a mistake: exit 2, nothing issued."""
    missing = rm("issue", "B", "--recipients", tmp_path / "r.csv")
    assert (missing.code, missing.out) == (2, "")
    assert missing.err == f"Error: {tmp_path}/r.csv can't be read: No such file or directory.\n"
    folder = rm("issue", "B", "--recipients", tmp_path)
    assert (folder.code, folder.out) == (2, "")
    assert folder.err == f"Error: {tmp_path} can't be read: it is a folder.\n"
    assert embedded.made == []


def test_recipients_bad_at_the_end(rm, embedded, tmp_path: Path) -> None:
    """A mistake in the last line is found before the first voucher is issued or a file begun."""
    path = csv_file(tmp_path, "recipient\n" + "".join(f"{n}\n" for n in range(500)) + "7\n")
    ended = rm("issue", "B", "--recipients", path, "--output", tmp_path / "out.csv")
    assert (ended.code, ended.out) == (2, "")
    assert (
        ended.err == f"Error: {path}, line 502: '7' stands there twice, first in line 9: {TWICE}.\n"
    )
    assert embedded.made == []
    assert list(tmp_path.iterdir()) == [path]


def test_recipients_from_a_pipe(rm, embedded) -> None:
    """A pipe, such as standard input, is read once, as a file is."""
    reading, writing = os.pipe()
    os.write(writing, b"recipient\na\nb\n")
    os.close(writing)
    try:
        ended = rm("issue", "B", "--recipients", f"/dev/fd/{reading}")
    finally:
        os.close(reading)
    assert (ended.code, sorted(row["recipient"] for row in ended.rows)) == (0, ["a", "b"])


def test_recipients_from_standard_input(rm, embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    """``-`` is standard input; without one it is a mistake."""
    reading, writing = os.pipe()
    os.write(writing, b"Email\na@b.my\n")
    os.close(writing)
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        ended = rm("issue", "B", "--recipients", "-")
    assert (ended.code, [row["Email"] for row in ended.rows]) == (0, ["a@b.my"])
    assert "standard input: the recipients are in the column 'Email'." in ended.err
    monkeypatch.setattr(sys, "stdin", None)
    ended = rm("issue", "B", "--recipients", "-")
    assert (ended.code, ended.err) == (2, "Error: There is no standard input: name a file.\n")


def test_recipients_from_a_pipe_without_an_end(
    rm, embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What never ends is not copied until the disk is full."""
    monkeypatch.setattr(source, "MAX_PIPED_BYTES", 1 << 20)
    ended = rm("issue", "B", "--recipients", "/dev/zero")
    assert (ended.code, embedded.issued) == (2, [])
    assert "What comes through the pipe has no end: give a file." in ended.err


def test_recipients_results_of_a_run(rm, embedded, tmp_path: Path) -> None:
    """Who has a code in the output of a run is not asked for again."""
    out = tmp_path / "out.csv"
    assert rm("issue", "B", "--count", 3, "--output", out).code == 0
    before = out.read_text()
    ended = rm("issue", "B", "--recipients", out, "--output", out)
    assert (ended.code, len(embedded.issued)) == (0, 3)
    assert f"{out} is the output of a run: 3 recipients with a code" in ended.err
    assert out.read_text() == before


def test_recipients_pipe_that_nobody_writes(rm, embedded, tmp_path: Path) -> None:
    """A pipe without a writer is refused at once; to open it would wait for ever."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    ended = rm("issue", "B", "--recipients", fifo)
    assert (ended.code, embedded.issued) == (2, [])
    assert ended.err == f"Error: {fifo} is empty.\n"


def test_lines_are_told_as_a_spreadsheet_shows_them(tmp_path: Path) -> None:
    """A cell with a line break makes the file's lines others than the spreadsheet's rows."""
    path = tmp_path / "people.csv"
    path.write_text('email,address\na@b.my,"1, Jalan\nTun"\n\nc@b.my,x\nc@b.my,x\n')
    with pytest.raises(ConfigurationError) as refused:
        Recipients(path)
    assert "line 6 (row 5 in a spreadsheet): 'c@b.my' stands there twice, first in " in str(
        refused.value
    )
    assert "first in line 5 (row 4 in a spreadsheet)" in str(refused.value)
