"""Rule: what was checked is what is used. A file that a person gives is read once.

The recipients go into a private copy before anything is issued. An output that is to be replaced is
the one that was compared, and a partial file is emptied by nobody but its writer.
"""

import fcntl
import os
import stat
import tempfile
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from rm_voucher import ConfigurationError
from rm_voucher.cli.output import table_line
from rm_voucher.cli.recipients import Recipients
from rm_voucher.cli.results import ResultFile
from rm_voucher.cli.tables import read
from rm_voucher.cli.tables.model import Cell

# More than what is read at once, and what is issued before most of them are asked for.
NAMES = [f"member {number:0100}" for number in range(500)]
ROW = {"recipient": "a", "code": "CODE", "qr_url": "", "voucher_status": "issued", "error": ""}


def write(path: Path, names: list[str]) -> Path:
    path.write_text("".join(f"{name}\n" for name in ["recipient", *names]))
    return path


@pytest.mark.parametrize(
    "change",
    [
        "sorted in place",
        *(
            pytest.param(each, marks=pytest.mark.long)
            for each in ("replaced", "emptied", "removed")
        ),
    ],
)
def test_recipients_that_change_meanwhile(rm, embedded, tmp_path: Path, change: str) -> None:
    """Each recipient of the file that was checked has one voucher, whatever happens to it."""
    path = write(tmp_path / "r.csv", NAMES)

    def issue(answer: Callable[[], object]) -> object:
        if len(embedded.issued) == 100:
            match change:
                case "sorted in place":
                    write(path, NAMES[::-1])
                case "replaced":
                    write(tmp_path / "other.csv", ["x"]).replace(path)
                case "emptied":
                    path.write_text("")
                case "removed":
                    path.unlink()
        return answer()

    embedded.on_issue = issue
    ended = rm("issue", "B", "--recipients", path, "--concurrency", 4)
    assert ended.code == 0
    assert sorted(row["recipient"] for row in ended.rows) == NAMES
    assert sorted(row["code"] for row in ended.rows) == sorted(embedded.issued)


def test_recipients_that_change_while_they_are_read(
    rm, embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is written at that very moment may be torn: a sentence, and nothing issued."""
    path = write(tmp_path / "r.csv", NAMES)
    keep = read.Table._keep

    def kept(self: read.Table, line: int, cells: list[Cell]) -> None:
        if line == 5:
            with path.open("a") as file:
                file.write("one more\n")
        keep(self, line, cells)

    monkeypatch.setattr(read.Table, "_keep", kept)
    ended = rm("issue", "B", "--recipients", path)
    assert (ended.code, embedded.issued) == (2, [])
    assert "r.csv was changed while it was read: try again." in ended.err


def test_copy_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy has no name that anybody could open, and none of its bytes are for others."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(read, "IN_MEMORY_BYTES", 1)
    with Recipients(write(tmp_path / "r.csv", NAMES)) as found:
        assert list((tmp_path / "temporary").iterdir()) == []
        assert stat.S_IMODE(os.fstat(found.table._copy.fileno()).st_mode) == 0o600
        assert list(found) == NAMES


@pytest.mark.long
def test_copy_needs_little_memory(tmp_path: Path) -> None:
    """Long names go to the disk: memory has a few bytes of each."""
    path = write(tmp_path / "r.csv", [f"{number:0500}" for number in range(20_000)])
    tracemalloc.start()
    try:
        with Recipients(path) as found:
            _, most = tracemalloc.get_traced_memory()
            assert len(found) == 20_000
    finally:
        tracemalloc.stop()
    assert most < 6_000_000  # of ten


@pytest.mark.parametrize("step", ["write", "seek"])
def test_copy_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """A disk for temporary files that is full, or fails, is a sentence."""

    class Failing(tempfile.SpooledTemporaryFile):
        def fail(self, *_: object) -> int:
            raise OSError(28, "No space left on device")

    setattr(Failing, step, Failing.fail)
    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", Failing)
    path = write(tmp_path / "r.csv", NAMES)
    with (
        pytest.raises(ConfigurationError, match="No space left on device"),
        Recipients(path) as found,
    ):
        list(found)


@pytest.mark.long
def test_recipients_from_a_slow_pipe(rm, embedded, tmp_path: Path) -> None:
    """What a program still writes is waited for: ``--recipients <(program)``."""
    reading, writing = os.pipe()

    def produce() -> None:
        with os.fdopen(writing, "w") as pipe:
            pipe.write("recipient\n")
            for name in NAMES:
                pipe.write(f"{name}\n")
                pipe.flush()

    thread = threading.Thread(target=produce)
    thread.start()
    ended = rm("issue", "B", "--recipients", f"/dev/fd/{reading}")
    thread.join()
    os.close(reading)
    assert (ended.code, sorted(row["recipient"] for row in ended.rows)) == (0, NAMES)


def test_partial_that_took_its_name_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who got the lock of a partial file when it had become the output empties nothing."""
    out = tmp_path / "out.csv"
    first = ResultFile(out, is_kept=True)
    lock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        monkeypatch.undo()
        with first:
            first.begin()
            first.add_line(table_line(ROW))
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(ConfigurationError, match=r"out\.csv\.ledger\.partial is there"):
        ResultFile(out, is_kept=True)
    assert "CODE" in out.read_text()


def test_partial_is_locked_until_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that begins while another one ends finds the partial file taken, or gone."""
    out, refused = tmp_path / "out.csv", []
    replace = Path.replace

    def begin_another(self: Path, target: Path) -> Path:
        with pytest.raises(ConfigurationError, match="is there: a run that writes it is going on"):
            ResultFile(out, is_kept=True)
        refused.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", begin_another)
    with ResultFile(out, is_kept=True) as file:
        file.begin()
        file.add_line(table_line(ROW))
    assert (refused, "CODE" in out.read_text()) == ([out], True)


def test_two_outputs_that_end_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the old file and its replacement no other run can put one there."""
    out, folder = tmp_path / "out.csv", os.open(tmp_path, os.O_RDONLY)
    out.write_text("before")
    link, waited = os.link, []

    def end_another(source: Path, target: Path) -> None:
        with pytest.raises(BlockingIOError):
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        waited.append(target)
        link(source, target)

    monkeypatch.setattr(os, "link", end_another)
    try:
        with ResultFile(out) as file:
            file.begin()
            file.add_line(table_line(ROW))
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(folder)
    assert waited == [tmp_path / "out.csv.1"]
