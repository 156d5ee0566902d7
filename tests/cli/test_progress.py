"""How far a run is: lines that a log can keep, or a bar on a terminal; both on standard error."""

import asyncio
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from rich.progress import Progress
from simulation.clock import VirtualClock
from simulation.loop import VirtualLoop

from rm_voucher import BulkSummary, FlowState
from rm_voucher.cli.progress import show_progress

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
GOES_ON = "Going on."
FREE = FlowState(rate_per_s=None, throttled=0, waiting=0, retry_after_s=0.0, outage_s=None)


def flow(**state: Any) -> FlowState:
    return attrs.evolve(FREE, **state)


def drawn_last(err: str) -> str:
    """What stands beside the bar in the end."""
    last = ESCAPES.sub("", err).strip().rpartition("issuing ")[2]
    words = [word for word in last.split() if not re.fullmatch(r"[━╸╺]+|[-\d]+:[-\d:]+", word)]
    return " ".join(words)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error passes for a terminal, as rich also takes it to be in a CI with colours."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.parametrize(
    ("total", "ended"),
    [
        (1, [1]),
        (3, [1, 2, 3]),
        (25, [3, 5, 8, 10, 13, 15, 18, 20, 23, 25]),
        (20_000, range(2_000, 20_001, 2_000)),
    ],
)
async def test_lines(capsys: pytest.CaptureFixture[str], total: int, ended: list[int]) -> None:
    """Without a terminal it is a plain line at each tenth, the last one when all have ended."""
    async with show_progress(total, lambda: FREE) as on_progress:
        for number in range(1, total + 1):
            on_progress(BulkSummary(asked=min(number + 4, total), issued=number))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"{number:,} of {total:,}: {number:,} issued, 0 failed, 0 unknown" for number in ended
    ]


async def test_lines_count_all_ends(capsys: pytest.CaptureFixture[str]) -> None:
    """Failed and unknown ones have ended; those in flight have not."""
    async with show_progress(10, lambda: FREE) as on_progress:
        on_progress(BulkSummary(asked=9, issued=3, failed=1, unresolved=2))
        on_progress(BulkSummary(asked=9, issued=3, failed=1, unresolved=2))
    assert capsys.readouterr().err == "6 of 10: 3 issued, 1 failed, 2 unknown\n"


async def test_lines_tell_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    """What holds the calls back stands in the line of a tenth, too."""
    async with show_progress(10, lambda: flow(rate_per_s=47.0)) as on_progress:
        await asyncio.sleep(0)
        on_progress(BulkSummary(asked=9, issued=6))
    assert capsys.readouterr().err == "6 of 10: 6 issued, 0 failed, 0 unknown; at most 47/s\n"


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("summary", "shown"),
    [
        (BulkSummary(asked=9, issued=6), "6/10"),
        (BulkSummary(asked=9, issued=3, failed=1, unresolved=2), "6/10 1 failed, 2 unknown"),
        (BulkSummary(asked=10, failed=10), "10/10 10 failed, 0 unknown"),
    ],
)
async def test_bar(capsys: pytest.CaptureFixture[str], summary: BulkSummary, shown: str) -> None:
    """On a terminal it is a bar with the number that have ended, and troubles when there are."""
    async with show_progress(10, lambda: FREE) as on_progress:
        on_progress(summary)
    out, err = capsys.readouterr()
    assert (out, drawn_last(err)) == ("", shown)


FLOWS = [
    (FREE, ""),
    (flow(rate_per_s=46.6), "at most 47/s"),
    (flow(rate_per_s=12_345.0), "at most 12,345/s"),
    (flow(rate_per_s=2.5), "at most 2.5/s"),
    (flow(rate_per_s=47.0, retry_after_s=11.2), "held back for 12 s"),
    (
        flow(rate_per_s=47.0, retry_after_s=11.2, outage_s=34.8),
        "the server fails; tried again (35 s)",
    ),
    (flow(outage_s=0.0), "the server fails; tried again (0 s)"),
]


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(("state", "shown"), FLOWS)
async def test_bar_shows_what_holds_the_calls_back(
    capsys: pytest.CaptureFixture[str], state: FlowState, shown: str
) -> None:
    """Beside the bar stands the rate, a wait that the server asks for, or that it fails, although
    nothing has ended."""
    async with show_progress(10, lambda: state):
        await asyncio.sleep(0)
    assert drawn_last(capsys.readouterr().err) == f"0/10 {shown}".strip()


