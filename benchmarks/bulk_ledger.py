"""Bulk issue over loopback HTTP through an SQLite ledger, as a ratio to the same without one.

Both sign each request with the same RSA-2048 key and talk to the same server, in another process,
in short turns. The ledger is a file on this machine's disk, with synchronous=FULL. A run counts
from its beginning to its end, with the listing that the ledger reads before the first.
"""

import asyncio
import itertools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common import Row, at_least, compared, main, say
from loops import BATCH, CONCURRENCY, Tally, Target, new_key, server

from rm_voucher import bulk_issue
from rm_voucher.ledger import Ledger

BAR = at_least(0.8)
ROUNDS = 8
CALLS = 5_000  # a round, of each: enough for signing processes to pay


async def rounds(target: Target, file: Path) -> tuple[list[float], list[float]]:
    """Return the throughputs of each round, with the ledger and without."""
    names = itertools.count()
    seen = set[str]()
    kept, bare = [], []

    async with (
        target.client() as client,
        Ledger.open(f"sqlite:///{file}", mode="exclusive") as ledger,
    ):

        async def per_s(used: Ledger | None) -> float:
            recipients = itertools.islice(names, CALLS)
            tally = Tally(seen)
            run = bulk_issue(client, BATCH, recipients, concurrency=CONCURRENCY, ledger=used)
            async with run:
                async for result in run:
                    if result.voucher is None:
                        sys.exit(f"not issued: {result.error}")
                    tally.add(result.voucher.code)
            return tally.per_s(skip_s=0.0)

        for number in range(ROUNDS + 1):
            own, other = await per_s(ledger), await per_s(None)
            say(f"round {number}: with a ledger {own:,.0f} issues/s, without {other:,.0f}")
            if number:  # the first opens the connections
                kept.append(own)
                bare.append(other)
        counts = await ledger.counts()
        if counts.assigned != counts.asked:
            sys.exit(f"not all assigned: {counts}")
    return kept, bare


def measure() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder, server(new_key()) as target:
        kept, bare = asyncio.run(rounds(target, Path(folder, "ledger.db")))
    what = f"Bulk issue through an SQLite ledger, {CONCURRENCY} at once"
    yield compared(what, kept, ("without a ledger", bare), "{:,.0f} issues/s", BAR)


if __name__ == "__main__":
    main(measure)
