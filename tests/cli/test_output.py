"""Rows hold codes, which are money: whatever happens to the output, no row is lost or torn."""

import contextlib
import csv
import errno
import io
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from support.answers import ok

from rm_voucher import Response
from rm_voucher.cli import output, screen
from rm_voucher.cli.output import csv_line, json_line
from rm_voucher.cli.results import ResultFile
from rm_voucher.exceptions import ConfigurationError, VoucherError

REST = "Those without a voucher, and only those, may be issued to again."
HEADER = "recipient,code,qr_url,voucher_status,error\n"
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def codes(text: str) -> list[str]:
    """Return the codes of all whole rows in a text, which may have no header."""
    return [cells[1] for cells in csv.reader(text.splitlines()) if cells[3:4] == ["issued"]]


class NoSpace(io.RawIOBase):
    """A stream to a full disk."""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        raise FULL

    def close(self) -> None:
        """Leave what is in the buffer: there is nowhere to flush it to."""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.csv"


@pytest.fixture
def fail_writing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the disk be full from a certain line of the file on; the header is line 1."""

    def fail(first: int) -> None:
        write, lines = ResultFile._write, iter(range(1, 1000))

        def failing(self: ResultFile, line: str) -> None:
            if next(lines) >= first:
                raise FULL
            write(self, line)

        monkeypatch.setattr(ResultFile, "_write", failing)

    return fail


def test_csv_columns(rm, served, tmp_path: Path, out: Path) -> None:
    """A row has recipient, code, QR URL, status and error, and the file and the pipe are equal."""
    served.emulator.add_batch("Breakfast", key="B", quantity=4)
    names = tmp_path / "r.csv"
    names.write_text('recipient\n"a,""b"""\n名前\n+60\n')
    arguments = ("issue", "B", "--concurrency", 1, "--recipients", names)
    piped = rm(*arguments)
    assert rm(*arguments, "--output", out, "--partial").code == 1  # the batch has one left
    first, second, third, fourth = served.issued()
    url = "https://emulator.invalid/qr/1/voucher/"
    assert piped.out == (
        f'{HEADER}"a,""b""",{first},{url}{first},issued,\n'
        f"名前,{second},{url}{second},issued,\n+60,{third},{url}{third},issued,\n"
    )
    sold_out = (
        "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY (HTTP 400): The batch has no voucher left: raise its "
        "quantity in the portal or use another batch."
    )
    assert out.read_text() == (
        f'{HEADER}"a,""b""",{fourth},{url}{fourth},issued,\n'
        f"名前,,,failed,{sold_out}\n+60,,,failed,{sold_out}\n"
    )


def test_row_without_qr_url(rm, served) -> None:
    """A voucher without a QR URL has an empty cell."""
    served.emulator.add_batch("Breakfast", key="B", quantity=1)
    served.on_issue = lambda _: ok({"item": {"code": "NAklEfbVdV"}, "code": "SUCCESS"})
    assert rm("issue", "B").out == f"{HEADER}1,NAklEfbVdV,,issued,\n"


@pytest.mark.parametrize(
    ("cells", "line"),
    [
        (("a", ""), "a,\n"),
        (('x"y', "1,2", "a\nb"), '"x""y","1,2","a\nb"\n'),
        (("",), '""\n'),
    ],
)
def test_csv_line(cells: tuple[str, ...], line: str) -> None:
    """A CSV reader gets back what was written."""
    assert csv_line(cells) == line
    assert next(csv.reader(io.StringIO(line, newline=""))) == list(cells)


def test_json_line() -> None:
    """A value is one line, whatever is in it."""
    assert json_line({"a": "x\ny"}) == '{"a":"x\\ny"}\n'


def test_logged_to_person(capfd) -> None:
    """A person sees what a logger says from a level on, for as long as was asked."""
    logger = logging.getLogger("rm_voucher.test.person")
    logger.setLevel(logging.ERROR)
    with screen.logged_to_person(logger, logging.INFO):
        logger.info("seen")
        logger.debug("not seen")
    assert (logger.handlers, logger.level) == ([], logging.ERROR)
    assert capfd.readouterr() == ("", "seen\n")


