"""``rm-voucher issue`` with a ledger: resumed, interrupted, settled, refused."""

from __future__ import annotations

import fcntl
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.answers import ok
from support.command import PATIENCE_S
from support.command_runs import rows as csv_rows
from support.modules import forget

from rm_voucher import Response
from rm_voucher.cli.report import Report
from rm_voucher.ledger.sql.guard import FileGuard

HEADER = "recipient,code,qr_url,voucher_status,error\n"
SERVER_ERROR = ok({}, 500)
AT_ONCE = ("--exclusive", "--settle", 0)


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
def issue(rm, url: str, shop) -> Callable[..., object]:
    """Run it; no code is ever on standard error."""

    def run(count: int | None, *options: object):
        recipients = () if count is None else ("--count", count)
        ended = rm("issue", "B", "--ledger", url, *recipients, *options)
        assert not [code for code in shop.issued() if code in ended.err]
        return ended

    return run


def codes_of(ended) -> dict[str, str]:
    return {row["recipient"]: row["code"] for row in ended.rows}


def lose(shop, *numbers: int, executed: bool = True) -> None:
    """Let these issues, counted from 1, have an answer that proves nothing."""
    count = 0

    def answer(issue: Callable[[], Response]) -> Response:
        nonlocal count
        count += 1
        if count not in numbers:
            return issue()
        if executed:
            issue()
        return SERVER_ERROR

    shop.on_issue = answer


def test_issue_again_returns_the_same(issue, shop) -> None:
    """Run again, it writes the same rows; run for more, it issues what is missing."""
    first = issue(5)
    assert (first.code, len(first.rows)) == (0, 5)
    assert first.err.splitlines()[-1] == "5 asked: 5 issued, 0 failed, 0 unknown"
    assert codes_of(issue(5)) == codes_of(first)
    assert len(shop.issued()) == 5
    more = issue(8)
    assert codes_of(first).items() <= codes_of(more).items()
    assert sorted(codes_of(more).values()) == sorted(shop.issued())


def test_issue_settles_at_the_end(issue, shop) -> None:
    """In an exclusive batch unknown outcomes are settled; it says what it waits for, once."""
    lose(shop, 2, 3)
    ended = issue(6, *AT_ONCE, "--concurrency", 1)
    assert ended.code == 0
    assert sorted(codes_of(ended).values()) == sorted(shop.issued())
    (waiting,) = [line for line in ended.err.splitlines() if "waiting" in line]
    assert waiting == (
        "2 outcomes are unknown: waiting 0 s, so that what the calls did can be seen in the "
        "batch's listing."
    )


def test_issue_shared_holds(issue, shop, url: str) -> None:
    """In a shared batch they are held: exit 4, and the person is told where to look."""
    lose(shop, 2)
    ended = issue(4, "--settle", 0, "--concurrency", 1)
    assert ended.code == 4
    assert [row["voucher_status"] for row in ended.rows].count("unresolved") == 1
    assert ended.err.splitlines()[-1] == (
        "Others may issue from this batch, so a person decides who has a voucher of those whose "
        "outcome is unknown; to run it again changes nothing for them. "
        f"'rm-voucher ledger reconcile {url} B --output held.xlsx' writes who they are and what "
        f"may be theirs. Fill in its column 'decision', and give it to 'rm-voucher ledger resolve "
        f"{url} --decisions held.xlsx'."
    )
    assert issue(4, "--settle", 0).code == 4
    assert len(shop.issued()) == 4


