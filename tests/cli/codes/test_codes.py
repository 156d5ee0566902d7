"""``get``, ``void``, ``redeem`` and ``reinstate`` for each code of a file."""

from __future__ import annotations

import csv
import io
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import orjson
import pytest
from support.command_runs import Served

from rm_voucher import Environment, Request, Response
from rm_voucher.cli.codes import journal, run
from rm_voucher.cli.codes.operations import OURS
from rm_voucher.emulator import Fault, FaultPlan
from rm_voucher.emulator.reply import Reply

DONE = {"get": "found", "void": "voided", "redeem": "redeemed", "reinstate": "reinstated"}
AFTER = {"void": "VOID", "redeem": "REDEEMED", "reinstate": "REDEEMED"}
CHANGES = ("void", "redeem", "reinstate")


@pytest.fixture
def issued(served: Served) -> Callable[[int], list[str]]:
    """Issue so many vouchers of a served batch; return their codes."""
    served.emulator.add_batch("Breakfast", key="B", quantity=1_000)
    return lambda count: [str(served.emulator.state.issue("B")[0]) for _ in range(count)]


@pytest.fixture
def ready(served: Served, issued: Callable[[int], list[str]]) -> Callable[[str, int], list[str]]:
    """Make so many vouchers with which an operation can be done."""

    def ready(operation: str, count: int) -> list[str]:
        codes = issued(count)
        for code in codes if operation == "reinstate" else ():
            served.emulator.state.void(code)
        return codes

    return ready


