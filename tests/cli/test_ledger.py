"""``rm-voucher ledger``: what each command shows, changes, refuses, and ends with."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import orjson
import pytest
from support.answers import ok

from rm_voucher import LedgerError, Response
from rm_voucher.cli import ledger as commands
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.sql.guard import FileGuard

SERVER_ERROR = ok({}, 500)
ALL_ISSUED = (
    "asked: 3\nassigned: 3\nwaiting: 0\nambiguous: 0\nunresolved: 0\nfailed: 0\ncancelled: 0\n"
    "spare: 0\nforeign: 0\nwritten_off: 0\n"
)


@pytest.fixture
def shop(served):
    """A served emulator with a batch, on the clock that the command runs on."""
    served.emulator.advance(time.time() - served.emulator.virtual_clock.now())
    served.emulator.add_batch("Breakfast", key="B", quantity=100)
    return served


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def run(rm, url: str, shop) -> Callable[..., object]:
    """Run ``rm-voucher ledger COMMAND`` on this ledger; no code is ever on standard error."""

    def run(command: str, *arguments: object):
        ended = rm("ledger", command, url, *arguments)
        assert not [code for code in shop.issued() if code in ended.err]
        return ended

    return run


@pytest.fixture
def issue(rm, url: str, shop) -> Callable[..., dict[str, str]]:
    """Issue to so many; return their codes. Nothing is settled when that is not called for."""

    def issue(count: int, *options: object, lost: int | None = None, executed: bool = True):
        calls = 0

        def answer(work: Callable[[], Response]) -> Response:
            nonlocal calls
            calls += 1
            if calls != lost:
                return work()
            if executed:
                work()
            return SERVER_ERROR

        shop.on_issue = answer
        options = ("--concurrency", 1, "--settle", 0, *options)
        ended = rm("issue", "B", "--count", count, "--ledger", url, *options)
        return {row["recipient"]: row["code"] for row in ended.rows}

    return issue


@pytest.fixture
def attempt(issue, run) -> str:
    """The id of an attempt that is held for a person: of 3 recipients, that of the second."""
    issue(3, lost=2)
    ((held,),) = [ended["attempts"] for ended in run("status", "--json").json]
    assert (held["batch"], held["state"]) == ("B", "unresolved")
    return str(held["attempt"])


def lost_code(shop, codes: dict[str, str]) -> str:
    (code,) = set(shop.issued()) - set(codes.values())
    return str(code)


@pytest.mark.parametrize(
    "command", [["issue", "B", "--ledger"], ["ledger", "reconcile"], ["ledger", "baseline"]]
)
@pytest.mark.parametrize("options", [[], ["--no-balance-check"]])
def test_balance_check_can_be_left_out(rm, served, monkeypatch, command, options):
    """What the balance counts is a guess, so who knows better can do without it."""
    opened = []

    def refuse(url, **settings):
        opened.append(settings["check_balance"])
        raise LedgerError("seen")

    monkeypatch.setattr(Ledger, "open", refuse)
    batch = [] if command[0] == "issue" else ["B"]
    assert rm(*command, "sqlite:///x.db", *batch, *options).code == 1
    assert opened == [not options]


def test_status_of_a_ledger_without_doubt(issue, run) -> None:
    """All counts, a line each or as JSON, and whose it is; exit 0."""
    issue(3)
    (shown,) = run("status", "--json").json
    account = shown.pop("account")
    assert re.fullmatch("[0-9a-f]{16}", account)
    assert (run("status").code, run("status").out) == (0, f"{ALL_ISSUED}account: {account}\n")
    assert shown.pop("other_namespaces") == []
    assert (shown.pop("attempts"), shown.pop("stopped")) == ([], {})
    assert shown.pop("stopped_ledger") is None
    assert shown == {
        name: int(number) for name, number in (line.split(": ") for line in ALL_ISSUED.splitlines())
    }


def test_merchant_with_a_new_client_id(rm, issue, run, url: str, shop, monkeypatch) -> None:
    """It is refused until a person says that the merchant is the same; then nothing is new."""
    codes = issue(2)
    (before,) = run("status", "--json").json
    monkeypatch.setenv("RM_CLIENT_ID", "new-id")
    shop.emulator.authenticator._client_id = "new-id"
    ended = rm("issue", "B", "--count", 2, "--ledger", url)
    assert ended.code == 1
    assert "belongs to another account" in ended.err
    assert len(shop.issued()) == 2
    ended = run("rebind")
    assert ended.code == 0
    assert re.search(
        f"belonged to {before['account']}, and belongs to [0-9a-f]{{16}} now", ended.err
    )
    assert issue(2) == codes
    assert len(shop.issued()) == 2


def test_namespaces_of_a_database(rm, issue, run, url: str, shop, monkeypatch) -> None:
    """Each command takes one; status names the others, for whoever looks into a wrong one."""
    issue(1)
    monkeypatch.setenv("RM_CLIENT_ID", "second")
    shop.emulator.authenticator._client_id = "second"
    codes = issue(2, "--namespace", "second")
    assert len(shop.issued()) == 3
    assert "other namespaces, see --namespace: 'second'" in run("status").out
    shown = [run("status", "--json", *name).json[0] for name in ((), ("--namespace", "second"))]
    assert [each["asked"] for each in shown] == [1, 2]
    assert [each["other_namespaces"] for each in shown] == [["second"], [""]]
    rows = run("export", "--namespace", "second").rows
    assert {row["request"]: row["code"] for row in rows} == codes
    assert run("reconcile", "B", "--namespace", "second", "--settle", 0).code == 0
    assert run("baseline", "B", "--namespace", "second").code == 0
    assert "no such attempt" in run("resolve", "x", "--reissue", "--namespace", "second").err
    assert rm("issue", "B", "--namespace", "second").code == 2


def test_status_of_an_older_copy(issue, run, rm, shop, url: str, tmp_path: Path) -> None:
    """A ledger that is stopped as a whole says so: its next batch would be stopped, too."""
    issue(1)
    file, copy = tmp_path / "ledger.db", tmp_path / "copy"
    shutil.copyfile(file, copy)
    issue(3)
    shutil.copyfile(copy, file)
    shop.emulator.add_batch("Lunch", key="C", quantity=10)
    ended = rm("issue", "C", "--ledger", url)
    assert (ended.code, shop.issued("C")) == (1, [])
    assert "each batch is stopped until its new baseline: " in run("status").out
    assert run("status", "--json").json[0]["stopped_ledger"]


def test_status_of_one_batch(issue, run) -> None:
    """``--batch`` counts one batch, which need not be known."""
    issue(3)
    assert run("status", "--batch", "B").out.startswith(f"{ALL_ISSUED}account: ")
    assert run("status", "--batch", "other").out.startswith("asked: 0\n")


def test_status_of_what_is_held(attempt, run) -> None:
    """An unknown outcome is exit 4, and what a person must resolve is named."""
    ended = run("status")
    assert ended.code == 4
    assert "unresolved: 1\n" in ended.out
    assert ended.out.splitlines()[-1].startswith(f"to resolve: attempt {attempt}, sent 20")
    assert ended.out.endswith("Z, batch B\n")
    assert run("status", "--batch", "other").code == 0


def test_status_shows_some_attempts_only(issue, run, shop, monkeypatch) -> None:
    """A screen has room for some; the rest is a number."""
    monkeypatch.setattr(commands, "_MANY", 1)
    for count in (2, 4, 6):
        issue(count, lost=1)
    out = run("status").out.splitlines()
    assert sum(line.startswith("to resolve: attempt") for line in out) == 1
    assert out[-1] == "to resolve: 2 more; --json shows all"


def test_status_of_no_file(run, tmp_path: Path) -> None:
    """A file that is not there is no ledger, and is not made: exit 1."""
    ended = run("status")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == f"Error: There is no file {tmp_path}/ledger.db.\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["status", "export"])
def test_looking_while_another_process_uses_it(issue, run, tmp_path: Path, command: str) -> None:
    """Whoever only looks needs not have the ledger for themselves."""
    issue(3)
    guard = FileGuard(tmp_path / "ledger.db")
    guard.acquire()
    ended = run(command)
    assert (ended.code, ended.err) == (0, "")
    guard.release()


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("reconcile", ["B"]), ("baseline", ["B"]), ("resolve", ["x", "--reissue"])],
)
def test_changing_while_another_process_uses_it(
    issue, run, tmp_path: Path, command: str, arguments: list[str]
) -> None:
    """Whoever changes something must have it alone: exit 1, with a sentence."""
    issue(3)
    guard = FileGuard(tmp_path / "ledger.db")
    guard.acquire()
    ended = run(command, *arguments)
    guard.release()
    assert ended.code == 1
    assert "ledger.db is used by another process" in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("export",),
        ("reconcile", "B"),
        ("baseline", "B"),
        ("resolve", "x", "--reissue"),
        ("resolve", "x", "--adopt", "CODE"),
    ],
)
def test_bad_url(rm, shop, arguments: tuple[str, ...]) -> None:
    """A URL that names no ledger is a mistake: exit 2."""
    command, *rest = arguments
    ended = rm("ledger", command, "nowhere", *rest)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("Error: The URL of a database is sqlite:///file.db")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("reconcile", ["B"]), ("baseline", ["B"]), ("resolve", ["x", "--adopt", "CODE"])],
)
def test_memory_is_refused(
    rm, embedded, url: str, tmp_path: Path, command: str, arguments: list[str]
) -> None:
    """What asks the server can't ask an emulator that begins empty: exit 2, no file."""
    ended = rm("ledger", command, url, *arguments, "--environment", "memory")
    assert (ended.code, embedded.made, list(tmp_path.iterdir())) == (2, [], [])
    assert "the environment is 'memory'" in ended.err