def test_json_line_has_nothing_that_a_terminal_obeys() -> None:
    """What is not to be shown is escaped, and still means the same; what is, stays."""
    value = {"é🎫": "".join(map(chr, [*range(0xD800), *range(0xE000, 0x11000), 0xE0041]))}
    line = json_line(value)
    assert line[:-1].isprintable()
    assert json.loads(line) == value
    assert "é🎫" in line


def test_file_is_private(rm, embedded, out: Path) -> None:
    """Only the owner reads the file, whatever the umask."""
    umask = os.umask(0)
    try:
        assert rm("issue", "B", "--output", out).code == 0
    finally:
        os.umask(umask)
    assert out.stat().st_mode & 0o7777 == 0o600


def test_file_appears_whole(rm, embedded, out: Path) -> None:
    """While the run goes on, rows are in NAME.partial only; at the end it is the file."""
    out.write_text("before")
    partial = out.with_name("out.csv.partial")
    seen = []

    def issue(answer: Callable[[], object]) -> object:
        seen.append((out.read_text(), partial.stat().st_mode & 0o7777, partial.read_text()))
        return answer()

    embedded.on_issue = issue
    assert rm("issue", "B", "--count", 3, "--concurrency", 1, "--output", out).code == 0
    assert seen[0] == ("before", 0o600, HEADER)
    # While the next call is being signed the row of the last one is written.
    assert [(old, codes(text)) for old, _, text in seen] == [
        ("before", embedded.issued[:count]) for count in range(3)
    ]
    assert codes(out.read_text()) == embedded.issued
    kept = out.with_name("out.csv.1")
    assert sorted(out.parent.iterdir()) == [out, kept]  # it may hold real codes, also from memory
    assert kept.read_text() == "before"


def test_previous_files_kept(rm, served, out: Path) -> None:
    """Real codes are never overwritten: earlier files are NAME.1, NAME.2 and so on."""
    served.emulator.add_batch("Breakfast", key="B", quantity=3)
    for _ in range(3):
        assert rm("issue", "B", "--output", out, "--again").code == 0
    kept = {path.name: path for path in out.parent.iterdir()}
    assert sorted(kept) == ["out.csv", "out.csv.1", "out.csv.2"]
    order = [kept["out.csv.1"], kept["out.csv.2"], out]
    assert [codes(path.read_text()) for path in order] == [[code] for code in served.issued()]
    assert {path.stat().st_mode & 0o7777 for path in order} == {0o600}


def test_partial_left_over(rm, embedded, out: Path) -> None:
    """What a killed run left is neither overwritten nor added to, and nothing is issued."""
    partial = out.with_name("out.csv.partial")
    partial.write_text("codes")
    ended = rm("issue", "B", "--output", out)
    assert (ended.code, ended.out, embedded.issued) == (2, "", [])
    assert ended.err.splitlines()[1:] == [
        (
            f"Error: {partial} is there: a run that writes it is going on, or was killed and left "
            "codes in it; recipients without a row may have vouchers, too. Move it away first."
        )
    ]
    assert (partial.read_text(), out.exists()) == ("codes", False)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "{} is a folder: name a file."),
        ("missing/out.csv", "{} can't be written: No such file or directory."),
        ("file/out.csv", "{} can't be written: Not a directory."),
        pytest.param(
            "locked/out.csv",
            "{} can't be written: Permission denied.",
            marks=pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere"),
        ),
        ("x" * 256, "{} can't be written: File name too long."),
    ],
)
def test_output_impossible(rm, embedded, tmp_path: Path, name: str, sentence: str) -> None:
    """An output that can't be begun is a mistake: exit 2 before anything is issued."""
    (tmp_path / "file").touch()
    (tmp_path / "locked").mkdir(mode=0o500)
    path = tmp_path / name
    ended = rm("issue", "B", "--output", path)
    assert (ended.code, ended.out, embedded.issued) == (2, "", [])
    assert ended.err.splitlines()[1:] == [f"Error: {sentence.format(path)}"]


