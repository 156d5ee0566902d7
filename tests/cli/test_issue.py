"""Exit codes, reports and interruptions of ``rm-voucher issue``."""

import asyncio
import io
import re
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from support.answers import ok, rm_error
from support.command_runs import Ended

from rm_voucher import (
    AuthenticationError,
    BulkSummary,
    ConfigurationError,
    NotFoundError,
    OutcomeUnknownError,
    Response,
    SignatureError,
    TransportError,
)
from rm_voucher.cli.failures import exit_code_of
from rm_voucher.cli.output import OutputError
from rm_voucher.cli.recipients import Recipient, Recipients
from rm_voucher.cli.report import Report
from rm_voucher.emulator import Emulator

REST = "Those without a voucher, and only those, may be issued to again."
AGAIN = (
    "To issue to the others, give {} as --recipients: who has a voucher, or may have one, is not "
    "asked for again."
)
DOCTOR = "'rm-voucher doctor' says what is wrong with the settings."
MEMORY = "These are not real vouchers: the environment is 'memory', an embedded emulator."
ALL_DONE = {
    "asked": 2,
    "issued": 2,
    "failed": 0,
    "unresolved": 0,
    "given_up": 0,
    "not_asked": 0,
    "exit_code": 0,
    "error": None,
}
PATIENCE_S = 30
SERVER_ERROR = ok({}, 500)


def test_issue_one(rm, embedded) -> None:
    """Without options it is one voucher; in memory it says so."""
    ended = rm("issue", "B")
    (code,) = embedded.issued
    assert ended.code == 0
    assert ended.out == (
        "recipient,code,qr_url,voucher_status,error\n"
        f"1,{code},https://emulator.invalid/qr/1/voucher/{code},issued,\n"
    )
    assert ended.err.splitlines() == [
        MEMORY,
        "1 of 1: 1 issued, 0 failed, 0 unknown",
        "1 asked: 1 issued, 0 failed, 0 unknown",
    ]


@pytest.mark.parametrize("concurrency", [1, 1000])
def test_issue_count(rm, embedded, concurrency: int) -> None:
    """``--count`` issues to 1, 2, 3 …; in memory the batch has enough, however many they are."""
    ended = rm("issue", "B", "--count", 1234, "--concurrency", concurrency)
    assert ended.code == 0
    assert sorted(int(row["recipient"]) for row in ended.rows) == list(range(1, 1235))
    assert sorted(row["code"] for row in ended.rows) == sorted(embedded.issued)
    assert ended.err.splitlines()[-1] == "1,234 asked: 1,234 issued, 0 failed, 0 unknown"


def test_issue_over_http(rm, served) -> None:
    """Each voucher issued is a row, and there is no word of memory."""
    served.emulator.add_batch("Breakfast", key="B", quantity=100)
    ended = rm("issue", "B", "--count", 60)
    assert ended.code == 0
    assert sorted(row["code"] for row in ended.rows) == sorted(served.issued())
    assert len(ended.rows) == 60
    assert "memory" not in ended.err


def test_json_stream(rm, embedded) -> None:
    """``--json`` writes a line for each result and one with the counts."""
    ended = rm("issue", "B", "--count", 2, "--concurrency", 1, "--json")
    url = "https://emulator.invalid/qr/1/voucher/"
    assert ended.json == [
        *(
            {
                "recipient": name,
                "code": code,
                "qr_url": url + code,
                "voucher_status": "issued",
                "error": "",
            }
            for name, code in zip("12", embedded.issued, strict=True)
        ),
        {**ALL_DONE, "output": None},
    ]


def test_json_with_output(rm, embedded, tmp_path: Path) -> None:
    """``--json`` with ``--output`` writes only the counts: the rows are in the file."""
    path = tmp_path / "out.csv"
    ended = rm("issue", "B", "--count", 2, "--json", "--output", path)
    assert ended.json == [{**ALL_DONE, "output": str(path)}]
    assert all(code in path.read_text() for code in embedded.issued)
    assert ended.err.splitlines()[-1] == f"2 asked: 2 issued, 0 failed, 0 unknown → {path}"