def test_issue_with_somebody_given_up(issue, rm, shop, url: str, tmp_path: Path) -> None:
    """Whom a person gave up is no failure: the campaign is complete, and no run is advised."""
    lose(shop, 2)
    held, output = tmp_path / "held.csv", tmp_path / "out.csv"
    issue(4, "--settle", 0, "--concurrency", 1)
    rm("ledger", "reconcile", url, "B", "--settle", 0, "--output", held)
    (attempt,) = [row["attempt"] for row in csv_rows(held.read_text())]
    assert rm("ledger", "resolve", url, attempt, "--write-off").code == 0
    ended = issue(4, "--output", output)
    assert ended.code == 0
    assert "4 asked: 3 issued, 0 failed, 0 unknown, 1 given up by a person" in ended.err
    assert "again" not in ended.err
    (gone,) = [row for row in csv_rows(output.read_text()) if not row["code"]]
    assert (gone["voucher_status"], gone["error"]) == (
        "given_up",
        "This request was given up by a person.",
    )


def test_issue_exclusive_with_somebody_held(issue, rm, shop, url: str) -> None:
    """Who waits for a person is not settled by another run, whoever owns the batch."""
    lose(shop, 2)
    issue(4, "--settle", 0, "--concurrency", 1)
    ended = issue(4, "--settle", 0, "--exclusive")
    assert ended.code == 4
    assert "Run it again" not in ended.err
    assert f"'rm-voucher ledger reconcile {url} B --output held.xlsx --exclusive'" in ended.err


def test_issue_options_of_a_ledger_without_one(rm, shop) -> None:
    """Who forgets --ledger issues nothing: exit 2."""
    for options in (["--exclusive"], ["--settle", 3]):
        ended = rm("issue", "B", *options)
        assert (ended.code, shop.issued()) == (2, [])
        assert "give --ledger too" in ended.err


def test_issue_ids_of_another_batch(issue, rm, shop, url: str) -> None:
    """The ids of another batch fail, and to run it again is not the advice."""
    issue(2)
    shop.emulator.add_batch("Lunch", key="C", quantity=10)
    ended = rm("issue", "C", "--count", 2, "--ledger", url)
    assert (ended.code, shop.issued("C")) == (1, [])
    assert ended.err.splitlines()[-1].endswith("give each campaign a ledger of its own.")


def test_issue_sold_out_then_topped_up(issue, shop, tmp_path: Path) -> None:
    """A batch that runs out: exit 1; topped up, another run issues to the rest."""
    shop.emulator.state.stock.batch("B").quantity = 3
    path = tmp_path / "out.csv"
    ended = issue(5, "--concurrency", 1, "--output", path, "--partial")
    assert ended.code == 1
    assert "5 asked: 3 issued, 2 failed, 0 unknown" in ended.err
    assert "Run it again with the same ledger" in ended.err
    shop.emulator.state.stock.batch("B").quantity = 5
    assert issue(5, "--output", path).code == 0
    assert sorted(line.split(",")[1] for line in path.read_text().splitlines()[1:]) == sorted(
        shop.issued()
    )
    assert sorted(name.name for name in tmp_path.iterdir() if "csv" in name.name) == ["out.csv"]


def test_issue_output_stale_partial(issue, tmp_path: Path) -> None:
    """What a killed run with a ledger left is written anew."""
    path, stale = tmp_path / "out.csv", tmp_path / "out.csv.ledger.partial"
    stale.write_text(HEADER + "1,OLD")
    assert issue(3, "--output", path).code == 0
    assert len(path.read_text().splitlines()) == 4
    assert not stale.exists()


def test_issue_output_of_another_run_is_refused(issue, shop, tmp_path: Path) -> None:
    """A partial that another run is writing is a mistake: exit 2, and nothing is issued."""
    partial = tmp_path / "out.csv.ledger.partial"
    with partial.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("mine")
        file.flush()
        ended = issue(3, "--output", tmp_path / "out.csv")
    assert (ended.code, shop.issued(), partial.read_text()) == (2, [], "mine")
    assert ended.err.startswith(f"Error: {partial} is there: a run that writes it is going on")


@pytest.mark.parametrize("text", [HEADER + "1,CODE,,issued,\n", "codes\nCODE\n", HEADER + "1\nx\n"])
def test_issue_output_of_another_campaign_is_kept(issue, tmp_path: Path, text: str) -> None:
    """A file with codes that the ledger does not write is kept beside the new one."""
    path = tmp_path / "out.csv"
    path.write_text(text)
    assert issue(3, "--output", path, "--again").code == 0
    assert (tmp_path / "out.csv.1").read_text() == text
    assert len(path.read_text().splitlines()) == 4