def test_output_special_file(rm, embedded, tmp_path: Path) -> None:
    """A pipe or device can't be replaced by a file: exit 2 before anything is issued."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    ended = rm("issue", "B", "--output", path)
    assert (ended.code, embedded.issued, path.is_fifo()) == (2, [], True)


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("first", "concurrency"), [(2, 1), (4, 1), (4, 8), (2, 64)])
def test_full_midway(
    rm, embedded, fail_writing, out: Path, first: int, concurrency: int, as_json: bool
) -> None:
    """Rows before are in the partial, that row and all later ones on standard output; exit 1."""
    fail_writing(first)
    partial = out.with_name("out.csv.partial")
    arguments = ("issue", "B", "--count", 500, "--concurrency", concurrency, "--output", out)
    ended = rm(*arguments, *(["--json"] if as_json else []))
    lines = ended.out.splitlines(keepends=True)
    counts = [lines.pop()] if as_json else []
    saved = codes(partial.read_text())
    assert len(saved) == first - 2
    assert sorted(saved + codes("".join(lines))) == sorted(embedded.issued)
    assert len(lines) == len(embedded.issued) - len(saved)
    asked = len(embedded.issued)
    assert ended.code == 1
    assert ended.err.splitlines()[-4:] == [
        f"{asked} asked: {asked} issued, 0 failed, 0 unknown → {out}",
        f"Stopped early: {500 - asked} were not asked for.",
        REST,
        (
            f"{out} can't be written: No space left on device. The rows before that are in "
            f"{partial}, the rows after it on standard output."
        ),
    ]
    for count in map(orjson.loads, counts):
        assert count.pop("error")["class"] == "OutputError"
        assert count == {
            "asked": asked,
            "issued": asked,
            "failed": 0,
            "unresolved": 0,
            "given_up": 0,
            "not_asked": 500 - asked,
            "output": str(out),
            "exit_code": 1,
        }
    assert not out.exists()


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """The kernel lets no file become larger than 1,000 bytes: no log of this run either."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_by_the_kernel(rm, embedded, out: Path) -> None:
    """Each code is in a whole row, when it is the kernel that ends a line in the middle."""
    with small_files():
        ended = rm("issue", "B", "--count", 50, "--concurrency", 2, "--output", out)
    whole = out.with_name("out.csv.partial").read_text().rpartition("\n")[0]
    assert ended.code == 1
    assert len(codes(whole)) > 5
    assert sorted(codes(whole) + codes(ended.out)) == sorted(embedded.issued)


def test_full_leaves_no_torn_row(rm, embedded, out: Path) -> None:
    """The partial and standard output, one after the other, are the CSV that was asked for."""
    with small_files():
        ended = rm("issue", "B", "--count", 50, "--concurrency", 2, "--output", out)
    text = out.with_name("out.csv.partial").read_text() + ended.out
    assert sorted((row["code"], row["voucher_status"]) for row in rows(text)) == sorted(
        (code, "issued") for code in embedded.issued
    )


def test_full_at_once(fail_writing, out: Path) -> None:
    """A file that can't even take the header is a mistake, and leaves nothing behind."""
    fail_writing(1)
    file = ResultFile(out)
    try:
        with pytest.raises(ConfigurationError), file:
            file.begin()
        assert list(out.parent.iterdir()) == []
    finally:
        file._file.close()


@pytest.mark.parametrize("concurrency", [1, 8])
def test_full_while_stopping(rm, embedded, fail_writing, out: Path, concurrency: int) -> None:
    """A disk that is full when an interrupted run writes its last rows loses none of them."""
    fail_writing(2)

    def issue(answer: Callable[[], object]) -> object:
        if not embedded.issued:
            signal.raise_signal(signal.SIGINT)
        return answer()

    embedded.on_issue = issue
    ended = rm("issue", "B", "--count", 20, "--concurrency", concurrency, "--output", out)
    assert sorted(codes(ended.out)) == sorted(embedded.issued)
    assert f"{len(embedded.issued)} asked" in ended.err
    assert ended.code == 130


def test_nothing_can_be_written(
    rm, embedded, fail_writing, monkeypatch: pytest.MonkeyPatch, out: Path
) -> None:
    """When nothing at all takes a row, no more vouchers than those in flight are issued."""
    fail_writing(4)
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    ended = rm("issue", "B", "--count", 100, "--concurrency", 2, "--output", out)
    assert (ended.code, ended.out, ended.err) == (1, "", "")
    assert codes(out.with_name("out.csv.partial").read_text()) == embedded.issued[:2]
    assert len(embedded.issued) <= 2 + 1 + 2 * 2


