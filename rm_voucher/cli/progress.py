"""Showing how far a bulk issue is: a bar on a terminal, plain lines on any other standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rm_voucher.bulk_results import BulkSummary
from rm_voucher.cli.output import say

__all__ = ["show_progress"]

_LINES = 10


@contextmanager
def show_progress(total: int, *, bar: bool = True) -> Iterator[Callable[[BulkSummary], None]]:
    """Give the function that `bulk_issue` calls as ``on_progress``.

    ``bar``: whether a bar may be drawn, if there is a terminal for it.
    """
    console = Console(stderr=True)
    if not bar or not console.is_terminal:
        yield _Lines(total)
        return
    columns = (
        TextColumn("issuing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    # rich would send what is written to standard output to the bar's console instead.
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as shown:
        task = shown.add_task("", total=total)

        def update(summary: BulkSummary) -> None:
            troubles = f"{summary.failed} failed, {summary.unresolved} unknown"
            shown.update(
                task,
                completed=summary.asked - summary.in_flight,
                description=troubles if summary.failed or summary.unresolved else "",
            )

        yield update


class _Lines:
    """A line at each tenth."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._shown = 0

    def __call__(self, summary: BulkSummary) -> None:
        ended = summary.asked - summary.in_flight
        part = ended * _LINES // self._total
        if part > self._shown:
            self._shown = part
            say(
                f"{ended:,} of {self._total:,}: {summary.issued:,} issued, "
                f"{summary.failed:,} failed, {summary.unresolved:,} unknown"
            )
