"""Shows the progress of a bulk issue, and the reason for a wait.

On a terminal it is a bar; otherwise plain lines on standard error, which a log can keep.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from rm_voucher import FlowState
from rm_voucher.bulk.results import BulkSummary
from rm_voucher.cli.output import say

_LINES = 10
_LOOK_S = 0.25  # between two looks at the flow: while all calls wait, nothing else shows it
_LONG_S = 5.0  # a log is not told of a Retry-After that is shorter


@asynccontextmanager
async def show_progress(
    total: int, flow: Callable[[], FlowState], *, bar: bool = True
) -> AsyncIterator[Callable[[BulkSummary], None]]:
    """Give a function for the argument ``on_progress`` of `bulk_issue`.

    ``flow`` gives the client's flow. ``bar`` allows a bar, which is drawn if there is a terminal.
    """
    console = Console(stderr=True)
    shown = _Bar(total, console) if bar and console.is_terminal else _Lines(total)
    watching = asyncio.create_task(_watch(flow, shown.flows))
    try:
        with shown.drawn:
            yield shown.counts
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def _watch(flow: Callable[[], FlowState], tell: Callable[[FlowState], None]) -> None:
    while True:
        tell(flow())
        await asyncio.sleep(_LOOK_S)


class _Bar:
    def __init__(self, total: int, console: Console) -> None:
        # Without the redirections: rich would send rows for standard output to the bar's console.
        # On a narrow terminal the bar becomes shorter, and not the numbers.
        self.drawn = Progress(
            TextColumn("issuing"),
            BarColumn(),
            MofNCompleteColumn(table_column=Column(min_width=2 * len(str(total)) + 1)),
            TimeRemainingColumn(table_column=Column(min_width=len("0:00:00"))),
            TextColumn("{task.description}"),
            console=console,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self.drawn.add_task("", total=total)
        self._troubles = self._flow = ""

    def counts(self, summary: BulkSummary) -> None:
        if summary.failed or summary.unresolved:
            self._troubles = f"{summary.failed} failed, {summary.unresolved} unknown"
        self.drawn.update(
            self._task, completed=summary.asked - summary.in_flight, description=self._words
        )

    def flows(self, state: FlowState) -> None:
        self._flow = _in_words(state)
        self.drawn.update(self._task, description=self._words)

    @property
    def _words(self) -> str:
        return "; ".join(words for words in (self._troubles, self._flow) if words)


class _Lines:
    """A line at each tenth, at the first throttle, and where a pause begins and ends."""

    def __init__(self, total: int) -> None:
        self.drawn = nullcontext()
        self._total = total
        self._shown = 0
        self._pause = self._flow = ""
        self._was_throttled = False

    def counts(self, summary: BulkSummary) -> None:
        ended = summary.asked - summary.in_flight
        part = ended * _LINES // self._total
        if part > self._shown:
            self._shown = part
            say(
                f"{ended:,} of {self._total:,}: {summary.issued:,} issued, "
                f"{summary.failed:,} failed, {summary.unresolved:,} unknown"
                f"{'; ' if self._flow else ''}{self._flow}"
            )

    def flows(self, state: FlowState) -> None:
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
    rate = state.rate_per_s
    if rate is None:
        return ""
    return f"at most {rate:,.0f}/s" if rate >= 10 else f"at most {rate:.2g}/s"
