"""Shows how far a command is, and why it waits.

On a terminal it is a bar; otherwise plain lines on standard error, which a log can keep.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from rm_voucher import FlowState
from rm_voucher.cli.screen import SCREEN, can_draw, is_quiet, say

_LINES = 10
_LOOK_S = 0.25  # between two looks at the flow: while all calls wait, nothing else shows it
_LONG_S = 5.0  # a log is not told of a Retry-After that is shorter
_REDRAWN_S = 0.1  # a bar that is drawn more often only flickers
_PACE_S = 30.0  # what is left is told by the pace of so many seconds
_LONGEST, _SHORTEST = 40, 5  # of the bar itself, in columns
_DONE, _LEFT, _PLAIN = "\x1b[32m", "\x1b[90m", "\x1b[0m"


class Progress:
    """How far a command is. This one shows nothing: see `progress` and `client_progress`."""

    def update(self, done: int, **counts: int) -> None:
        """Show how many are done, and how they ended; the first of the counts is the good end."""

    def countdown(self, seconds: float, words: str) -> None:
        """Show that it waits so long, and for what, such as ``settling``; 0 ends it."""

    def flow(self, state: FlowState) -> None:
        """Show why calls wait, or how fast they go."""

    def look(self) -> None:
        """Show what time alone has changed."""


@contextmanager
def progress(
    what: str, total: int, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Progress]:
    """Show the progress of work on so many things, such as ``drawing``.

    It is a bar where one can be drawn, else a line at each tenth, and nothing in a quiet command.
    """
    if is_quiet() or not total:
        yield Progress()
    elif can_draw():
        bar = _Bar(what, total, clock)
        with SCREEN.bar(bar.text):
            yield bar
    else:
        yield _Lines(total)


@asynccontextmanager
async def client_progress(
    what: str, total: int, flow: Callable[[], FlowState]
) -> AsyncIterator[Progress]:
    """Show the progress of a client's calls, and why they wait; ``flow`` gives its flow."""
    with progress(what, total, clock=asyncio.get_running_loop().time) as shown:
        watching = asyncio.create_task(_watch(flow, shown))
        try:
            yield shown
        finally:
            watching.cancel()
            await asyncio.wait([watching])


async def _watch(flow: Callable[[], FlowState], shown: Progress) -> None:
    while True:
        shown.flow(flow())
        shown.look()
        await asyncio.sleep(_LOOK_S)


class _Bar(Progress):
    """One line, as wide as the terminal: the numbers stay, and the rest gives way."""

    def __init__(self, what: str, total: int, clock: Callable[[], float]) -> None:
        self._what, self._total, self._clock = what, total, clock
        self._done = 0
        self._troubles = ""
        self._flow: FlowState | None = None
        self._waits_until, self._waits_for = -math.inf, ""
        self._drawn_at = -math.inf
        self._pace = deque([(clock(), 0)])

    def update(self, done: int, **counts: int) -> None:
        self._done = done
        bad = list(counts.items())[1:]
        self._troubles = ", ".join(f"{number:,} {name}" for name, number in bad if number)
        now, (noted_at, _) = self._clock(), self._pace[-1]
        if now - noted_at >= _LOOK_S:
            self._pace.append((now, done))
            while len(self._pace) > 2 and now - self._pace[0][0] > _PACE_S:
                self._pace.popleft()
        if now - self._drawn_at >= _REDRAWN_S:
            self.look()

    def countdown(self, seconds: float, words: str) -> None:
        self._waits_until, self._waits_for = self._clock() + seconds, words
        self.look()

    def flow(self, state: FlowState) -> None:
        self._flow = state

    def look(self) -> None:
        self._drawn_at = self._clock()
        SCREEN.redraw()

    def text(self, width: int) -> str:
        """Return the bar in so many columns: the richest of its forms that fits."""
        count = f"{self._done:,}/{self._total:,}"
        left = self._left()
        for reason in self._reasons():
            words = "; ".join(each for each in (self._troubles, reason) if each)
            for before, after in (
                (f"{self._what} ", f" {count} {left} {words}"),
                ("", f" {count} {words}"),
            ):
                room = width - len(before) - len(after.rstrip())
                if room >= _SHORTEST:
                    return f"{before}{self._drawn(min(room, _LONGEST))}{after.rstrip()}"
        rest = f"{count} {words}".rstrip()
        return rest if len(rest) <= width else f"{rest[: width - 1]}…"

    def _drawn(self, width: int) -> str:
        full = width * min(self._done, self._total) // self._total
        return f"{_DONE}{'━' * full}{_LEFT}{'━' * (width - full)}{_PLAIN}"

    def _left(self) -> str:
        """Return how long it goes on, by its pace of late."""
        since, done_then = self._pace[0]
        passed_s, done = self._clock() - since, self._done - done_then
        if not done or not passed_s:
            return "-:--:--"
        return _duration((self._total - self._done) * passed_s / done)

    def _reasons(self) -> tuple[str, ...]:
        """Return why it waits, or the rate; then the same in fewer words."""
        waits_s = self._waits_until - self._clock()
        if waits_s > 0:
            left = _duration(waits_s)
            return (f"{self._waits_for}, {left} left", f"{self._waits_for} {left}")
        if self._flow is None:
            return ("",)
        return (_in_words(self._flow), _in_few_words(self._flow))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(math.ceil(round(seconds, 3)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


class _Lines(Progress):
    """A line at each tenth, at the first throttle, and where a pause begins and ends."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._shown = 0
        self._pause = self._flow = ""
        self._was_throttled = False

    def update(self, done: int, **counts: int) -> None:
        part = done * _LINES // self._total
        if part > self._shown:
            self._shown = part
            ends = ", ".join(f"{number:,} {name}" for name, number in counts.items())
            flow = f"; {self._flow}" if self._flow else ""
            say(f"{done:,} of {self._total:,}{ends and ': '}{ends}{flow}")

    def flow(self, state: FlowState) -> None:
        self._flow = _in_words(state)
        if state.throttled and not self._was_throttled:
            self._was_throttled = True
            say("The server throttles: sent as fast as it takes them from here on.")
        before, self._pause = self._pause, ""
        if state.outage_s is not None:
            self._pause = "failing"
        elif state.retry_after_s >= (_LONG_S if not before else math.ulp(0)):
            self._pause = "held"
        if self._pause == before:
            return
        if self._pause == "failing":
            say("The server fails: all calls wait, and one is sent now and then to try it.")
        elif self._pause == "held":
            say(f"The server asks to wait: held back for {math.ceil(state.retry_after_s):,} s.")
        else:
            say("The server answers again." if before == "failing" else "Going on.")


def _in_words(state: FlowState) -> str:
    """Return the words beside the bar: the reason that calls wait, or the rate."""
    if state.outage_s is not None:
        return f"the server fails; tried again ({state.outage_s:,.0f} s)"
    if state.retry_after_s > 0:
        return f"held back for {math.ceil(state.retry_after_s):,} s"
    rate = _rate(state)
    return f"at most {rate}" if rate else ""


def _in_few_words(state: FlowState) -> str:
    if state.outage_s is not None:
        return f"server fails {state.outage_s:,.0f} s"
    if state.retry_after_s > 0:
        return f"wait {math.ceil(state.retry_after_s):,} s"
    return _rate(state)


def _rate(state: FlowState) -> str:
    rate = state.rate_per_s
    if rate is None:
        return ""
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"
