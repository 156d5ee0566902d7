"""Shows how far a command has come: a bar on a terminal, and otherwise a line at each tenth."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rm_voucher.cli.output import say

_LINES = 10


class Shown:
    """What `progress` gives."""

    def __init__(self, update: Callable[[int], None]) -> None:
        self.update = update


@contextlib.contextmanager
def progress(words: str, total: int) -> Iterator[Shown]:
    """Give an object whose ``update`` takes how many are done."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(TextColumn(words), *columns, console=console) as bar:
            task = bar.add_task("", total=total)
            yield Shown(lambda done: bar.update(task, completed=done))
        return
    said = 0

    def line(done: int) -> None:
        nonlocal said
        if (tenth := done * _LINES // max(total, 1)) > said:
            said = tenth
            say(f"{words}: {done:,} of {total:,}")

    yield Shown(line)