def test_issue_interrupted_keeps_the_rows_that_were_there(issue, shop, tmp_path: Path) -> None:
    """An interrupted run loses no row of the file that was there; resumed, it has all rows."""
    path = tmp_path / "out.csv"
    recipients = tmp_path / "r.csv"
    issue(5, "--output", path)
    before = path.read_text()

    def interrupt(issue: Callable[[], Response]) -> Response:
        signal.raise_signal(signal.SIGINT)
        return issue()

    shop.on_issue = interrupt
    recipients.write_text("recipient\n" + "".join(f"new{n}\n" for n in range(50)))
    options = ("--recipients", recipients, "--output", path, "--other-people")
    ended = issue(None, *options, "--concurrency", 1)
    assert ended.code == 130
    assert "Stopping: waiting for the calls in flight" in ended.err
    assert "Run it again with the same ledger" in ended.err
    assert (tmp_path / "out.csv.1").read_text() == before
    shop.on_issue = lambda issue: issue()
    assert issue(None, *options).code == 0
    assert len(path.read_text().splitlines()) == 51
    assert not (tmp_path / "out.csv.2").exists()


def test_issue_interrupted_while_it_waits(rm, start, shop, url: str, tmp_path: Path) -> None:
    """Ctrl-C ends the wait for what is unknown at once: exit 4, each has a row.

    It is settled by ``ledger reconcile`` as well as by another run.
    """
    lose(shop, 1)
    path = tmp_path / "out.csv"
    options = ("--exclusive", "--settle", 3600, "--output", path)
    process = start("issue", "B", "--count", 3, "--ledger", url, *options)
    lines: list[str] = []
    while not any("waiting 3,600 s" in line for line in lines):
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 4
    assert "3 asked: 2 issued, 0 failed, 1 unknown" in err
    assert len(path.read_text().splitlines()) == 4
    ended = rm("ledger", "reconcile", url, "B", *AT_ONCE)
    assert (ended.code, ended.out) == (0, "3 listed: 1 adopted, 0 not issued, 0 open, 0 held\n")
    assert ended.err.startswith("Outcomes are unknown: waiting 0 s, ")
    again = rm("issue", "B", "--count", 3, "--ledger", url)
    assert sorted(codes_of(again).values()) == sorted(shop.issued())


def test_issue_ledger_in_use(issue, shop, url: str, tmp_path: Path) -> None:
    """A ledger that another process uses is refused; the file that was there stays."""
    path = tmp_path / "out.csv"
    issue(2, "--output", path)
    before = path.read_text()
    guard = FileGuard(tmp_path / "ledger.db")
    guard.acquire()
    ended = issue(5, "--output", path)
    guard.release()
    assert (ended.code, len(shop.issued()), path.read_text()) == (1, 2, before)
    assert ended.after_plan == (
        f"Error: {tmp_path}/ledger.db is used by another process: a ledger in SQLite has one at a "
        "time. PostgreSQL allows several.\n"
    )
    assert not list(tmp_path.glob("*.partial"))


def test_issue_id_of_another_batch(rm, issue, shop, url: str) -> None:
    """Recipients that were issued to from another batch fail, and it is said why."""
    issue(2)
    shop.emulator.add_batch("Lunch", key="C", quantity=10)
    ended = rm("issue", "C", "--count", 3, "--ledger", url, "--concurrency", 1)
    assert ended.code == 1
    assert [row["voucher_status"] for row in ended.rows] == ["failed", "failed", "issued"]
    assert "The first error: This request id was used with another batch" in ended.err