@pytest.mark.parametrize("name", ["\udcff.csv", "名.csv"])
@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "ascii"],
)
def test_json_with_odd_output(
    rm, embedded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, encoding: str
) -> None:
    """No file name and no locale crashes the report: JSON is UTF-8."""
    stdout, stderr = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stdout, encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(stderr, encoding, "backslashreplace"))
    ended = rm("issue", "B", "--json", "--output", f"{tmp_path}/{name}")
    assert (ended.code, orjson.loads(stdout.getvalue())["issued"]) == (0, 1)


@pytest.mark.parametrize(
    ("summary", "report", "expected"),
    [
        ({"issued": 2}, {}, 0),
        ({"issued": 1, "failed": 1}, {}, 1),
        ({"issued": 2}, {"unwritten": OutputError("full")}, 1),
        ({"issued": 2}, {"interrupted": True}, 130),
        ({"failed": 1}, {"interrupted": True, "unwritten": OutputError("full")}, 130),
        ({"failed": 2}, {"interrupted": True, "refused_credentials": True}, 3),
        ({"unresolved": 1, "failed": 1}, {"interrupted": True, "refused_credentials": True}, 4),
    ],
)
def test_exit_code_order(summary: dict[str, int], report: dict, expected: int) -> None:
    """When several codes hold it is the one that most needs looking into."""
    assert Report(2, summary=BulkSummary(asked=2, **summary), **report).exit_code == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OutcomeUnknownError("?", operation="void"), 4),
        (AuthenticationError("INVALID_CLIENT"), 3),
        (SignatureError("INVALID_REQUEST_SIGNATURE"), 3),
        (NotFoundError("VOUCHER_NOT_FOUND"), 1),
        (TransportError("no"), 1),
    ],
)
def test_exit_code_of_error(error: BaseException, expected: int) -> None:
    """Unknown outcomes and refused credentials have codes of their own."""
    assert exit_code_of(error) == expected


def test_sold_out(rm, served) -> None:
    """A batch that runs out: the rest failed, exit 1, and the first error is said."""
    served.emulator.add_batch("Breakfast", key="B", quantity=3)
    ended = rm("issue", "B", "--count", 5, "--concurrency", 1, "--partial")
    assert ended.code == 1
    assert [(row["recipient"], row["code"], row["voucher_status"]) for row in ended.rows] == [
        *((name, code, "issued") for name, code in zip("123", served.issued(), strict=True)),
        ("4", "", "failed"),
        ("5", "", "failed"),
    ]
    assert ended.err.splitlines()[-2:] == [
        "5 asked: 3 issued, 2 failed, 0 unknown",
        (
            "The first error: VOUCHER_BATCH_NOT_ENOUGH_QUANTITY (HTTP 400): The batch has no "
            "voucher left: raise its quantity in the portal or use another batch."
        ),
    ]


def test_unknown_batch(rm, served, tmp_path: Path) -> None:
    """A batch that the server doesn't know is one sentence, before anything is asked for."""
    asked: list[object] = []
    served.on_issue = asked.append
    path = tmp_path / "out.csv"
    ended = rm("issue", "nope", "--count", 500, "--output", path)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("Error: VOUCHER_BATCH_NOT_FOUND")
    assert ended.err.count("\n") == 1
    assert (asked, path.exists()) == ([], False)