@pytest.mark.usefixtures("terminal")
async def test_bar_shows_troubles_and_flow(capsys: pytest.CaptureFixture[str]) -> None:
    """What failed so far is not hidden by how fast it goes, whichever was told last."""
    async with show_progress(10, lambda: flow(rate_per_s=47.0)) as on_progress:
        on_progress(BulkSummary(asked=9, issued=3, failed=1))
        await asyncio.sleep(0)
    assert drawn_last(capsys.readouterr().err) == "4/10 1 failed, 0 unknown; at most 47/s"


@pytest.mark.usefixtures("terminal")
async def test_bar_keeps_its_numbers_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all that there is to say does not fit, how many have ended is still there whole."""
    monkeypatch.setenv("COLUMNS", "80")
    async with show_progress(6_000, lambda: flow(outage_s=11.0)) as on_progress:
        on_progress(BulkSummary(asked=426, issued=362, failed=64))
        await asyncio.sleep(0)
    assert drawn_last(capsys.readouterr().err).startswith("426/6000 64 failed, 0 unknown; the")


@pytest.mark.usefixtures("terminal")
def test_bar_keeps_up_while_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flow is looked at four times a second for as long as the run lasts, and not after it."""
    looked_at: list[float] = []
    clock = VirtualClock()
    loop = VirtualLoop(clock)
    monkeypatch.setattr(Progress, "start", lambda _: None)  # it would draw in a thread

    def look() -> FlowState:
        looked_at.append(clock.now)
        return FREE

    async def main() -> None:
        async with show_progress(10, look):
            await asyncio.sleep(1)
        await asyncio.sleep(1)

    begun = clock.now
    loop.run(main)
    assert looked_at == [begun, begun + 0.25, begun + 0.5, begun + 0.75]


HELD = "The server asks to wait: held back for {} s."
FAILS = "The server fails: all calls wait, and one is sent now and then to try it."
ANSWERS = "The server answers again."
THROTTLES = "The server throttles: sent as fast as it takes them from here on."


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ([FREE, flow(rate_per_s=50.0), flow(rate_per_s=46.5), FREE], []),
        (
            [
                flow(retry_after_s=1.0),
                flow(retry_after_s=0.75),
                FREE,
                flow(retry_after_s=4.9),
                FREE,
            ],
            [],
        ),
        (
            [flow(retry_after_s=11.2), flow(retry_after_s=10.9), flow(retry_after_s=0.1), FREE],
            [HELD.format(12), GOES_ON],
        ),
        ([flow(outage_s=0.0), flow(outage_s=0.2), flow(rate_per_s=20.0)], [FAILS, ANSWERS]),
        ([flow(outage_s=1.0), flow(outage_s=1.2, retry_after_s=60.0), FREE], [FAILS, ANSWERS]),
        ([flow(retry_after_s=60.0), flow(outage_s=0.0), FREE], [HELD.format(60), FAILS, ANSWERS]),
        (
            [flow(outage_s=9.0), flow(retry_after_s=60.0), flow(outage_s=0.0), FREE],
            [FAILS, HELD.format(60), FAILS, ANSWERS],
        ),
        ([flow(retry_after_s=1_200.0)], [HELD.format("1,200")]),
        (
            [FREE, flow(throttled=1, rate_per_s=46.5), flow(throttled=2, rate_per_s=43.2)],
            [THROTTLES],
        ),
    ],
)
def test_lines_say_when_a_pause_begins_and_ends(
    capsys: pytest.CaptureFixture[str], states: list[FlowState], said: list[str]
) -> None:
    """A log gets a line at both ends of a pause, and at the first throttle; none for a rate that
    changes, nor for a short wait of the kind that a campaign meets every few seconds."""
    left = iter(states)

    async def main() -> None:
        async with show_progress(10, lambda: next(left, states[-1])):
            await asyncio.sleep(len(states))

    VirtualLoop(VirtualClock()).run(main)
    assert capsys.readouterr().err.splitlines() == said


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("as_json", [False, True])
def test_bar_leaves_stdout_alone(rm, embedded, as_json: bool) -> None:
    """With a bar on standard error, each row is on standard output, and only there."""
    ended = rm("issue", "B", "--count", 5, *["--json"] * as_json)
    assert [ended.out.count(code) for code in embedded.issued] == [2] * 5  # code and QR URL
    assert [ended.err.count(code) for code in embedded.issued] == [0] * 5


