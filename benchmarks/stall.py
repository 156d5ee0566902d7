"""How late a coroutine is that sleeps a millisecond again and again, beside a bulk issue.

256 calls at once, signing in processes of its own as `bulk_issue` decides; for information the
same with ``signers=0``, and with the loop by hand. The first half second of a run does not count.
"""

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Iterator

import attrs
from common import Row, at_most, main, say
from loops import (
    SKIP_S,
    Tally,
    by_hand,
    by_library,
    for_seconds,
    new_key,
    percentile,
    server,
    watch,
)

P99_MS = at_most(5, "{:.0f} ms")
ROUNDS = 5
CONCURRENCY = 256
RUN_S = 3.5
Run = Callable[[], Awaitable[None]]


@attrs.frozen
class Lateness:
    p50_ms: float
    p99_ms: float
    max_ms: float

    def __str__(self) -> str:
        return f"p50 {self.p50_ms:.1f}, p99 {self.p99_ms:.1f}, max {self.max_ms:.1f} ms"


async def beside(run: Run) -> Lateness:
    late_ms: list[float] = []

    async def watch_later() -> None:
        await asyncio.sleep(SKIP_S)
        await watch(late_ms)

    watching = asyncio.create_task(watch_later())
    await run()
    watching.cancel()
    return Lateness(percentile(late_ms, 0.5), percentile(late_ms, 0.99), max(late_ms))


def median(rounds: list[Lateness]) -> Lateness:
    return Lateness(
        statistics.median(one.p50_ms for one in rounds),
        statistics.median(one.p99_ms for one in rounds),
        max(one.max_ms for one in rounds),
    )


async def all_rounds() -> dict[str, Lateness]:
    seen = set[str]()
    found: dict[str, list[Lateness]] = {}
    with server(new_key()) as target:
        async with target.client(CONCURRENCY) as client, target.session(CONCURRENCY) as session:

            def ours(signers: int | None) -> Awaitable[None]:
                work, tally = for_seconds(RUN_S), Tally(seen)
                return by_library(client, work, tally, concurrency=CONCURRENCY, signers=signers)

            def hand() -> Awaitable[None]:
                work, tally = for_seconds(RUN_S), Tally(seen)
                return by_hand(session, target, work, tally, concurrency=CONCURRENCY)

            runs: dict[str, Run] = {
                "ours": lambda: ours(None),
                "without signers": lambda: ours(0),
                "by hand": hand,
            }
            for number in range(ROUNDS):
                for name, run in runs.items():
                    lateness = await beside(run)
                    say(f"round {number + 1}, {name}: {lateness}")
                    found.setdefault(name, []).append(lateness)
    return {name: median(rounds) for name, rounds in found.items()}


def measure() -> Iterator[Row]:
    found = asyncio.run(all_rounds())
    what = f"Lateness of the event loop, {CONCURRENCY} at once"
    p99_ms = found["ours"].p99_ms
    hand = f"by hand {found['by hand']}"
    ratio = f"{p99_ms / found['by hand'].p99_ms:.2f}"
    yield Row(what, str(found["ours"]), hand, ratio, P99_MS.text, P99_MS.is_met_by(p99_ms))
    yield Row(f"{what}, `signers=0`", str(found["without signers"]), hand)


if __name__ == "__main__":
    main(measure)