def test_reconcile_settles(issue, run, shop) -> None:
    """In an exclusive batch the lost code is adopted, and is its recipient's: exit 0."""
    codes = issue(3)
    shop.on_issue = lambda work: work()
    ended = run("reconcile", "B", "--exclusive", "--settle", 0)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "3 listed: 0 adopted, 0 not issued, 0 open, 0 held\n"
    (shown,) = run("reconcile", "B", "--exclusive", "--settle", 0, "--json").json
    assert (shown["listed"], shown["held"], shown["alarm"]) == (3, [], None)
    assert len(codes) == 3


def test_reconcile_shows_candidates(attempt, run, shop, issue) -> None:
    """What is held is shown with the codes that it may have issued: exit 4."""
    code = lost_code(shop, issue(3))
    ended = run("reconcile", "B", "--settle", 0)
    assert ended.code == 4
    first, second = ended.out.splitlines()
    assert first == "3 listed: 0 adopted, 0 not issued, 0 open, 1 held"
    assert second.startswith(f"attempt {attempt}, sent 20")
    assert second.endswith(f"Z: {code}")
    (shown,) = run("reconcile", "B", "--settle", 0, "--json").json
    assert shown["held"][0]["candidates"] == [code]


def test_reconcile_shows_the_same_codes_once(run, rm, url: str, shop) -> None:
    """Attempts that may have issued the same codes have them listed once."""
    shop.on_issue = lambda work: (work(), SERVER_ERROR)[1]
    rm("issue", "B", "--count", 2, "--ledger", url, "--settle", 0, "--concurrency", 1)
    _, first, second = run("reconcile", "B", "--settle", 0).out.splitlines()
    assert set(first.partition("Z: ")[2].split(", ")) == set(shop.issued())
    assert second.endswith("Z: the same 2 codes")