@pytest.mark.usefixtures("embedded", "terminal")
def test_bar_is_told_of_the_clients_own_flow(rm) -> None:
    """What stands beside the bar is the flow of the very client that issues."""
    ended = rm("issue", "B", "--count", 5, "--rate", 12_345)
    assert drawn_last(ended.err.rpartition("5 asked")[0]) == "5/5 at most 12,345/s"


def output_of(terminal: int) -> Iterator[bytes]:
    """Read what a terminal is sent, until the last process that has it open ends."""
    while True:
        try:
            chunk = os.read(terminal, 65_536)
        except OSError:  # Linux says EIO where others say nothing more
            return
        if not chunk:
            return
        yield chunk


@pytest.mark.parametrize(
    "target",
    ["terminal", *(pytest.param(each, marks=pytest.mark.long) for each in ("pipe", "file"))],
)
def test_real_terminal(start, served, monkeypatch: pytest.MonkeyPatch, tmp_path, target) -> None:
    """On a terminal the results are where they were asked for; a bar is not drawn into them."""
    monkeypatch.setenv("TERM", "xterm")
    served.emulator.add_batch("Breakfast", key="B", quantity=30)
    path = tmp_path / "out.csv"
    reading, writing = pty.openpty()
    try:
        arguments = ("issue", "B", "--count", 30, *["--output", path] * (target == "file"))
        stdout = writing if target == "terminal" else subprocess.PIPE
        process = start(*arguments, stdout=stdout, stderr=writing)
        os.close(writing)
        shown = ESCAPES.sub("", b"".join(output_of(reading)).decode())
    finally:
        os.close(reading)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert shown.rstrip().splitlines()[-1].startswith("30 asked: 30 issued, 0 failed, 0 unknown")
    assert [sign in shown for sign in ("━", " 30/30 ", "30 of 30: ")] == (
        [False, False, True] if target == "terminal" else [True, True, False]
    )
    text = {"file": path.read_text, "pipe": lambda: out, "terminal": lambda: shown}[target]()
    rows = [line.split(",") for line in text.splitlines() if line.endswith(",issued,")]
    assert sorted(row[1] for row in rows) == sorted(served.issued())
    assert sorted(int(row[0]) for row in rows) == list(range(1, 31))


def test_bar_and_interrupt(start, served, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted bar gives the terminal its cursor back, and the end is said below it."""
    monkeypatch.setenv("TERM", "xterm")
    served.emulator.add_batch("Breakfast", key="B", quantity=500)
    reading, writing = pty.openpty()
    try:
        process = start("issue", "B", "--count", 500, "--concurrency", 1, stderr=writing)
        os.close(writing)

        def issue(answer):
            if len(served.issued()) == 20:
                process.send_signal(signal.SIGINT)
            return answer()

        served.on_issue = issue
        shown = b"".join(output_of(reading)).decode()
    finally:
        os.close(reading)
    out, _ = process.communicate()
    issued = len(served.issued())
    assert process.returncode == 130
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert ESCAPES.sub("", shown).rstrip().splitlines()[-2:] == [
        f"{issued} asked: {issued} issued, 0 failed, 0 unknown",
        f"Stopped early: {500 - issued} were not asked for.",
    ]
    assert len(out.splitlines()) == issued + 1