@pytest.fixture
def do(rm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run an operation on the file of codes, into the output file."""
    monkeypatch.setenv("SHOP_PIN", "123456")

    def do(operation: str, *arguments: object, codes: str = "codes.csv", output: str = "out.csv"):
        pin = ("--pin", "env:SHOP_PIN") if operation == "reinstate" else ()
        given = ("--codes", tmp_path / codes, "--output", tmp_path / output)
        return rm(operation, *given, *pin, *arguments)

    return do


def write(
    path: Path, codes: list[str], header: str = "Name,Code", row: str = "Ann {0},{1}"
) -> None:
    lines = [header, *(row.format(number, code) for number, code in enumerate(codes))]
    path.write_text("".join(f"{line}\n" for line in lines))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("operation", DONE)
def test_each_code_of_a_file(served, ready, do, tmp_path: Path, operation: str) -> None:
    """Their columns and order stay, ours follow, and each voucher is as its row says."""
    codes = ready(operation, 30)
    write(tmp_path / "codes.csv", codes)
    ended = do(operation)
    assert (ended.code, ended.out) == (0, "")
    assert f"30 asked: 30 {DONE[operation]}, 0 failed, 0 unknown → {tmp_path / 'out.csv'}\n" in (
        ended.err
    )
    out = rows(tmp_path / "out.csv")
    assert list(out[0]) == ["Name", "Code", *OURS]
    assert [(row["Name"], row["Code"]) for row in out] == [
        (f"Ann {number}", code) for number, code in enumerate(codes)
    ]
    assert {row["outcome"] for row in out} == {DONE[operation]}
    for row in out:
        voucher = served.emulator.voucher(row["Code"])
        assert row["status"] == voucher.status == AFTER.get(operation, "ISSUED")
    assert not (tmp_path / "out.csv.partial").exists()
    assert (tmp_path / "out.csv").stat().st_mode & 0o777 == 0o600


def test_each_void_has_an_instant_of_its_own(served, issued, do, tmp_path: Path) -> None:
    """So each can be proved; it is in the row."""
    write(tmp_path / "codes.csv", issued(5))
    assert do("void", "--used-at", "2026-05-06T07:08:09.5Z", "--store-id", "7").code == 0
    assert [row["used_at"] for row in rows(tmp_path / "out.csv")] == [
        f"2026-05-06T07:08:09.50000{number}Z" for number in range(5)
    ]


@pytest.mark.parametrize("operation", CHANGES)
def test_what_is_refused_is_a_row(served, ready, do, tmp_path: Path, operation: str) -> None:
    """A code that can't be is ``failed`` with the reason, and the others are done: exit 1."""
    codes = [*ready(operation, 3), "NOTTHERE1"]
    write(tmp_path / "codes.csv", codes)
    ended = do(operation)
    assert ended.code == 1
    assert f"4 asked: 3 {DONE[operation]}, 1 failed, 0 unknown" in ended.err
    assert "The first error: VOUCHER_NOT_FOUND (HTTP 404): " in ended.err
    assert "NOTTHERE1" not in ended.err
    last = rows(tmp_path / "out.csv")[-1]
    assert (last["outcome"], last["status"]) == ("failed", "")
    assert last["error"].startswith("VOUCHER_NOT_FOUND")


def test_lost_answers_are_proved(served, issued, do, tmp_path: Path) -> None:
    """A void whose answer is lost is read back, and its instant proves whose it is."""
    codes = issued(20)
    write(tmp_path / "codes.csv", codes)
    served.emulator.faults = FaultPlan(
        rate=0.4, kinds=[Fault.ERROR_AFTER_COMMIT, Fault.TRUNCATED], operations=["void"]
    )
    assert do("void").code == 0
    assert {row["outcome"] for row in rows(tmp_path / "out.csv")} == {"voided"}


def test_redeem_that_nothing_proves(served, issued, do, tmp_path: Path) -> None:
    """It is ``unresolved``, exit 4; the same command again does not ask for it blindly."""
    codes = issued(3)
    write(tmp_path / "codes.csv", codes)
    served.emulator.fail_next("redeem", Fault.ERROR_AFTER_COMMIT)
    ended = do("redeem")
    assert ended.code == 4
    assert "3 asked: 2 redeemed, 0 failed, 1 unknown" in ended.err
    assert "decide: nothing proves who did it" in ended.err
    first = rows(tmp_path / "out.csv")[0]
    assert (first["outcome"], first["status"]) == ("unresolved", "REDEEMED")
    before = served.emulator.requests["redeem"]
    again = do("redeem")
    assert again.code == 4
    assert "2 codes redeemed before: not asked again." in again.err
    assert "1 code that an earlier run may have redeemed: looked up first." in again.err
    assert served.emulator.requests["redeem"] == before
    assert rows(tmp_path / "out.csv")[0]["error"].startswith("It may have been redeemed by an")


def test_codes_of_an_issue(rm, served, do, tmp_path: Path) -> None:
    """The output of ``issue`` is an input: what was not issued for certain is passed over."""
    served.emulator.add_batch("Tea", key="TEA", quantity=3)
    (tmp_path / "list.csv").write_text("email,city\n" + "".join(f"a{n}@x,KL\n" for n in range(4)))
    given = ("--recipients", tmp_path / "list.csv", "--output", tmp_path / "codes.csv")
    assert rm("issue", "TEA", *given, "--concurrency", 1, "--partial").code == 1
    ended = do("redeem")
    assert (ended.code, "1 row without a code that was issued: passed over." in ended.err) == (
        0,
        True,
    )
    out = rows(tmp_path / "out.csv")
    assert [row["outcome"] for row in out] == ["redeemed", "redeemed", "redeemed", ""]
    assert list(out[0])[:2] == ["email", "city"]
    assert list(out[0])[-6:] == [*OURS[:-1], "rm_error"]


def test_output_is_an_input(served, issued, do, tmp_path: Path) -> None:
    """Redeemed, then voided, then reinstated: each run writes into the same columns."""
    write(tmp_path / "codes.csv", issued(3))
    assert do("redeem").code == 0
    assert do("void", codes="out.csv", output="void.csv").code == 0
    assert do("reinstate", codes="void.csv", output="back.csv").code == 0
    out = rows(tmp_path / "back.csv")
    assert list(out[0]) == ["Name", "Code", *OURS]
    assert {(row["outcome"], row["status"]) for row in out} == {("reinstated", "REDEEMED")}


def test_again_asks_for_what_is_missing(served, issued, do, tmp_path: Path) -> None:
    """What is done in the output is not asked again; what failed is; the file is replaced."""
    codes = issued(4)
    write(tmp_path / "codes.csv", codes)
    served.emulator.fail_next("void", "VOUCHER_NOT_REDEEMED")
    assert do("void", "--concurrency", 1).code == 1
    voids = served.emulator.requests["void"]
    ended = do("void")
    assert ended.code == 0
    assert "3 codes voided before: not asked again." in ended.err
    assert served.emulator.requests["void"] == voids + 1
    assert {row["outcome"] for row in rows(tmp_path / "out.csv")} == {"voided"}
    before = (tmp_path / "out.csv").read_bytes()
    nothing = do("void")
    assert (nothing.code, "0 asked" in nothing.err) == (0, True)
    assert (tmp_path / "out.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codes.csv", "out.csv"]


def test_older_file_of_something_else_is_kept(served, issued, do, tmp_path: Path) -> None:
    """A file with other rows is no earlier run: it stays under a number."""
    write(tmp_path / "codes.csv", issued(2))
    (tmp_path / "out.csv").write_text("mine\n")
    assert do("void").code == 0
    assert (tmp_path / "out.csv.1").read_text() == "mine\n"


class KilledError(Exception):
    """What a kill is to a test: nothing after it is written."""


@pytest.mark.parametrize("operation", CHANGES)
@pytest.mark.parametrize("kept", [0, 1, 7])
def test_killed_run_is_gone_on_with(
    served, ready, do, tmp_path: Path, monkeypatch, operation: str, kept: int
) -> None:
    """What ended is not asked again; what may have been is looked up before it is."""
    codes = ready(operation, 12)
    write(tmp_path / "codes.csv", codes)
    put, ours = journal.Journal.put, iter(range(100))

    def die(self: journal.Journal, *arguments: Any) -> None:
        if next(ours) >= kept:
            raise KilledError
        put(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(journal.Journal, "put", die)
        with pytest.raises(KilledError):
            do(operation, "--concurrency", 1)
    left = (tmp_path / "out.csv.partial").read_text()
    assert not any(code in left for code in codes)
    assert served.emulator.requests[operation] == kept + 1
    ended = do(operation, "--concurrency", 1)
    outcomes = Counter(row["outcome"] for row in rows(tmp_path / "out.csv"))
    if operation == "void":  # its instant proves it
        assert (ended.code, outcomes) == (0, {"voided": 12})
    else:
        assert (ended.code, outcomes) == (4, {DONE[operation]: 11, "unresolved": 1})
    assert served.emulator.requests[operation] == 12
    assert not (tmp_path / "out.csv.partial").exists()


def test_killed_in_the_middle_of_a_line(served, issued, do, tmp_path: Path) -> None:
    """A torn line counts for nothing: its row is looked up."""
    codes = issued(3)
    write(tmp_path / "codes.csv", codes)
    served.emulator.fail_next("void", "VOUCHER_NOT_REDEEMED", times=3)
    partial = tmp_path / "out.csv.partial"
    keep = partial.with_name("kept")
    remove = journal.Journal.remove
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            journal.Journal,
            "remove",
            lambda self: (keep.write_bytes(partial.read_bytes()), remove(self)),
        )
        assert do("void", "--concurrency", 1).code == 1
    (tmp_path / "out.csv").unlink()
    partial.write_bytes(keep.read_bytes()[:-20])
    ended = do("void", "--concurrency", 1)
    assert (ended.code, "1 code that an earlier run may have voided" in ended.err) == (0, True)


def test_another_run_is_refused(served, issued, do, tmp_path: Path) -> None:
    """What a run of another operation left is not gone on with: exit 2, and nothing is asked."""
    codes = issued(2)
    write(tmp_path / "codes.csv", codes)
    (tmp_path / "out.csv.partial").write_text('{"operation":"void"}\n{"begun":[0,1],"at":""}\n')
    ended = do("redeem")
    assert (ended.code, ended.out) == (2, "")
    assert "is what a killed run of another operation, account or list" in ended.err
    assert not served.emulator.requests


def test_two_runs_at_once(served, issued, do, tmp_path: Path) -> None:
    """The second one is refused."""
    write(tmp_path / "codes.csv", issued(2))
    (tmp_path / "out.csv.partial").touch()
    import fcntl

    with (tmp_path / "out.csv.partial").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ended = do("void")
    assert (ended.code, ended.out) == (2, "")
    assert f"Another run writes {tmp_path / 'out.csv'}: wait for its end." in ended.err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("code\n", "has no codes in the column 'code'"),
        ("name\nAnn\n", "no column is called 'code' or anything like it"),
        ("code\nAB12\nab12\n", "line 3: the code of line 2 again"),
        ("code\n../x\n", "line 2: code has a slash"),
        ("code\n1.23E+15\n", "a code that a spreadsheet has shortened to a number"),
        ("code\na/b\nc/d\nAB1\nab1\n", "has 3 problems: line 2: code has a slash; line 3: code"),
    ],
)
def test_files_that_are_refused(served, do, tmp_path: Path, content: str, words: str) -> None:
    """All that is wrong is said before anything is asked: exit 2."""
    (tmp_path / "codes.csv").write_text(content)
    ended = do("void")
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err.replace("\n  ", " ").replace(":\n", ": ") or words.split(": ")[
        -1
    ] in (ended.err)
    assert not served.emulator.requests
    assert [path.name for path in tmp_path.iterdir()] == ["codes.csv"]


