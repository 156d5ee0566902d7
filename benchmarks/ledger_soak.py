"""A million requests in one SQLite ledger: memory stays flat, the loop free, and status quick.

Memory is compared between 100,000 requests and all of them; a coroutine that wakes every
millisecond measures how late it is. Fails when the process has grown by SPREAD_MIB or more, when
the 99.9th percentile of the lateness is STALL_MS or more, when counting all takes STATUS_S or more,
or when the requests don't add up. ``python benchmarks/ledger_soak.py 200000`` makes fewer.
"""

import asyncio
import itertools
import sys
import tempfile
import time
from pathlib import Path

from ledger import issue_all
from loops import percentile, watch

from rm_voucher.ledger import Ledger
from rm_voucher.ledger.rules.commands import Listed
from rm_voucher.ledger.rules.settling import list_codes

SPREAD_MIB = 50
STALL_MS = 20
STATUS_S = 1.0
WARM = 100_000
BLOCK = 50_000
TASKS = 128  # as a bulk issue with its default concurrency


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


async def soak(requests: int, url: str) -> None:
    numbers = itertools.count()
    late_ms: list[float] = []
    warm_mib = 0.0
    async with Ledger.open(url) as ledger:
        await ledger.store.commit(
            list_codes, Listed(batch="BENCH", at=ledger.clock.latest_now(), last=True)
        )
        watching = asyncio.create_task(watch(late_ms))
        begin = time.perf_counter()
        for done in range(BLOCK, requests + 1, BLOCK):
            await issue_all(ledger, itertools.islice(numbers, BLOCK), TASKS)
            if done == WARM:
                warm_mib = resident_mib()
            rate = done / (time.perf_counter() - begin)
            print(f"{done:,} requests, {resident_mib():.0f} MiB, {rate:,.0f} a second", flush=True)
        watching.cancel()
        grown_mib = resident_mib() - warm_mib
        begin = time.perf_counter()
        counts = await ledger.counts()
        status_s = time.perf_counter() - begin
    stall_ms = percentile(late_ms, 0.999)
    print(
        f"grown by {grown_mib:.1f} MiB since {WARM:,} (limit {SPREAD_MIB}); "
        f"late by {stall_ms:.1f} ms at p99.9 (limit {STALL_MS}); "
        f"status in {status_s:.2f} s (limit {STATUS_S})"
    )
    if counts.asked != requests or counts.assigned != requests:
        sys.exit(f"not all assigned: {counts}")
    if grown_mib >= SPREAD_MIB or stall_ms >= STALL_MS or status_s >= STATUS_S:
        sys.exit("over the limit")


def main() -> None:
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(soak(requests, f"sqlite:///{folder}/ledger.db"))


if __name__ == "__main__":
    main()
