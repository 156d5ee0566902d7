"""How far a command is: a bar on a terminal, else lines for a log; both on standard error."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from simulation.clock import VirtualClock
from simulation.loop import VirtualLoop
from support.terminals import Terminal

from rm_voucher import FlowState
from rm_voucher.cli.progress import client_progress, progress
from rm_voucher.cli.screen import SCREEN

GOES_ON = "Going on."
FREE = FlowState(rate_per_s=None, throttled=0, waiting=0, retry_after_s=0.0, outage_s=None)


def flow(**state: Any) -> FlowState:
    return attrs.evolve(FREE, **state)


def beside(bar: str) -> str:
    """What stands beside the bar itself."""
    words = [word for word in bar.split() if not re.fullmatch(r"━+|[-\d]+:[-\d:]+", word)]
    return " ".join(words).removeprefix("issuing ")


@pytest.fixture
def attach(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Terminal]:
    """Let standard error be a terminal; to be called in the test, where pytest's own is set."""

    def attach(columns: int = 120) -> Terminal:
        terminal = Terminal(columns)
        terminal.stands_for(monkeypatch)
        return terminal

    return attach


@pytest.mark.parametrize(
    ("total", "ended"),
    [
        (1, [1]),
        (3, [1, 2, 3]),
        (25, [3, 5, 8, 10, 13, 15, 18, 20, 23, 25]),
        (20_000, range(2_000, 20_001, 2_000)),
    ],
)
def test_lines(capsys: pytest.CaptureFixture[str], total: int, ended: list[int]) -> None:
    """Without a terminal it is a plain line at each tenth, the last one when all have ended."""
    with progress("issuing", total) as shown:
        for number in range(1, total + 1):
            shown.update(number, issued=number, failed=0, unknown=0)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"{number:,} of {total:,}: {number:,} issued, 0 failed, 0 unknown" for number in ended
    ]


def test_lines_without_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """Work that ends in one way only is a number."""
    with progress("drawing", 2) as shown:
        shown.update(1)
        shown.update(1)
        shown.update(2)
    assert capsys.readouterr().err == "1 of 2\n2 of 2\n"


async def test_lines_tell_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    """What holds the calls back stands in the line of a tenth, too."""
    async with client_progress("issuing", 10, lambda: flow(rate_per_s=47.0)) as shown:
        await asyncio.sleep(0)
        shown.update(6, issued=6, failed=0, unknown=0)
    assert capsys.readouterr().err == "6 of 10: 6 issued, 0 failed, 0 unknown; at most 47/s\n"


@pytest.mark.parametrize("total", [0, 10])
def test_quiet_is_quiet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, total: int
) -> None:
    """A quiet command shows neither, and work on nothing is not shown."""
    monkeypatch.setattr(SCREEN, "quiet", bool(total))
    with progress("issuing", total) as shown:
        shown.update(10, issued=10)
        shown.countdown(5, "settling")
        shown.flow(flow(outage_s=1.0))
        shown.look()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("TERM", ""), ("NO_COLOR", "1")])
def test_no_bar_is_wanted(monkeypatch: pytest.MonkeyPatch, attach, name: str, value: str) -> None:
    """A terminal that draws nothing, or is to have no colours, gets plain lines, and no escape."""
    terminal = attach()
    monkeypatch.setenv(name, value)
    with progress("issuing", 10) as shown:
        shown.update(10, issued=10)
    assert terminal.lines == ["10 of 10: 10 issued"]


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ({"issued": 6, "failed": 0, "unknown": 0}, "6/10"),
        ({"issued": 3, "failed": 1, "unknown": 2}, "6/10 1 failed, 2 unknown"),
        ({"issued": 0, "failed": 6_000}, "6/10 6,000 failed"),
        ({}, "6/10"),
    ],
)
def test_bar(attach, capfd, counts: dict[str, int], shown: str) -> None:
    """On a terminal it is a bar with the number that have ended, and troubles when there are."""
    terminal = attach()
    with progress("issuing", 10) as bar:
        bar.update(6, **counts)
    assert [beside(line) for line in terminal.lines] == [shown]
    assert terminal.lines[0].count("━") == 40
    assert capfd.readouterr().out == ""


def test_bar_tells_what_is_left(attach) -> None:
    """By the pace of the last half minute."""
    terminal = attach()
    clock = VirtualClock()
    with progress("issuing", 1_000, clock=clock.monotonic) as bar:
        assert "-:--:--" in terminal.frames[-1]
        for done in range(1, 101):
            clock.now += 1
            bar.update(done)
        assert " 0:15:00" in terminal.frames[-1]
        for done in range(100, 900, 10):
            clock.now += 1
            bar.update(done)
        bar.update(900)
        bar.look()
        assert " 0:00:10" in terminal.frames[-1]


FLOWS = [
    (FREE, "", ""),
    (flow(rate_per_s=46.6), "at most 47/s", "47/s"),
    (flow(rate_per_s=12_345.0), "at most 12,345/s", "12,345/s"),
    (flow(rate_per_s=2.5), "at most 2.5/s", "2.5/s"),
    (flow(rate_per_s=47.0, retry_after_s=11.2), "held back for 12 s", "wait 12 s"),
    (
        flow(rate_per_s=47.0, retry_after_s=11.2, outage_s=34.8),
        "the server fails; tried again (35 s)",
        "server fails 35 s",
    ),
    (flow(outage_s=0.0), "the server fails; tried again (0 s)", "server fails 0 s"),
]