def test_looked_up_twice(served, issued, do, tmp_path: Path) -> None:
    """To look a code up again is no harm, so it may stand there twice."""
    (code,) = issued(1)
    write(tmp_path / "codes.csv", [code, code])
    assert do("get").code == 0


def test_workbook(served, issued, do, tmp_path: Path) -> None:
    """An .xlsx is read and written; codes stay text."""
    codes = issued(3)
    book = openpyxl.Workbook()
    assert book.active is not None
    for line in (["Kod", "n"], *([code, n] for n, code in enumerate(codes))):
        book.active.append(line)
    book.save(tmp_path / "codes.xlsx")
    ended = do("redeem", codes="codes.xlsx", output="out.xlsx")
    assert ended.code == 0
    assert "the codes are in the column 'Kod'." in ended.err
    sheet = openpyxl.load_workbook(tmp_path / "out.xlsx").active
    assert sheet is not None
    lines = list(sheet.iter_rows(values_only=True))
    assert lines[0] == ("Kod", "n", *OURS)
    assert [line[:3] for line in lines[1:]] == [(c, n, "redeemed") for n, c in enumerate(codes)]
    assert do("redeem", codes="codes.xlsx", output="out.xlsx").code == 0
    assert served.emulator.requests["redeem"] == 3


@pytest.mark.parametrize("as_json", [False, True])
def test_standard_output(rm, served, issued, tmp_path: Path, as_json: bool) -> None:
    """Without an output file, rows are written as they end; with --json the counts follow."""
    codes = issued(3)
    write(tmp_path / "codes.csv", codes)
    given = ("--codes", tmp_path / "codes.csv", "--concurrency", 1)
    ended = rm("redeem", *given, *["--json"] * as_json)
    assert ended.code == 0
    if as_json:
        *lines, counts = ended.json
        assert counts == {
            "asked": 3,
            "redeemed": 3,
            "failed": 0,
            "unresolved": 0,
            "not_asked": 0,
            "output": None,
            "exit_code": 0,
            "error": None,
        }
        assert [line["Code"] for line in lines] == codes
    else:
        lines = list(csv.DictReader(io.StringIO(ended.out)))
        assert [(line["Code"], line["outcome"]) for line in lines] == [
            (code, "redeemed") for code in codes
        ]


