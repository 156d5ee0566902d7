"""``ledger resolve --decisions``: many attempts at once, shown first, and carried out once."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.answers import ok
from support.command_runs import Ended, rows

from rm_voucher import LedgerError
from rm_voucher.cli import asking
from rm_voucher.cli.decisions import Decision
from rm_voucher.ledger import Ledger

LOST = ok({}, 500)
COLUMNS = ["attempt", "recipient", "sent_at", "candidates", "decision", "code"]


@pytest.fixture
def shop(served):
    served.emulator.advance(time.time() - served.emulator.virtual_clock.now())
    served.emulator.add_batch("Breakfast", key="B", quantity=100)
    return served


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def held(rm, shop, url: str, tmp_path: Path) -> Path:
    """Of five recipients, 2, 3 and 4 are held; the file that is to be filled in."""
    calls = 0

    def answer(work: Callable[[], Any]) -> Any:
        nonlocal calls
        calls += 1
        answer = work() if calls != 4 else LOST
        return LOST if calls in (2, 3) else answer  # two were issued, and one was not

    shop.on_issue = answer
    rm("issue", "B", "--count", 5, "--ledger", url, "--concurrency", 1, "--settle", 0)
    shop.on_issue = lambda work: work()
    path = tmp_path / "held.csv"
    ended = rm("ledger", "reconcile", url, "B", "--settle", 0, "--output", path)
    assert ended.code == 4
    assert f"{path}: 3 to be decided." in ended.err
    return path


def lost(rm, shop, url: str) -> list[str]:
    """The codes that nobody has."""
    known = {row["code"] for row in rm("ledger", "export", url).rows}
    return [code for code in shop.issued() if code not in known]


def fill(path: Path, *decisions: tuple[str, str]) -> None:
    """Write decisions and codes into the file, a pair for each row, as a person would."""
    filled = rows(path.read_text())
    for row, (decision, code) in zip(filled, decisions, strict=True):
        row["decision"], row["code"] = decision, code
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(filled)


def resolve(rm: Callable[..., Ended], url: str, path: Path, *options: object) -> Ended:
    return rm("ledger", "resolve", url, "--decisions", path, *options)


def test_file_to_fill_in(held, rm, shop, url):
    """A row for each attempt: who, when, and the codes that may be its own; for its owner alone."""
    written = rows(held.read_text())
    assert list(written[0]) == COLUMNS
    assert [row["recipient"] for row in written] == ["2", "3", "4"]
    codes = set(lost(rm, shop, url))
    assert [set(row["candidates"].split(", ")) for row in written] == [codes] * 3
    assert all(row["sent_at"].endswith("Z") and not row["decision"] for row in written)
    assert held.stat().st_mode & 0o777 == 0o600


def test_decisions_are_carried_out(held, rm, shop, url):
    """Each word does what it says, and what was adopted has its QR URL."""
    code, _ = lost(rm, shop, url)
    fill(held, ("adopt", code), ("Write off", ""), ("re-issue".replace("-", ""), ""))
    ended = resolve(rm, url, held, "--yes")
    assert ended.code == 0
    assert f"2, sent {rows(held.read_text())[0]['sent_at']}, may have " in ended.out
    assert f": gets {code}\n" in ended.out
    assert "is given up: nothing is issued for it" in ended.out
    assert "3 decisions: 1 adopt, 1 reissue, 1 write-off." in ended.err
    assert "3 decisions carried out, 0 refused." in ended.err
    exported = {row["request"]: row for row in rm("ledger", "export", url).rows}
    assert (exported["2"]["code"], exported["3"]["state"]) == (code, "cancelled")
    assert exported["2"]["qr_url"].endswith(code)
    assert exported["4"]["state"] == "waiting"
    again = resolve(rm, url, held, "--yes")
    assert (again.code, again.out) == (0, "")
    assert "3 more are carried out already." in again.err


def test_all_that_is_wrong_is_said_at_once(held, rm, url):
    """What the file alone shows, and what the ledger knows; nothing is changed."""
    fill(held, ("keep", ""), ("adopt", "NoSuchCode"), ("write-off", ""))
    ended = resolve(rm, url, held, "--yes")
    assert (ended.code, ended.out) == (2, "")
    assert "line 2: a decision is adopt, reissue or write-off" in ended.err
    assert "line 3: the server knows no such code" in ended.err
    assert "Nothing was changed." in ended.err
    assert rm("ledger", "status", url, "--json").json[0]["unresolved"] == 3


def test_what_is_next_is_said(held, rm, url):
    """Who waits again needs another issue: after a file, and after a single decision."""
    first, second, _ = (row["attempt"] for row in rows(held.read_text()))
    ended = rm("ledger", "resolve", url, first, "--reissue")
    assert f"attempt {first}: it waits again." in ended.err
    assert "gets a voucher in the next 'rm-voucher issue'" in ended.err
    ended = rm("ledger", "resolve", url, second, "--write-off")
    assert ended.err == f"attempt {second}: given up: nothing is issued for it.\n"
    fill(held, ("", ""), ("", ""), ("reissue", ""))
    assert "in the next 'rm-voucher issue'" in resolve(rm, url, held, "--yes").err


def test_many_candidates_are_counted():
    """A line can be read: three codes, and how many more."""
    decision = Decision(
        line=2, attempt="a", word="reissue", candidates=tuple("ABCDE"), recipient="r", sent_at="t"
    )
    assert decision.in_words.startswith("r, sent t, may have A, B, C or one of 2 more: waits")


def test_rows_without_a_decision_are_left(held, rm, url):
    """A person decides some today, and others tomorrow."""
    fill(held, ("", ""), ("write-off", ""), ("", ""))
    assert resolve(rm, url, held, "--yes").code == 0
    (shown,) = rm("ledger", "status", url, "--json").json
    assert (shown["unresolved"], shown["cancelled"]) == (2, 1)


@pytest.mark.parametrize(("typed", "code"), [("resolve", 0), ("no", 1)])
def test_word_is_typed(held, rm, url, monkeypatch, typed: str, code):
    """All is shown, then a word is asked for; another one changes nothing."""
    asked = []

    def ask(question: str, **words: str) -> str:
        asked.append(question)
        return typed

    monkeypatch.setattr(asking, "ask", ask)
    fill(held, ("write-off", ""), ("write-off", ""), ("write-off", ""))
    assert resolve(rm, url, held).code == code
    assert asked == ["To carry them out, type 'resolve'"]
    (shown,) = rm("ledger", "status", url, "--json").json
    assert shown["cancelled"] == (3 if code == 0 else 0)


def test_script_gives_yes(held, rm, url, monkeypatch):
    """Without a terminal nobody can type: all is shown, nothing changed, and the way is named."""
    fill(held, ("write-off", ""), ("", ""), ("", ""))
    monkeypatch.setattr("sys.stdin", None)
    ended = resolve(rm, url, held)
    assert (ended.code, "A script gives --yes." in ended.err) == (2, True)
    assert "is given up" in ended.out
    assert rm("ledger", "status", url, "--json").json[0]["cancelled"] == 0


def test_code_that_can_not_be_theirs(held, rm, shop, url):
    """Everything that is wrong is said at once, and nothing is changed, the right ones neither."""
    shop.emulator.add_batch("Lunch", key="C", quantity=10)
    (other,) = rm("issue", "C").rows
    fill(held, ("adopt", other["code"]), ("adopt", "NoSuchCode"), ("write-off", ""))
    ended = resolve(rm, url, held, "--yes")
    assert (ended.code, ended.out) == (2, "")
    assert "line 2: this code is of another batch than the attempt" in ended.err
    assert "line 3: the server knows no such code" in ended.err
    assert "Nothing was changed." in ended.err
    assert rm("ledger", "status", url, "--json").json[0]["unresolved"] == 3


def test_code_that_somebody_has(held, rm, shop, url):
    """The ledger refuses it; the others are carried out."""
    taken = rm("ledger", "export", url).rows[0]["code"]
    fill(held, ("adopt", taken), ("write-off", ""), ("", ""))
    ended = resolve(rm, url, held, "--yes")
    assert ended.code == 1
    assert "(no candidate)" in ended.out
    assert "line 2: The ledger has this code already, as assigned." in ended.err
    assert "1 decision carried out, 1 refused." in ended.err


def test_decided_otherwise_already(held, rm, url):
    """What was decided in another way since is a mistake in the file."""
    attempt = rows(held.read_text())[0]["attempt"]
    rm("ledger", "resolve", url, attempt, "--write-off")
    fill(held, ("reissue", ""), ("", ""), ("", ""))
    ended = resolve(rm, url, held, "--yes")
    assert ended.code == 2
    assert "line 2: nothing is to be decided, this attempt is written_off" in ended.err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("attempt,decision,code\n", "has no decisions"),
        ("attempt,decision\na,adopt\n", "has no column 'code'"),
        ("attempt,decision,code\na,keep,\n", "line 2: a decision is adopt, reissue or write-off"),
        ("attempt,decision,code\na,adopt,\n", "line 2: a code stands with adopt, and with nothing"),
        ("attempt,decision,code\na,reissue,C\n", "line 2: a code stands with adopt"),
        ("attempt,decision,code\n,reissue,\n", "line 2: a decision, and no attempt"),
        ("attempt,decision,code\na,reissue,\na,reissue,\n", "line 3: the attempt of line 2 again"),
        ("attempt,decision,code\na,adopt,C\nb,adopt,C\n", "line 3: the code of line 2 again"),
        ("attempt,decision,code\nnope,reissue,\n", "line 2: the ledger has no such attempt"),
    ],
)
def test_mistakes_in_the_file(held, rm, url, tmp_path, content, says):
    """A sentence with the line, and 2."""
    path = tmp_path / "mine.csv"
    path.write_text(content)
    ended = resolve(rm, url, path, "--yes")
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err


@pytest.mark.parametrize("options", [("--reissue",), ("x",)])
def test_file_alone_decides(held, rm, url, options):
    """Either the file or the options."""
    ended = rm("ledger", "resolve", url, *options, "--decisions", held)
    assert (ended.code, "the file alone says" in ended.err) == (2, True)


def test_one_attempt_is_named(rm, url):
    """Without a file, it takes one."""
    ended = rm("ledger", "resolve", url, "--reissue")
    assert (ended.code, "Name the attempt" in ended.err) == (2, True)


def test_database_that_fails_ends_it(held, rm, url, monkeypatch):
    """What is carried out stays so; the same file goes on from there."""
    fill(held, ("write-off", ""), ("write-off", ""), ("", ""))
    work, calls = Ledger.resolve, []

    async def fails(self: Ledger, attempt_id: str, **words: Any) -> None:
        calls.append(attempt_id)
        if len(calls) == 2:
            raise LedgerError("The disk is full.") from OSError()
        await work(self, attempt_id, **words)

    monkeypatch.setattr(Ledger, "resolve", fails)
    ended = resolve(rm, url, held, "--yes")
    assert (ended.code, "The disk is full." in ended.err) == (1, True)
    ended = resolve(rm, url, held, "--yes")
    assert (ended.code, "1 more are carried out already." in ended.err) == (0, True)
    assert rm("ledger", "status", url, "--json").json[0]["cancelled"] == 2


def test_file_that_can_not_be_written(held, rm, url, tmp_path):
    """A folder that is not there is a mistake: 2."""
    path = tmp_path / "no" / "held.csv"
    ended = rm("ledger", "reconcile", url, "B", "--settle", 0, "--output", path)
    assert (ended.code, "can't be written" in ended.err) == (2, True)
