"""A single call, awaited one at a time: the CPU time of this process, ours and by hand.

Both sign with the same key and talk to the same server, by turns. Most of a call is its signature.
About 2 µs of ours are the look at the connection before the request is written: whether it was
closed, or has unread bytes. Two bare turns of the event loop instead, which show a silent close of
plain http, take 5 µs; the four that TLS needs take 10.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Iterator

from common import Row, at_most, main, say
from loops import BATCH, Tally, Target, by_hand, new_key, server

MORE_US = at_most(60, "+{:.0f} µs")
ROUNDS = 31
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
        ours, theirs = asyncio.run(rounds(target))
    more_us = statistics.median(own - other for own, other in zip(ours, theirs, strict=True))
    say(f"{more_us:+.0f} µs a call, median of {ROUNDS} rounds")
    yield Row(
        "Single call, CPU time",
        f"{statistics.median(ours):.0f} µs",
        f"by hand {statistics.median(theirs):.0f} µs",
        f"{more_us:+.0f} µs",
        MORE_US.text,
        MORE_US.is_met_by(more_us),
    )


if __name__ == "__main__":
    main(measure)