@pytest.mark.parametrize(("state", "long", "short"), FLOWS)
async def test_bar_shows_what_holds_the_calls_back(
    attach, state: FlowState, long: str, short: str
) -> None:
    """Beside the bar stands the rate, a wait that the server asks for, or that it fails, although
    nothing has ended."""
    terminal = attach()
    async with client_progress("issuing", 10, lambda: state):
        await asyncio.sleep(0)
    assert [beside(line) for line in terminal.lines] == [f"0/10 {long}".strip()]


@pytest.mark.parametrize(("state", "long", "short"), FLOWS)
async def test_bar_of_40_columns(attach, state: FlowState, long: str, short: str) -> None:
    """Where there is little room, few words say it; the numbers stay whole."""
    terminal = attach(40)
    async with client_progress("issuing", 5_000, lambda: state) as shown:
        shown.update(1_234, issued=1_234)
        await asyncio.sleep(0)
    (line,) = terminal.lines
    assert "1,234/5,000" in line
    assert len(line) < 40
    assert short in line or long in line


def test_bar_of_any_width(attach) -> None:
    """The numbers are whole at any width that they fit into, and the bar is one line."""
    for columns in range(20, 121):
        terminal = attach(columns)
        with progress("issuing", 5_000) as shown:
            shown.flow(flow(outage_s=11.0))
            shown.update(4_260, issued=4_194, failed=64, unknown=2)
            shown.look()
        (line,) = terminal.lines
        assert "4,260/5,000" in line
        assert len(line) < columns
        assert ("64 failed, 2 unknown" in line) is (columns > 33)
        assert ("server fails 11 s" in line or "the server fails;" in line) is (columns > 51)


async def test_bar_shows_troubles_and_flow(attach) -> None:
    """What failed so far is not hidden by how fast it goes, whichever was told last."""
    terminal = attach()
    async with client_progress("issuing", 10, lambda: flow(rate_per_s=47.0)) as shown:
        shown.update(4, issued=3, failed=1, unknown=0)
        await asyncio.sleep(0)
    assert [beside(line) for line in terminal.lines] == ["4/10 1 failed; at most 47/s"]


def test_bar_counts_a_wait_down(attach) -> None:
    """A wait whose end is known is told by what is left of it, until it is over."""
    terminal = attach()
    clock = VirtualClock()
    with progress("issuing", 10, clock=clock.monotonic) as bar:
        bar.update(9, issued=9)
        bar.countdown(300, "settling 1 unknown")
        assert terminal.frames[-1].endswith("settling 1 unknown, 0:05:00 left")
        clock.now += 61.5
        bar.look()
        assert terminal.frames[-1].endswith("settling 1 unknown, 0:03:59 left")
        clock.now += 240
        bar.look()
        assert "settling" not in terminal.frames[-1]
        bar.countdown(300, "settling 1 unknown")
        bar.countdown(0, "")
        assert "settling" not in terminal.frames[-1]


def test_bar_keeps_up_while_nothing_ends(attach) -> None:
    """The flow is looked at four times a second for as long as the run lasts, and not after it."""
    attach()
    looked_at: list[float] = []
    clock = VirtualClock()
    loop = VirtualLoop(clock)

    def look() -> FlowState:
        looked_at.append(clock.now)
        return FREE

    async def main() -> None:
        async with client_progress("issuing", 10, look):
            await asyncio.sleep(1)
        await asyncio.sleep(1)

    begun = clock.now
    loop.run(main)
    assert looked_at == [begun, begun + 0.25, begun + 0.5, begun + 0.75]


def test_bar_is_not_drawn_too_often(attach) -> None:
    """Ten times a second at most, however fast it goes; the last word is always shown."""
    terminal = attach()
    clock = VirtualClock()
    with progress("issuing", 10_000, clock=clock.monotonic) as bar:
        for done in range(1, 10_001):
            clock.now += 0.001
            bar.update(done)
        assert len(terminal.frames) <= 110
    assert "10,000/10,000" in terminal.lines[0]


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
        async with client_progress("issuing", 10, lambda: next(left, states[-1])):
            await asyncio.sleep(len(states))

    VirtualLoop(VirtualClock()).run(main)
    assert capsys.readouterr().err.splitlines() == said


@pytest.mark.parametrize("as_json", [False, True])
def test_bar_leaves_stdout_alone(rm, embedded, attach, as_json: bool) -> None:
    """With a bar on standard error, each row is on standard output, and only there."""
    terminal = attach()
    ended = rm("issue", "B", "--count", 5, *["--json"] * as_json)
    assert [ended.out.count(code) for code in embedded.issued] == [2] * 5  # code and QR URL
    assert not [code for code in embedded.issued if code in "".join(terminal.lines)]
    assert "5/5" in "".join(terminal.lines)


@pytest.mark.usefixtures("embedded")
def test_bar_is_told_of_the_clients_own_flow(rm, attach) -> None:
    """What stands beside the bar is the flow of the very client that issues."""
    terminal = attach()
    rm("issue", "B", "--count", 5, "--rate", 12_345)
    assert beside(terminal.lines[-2]) == "5/5 at most 12,345/s"