def test_wrong_secret(rm, served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client secret that is refused is exit 3, one sentence, and in no message."""
    served.emulator.add_batch("Breakfast", key="B", quantity=3)
    monkeypatch.setenv("RM_CLIENT_SECRET", "hush-hush")
    ended = rm("issue", "B", "--count", 3)
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith("Error: INVALID_CLIENT (HTTP 401): ")
    assert ended.err.count("\n") == 1
    assert "hush" not in ended.err
    assert served.issued() == []


def test_wrong_secret_in_a_process(start, served, monkeypatch: pytest.MonkeyPatch) -> None:
    """No log line says it a second time."""
    monkeypatch.setenv("RM_CLIENT_SECRET", "hush-hush")
    process = start("issue", "B", "--count", 100)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err.count("\n")) == (3, "", 1)
    assert err.startswith("Error: INVALID_CLIENT (HTTP 401): ")


def test_wrong_key(rm, served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A private key that isn't the one of the portal is exit 3, and one sentence."""
    monkeypatch.undo()  # let an emulator generate another key
    other = Emulator().credentials
    assert other is not None
    monkeypatch.setenv("RM_ENVIRONMENT", served.url)
    monkeypatch.setenv("RM_CLIENT_ID", served.emulator.client_id)
    monkeypatch.setenv("RM_CLIENT_SECRET", served.emulator.client_secret)
    monkeypatch.setenv("RM_PRIVATE_KEY", other.private_key_pem().decode())
    served.emulator.add_batch("Breakfast", key="B", quantity=3)
    ended = rm("issue", "B", "--count", 3)
    assert (ended.code, ended.out, served.issued()) == (3, "", [])
    assert ended.err.startswith("Error: INVALID_REQUEST_SIGNATURE (HTTP 401): ")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("refusal", ["INVALID_REQUEST_SIGNATURE", "INVALID_CLIENT"])
def test_credentials_refused_midway(rm, served, refusal: str) -> None:
    """Refused from one call to the next, it is exit 3, and each recipient has a row."""
    served.emulator.add_batch("Breakfast", key="B", quantity=3)
    served.on_issue = lambda issue: rm_error(refusal, 401)
    ended = rm("issue", "B", "--count", 3)
    assert (ended.code, served.issued()) == (3, [])
    assert [row["voucher_status"] for row in ended.rows] == ["failed"] * 3
    *_, error, advice = ended.err.splitlines()
    assert error.startswith(f"The first error: {refusal} (HTTP 401): ")
    assert advice == DOCTOR


@pytest.mark.parametrize("executed", [True, False])
def test_outcome_unknown(rm, served, executed: bool) -> None:
    """An answer that proves nothing is exit 4, and each issue is sent once only."""
    served.emulator.add_batch("Breakfast", key="B", quantity=10)
    sent = []

    def issue(answer: Callable[[], Response]) -> Response:
        sent.append(answer() if executed else None)
        return SERVER_ERROR

    served.on_issue = issue
    ended = rm("issue", "B", "--count", 3)
    assert ended.code == 4
    assert [(row["code"], row["voucher_status"]) for row in ended.rows] == [("", "unresolved")] * 3
    assert len(sent) == 3
    *_, counts, error, advice = ended.err.splitlines()
    assert counts == "3 asked: 0 issued, 0 failed, 3 unknown"
    assert re.fullmatch(
        r"The first error: issue: server failed after 1 attempt, so whether it was executed "
        r"is unknown: a voucher may have been issued; do not repeat it \(attempt \w{16}; "
        r"last: not RM's error format \(HTTP 500\): .*\)",
        error,
    )
    assert advice == (
        "For the rows that are 'unresolved' a voucher may exist: compare the batch's vouchers "
        "before you issue to them again."
    )


def test_all_sorts_at_once(rm, served) -> None:
    """Issued, unknown and failed rows in one run: each has its status, and the exit code is 4."""
    served.emulator.add_batch("Breakfast", key="B", quantity=10)
    refused = rm_error("INVALID_REQUEST_SIGNATURE", 401)
    script = iter([None, SERVER_ERROR, None, refused])
    served.on_issue = lambda issue: next(script) or issue()
    ended = rm("issue", "B", "--count", 6, "--concurrency", 1, "--json")
    statuses = ["issued", "unresolved", "issued", "failed", "failed", "failed"]
    assert [line["voucher_status"] for line in ended.json[:-1]] == statuses
    counts = ended.json[-1]
    assert [counts[name] for name in ("asked", "issued", "failed", "unresolved")] == [6, 2, 3, 1]
    assert (counts["exit_code"], counts["error"]["class"]) == (4, "OutcomeUnknownError")
    assert counts["error"]["nonce"]
    assert ended.code == 4


def test_both_count_and_recipients(rm, embedded, tmp_path: Path) -> None:
    """Two answers to the same question are a mistake."""
    ended = rm("issue", "B", "--count", 3, "--recipients", tmp_path / "r.csv")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "Error: Give --count or --recipients, not both.\n"
    assert embedded.made == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("issue",), "Missing argument"),
        (("issue", "B", "--count", "0"), "Invalid value for '--count'"),
        (("issue", "B", "--count", "many"), "Invalid value for '--count'"),
        (("issue", "B", "--concurrency", "0"), "Invalid value for '--concurrency'"),
        (("issue", "B", "--concurrency", "1001"), "Invalid value for '--concurrency'"),
        (("issue", "B", "--quantity", "3"), "No such option: --quantity"),
        (("isue", "B"), "No such command 'isue'."),
    ],
)
def test_usage_mistakes(rm, embedded, arguments: tuple[str, ...], words: str) -> None:
    """What the command line can't mean is exit 2 and names the option."""
    ended = rm(*arguments)
    assert (ended.code, ended.out, embedded.made) == (2, "", [])
    assert words in ended.err


