"""Rule: on a terminal nothing tears anything, and the numbers of the bar stay.

A run meets throttles, outages, lost answers, log lines and Ctrl-C, in virtual time, and its rows go
to the terminal that the bar is on. ``SCREEN_RUNS`` sets how many seeds are tried.
"""

import itertools
import logging
import os
import re
import sys
import threading

import pytest
from support.screen_runs import LAST, ScreenRun, Script, run_on
from support.terminals import Terminal

from rm_voucher.cli.progress import progress
from rm_voucher.cli.screen import logged_to_person, say, write_out

RUNS = int(os.environ.get("SCREEN_RUNS", "40"))
NUMBERS = r"[\d,]+/[\d,]+( |$)"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    def run(columns: int, script: Script, *, seed: int | None = None) -> ScreenRun:
        with monkeypatch.context() as patch:
            return run_on(Terminal(columns, seed=seed), script, patch)

    return run


def bars(ended: ScreenRun) -> list[str]:
    """Each bar that was to be seen."""
    return [frame for frame in ended.terminal.frames if re.search(NUMBERS, frame)]


def assert_whole(ended: ScreenRun) -> None:
    """Every line stands there as it was written, in that order, and the bar once."""
    shown, expected = ended.terminal.lines, ended.expected
    place = expected.index(LAST)
    assert re.search(NUMBERS, shown[place])
    assert [*shown[:place], LAST, *shown[place + 1 :]] == expected


def codes_shown(ended: ScreenRun) -> set[str]:
    return {code for code in ended.issued if any(f",{code}," in text for text in ended.written)}


@pytest.mark.parametrize("columns", [80, 40])
def test_throttle(run, columns: int) -> None:
    """A server that throttles is told of beside the bar, and all rows are whole."""
    ended = run(columns, Script(rate_limit=5, count=40))
    assert_whole(ended)
    assert ended.report.exit_code == 0
    assert [bar for bar in bars(ended) if re.search(r"wait \d|held back|/s$", bar)]
    assert max(map(len, bars(ended))) < columns


@pytest.mark.parametrize("columns", [80, 40])
def test_outage(run, columns: int) -> None:
    """So is a server that fails; when it answers again, the run goes on."""
    ended = run(columns, Script(outage_s=(0.1, 90.0), count=80, concurrency=32))
    assert_whole(ended)
    failing = [bar for bar in bars(ended) if re.search(r"server fails", bar)]
    assert len({*failing}) > 10  # it counts
    assert len(codes_shown(ended)) == len(ended.issued)
    assert "server fails" not in bars(ended)[-1]


@pytest.mark.parametrize("columns", [80, 40])
def test_settle(run, columns: int) -> None:
    """The wait for unknown outcomes counts down, and ends in codes."""
    ended = run(columns, Script(fault_rate=0.2, settle_s=60, count=40))
    assert_whole(ended)
    assert ended.report.exit_code == 0
    left = re.compile(r"settling \d+ unknown,? (\d:\d\d:\d\d)")
    seen = [match[1] for bar in bars(ended) if (match := left.search(bar))]
    assert seen[0] == "0:01:00"
    assert len({*seen}) > 55
    told = [text for text in ended.written if "outcomes are unknown: waiting 60 s" in text]
    assert len(told) == 1


def slow(*presses_s: float, **more: object) -> Script:
    """A run of calls that take ten seconds each."""
    return Script(latency_s=(10.0, 10.1), count=20, presses_s=presses_s, **more)  # type: ignore[arg-type]


FIRST = "Stopping: waiting for the calls in flight, so that no code is lost.\n"


@pytest.mark.parametrize("columns", [80, 40])
def test_first_interrupt_waits(run, columns: int) -> None:
    """The first says that it waits, and every code that comes has a row."""
    ended = run(columns, slow(1.0))
    assert_whole(ended)
    assert FIRST in ended.written
    assert len(ended.issued) == 4
    assert codes_shown(ended) == {*ended.issued}
    assert ended.report.exit_code == 130


def test_second_interrupt_says_what_is_lost(run) -> None:
    """The second says what a third would lose, and changes nothing."""
    once, twice = run(80, slow(1.0)), run(80, slow(1.0, 2.0))
    assert_whole(twice)
    said = [text for text in twice.written if text.startswith("Still waiting")]
    assert "".join(said) == (
        "Still waiting for 4 calls in flight. Once more ends now, and their outcomes stay unknown: "
        "a voucher that was issued by one has no row with its code.\n"
    )
    assert twice.report.exit_code == once.report.exit_code == 130
    assert codes_shown(twice) == {*twice.issued} != set()