@pytest.mark.parametrize("stdout", ["full", "ascii", "missing"])
def test_full_and_no_stdout(
    rm, embedded, fail_writing, monkeypatch: pytest.MonkeyPatch, out: Path, stdout: str
) -> None:
    """When standard output can't take the rows that the file can't, standard error does."""
    names = out.with_name("r.csv")
    names.write_text("recipient\n" + "".join(f"名{number}\n" for number in range(20)))
    text = io.BytesIO()
    streams: dict[str, Callable[[], io.TextIOWrapper | None]] = {
        "full": lambda: io.TextIOWrapper(io.BufferedWriter(NoSpace()), encoding="utf-8"),
        "ascii": lambda: io.TextIOWrapper(text, encoding="ascii"),
        "missing": lambda: None,
    }
    monkeypatch.setattr(sys, "stdout", streams[stdout]())
    fail_writing(4)
    ended = rm("issue", "B", "--recipients", names, "--concurrency", 4, "--output", out)
    saved = codes(out.with_name("out.csv.partial").read_text())
    saved += codes(text.getvalue().decode()) + codes(ended.err)
    assert sorted(saved) == sorted(embedded.issued)
    assert f"{len(saved)} asked: " in ended.err
    assert ended.code == 1


@pytest.mark.parametrize("step", ["os.fsync", "os.link", "pathlib.Path.replace"])
def test_full_at_the_end(rm, served, monkeypatch: pytest.MonkeyPatch, out: Path, step: str) -> None:
    """A file that can't take its name leaves all rows in the partial, and the old file alone."""
    served.emulator.add_batch("Breakfast", key="B", quantity=5)
    out.write_text("before")

    def fail(*_: object) -> None:
        raise FULL

    monkeypatch.setattr(step, fail)
    ended = rm("issue", "B", "--count", 5, "--output", out)
    partial = out.with_name("out.csv.partial")
    assert ended.code == 1
    assert (
        f"{out} can't be written: No space left on device. All rows are in {partial}."
    ) in ended.err.splitlines()[-1]
    assert sorted(codes(partial.read_text())) == sorted(served.issued())
    assert out.read_text() == "before"


def test_full_at_the_end_is_reported(
    rm, served, monkeypatch: pytest.MonkeyPatch, out: Path
) -> None:
    """A file that can't take its name hides neither the counts nor that outcomes are unknown."""

    def fail(*_: object) -> None:
        raise FULL

    monkeypatch.setattr("os.fsync", fail)
    served.emulator.add_batch("Breakfast", key="B", quantity=2)
    served.on_issue = lambda _: ok({}, 500)
    ended = rm("issue", "B", "--count", 2, "--json", "--output", out)
    assert (ended.code, [line["unresolved"] for line in ended.json]) == (4, [2])


def check_all_rescued(issued: list[str], err: str, problem: str) -> None:
    assert issued
    assert [err.count(f",{code},") + err.count(f'"{code}"') for code in issued] == [1] * len(issued)
    assert err.splitlines()[-1] == f"Standard output can't be written: {problem}."
    assert "Traceback" not in err


@pytest.mark.parametrize("as_json", [False, pytest.param(True, marks=pytest.mark.long)])
def test_stdout_closed(start, served, as_json: bool) -> None:
    """When the reader goes away, the rows are on standard error, and the end is no crash."""
    served.emulator.add_batch("Breakfast", key="B", quantity=50)
    process = start("issue", "B", "--count", 50, *["--json"] * as_json)

    def issue(answer: Callable[[], Response]) -> Response:
        process.stdout.close()
        return answer()

    served.on_issue = issue
    err = process.stderr.read()
    assert process.wait() == 1
    check_all_rescued(served.issued(), err, "Broken pipe")