def test_issue_static_batch(rm, shop, url: str) -> None:
    """A batch with one code for all is refused with a sentence, and nobody is asked for."""
    shop.emulator.add_batch("Static", key="S", quantity=10, static_code="SAME")
    ended = rm("issue", "S", "--count", 3, "--ledger", url)
    assert (ended.code, ended.rows) == (1, [])
    assert "This batch is static, with one code for everybody" in ended.err
    assert "Stopped early: 3 were not asked for." in ended.err


def test_issue_memory_is_refused(rm, embedded, url: str, tmp_path: Path) -> None:
    """An emulator that ends with the command can't be resumed: exit 2."""
    ended = rm("issue", "B", "--ledger", url)
    assert (ended.code, embedded.made, list(tmp_path.iterdir())) == (2, [], [])
    assert ended.err.startswith(
        "Error: --ledger and --shared need a server that outlives the command"
    )


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("campaign.db", "Error: The URL of a database is sqlite:///file.db or postgresql://"),
        ("mysql://x@y/z", "Error: The URL of a database is sqlite:///file.db or postgresql://"),
        ("sqlite://", "Error: SQLite needs a file here: sqlite:///file.db."),
    ],
)
def test_issue_bad_url(rm, shop, tmp_path: Path, bad: str, words: str) -> None:
    """A URL that names no ledger is a mistake: exit 2, no file."""
    ended = rm("issue", "B", "--ledger", bad, "--output", tmp_path / "out.csv")
    assert (ended.code, shop.issued(), list(tmp_path.iterdir())) == (2, [], [])
    assert ended.err.startswith(words)


@pytest.mark.parametrize(
    ("bad", "missing", "what", "extra"),
    [
        ("sqlite:///x.db", "sqlalchemy", "A ledger", "sql"),
        ("postgresql://u@127.0.0.1/x", "sqlalchemy", "A ledger", "postgres"),
        ("postgresql://u@127.0.0.1/x", "psycopg", "PostgreSQL", "postgres"),
    ],
)
def test_issue_missing_extra(
    rm, shop, monkeypatch: pytest.MonkeyPatch, bad: str, missing: str, what: str, extra: str
) -> None:
    """Without the extra it is said what to install: exit 2."""
    forget(monkeypatch, missing, "rm_voucher.database", "rm_voucher.ledger.s")
    monkeypatch.setitem(sys.modules, missing, None)
    ended = rm("issue", "B", "--ledger", bad)
    assert (ended.code, shop.issued()) == (2, [])
    assert ended.err == (
        f"Error: {what} needs the extra '{extra}': pip install 'rm-voucher[{extra}]'.\n"
    )


def test_issue_status_while_it_runs(issue, shop, start, url: str) -> None:
    """``ledger status`` looks at a ledger while a run holds it."""
    said: list[tuple[tuple[str, str], int]] = []

    def look(issue: Callable[[], Response]) -> Response:
        if not said:
            process = start("ledger", "status", url)
            said.append((process.communicate(timeout=PATIENCE_S), process.wait()))
        return issue()

    shop.on_issue = look
    assert issue(3, "--concurrency", 1).code == 0
    ((out, err), code) = said[0]
    assert (err, code) == ("", 4)
    assert "asked: " in out


def test_hint_names_the_part_of_the_ledger(capsys: pytest.CaptureFixture[str]) -> None:
    """What a person copies shows the merchant's own part."""
    Report(1, ledger="env:L", namespace="kedai teh").write(None, as_json=False)
    shown = capsys.readouterr().err
    assert "'rm-voucher ledger status env:L --namespace 'kedai teh'' shows what is open." in shown


def test_report_shows_no_password_of_a_ledger(capsys: pytest.CaptureFixture[str]) -> None:
    """What is shown of a ledger's URL may stand in a log, so it has no password there."""
    report = Report(1, ledger="postgresql://me:hush@host/db?password=hush")
    report.write(None, as_json=True)
    shown = "".join(capsys.readouterr())
    assert "ledger status postgresql://me:***@host" in shown
    assert "hush" not in shown + repr(report)
