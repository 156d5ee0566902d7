"""``rm-voucher qr``: a picture for each voucher, and no other file touched."""

import csv
import fcntl
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest
from support.pictures import codes_in_png, codes_in_svg
from support.result_files import code_of, row_of, url_of, write_results

from rm_voucher.cli.prints import commands
from rm_voucher.cli.prints.images import Folder
from rm_voucher.qr import Format, image_of


@pytest.fixture
def results(tmp_path: Path) -> Path:
    rows = [row_of(1, "ana"), row_of(2, "bob", "failed"), row_of(3, "ANA"), row_of(4, "陈美玲")]
    return write_results(tmp_path / "out.csv", rows)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_no_picture_of_nothing(kind: Format) -> None:
    """Nobody is handed an empty code for a voucher whose URL is missing."""
    with pytest.raises(ValueError, match="of nothing"):
        image_of("", kind, scale=4)


def test_a_picture_each(rm, results: Path, tmp_path: Path) -> None:
    """Named by recipient; who has no voucher has none, and is counted."""
    ended = rm("qr", results, "--dir", tmp_path / "codes")
    assert ended.code == 0
    assert names(tmp_path / "codes") == ["ANA (row 4).png", "ana.png", "陈美玲.png"]
    assert ended.err.splitlines()[-2:] == [
        f"{tmp_path}/codes: 3 QR codes.",
        "1 row without a voucher to hand on: 1 failed.",
    ]
    for name, number in {"ana": 1, "ANA (row 4)": 3, "陈美玲": 4}.items():
        content = (tmp_path / "codes" / f"{name}.png").read_bytes()
        assert codes_in_png(content) == [url_of(code_of(number))]


@pytest.mark.parametrize(
    ("name_by", "found"),
    [
        ("row", ["00002.svg", "00004.svg", "00005.svg"]),
        ("code", sorted(f"{code_of(n)}.svg" for n in (1, 3, 4))),
        ("voucher_status", ["issued (row 4).svg", "issued (row 5).svg", "issued.svg"]),
    ],
)
def test_names_and_svg(rm, results: Path, tmp_path: Path, name_by: str, found: list[str]) -> None:
    """By row as a spreadsheet numbers them, or by any column."""
    folder = tmp_path / "a" / "codes"
    assert rm("qr", results, "--dir", folder, "--name-by", name_by, "--format", "svg").code == 0
    assert names(folder) == found
    said = [codes_in_svg((folder / name).read_text()) for name in found]
    assert sorted(said) == sorted([url_of(code_of(n))] for n in (1, 3, 4))


def test_private(rm, results: Path, tmp_path: Path) -> None:
    """Whoever sees a picture can use the voucher."""
    rm("qr", results, "--dir", tmp_path / "codes")
    assert stat.S_IMODE((tmp_path / "codes").stat().st_mode) == 0o700
    for path in (tmp_path / "codes").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_run_again(rm, results: Path, tmp_path: Path) -> None:
    """It goes on where it was stopped, and leaves what is there."""
    folder = tmp_path / "codes"
    rm("qr", results, "--dir", folder)
    (folder / "ana.png").unlink()
    (folder / ".qr-left.partial").write_text("of a command that was killed")
    before = (folder / "陈美玲.png").stat().st_ino
    ended = rm("qr", results, "--dir", folder)
    assert ended.code == 0
    assert f"{folder}: 3 QR codes, 2 of them there already." in ended.err
    assert names(folder) == ["ANA (row 4).png", "ana.png", "陈美玲.png"]
    assert (folder / "陈美玲.png").stat().st_ino == before


@pytest.mark.parametrize("kind", ["file", "folder", "link", "pipe"])
def test_no_other_file_is_written_over(rm, results: Path, tmp_path: Path, kind: str) -> None:
    """A name that another campaign's picture has is said, and left out of the mail merge."""
    taken = tmp_path / "codes" / "ana.png"
    taken.parent.mkdir()
    other = tmp_path / "other"
    other.write_bytes(image_of(url_of("ANOTHERS"), "png", scale=10))
    made: dict[str, Callable[[], object]] = {
        "file": lambda: taken.write_bytes(other.read_bytes()),
        "folder": taken.mkdir,
        "link": lambda: taken.symlink_to(tmp_path / "nowhere"),
        "pipe": lambda: os.mkfifo(taken),
    }
    made[kind]()
    merge = tmp_path / "merge.csv"
    ended = rm("qr", results, "--dir", taken.parent, "--output", merge)
    assert ended.code == 1
    assert ended.err.splitlines()[-1] == (
        "Not written, because another file has the name: ana.png. Name an empty folder, or write "
        "over them with --replace."
    )
    assert f"{taken.parent}: 2 QR codes." in ended.err
    if kind == "file":
        assert taken.read_bytes() == other.read_bytes()
    with merge.open(newline="") as file:
        assert [row["qr_file"] for row in csv.DictReader(file)] == [
            "",
            "",
            "ANA (row 4).png",
            "陈美玲.png",
        ]


def test_replace(rm, results: Path, tmp_path: Path) -> None:
    """A person may say that they are to be written over, say in another size."""
    folder = tmp_path / "codes"
    rm("qr", results, "--dir", folder, "--scale", 2)
    small = (folder / "ana.png").read_bytes()
    assert rm("qr", results, "--dir", folder).code == 1
    assert (folder / "ana.png").read_bytes() == small
    assert rm("qr", results, "--dir", folder, "--replace").code == 0
    assert (folder / "ana.png").read_bytes() != small
    assert codes_in_png((folder / "ana.png").read_bytes()) == [url_of(code_of(1))]
    assert len(names(folder)) == 3