@pytest.mark.parametrize("presses_s", [(1.0, 2.0, 3.0), (1.0, 2.0, 3.0, 3.0, 3.1), (1.0, 1.0, 1.0)])
@pytest.mark.parametrize("settle_s", [None, 300.0])
def test_third_interrupt_ends(run, presses_s: tuple[float, ...], settle_s: float | None) -> None:
    """The third ends at once, says of how many calls the outcome is unknown, and writes their rows;
    what a ledger has is settled by the next run."""
    ended = run(80, slow(*presses_s, settle_s=settle_s))
    assert_whole(ended)
    assert ended.written.count("Ending now: the outcome of 4 calls is unknown.\n") == 1
    rows = [text for text in ended.written if ",unresolved," in text]
    assert len(rows) == 4
    assert ended.report.exit_code == 4
    assert ended.issued == []  # the calls were on their way
    kept = [text for text in ended.written if "the ledger has them" in text]
    assert bool(kept) is (settle_s is not None)


def test_third_interrupt_drops_no_answer(run) -> None:
    """An answer that comes at that very moment has its row with its code."""
    for offset in range(-3, 4):
        script = Script(latency_s=(1.0, 1.0), count=20, presses_s=(0.5, 0.7, 1.0 + offset * 1e-9))
        ended = run(80, script)
        assert_whole(ended)
        lost = len([text for text in ended.written if ",unresolved," in text])
        assert len(codes_shown(ended)) == len(ended.issued)
        assert lost in (0, 4)


def test_interrupt_while_it_settles(run) -> None:
    """There is nothing in flight then, and it says so; the ledger keeps what is open."""
    ended = run(80, Script(fault_rate=0.5, settle_s=60, count=20, presses_s=(30.0,)))
    assert_whole(ended)
    assert "Stopping. Nothing is in flight.\n" in ended.written
    assert ended.report.exit_code == 4
    assert ended.written[-1].startswith("Run it again with the same ledger: ")


@pytest.mark.parametrize(
    "part",
    [pytest.param(part, marks=pytest.mark.long if part else ()) for part in range(40)],
)
def test_no_line_is_torn(run, part: int) -> None:
    """Whatever comes together, at 80 and 40 columns, on a terminal that takes some writes only in
    parts: each line is whole, each code that the server made and a call has in hand is there, and
    the bar has whole numbers."""
    for seed in range(part, RUNS, 40):
        script = Script.by_chance(seed)
        for columns in (80, 40):
            ended = run(columns, script, seed=seed)
            assert_whole(ended)
            for frame in ended.terminal.frames:
                assert "━" not in frame or re.search(NUMBERS, frame)
            if script.settle_s is None and len(script.presses_s) < 3:
                lost = [text for text in ended.written if ",unresolved," in text]
                assert len(codes_shown(ended)) + len(lost) >= len(ended.issued)


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that logs in a thread tears nothing either."""
    terminal = Terminal(60, seed=1)
    terminal.stands_for(monkeypatch, "stdout", "stderr")
    logger = logging.getLogger("rm_voucher.test.threads")
    begin = threading.Barrier(5)

    def log(name: int) -> None:
        begin.wait()
        for number in range(50):
            logger.warning("%s", f"log {name} {number} ".ljust(50, "."))

    with logged_to_person(logger, logging.WARNING), progress("issuing", 200) as shown:
        threads = [threading.Thread(target=log, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        begin.wait()
        for number in range(1, 201):
            write_out(f"row {number}\n")
            shown.update(number, issued=number)
        for thread in threads:
            thread.join()
    assert sorted(terminal.lines[:-1]) == sorted(
        [f"row {number}" for number in range(1, 201)]
        + [f"log {n} {m} ".ljust(50, ".") for n, m in itertools.product(range(4), range(50))]
    )
    assert "200/200" in terminal.lines[-1]


def test_error_that_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that can't be written is its writer's to know; the bar's own lines are nobody's."""
    terminal = Terminal(80)
    terminal.stands_for(monkeypatch, "stdout", "stderr")

    def refuse(_: bytes) -> int:
        raise OSError(28, "No space left on device")

    with progress("issuing", 2) as shown:
        with monkeypatch.context() as patch:
            patch.setattr(terminal, "take", refuse)
            with pytest.raises(OSError, match="No space"):
                write_out("row\n")
            say("nobody reads it")
            shown.look()
        shown.update(2)
    assert "2/2" in terminal.lines[-1]


def test_no_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without one has no bar, and no trouble."""
    monkeypatch.setattr(sys, "stderr", None)
    with progress("issuing", 2) as shown:
        shown.update(2)
    say("nobody reads it")