def test_stdout_full(rm, embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk that standard output goes to is full, the rows are on standard error."""
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        ended = rm("issue", "B", "--count", 50, "--json")
    assert ended.code == 1
    check_all_rescued(embedded.issued, ended.err, "No space left on device")


@pytest.mark.parametrize("buffering", [1, -1])
def test_stdout_full_at_once(rm, embedded, monkeypatch: pytest.MonkeyPatch, buffering: int) -> None:
    """A standard output that can't even take the header is found before anything is issued."""
    with (
        Path("/dev/full").open("w", buffering=buffering) as full,
        Path(os.devnull).open("w") as null,
    ):
        monkeypatch.setattr(sys, "stdout", full)
        try:
            ended = rm("issue", "B", "--count", 3)
        finally:
            os.dup2(null.fileno(), full.fileno())
    assert embedded.issued == []
    assert "Standard output can't be written: No space left on device." in ended.err
    assert ended.code in (1, 2)


@pytest.mark.parametrize("as_json", [False, True])
def test_stdout_without_unicode(
    rm, embedded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, as_json: bool
) -> None:
    """A locale that can't write a recipient's name costs no row."""
    names = tmp_path / "r.csv"
    names.write_text("recipient\n名前\nb\n")
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    ended = rm("issue", "B", "--recipients", names, *["--json"] * as_json)
    text = stdout.buffer.getvalue().decode() + ended.err
    assert len(embedded.issued) == 2
    assert all(text.count(f",{code},") + text.count(f'"{code}"') == 1 for code in embedded.issued)


@pytest.mark.parametrize("as_json", [False, True])
def test_stdout_missing(rm, embedded, monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    """A process without standard output (``>&-``) refuses to issue what it can't show."""
    monkeypatch.setattr(sys, "stdout", None)
    ended = rm("issue", "B", "--count", 3, *["--json"] * as_json)
    assert (ended.code, embedded.issued) == (2, [])


@pytest.mark.parametrize(
    "buffered",
    [
        True,
        False,
    ],
)
def test_stdout_torn(
    rm, embedded, monkeypatch: pytest.MonkeyPatch, out: Path, buffered: bool
) -> None:
    """A row of which only a part fits is whole on standard error, also with PYTHONUNBUFFERED."""
    raw = out.open("wb", buffering=0)
    stream = io.BufferedWriter(raw) if buffered else raw
    with (
        io.TextIOWrapper(stream, encoding="utf-8", write_through=not buffered) as stdout,
        small_files(),
    ):
        monkeypatch.setattr(sys, "stdout", stdout)
        ended = rm("issue", "B", "--count", 50, "--concurrency", 2)
    whole = out.read_text().rpartition("\n")[0]
    assert sorted(codes(whole) + codes(ended.err)) == sorted(embedded.issued)
    assert ended.code == 1


def test_stdout_closed_for_counts(rm, embedded, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts that nobody reads don't keep the end from being said."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        ended = rm("issue", "B", "--count", 3, "--json", "--output", out)
    assert ended.code in (0, 1)
    assert ended.err.splitlines()[-1] == f"3 asked: 3 issued, 0 failed, 0 unknown → {out}"
    assert sorted(codes(out.read_text())) == sorted(embedded.issued)


@pytest.mark.parametrize("to_file", [False, pytest.param(True, marks=pytest.mark.long)])
def test_stderr_closed(start, served, out: Path, to_file: bool) -> None:
    """Progress that nobody reads stops nothing."""
    served.emulator.add_batch("Breakfast", key="B", quantity=200)
    process = start("issue", "B", "--count", 200, *["--output", out] * to_file)
    process.stderr.close()
    piped = process.stdout.read()
    assert process.wait() == 0
    assert sorted(codes(out.read_text() if to_file else piped)) == sorted(served.issued())
    assert len(served.issued()) == 200


@pytest.mark.parametrize("as_json", [False, True])
def test_stderr_missing(rm, embedded, monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    """A process without standard error (``2>&-``) writes nothing but rows to standard output."""
    monkeypatch.setattr(sys, "stderr", None)
    ended = rm("issue", "B", "--count", 3, *["--json"] * as_json)
    assert ended.code == 0
    head, *lines = ended.out.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("{") for line in (head, *lines)) if as_json else codes(ended.out)


def test_output_error_is_ours() -> None:
    """Whoever catches the library's errors catches this one."""
    assert issubclass(output.OutputError, VoucherError)


def test_disk_full_after_an_interruption(rm, embedded, out: Path, fail_writing) -> None:
    """What was in flight when it was interrupted goes to standard output if the disk is full."""

    def issue(answer: Callable[[], Response]) -> Response:
        signal.raise_signal(signal.SIGINT)
        return answer()

    embedded.on_issue = issue
    fail_writing(2)
    ended = rm("issue", "B", "--count", 9, "--concurrency", 1, "--output", out)
    assert ended.code == 130
    assert codes(ended.out) == embedded.issued
    assert "can't be written: No space left on device" in ended.err