def test_standard_input(rm, served, issued, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """``-`` is standard input."""
    (code,) = issued(1)
    write(tmp_path / "codes.csv", [code])
    with (tmp_path / "codes.csv").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert rm("get", "--codes", "-").code == 0


@pytest.mark.parametrize("code", ["TOKEN_INVALID", "INVALID_REQUEST_SIGNATURE"])
def test_refused_credentials_are_one_sentence(
    served, issued, do, tmp_path: Path, code: str
) -> None:
    """What would meet all is said once, and nothing is written: exit 3."""
    write(tmp_path / "codes.csv", issued(30))
    served.emulator.fail_next("void", code, times=100)
    ended = do("void")
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.count(code) == 1
    assert served.emulator.requests["void"] <= 10  # of one code
    assert [path.name for path in tmp_path.iterdir()] == ["codes.csv"]


def test_credentials_that_are_refused_later(served, issued, do, tmp_path: Path) -> None:
    """It ends the run, and what was not asked is said: exit 3."""
    write(tmp_path / "codes.csv", issued(30))
    reply, count = served.emulator.reply, Counter[bool]()

    def answer(request: Request) -> Reply:
        count[request.url.path.endswith("/void")] += 1
        if request.url.path.endswith("/void") and count[True] > 5:
            body = orjson.dumps({"error": {"code": "INVALID_REQUEST_SIGNATURE", "message": ""}})
            return Reply(Response(status=401, body=body))
        answered: Reply = reply(request)
        return answered

    served.emulator.reply = answer
    ended = do("void", "--concurrency", 2)
    assert ended.code == 3
    assert "What stopped it: INVALID_REQUEST_SIGNATURE" in ended.err
    assert "were not asked for." in ended.err
    outcomes = Counter(row["outcome"] for row in rows(tmp_path / "out.csv"))
    assert outcomes["voided"] == 5
    assert outcomes["failed"] in (1, 2)
    assert outcomes["not_asked"] >= 23


def test_ctrl_c_waits_for_the_calls_in_flight(served, issued, do, tmp_path: Path) -> None:
    """No new code is asked, what is in flight is kept, the file is written: exit 130."""
    codes = issued(20)
    write(tmp_path / "codes.csv", codes)
    reply, seen = served.emulator.reply, Counter[str]()

    def answer(request: Request) -> Reply:
        answered: Reply = reply(request)
        if request.url.path.endswith("/void"):
            seen["void"] += 1
            if seen["void"] == 5:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return answered

    served.emulator.reply = answer
    ended = do("void", "--concurrency", 2)
    assert ended.code == 130
    assert "waiting for the calls in flight, so that it is known what was voided" in ended.err
    out = rows(tmp_path / "out.csv")
    outcomes = Counter(row["outcome"] for row in out)
    assert outcomes["voided"] == seen["void"] < 20
    assert outcomes["not_asked"] == 20 - seen["void"]
    for row in out:
        is_void = served.emulator.voucher(row["Code"]).status == "VOID"
        assert is_void is (row["outcome"] == "voided")
    served.emulator.reply = reply
    assert do("void").code == 0
    assert {row["outcome"] for row in rows(tmp_path / "out.csv")} == {"voided"}


def on_void(served: Any, number: int, act: Callable[[], object]) -> None:
    """Do something before the n-th void is answered."""
    reply, seen = served.emulator.reply, Counter[str]()

    def answer(request: Request) -> Reply:
        if request.url.path.endswith("/void"):
            seen["void"] += 1
            if seen["void"] == number:
                act()
        answered: Reply = reply(request)
        return answered

    served.emulator.reply = answer


def interrupt() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def test_third_ctrl_c_ends_now(served, issued, do, tmp_path: Path, monkeypatch) -> None:
    """A call that nothing answers is given up: its row is unresolved, and proved later. Exit 4."""
    codes = issued(12)
    write(tmp_path / "codes.csv", codes)
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if len(said) < 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("rm_voucher.cli.interrupts.say", say)

    def stall() -> None:
        served.emulator.fail_next("void", Fault.TIMEOUT_AFTER_COMMIT)
        interrupt()

    on_void(served, 4, stall)
    ended = do("void", "--concurrency", 1)
    assert ended.code == 4
    assert [text.partition(".")[0] for text in said] == [
        "Stopping: waiting for the calls in flight, so that it is known what was voided",
        "Still waiting for 1 call in flight",
        "Ending now: the outcome of 1 call is unknown",
    ]
    out = rows(tmp_path / "out.csv")
    assert [row["outcome"] for row in out] == (["voided"] * 3 + ["unresolved"] + ["not_asked"] * 8)
    assert out[3]["used_at"]
    assert "interrupted before its answer came" in out[3]["error"]
    monkeypatch.undo()


def test_ctrl_c_in_an_outage_waits_for_nothing(served, issued, do, tmp_path: Path) -> None:
    """A call that waits for its turn was not sent: it is given up, and was not asked. Exit 130."""
    write(tmp_path / "codes.csv", issued(12))
    on_void(served, 2, interrupt)
    ended = do("void", "--concurrency", 4, "--rate", "1")
    assert ended.code == 130
    outcomes = Counter(row["outcome"] for row in rows(tmp_path / "out.csv"))
    assert outcomes == {"voided": 2, "not_asked": 10}
    assert "10 were not asked for." in ended.err


def test_interrupted_before_what_is_in_doubt(served, issued, do, tmp_path: Path) -> None:
    """What a killed run may have done is still in doubt in the file: nothing forgets it."""
    codes = issued(6)
    write(tmp_path / "codes.csv", codes)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(journal.Journal, "put", lambda *_: (_ for _ in ()).throw(KilledError()))
        with pytest.raises(KilledError):
            do("void", "--concurrency", 1)
    on_void(served, 1, interrupt)
    assert do("void", "--concurrency", 1).code in (4, 130)
    out = rows(tmp_path / "out.csv")
    assert [row["outcome"] for row in out] == ["voided", "voided", *["unresolved"] * 4]
    assert len({row["used_at"] for row in out}) == 6
    assert do("void").code == 0
    assert served.emulator.requests["void"] == 6


@pytest.mark.parametrize("operation", CHANGES)
def test_real_vouchers_are_asked_about(
    served, ready, do, tmp_path: Path, monkeypatch, operation: str
) -> None:
    """More than one real voucher takes a typed number, or --yes; without a terminal: exit 2."""
    codes = ready(operation, 2)
    write(tmp_path / "codes.csv", codes)
    monkeypatch.setattr("rm_voucher.cli.codes.report.is_real", lambda _: True)
    ended = do(operation)
    assert (ended.code, ended.out) == (2, "")
    assert f"these vouchers are real, and will be {DONE[operation]}" in ended.err
    assert not served.emulator.requests
    assert [path.name for path in tmp_path.iterdir()] == ["codes.csv"]
    write(tmp_path / "one.csv", codes[:1])
    assert do(operation, codes="one.csv", output="one-out.csv").code == 0
    assert do(operation, "--yes", codes="codes.csv", output="both.csv").code in (0, 1)


@pytest.mark.parametrize(("typed", "code"), [("2", 0), ("3", 1), ("", 1)])
def test_typed_number(
    served, issued, do, tmp_path: Path, monkeypatch, typed: str, code: int
) -> None:
    """The number of the codes is typed; anything else ends it with nothing done."""
    write(tmp_path / "codes.csv", issued(2))
    monkeypatch.setattr("rm_voucher.cli.codes.report.is_real", lambda _: True)
    monkeypatch.setattr("rm_voucher.cli.asking.ask", lambda *_, **__: typed)
    ended = do("void")
    assert ended.code == code
    assert ("Nothing was voided." in ended.err) is (code == 1)


def test_looking_up_real_vouchers_asks_nobody(served, issued, do, tmp_path, monkeypatch) -> None:
    """It changes nothing."""
    write(tmp_path / "codes.csv", issued(2))
    monkeypatch.setattr("rm_voucher.cli.codes.report.is_real", lambda _: True)
    assert do("get").code == 0


def test_production_is_real() -> None:
    """What the command asks about is what the plan of an issue asks about."""
    from rm_voucher.cli.codes import report
    from rm_voucher.cli.connect import is_real

    assert vars(report)["is_real"] is is_real
    assert is_real(Environment.PRODUCTION)


def test_full_disk(served, issued, do, tmp_path: Path, monkeypatch) -> None:
    """No new code is asked; what ended is on standard output, by its row: exit 1."""
    write(tmp_path / "codes.csv", issued(10))
    real, left = vars(journal)["write_all"], [6]

    def full(file: Any, text: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real(file, text)

    monkeypatch.setattr(journal, "write_all", full)
    ended = do("void", "--concurrency", 1)
    assert ended.code == 1
    assert "No space left on device" in ended.err
    kept = {row["row"] for row in map(orjson.loads, ended.out.splitlines())}
    assert len(kept) == 1
    assert run._AT_A_TIME > 10
    voided = [voucher for voucher in rows(tmp_path / "out.csv") if voucher["outcome"] == "voided"]
    assert len(voided) == served.emulator.requests["void"] - 1


@pytest.mark.parametrize("first", CHANGES)
@pytest.mark.parametrize("second", DONE)
def test_output_of_another_operation_is_kept(
    served, ready, do, tmp_path: Path, first: str, second: str
) -> None:
    """It is replaced by its own operation alone: what proves a void is nowhere else."""
    write(tmp_path / "codes.csv", ready(first, 3))
    assert do(first).code == 0
    before = (tmp_path / "out.csv").read_bytes()
    do(second)
    kept = tmp_path / "out.csv.1"
    if first == second:
        assert not kept.exists()
        assert (tmp_path / "out.csv").read_bytes() == before
    else:
        assert kept.read_bytes() == before
        assert {row["outcome"] for row in rows(tmp_path / "out.csv")} <= {DONE[second], "failed"}
        do(second)  # of what is its own, no other copy is made
        assert not (tmp_path / "out.csv.2").exists()


def test_looking_up_again_keeps_no_copy(served, issued, do, tmp_path: Path) -> None:
    """What was found is found anew."""
    write(tmp_path / "codes.csv", issued(3))
    for _ in range(2):
        assert do("get").code == 0
    assert not (tmp_path / "out.csv.1").exists()


@pytest.mark.parametrize("second", ["get", "redeem"])
def test_instant_that_proves_a_void_is_not_lost(
    served, issued, do, tmp_path: Path, second: str
) -> None:
    """Another operation neither goes on from an unresolved void nor replaces it."""
    (code,) = issued(1)
    write(tmp_path / "codes.csv", [code], row="{0},{1}")
    line = f"0,{code},unresolved,,,2026-05-06T07:08:09.500000Z,,time-out"
    text = f"Name,Code,{','.join(OURS)}\n{line}\n"
    (tmp_path / "out.csv").write_text(text)
    assert do(second).code == 0
    assert (tmp_path / "out.csv.1").read_text() == text
    (row,) = rows(tmp_path / "out.csv")
    assert row["outcome"] == DONE[second]


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "AAAA", "SECRETCODE2"),
        ("void", "AAAA", "SECRETCODE2", "--store-id", "1"),
        ("redeem", "--codes", "x.csv", "AAAA", "SECRETCODE2"),
        ("reinstate", "AAAA", "SECRETCODE2"),
        ("member", "get", "60", "123456789", "AAAA", "SECRETCODE2"),
        ("campaign", "status", "B", "SECRETCODE2"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_mistake_does_not_repeat_a_code(rm, arguments: tuple[str, ...], as_json: bool) -> None:
    """An argument too many may be a code: it is counted, and not shown."""
    ended = rm(*arguments, *["--json"] * as_json)
    assert ended.code == 2
    assert "SECRETCODE2" not in ended.out + ended.err
    assert "too many" in ended.err
    if as_json:
        assert "too many" in ended.out


@pytest.mark.parametrize("operation", CHANGES)
@pytest.mark.parametrize("word", ["done", "failed"])
def test_person_decides(served, ready, do, tmp_path: Path, operation: str, word: str) -> None:
    """What nobody can prove is settled by a person's word in the output, and stays settled."""
    (code,) = ready(operation, 1)
    write(tmp_path / "codes.csv", [code], row="{0},{1}")
    outcome = DONE[operation] if word == "done" else "failed"
    line = f"0,{code},{outcome},REDEEMED,,,,nothing proves either"
    (tmp_path / "out.csv").write_text(f"Name,Code,{','.join(OURS)}\n{line}\n")
    assert do(operation).code == 0
    assert served.emulator.requests[operation] == (word == "failed")
    (row,) = rows(tmp_path / "out.csv")
    assert row["outcome"] == DONE[operation]


def test_void_of_another_till(served, issued, do, tmp_path: Path) -> None:
    """Both times are there: what was sent, and what RM shows. The way to decide is said."""
    (code,) = issued(1)
    served.emulator.state.void(code)
    write(tmp_path / "codes.csv", [code], row="{0},{1}")
    line = f"0,{code},unresolved,,,2026-05-06T07:08:09.500000Z,,time-out"
    (tmp_path / "out.csv").write_text(f"Name,Code,{','.join(OURS)}\n{line}\n")
    ended = do("void")
    assert ended.code == 4
    assert "write 'voided' or 'failed' into 'outcome'" in ended.err
    (row,) = rows(tmp_path / "out.csv")
    assert row["used_at"] == "2026-05-06T07:08:09.500000Z"
    assert " It was used at 20" in row["error"]
