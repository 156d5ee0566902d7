"""What a shared rate costs one process: bulk issues with and without a store, by turns, in one run.

The CPU time of this process for each issue, which bounds how many it can make; its signing
processes are not counted, because they do the same for both.

The server sets no limit, and the slow start is over before it is measured. The store is an SQLite
file: what it costs is all this process's own.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from common import Row, at_most, compared, main, say
from loops import Tally, Target, by_library, for_seconds, new_key, server

from rm_voucher import VoucherClient
from rm_voucher.shared import open_shared_store

BAR = at_most(1.03)
ROUNDS = 15
CALLS = 1_500  # a round, of each: short turns, so that a busy machine troubles both alike
SLOW_START_S = 14.0


async def rounds(target: Target, file: Path) -> tuple[list[float], list[float]]:
    """Return the CPU time for an issue in each round, with the store and without."""
    seen = set[str]()
    shared, alone = [], []

    async def cpu_us(client: VoucherClient) -> float:
        begin = time.process_time()
        await by_library(client, range(CALLS), Tally(seen))
        return (time.process_time() - begin) / CALLS * 1e6

    async with (
        open_shared_store(f"sqlite:///{file}") as store,
        target.client(shared=store) as sharing,
        target.client() as single,
    ):
        await by_library(sharing, for_seconds(SLOW_START_S), Tally(seen))
        for number in range(ROUNDS + 1):
            own, other = await cpu_us(sharing), await cpu_us(single)
            say(f"round {number}: shared {own:.0f} µs an issue, alone {other:.0f}")
            if number:  # the first opens the connections
                shared.append(own)
                alone.append(other)
    return shared, alone


def measure() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder, server(new_key()) as target:
        shared, alone = asyncio.run(rounds(target, Path(folder, "shared.db")))
    what = "Bulk issue with a shared rate, CPU time"
    yield compared(what, shared, ("a rate of its own", alone), "{:.0f} µs", BAR)


if __name__ == "__main__":
    main(measure)
