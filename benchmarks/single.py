"""A single call, awaited one at a time: the CPU time of this process, ours and by hand.

Both sign with the same key and talk to the same server, by turns. Most of a call is its signature.
Ten runs, each with a client of its own, show how much is chance; on uvloop, three. The bar is a
ratio, because a slower machine takes more for both: 40 µs more than the 379 µs that a call by hand
took on the machine where it was set.
About 2 µs of ours are the look at the connection before the request is written: whether it was
closed, or has unread bytes. Two bare turns of the event loop instead, which show a silent close of
plain http, take 5 µs; the four that TLS needs take 10.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Iterator

import uvloop
from common import Row, at_most, main, say
from loops import BATCH, Tally, Target, by_hand, new_key, server

BAR = at_most(1.11)
RUNS = {"": (10, asyncio.run), " on uvloop": (3, uvloop.run)}
ROUNDS = 9  # a run
CALLS = 150  # a round, of each: short turns, so that a busy machine troubles both alike


async def cpu_us(calls: Awaitable[None]) -> float:
    begin = time.process_time()
    await calls
    return (time.process_time() - begin) / CALLS * 1e6


async def rounds(target: Target) -> tuple[list[float], list[float]]:
    ours, theirs = [], []
    tally = Tally(set())
    async with target.client() as client, target.session() as session:

        async def own() -> None:
            for _ in range(CALLS):
                tally.add((await client.issue(BATCH)).code)

        for number in range(ROUNDS + 1):
            mine = await cpu_us(own())
            other = await cpu_us(by_hand(session, target, range(CALLS), tally, concurrency=1))
            if number:  # the first opens the connections
                ours.append(mine)
                theirs.append(other)
    return ours, theirs


def measure() -> Iterator[Row]:
    with server(new_key()) as target:
        for where, (count, run) in RUNS.items():
            ours, theirs, ratios, more_us = [], [], [], []
            for number in range(count):
                own, other = run(rounds(target))
                ours += own
                theirs += other
                pairs = list(zip(own, other, strict=True))
                ratios.append(statistics.median(a / b for a, b in pairs))
                more_us.append(statistics.median(a - b for a, b in pairs))
                say(
                    f"run {number + 1} of {count}{where}: {ratios[-1]:.3f}, "
                    f"{more_us[-1]:+.0f} µs a call"
                )
            ratio = statistics.median(ratios)
            yield Row(
                f"Single call, CPU time{where}",
                f"{statistics.median(ours):.0f} µs ({statistics.median(more_us):+.0f} µs)",
                f"by hand {statistics.median(theirs):.0f} µs",
                f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                BAR.text,
                BAR.is_met_by(ratio),
            )


if __name__ == "__main__":
    main(measure)