@pytest.mark.parametrize(
    "arguments",
    [("reconcile", "B", "--settle", 0), ("baseline", "B"), ("resolve", "1", "--reissue")],
)
def test_no_file_is_made(run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A misspelt file is not taken for a ledger in which nothing is open: exit 1."""
    ended = run(*arguments)
    assert (ended.code, ended.err) == (1, f"Error: There is no file {tmp_path}/ledger.db.\n")
    assert not list(tmp_path.glob("ledger.db*"))


def test_baseline_of_no_batch_keeps_nothing(issue, run) -> None:
    """A misspelt batch is refused, and the ledger does not show it as stopped from then on."""
    issue(1)
    assert run("baseline", "NOPE").code == 1
    assert "stopped" not in run("status").out


def test_reconcile_static_batch(run, shop, issue) -> None:
    """A static batch is a mistake: exit 2."""
    issue(1)
    shop.emulator.add_batch("Static", key="S", quantity=10, static_code="SAME")
    ended = run("reconcile", "S", "--settle", 0)
    assert ended.code == 2
    assert "This batch is static" in ended.err


def test_reconcile_stops_a_batch_that_is_not_exclusive(issue, run, shop, rm, url: str) -> None:
    """A code of somebody else's in an exclusive batch stops it; a new baseline begins anew."""
    issue(3)
    rm("issue", "B")  # by somebody without the ledger
    shop.emulator.advance(3600)
    rm("issue", "B")
    ended = run("reconcile", "B", "--exclusive", "--settle", 0)
    assert ended.code == 4
    assert ended.out.splitlines()[-1].startswith("The batch is stopped: ")
    assert "batch B is stopped: " in run("status").out
    stopped = rm("issue", "B", "--count", 5, "--ledger", url)
    assert (stopped.code, len([row for row in stopped.rows if row["code"]])) == (1, 3)
    assert "Nothing is issued from this batch: " in stopped.err
    assert "Don't read a new baseline before you know who has a code" in stopped.err
    begun = run("baseline", "B")
    assert begun.code == 0
    assert begun.err == "A new baseline: 2 code(s) of others, 0 request(s) to resolve.\n"
    assert all(issue(5).values())


def test_resolve_adopt(attempt, run, shop, issue) -> None:
    """A code that the attempt issued is given to its request."""
    codes = issue(3)
    code = lost_code(shop, codes)
    ended = run("resolve", attempt, "--adopt", code)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == f"attempt {attempt}: adopted: its code is given.\n"
    assert issue(3) == {**codes, "2": code}
    assert run("status").code == 0


def test_resolve_reissue(attempt, run, shop, issue) -> None:
    """The request waits again, and has another voucher."""
    assert run("resolve", attempt, "--reissue").code == 0
    codes = issue(3)
    assert all(codes.values())
    assert len(shop.issued()) == 4


def test_resolve_write_off(attempt, run, shop, issue) -> None:
    """The request is given up; its recipient fails from then on, and alone."""
    assert run("resolve", attempt, "--write-off").code == 0
    codes = issue(4)
    assert [name for name, code in codes.items() if not code] == ["2"]
    assert "cancelled: 1\n" in run("status").out


@pytest.mark.parametrize(
    "options",
    [(), ("--reissue", "--write-off"), ("--adopt", "CODE", "--reissue")],
)
def test_resolve_takes_one_option(attempt, run, options: tuple[str, ...]) -> None:
    """None or two are a mistake: exit 2, nothing is changed."""
    ended = run("resolve", attempt, *options)
    assert ended.code == 2
    assert ended.err == "Error: Give one of --adopt, --reissue and --write-off.\n"
    assert run("status").code == 4


def test_resolve_unknown_attempt(attempt, run) -> None:
    """An attempt that the ledger has not: exit 1."""
    ended = run("resolve", "nope", "--reissue")
    assert (ended.code, ended.err) == (1, "Error: The ledger has no such attempt.\n")


def test_resolve_again(attempt, run) -> None:
    """What was resolved is not resolved again: exit 1."""
    run("resolve", attempt, "--reissue")
    ended = run("resolve", attempt, "--write-off")
    assert ended.code == 1
    assert ended.err == "Error: Nothing is to be resolved: this attempt is not_issued.\n"


def test_resolve_adopt_of_a_code_that_can_not_be_read(attempt, run, rm, shop) -> None:
    """Nor is a code adopted whose batch nobody can tell."""
    (row,) = rm("issue", "B").rows
    reply = shop.emulator.reply

    def spoil(request):
        answer = reply(request)
        wire = orjson.loads(answer.response.body)
        if "voucherBatchKey" in wire.get("item", {}):
            wire["item"]["voucherBatchKey"] = 5
        response = attrs.evolve(answer.response, body=orjson.dumps(wire))
        return attrs.evolve(answer, response=response)

    shop.emulator.reply = spoil
    ended = run("resolve", attempt, "--adopt", row["code"])
    assert ended.code == 2
    assert ended.err == "Error: The batch or status of this code can't be read.\n"


def test_resolve_adopt_of_another_batch(attempt, run, rm, shop) -> None:
    """A code of another batch is a mistake: exit 2, nothing is changed."""
    shop.emulator.add_batch("Lunch", key="C", quantity=10)
    (row,) = rm("issue", "C").rows
    ended = run("resolve", attempt, "--adopt", row["code"])
    assert ended.code == 2
    assert ended.err == "Error: This code is of another batch than the attempt.\n"
    assert run("status").code == 4


def test_resolve_adopt_of_what_was_not_issued(run, rm, url: str, shop) -> None:
    """A code that the server will still issue to somebody is a mistake: exit 2."""
    shop.emulator.add_batch("Uploaded", key="U", codes=["UPLOADED1", "UPLOADED2"])
    shop.on_issue = lambda work: (work(), SERVER_ERROR)[1]
    rm("issue", "U", "--ledger", url, "--settle", 0)
    (attempt,) = run("status", "--json").json[0]["attempts"]
    (left,) = {"UPLOADED1", "UPLOADED2"} - set(shop.issued("U"))
    ended = run("resolve", attempt["attempt"], "--adopt", left)
    assert (ended.code, ended.err) == (2, "Error: This code has not been issued.\n")
    assert run("resolve", attempt["attempt"], "--adopt", *shop.issued("U")).code == 0


def test_resolve_adopt_of_a_known_code(attempt, run, issue) -> None:
    """A code that somebody has is given to nobody else: exit 1."""
    ended = run("resolve", attempt, "--adopt", issue(3)["1"])
    assert (ended.code, ended.err) == (1, "Error: The ledger has this code already, as assigned.\n")


def test_resolve_adopt_of_no_code(attempt, run) -> None:
    """A code that the server does not know: exit 1."""
    ended = run("resolve", attempt, "--adopt", "NoSuchCode")
    assert ended.code == 1
    assert "NoSuchCode" not in ended.err


def test_export(attempt, run, shop, issue, tmp_path: Path) -> None:
    """All requests with their codes, to standard output or a file for its owner alone."""
    codes = issue(3)
    ended = run("export")
    assert ended.out.splitlines()[0] == "request,batch,state,code,qr_url,error"
    rows = {row["request"]: (row["batch"], row["state"], row["code"]) for row in ended.rows}
    assert rows == {
        "1": ("B", "assigned", codes["1"]),
        "2": ("B", "unresolved", ""),
        "3": ("B", "assigned", codes["3"]),
    }
    path = tmp_path / "all.csv"
    for _ in range(2):
        assert run("export", "--output", path).out == ""
        assert (path.read_text(), path.stat().st_mode & 0o7777) == (ended.out, 0o600)
    assert not [name for name in tmp_path.iterdir() if name.name.startswith("all.csv.")]
    assert run("export", "--batch", "other").rows == []