def test_one_command_at_a_time(rm, results: Path, tmp_path: Path) -> None:
    """Two that write into one folder could take each other's names."""
    with Folder(tmp_path / "codes"):
        ended = rm("qr", results, "--dir", tmp_path / "codes")
    assert ended.code == 2
    assert "another command is writing there" in ended.err


def test_without_locks_and_links(rm, results: Path, tmp_path: Path, monkeypatch) -> None:
    """A memory stick has neither, and no file is written over there either."""

    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "codes").mkdir()
    (tmp_path / "codes" / "ana.png").write_text("another's")
    assert rm("qr", results, "--dir", tmp_path / "codes").code == 1
    assert names(tmp_path / "codes") == ["ANA (row 4).png", "ana.png", "陈美玲.png"]
    assert (tmp_path / "codes" / "ana.png").read_text() == "another's"


def test_full_disk(rm, results: Path, tmp_path: Path, monkeypatch) -> None:
    """It ends with a sentence, and nothing half stays."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    ended = rm("qr", results, "--dir", tmp_path / "codes")
    assert ended.code == 1
    assert f"{tmp_path}/codes/ana.png can't be written: No space left on device." in ended.err
    assert names(tmp_path / "codes") == []


def test_mail_merge_in_a_workbook(rm, results: Path, tmp_path: Path) -> None:
    """All their columns, and the pictures' names, as text."""
    assert rm("qr", results, "--dir", tmp_path / "c", "--output", tmp_path / "m.xlsx").code == 0
    sheet = openpyxl.load_workbook(tmp_path / "m.xlsx").active
    assert sheet is not None
    rows = [list(row) for row in sheet.iter_rows(values_only=True)]
    assert rows[0] == ["recipient", "code", "qr_url", "voucher_status", "error", "qr_file"]
    assert [row[-1] for row in rows[1:]] == ["ana.png", None, "ANA (row 4).png", "陈美玲.png"]
    assert rows[1][1] == code_of(1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--name-by", "phone"], "there is no column 'phone'; the header has 'recipient'"),
        (["--dir", "out.csv"], "can't be used as a folder"),
    ],
)
def test_mistakes(rm, results: Path, tmp_path: Path, monkeypatch, arguments, sentence: str) -> None:
    """A sentence, and 2."""
    monkeypatch.chdir(tmp_path)
    ended = rm("qr", results, "--dir", "codes", *arguments)
    assert ended.code == 2
    assert sentence in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    "count", [50, pytest.param(1000, marks=pytest.mark.long)], ids=["some", "thousand"]
)
def test_every_picture_says_its_url(rm, tmp_path: Path, count: int) -> None:
    """Read by a program of others: each picture is the URL of its row, to the letter."""
    path = write_results(tmp_path / "out.csv", [row_of(number) for number in range(count)])
    assert rm("qr", path, "--dir", tmp_path / "c", "--name-by", "row", "--scale", 4).code == 0
    found = [codes_in_png((tmp_path / "c" / name).read_bytes()) for name in names(tmp_path / "c")]
    assert found == [[url_of(code_of(number))] for number in range(count)]


def test_help_imports_no_drawing() -> None:
    """A list of the commands stays quick."""
    import subprocess

    code = (
        "import sys; from rm_voucher.cli.app import app; import rm_voucher.cli.prints.commands; "
        "sys.exit(bool({'fpdf', 'fontTools', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_interrupted(rm, results: Path, tmp_path: Path, monkeypatch) -> None:
    """It says that it can go on, leaves no half table, and goes on."""
    draw = image_of
    drawn: list[str] = []

    def draw_one(text: str, kind: Format, *, scale: int) -> bytes:
        if drawn:
            raise KeyboardInterrupt
        drawn.append(text)
        return draw(text, kind, scale=scale)

    monkeypatch.setattr(commands, "image_of", draw_one)
    arguments = ("qr", results, "--dir", tmp_path / "codes", "--output", tmp_path / "m.csv")
    ended = rm(*arguments)
    assert ended.code == 130
    assert ended.err.splitlines()[-1].startswith("Interrupted. Run it again to go on")
    assert names(tmp_path / "codes") == ["ana.png"]
    assert not list(tmp_path.glob("m.csv*"))
    monkeypatch.setattr(commands, "image_of", draw)
    assert "3 QR codes, 1 of them there already." in rm(*arguments).err


def test_a_code_of_theirs_in_a_mail_merge(rm, tmp_path: Path) -> None:
    """Ours is never altered, whatever it is called; theirs is no formula."""
    columns = ("email", "code", "rm_code", "qr_url", "voucher_status", "error")
    rows = [["a", "=1+1", "-CODE", url_of("-CODE"), "issued", ""]]
    source = write_results(tmp_path / "out.csv", rows, columns)
    assert rm("qr", source, "--dir", tmp_path, "--output", tmp_path / "merge.csv").code == 0
    (row,) = csv.DictReader((tmp_path / "merge.csv").read_text().splitlines())
    assert (row["code"], row["rm_code"]) == ("'=1+1", "-CODE")
