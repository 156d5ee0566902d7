"""What the benchmarks share: rows of the table, medians of rounds, and servers of their own.

A script has `measure`, which yields rows as it has them, and ends with ``common.main(measure)``.
What it writes while it works goes to standard error; standard output has the rows alone.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

HERE = Path(__file__).parent
AS_JSON = "--json"
_HEADINGS = ("what", "ours", "peer or limit", "ratio", "bar", "ok?")
_OK = {True: "yes", False: "**NO**", None: ""}
_BEGUN = time.monotonic()


@attrs.frozen
class Bar:
    """What a figure is held to: at least, or at most, so much."""

    limit: float
    is_least: bool
    text: str

    def is_met_by(self, value: float) -> bool:
        return value >= self.limit if self.is_least else value <= self.limit


def at_least(limit: float, form: str = "{:,.2f}") -> Bar:
    return Bar(limit, is_least=True, text=f"≥ {form.format(limit)}")


def at_most(limit: float, form: str = "{:,.2f}") -> Bar:
    return Bar(limit, is_least=False, text=f"≤ {form.format(limit)}")


@attrs.frozen
class Row:
    """A row of the table. ``ok`` is None where there is no bar."""

    what: str
    ours: str
    peer: str = ""
    ratio: str = ""
    bar: str = ""
    ok: bool | None = None


def figure(what: str, value: float, form: str, bar: Bar | None = None, *, peer: str = "") -> Row:
    """Return the row of a figure that stands for itself."""
    if bar is None:
        return Row(what, form.format(value), peer)
    return Row(what, form.format(value), peer, bar=bar.text, ok=bar.is_met_by(value))


def compared(
    what: str,
    ours: Sequence[float],
    peer: tuple[str, Sequence[float]],
    form: str,
    bar: Bar | None = None,
) -> Row:
    """Return the row of two figures that were taken by turns: the median of the rounds' ratios."""
    name, theirs = peer
    ratio = median_ratio(ours, theirs)
    return Row(
        what,
        form.format(statistics.median(ours)),
        f"{name} {form.format(statistics.median(theirs))}",
        f"{ratio:.2f}",
        "" if bar is None else bar.text,
        None if bar is None else bar.is_met_by(ratio),
    )


def median_ratio(ours: Iterable[float], theirs: Iterable[float]) -> float:
    return statistics.median(own / other for own, other in zip(ours, theirs, strict=True))


def table(rows: Iterable[Row]) -> str:
    """Return the rows as Markdown, in columns that can be read as they are."""
    cells = [_HEADINGS, *((*attrs.astuple(row)[:-1], _OK[row.ok]) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = "|".join("-" * (width + 2) for width in widths)
    first, *others = (f"| {' | '.join(map(str.ljust, line, widths))} |" for line in cells)
    return "\n".join([first, f"|{rule}|", *others])


def say(text: str) -> None:
    """Tell whoever waits how far it is."""
    print(f"[{time.monotonic() - _BEGUN:4.0f} s] {Path(sys.argv[0]).stem}: {text}", file=sys.stderr)


def main(measure: Callable[[], Iterable[Row]]) -> None:
    """Print the rows, and exit 1 if a bar was missed; for the table of all, a JSON line each."""
    rows = []
    for row in measure():
        rows.append(row)
        if AS_JSON in sys.argv:
            print(json.dumps(attrs.asdict(row)), flush=True)
    if AS_JSON in sys.argv:
        return
    print(table(rows))
    if any(row.ok is False for row in rows):
        sys.exit(1)


@attrs.frozen
class Process:
    """A script in a process of its own, as long as it has a standard input."""

    _popen: "subprocess.Popen[str]"

    def line(self) -> str:
        """Return the next line that it prints. Exits where there is none."""
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        if not line:
            sys.exit(f"{self._popen.args!r} ended early")
        return line

    def ask(self, text: str) -> Any:
        """Send it a line; return its answer, a JSON line."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(f"{text}\n")
        self._popen.stdin.flush()
        return json.loads(self.line())

    def start(self) -> None:
        """Send it an empty line, for which it waits."""
        assert self._popen.stdin is not None
        self._popen.stdin.write("\n")
        self._popen.stdin.flush()

    def end(self) -> str:
        """End it, by closing its standard input; return what it printed at last."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.close()
        return self._popen.stdout.read()


@contextmanager
def process(*command: str | Path) -> Iterator[Process]:
    """Run a command until the block is left, or `Process.end` is called."""
    with subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as popen:
        one = Process(popen)
        try:
            yield one
        finally:
            one.end()


@contextmanager
def serving(script: str, *arguments: str | Path) -> Iterator[tuple[int, Process]]:
    """Run a server, one of the scripts here; give the port, which it prints first."""
    with process(sys.executable, HERE / script, *arguments) as server:
        yield int(server.line()), server


def in_fresh_process(script: str, *arguments: str) -> Any:
    """Run one of the scripts here to its end; return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, HERE / script, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)
