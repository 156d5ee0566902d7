"""Throughput of a bulk issue, ours and by hand: against concurrency, and against latency.

Draws into ``benchmarks/plots``. It yields no row of the table.
"""

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs
import matplotlib as mpl
from common import HERE, Row, main, say
from loops import Tally, Target, by_hand, by_library, for_seconds, new_key, server
from matplotlib.figure import Figure

FOLDER = HERE / "plots"
CONCURRENCIES = (1, 4, 16, 64, 256)
LATENCIES_MS = (10, 50, 200)
AT_ONCE = (64, 256)
RUN_S = 4.0
PLOTS = {
    "concurrency": "Issues a second against calls at once",
    "latency": "Issues a second against the server's latency",
}


@attrs.frozen
class Line:
    name: str
    style: str
    colour: str
    places: list[float] = attrs.field(factory=list)
    per_s: list[float] = attrs.field(factory=list)

    def add(self, place: float, per_s: float) -> None:
        self.places.append(place)
        self.per_s.append(per_s)


def lines(suffix: str = "", style: str = "o-") -> tuple[Line, Line]:
    ours = Line(f"bulk_issue{suffix}", style, "tab:blue")
    return ours, Line(f"aiohttp + cryptography by hand{suffix}", style, "tab:orange")


async def add_point(target: Target, place: float, at_once: int, pair: tuple[Line, Line]) -> None:
    """Measure both, one after the other."""
    ours, hand = pair
    seen = set[str]()
    async with target.client(at_once) as client, target.session(at_once) as session:
        tally = Tally(seen)
        await by_library(client, for_seconds(RUN_S), tally, concurrency=at_once)
        ours.add(place, tally.per_s())
        tally = Tally(seen)
        await by_hand(session, target, for_seconds(RUN_S), tally, concurrency=at_once)
        hand.add(place, tally.per_s())
    say(f"at {place:g}, {at_once} at once: {ours.per_s[-1]:,.0f}, by hand {hand.per_s[-1]:,.0f}")


def against_concurrency() -> Iterator[Line]:
    pair = lines()
    with server(new_key()) as target:
        for at_once in CONCURRENCIES:
            asyncio.run(add_point(target, at_once, at_once, pair))
    yield from pair


def against_latency() -> Iterator[Line]:
    pairs = {
        at_once: lines(f", {at_once} at once", style)
        for at_once, style in zip(AT_ONCE, ("o--", "o-"), strict=True)
    }
    for latency_ms in LATENCIES_MS:
        with server(new_key(), "--latency-ms", str(latency_ms)) as target:
            for at_once, pair in pairs.items():
                asyncio.run(add_point(target, latency_ms, at_once, pair))
    for pair in pairs.values():
        yield from pair


def draw(path: Path, title: str, x: str, places: Iterable[float], drawn: Iterable[Line]) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for line in drawn:
        axes.plot(line.places, line.per_s, line.style, color=line.colour, label=line.name)
    axes.set_xscale("log")
    axes.set_xticks(list(places), [f"{place:g}" for place in places])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set(title=title, xlabel=x, ylabel="issues/s")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def measure() -> Iterator[Row]:
    # Text as text, and the same file for the same figures.
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "rm_voucher"}
    FOLDER.mkdir(exist_ok=True)
    for name, x, places, drawn in (
        ("concurrency", "calls at once", CONCURRENCIES, against_concurrency()),
        ("latency", "latency of the server, ms", LATENCIES_MS, against_latency()),
    ):
        draw(FOLDER / f"{name}.svg", PLOTS[name], x, places, drawn)
    yield from ()


if __name__ == "__main__":
    main(measure)