@pytest.mark.parametrize("where", ["memory", "server"])
@pytest.mark.parametrize("key", [".", "a/b", " B", "B\n", "x" * 513])
def test_bad_batch_key(rm, request: pytest.FixtureRequest, key: str, where: str) -> None:
    """A batch key that the client refuses is a mistake in the command line: exit 2, no rows."""
    if where == "server":
        request.getfixturevalue("served")
    ended = rm("issue", key, "--count", 2)
    assert (ended.code, ended.out) == (2, "")
    assert "Error: refused before sending: batch_key " in ended.err


def test_recipients_lost_midway(rm, embedded, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """When the copy of the file can't be read any more, what was issued is written; exit 1."""
    path = tmp_path / "r.csv"
    path.write_text("recipient\na\nb\nc\n")

    def lines(self: Recipients):
        yield 2, Recipient.at(0, "a")
        yield 3, Recipient.at(1, "b")
        raise ConfigurationError(f"The copy of {path} can't be read any more: Input/output error.")

    monkeypatch.setattr(Recipients, "lines", lines)
    ended = rm("issue", "B", "--recipients", path, "--concurrency", 1)
    assert ended.code == 1
    assert [(row["recipient"], row["voucher_status"]) for row in ended.rows] == [
        ("a", "issued"),
        ("b", "issued"),
        ("c", "not_asked"),
    ]
    assert [row["code"] for row in ended.rows] == [*embedded.issued, ""]
    assert ended.err.splitlines()[-4:] == [
        "2 asked: 2 issued, 0 failed, 0 unknown",
        "Stopped early: 1 were not asked for.",
        f"The copy of {path} can't be read any more: Input/output error.",
        REST,
    ]


@pytest.mark.parametrize(
    ("number", "to_file"),
    [
        (signal.SIGINT, True),
        (signal.SIGHUP, False),
        pytest.param(signal.SIGINT, False, marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, True, marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, False, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, True, marks=pytest.mark.long),
    ],
)
def test_interrupted_process(start, served, tmp_path: Path, number: int, to_file: bool) -> None:
    """Interrupted in the middle: every voucher issued has its row, once; exit 130."""
    served.emulator.add_batch("Breakfast", key="B", quantity=1000)
    reached, released = threading.Event(), threading.Event()

    def issue(answer: Callable[[], Response]) -> Response:
        response = answer()
        if len(served.issued()) == 20:  # with three other calls on their way
            reached.set()
            assert released.wait(PATIENCE_S)
        return response

    served.on_issue = issue
    path = tmp_path / "out.csv"
    arguments = ("issue", "B", "--count", 1000, "--concurrency", 4)
    process = start(*arguments, *(["--output", path] if to_file else []))
    assert reached.wait(PATIENCE_S)
    process.send_signal(number)
    released.set()
    out, err = process.communicate(timeout=PATIENCE_S)
    lines = (path.read_text() if to_file else out).splitlines()
    issued = served.issued()
    assert process.returncode == 130
    assert lines[0] == "recipient,code,qr_url,voucher_status,error"
    assert sorted(line.split(",")[1] for line in lines[1:]) == sorted(issued)
    assert 20 <= len(issued) < 1000
    where = f" → {path}" if to_file else ""
    assert Ended(130, "", err).after_plan.splitlines() == [
        "Stopping: waiting for the calls in flight, so that no code is lost.",
        f"{len(issued)} asked: {len(issued)} issued, 0 failed, 0 unknown{where}",
        f"Stopped early: {1000 - len(issued)} were not asked for.",
        AGAIN.format(path) if to_file else REST,
    ]
    assert list(tmp_path.iterdir()) == [path] * to_file


def test_hangup_ignored_as_under_nohup(rm, embedded) -> None:
    """Who asked to be left alone by a lost terminal is."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def issue(answer: Callable[[], Response]) -> Response:
        signal.raise_signal(signal.SIGHUP)
        return answer()

    embedded.on_issue = issue
    try:
        ended = rm("issue", "B", "--count", 5)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (ended.code, len(ended.rows)) == (0, 5)


@pytest.mark.parametrize(
    ("numbers", "turns"),
    [
        ([signal.SIGINT], 0),
        ([signal.SIGTERM], 0),
        ([signal.SIGTERM, signal.SIGTERM, signal.SIGINT], 0),
        ([signal.SIGTERM, signal.SIGTERM, signal.SIGINT], 9),
        ([signal.SIGINT, signal.SIGINT], 9),
        ([signal.SIGINT, signal.SIGINT], 0),
    ],
    ids=["int", "term", "three-at-once", "three-in-turn", "twice-in-turn", "twice-at-once"],
)
def test_interrupted_repeatedly(rm, embedded, numbers: list[signal.Signals], turns: int) -> None:
    """However often it is interrupted, each recipient asked for has a row with what is known."""
    calls = 0

    async def issue(answer: Callable[[], Response]) -> Response:
        nonlocal calls
        calls += 1
        if calls == 6:
            for number in numbers:
                asyncio.get_running_loop().call_soon(signal.raise_signal, number)
                for _ in range(turns):
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
        return answer()

    embedded.on_issue = issue
    ended = rm("issue", "B", "--count", 100, "--concurrency", 4)
    assert ended.code in (4, 130)
    assert {row["code"] for row in ended.rows} - {""} == set(embedded.issued)
    assert f"\n{len(ended.rows)} asked: " in ended.err
    assert len(ended.rows) < 100


def test_interrupted_while_calls_wait_for_their_turn(rm, served) -> None:
    """Who waited for a first call is not asked for: no failure, and no row but that of the list."""
    served.emulator.add_batch("Breakfast", key="B", quantity=100)

    def issue(answer: Callable[[], Response]) -> Response:
        signal.raise_signal(signal.SIGINT)
        return answer()

    served.on_issue = issue
    ended = rm("issue", "B", "--count", 50, "--concurrency", 20, "--rate", 1)
    issued = len(served.issued())
    assert ended.code == 130
    assert f"\n{issued} asked: {issued} issued, 0 failed, 0 unknown\n" in ended.err
    assert f"Stopped early: {50 - issued} were not asked for." in ended.err
    assert [row["voucher_status"] for row in ended.rows] == ["issued"] * issued
