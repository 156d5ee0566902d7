"""Bulk issue to a million recipients takes as much memory, and as many tasks, as to 10,000.

Each size runs in a fresh process, over the memory transport and without signing, and keeps no
result. It ends early when a recipient has not exactly one code of its own. Tasks are to be fewer
than twice the concurrency at each sample, and the larger run's peak of memory at most SPREAD_MIB
above the smaller one's.
"""

import asyncio
import itertools
import json
import resource
import sys
import time
from collections.abc import Iterator

from common import Row, at_most, figure, in_fresh_process, main, say

from rm_voucher import (
    BulkStatus,
    Credentials,
    Request,
    Response,
    StaticToken,
    VoucherClient,
    bulk_issue,
)
from rm_voucher.transport.memory import MemoryTransport

SIZES = (10_000, 1_000_000)
CONCURRENCY = 64
SPREAD_MIB = at_most(30, "{:+.0f} MiB")
TASKS = at_most(2 * CONCURRENCY - 1, "{:.0f}")
SAMPLE_EVERY = 50  # requests
REPORT_EVERY = 100_000  # results
# ru_maxrss is in KiB, on macOS in bytes.
MAXRSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


class NoSigner:
    """Signing takes most of a call's time and none of its memory."""

    def sign(self, text: bytes) -> bytes:
        return b"signature"


class Server:
    """Answers with the codes 0, 1, 2 …, and samples how many tasks there are meanwhile."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self.most_tasks = 0

    def __call__(self, request: Request) -> Response:
        number = next(self._numbers)
        if number % SAMPLE_EVERY == 0:
            self.most_tasks = max(self.most_tasks, len(asyncio.all_tasks()))
        body = f'{{"item":{{"code":"{number}"}},"code":"SUCCESS"}}'
        return Response(status=200, body=body.encode())


class Seen:
    """Which numbers came. Of one size whatever the run's, so that it can't hide a growth."""

    def __init__(self) -> None:
        self._marks = bytearray(max(SIZES))
        self.count = 0

    def add(self, number: int) -> None:
        if self._marks[number]:
            sys.exit(f"{number} came twice")
        self._marks[number] = 1
        self.count += 1


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT_BYTES / 2**20


def recipients(size: int) -> Iterator[int]:
    yield from range(size)


async def soak(size: int) -> dict[str, float]:
    """Issue to ``size`` recipients; return the figures."""
    server, had, codes = Server(), Seen(), Seen()
    client = VoucherClient(
        Credentials("soak", "soak", b""),
        transport=MemoryTransport(server),
        token_source=StaticToken("soak"),
        signer=NoSigner(),
    )
    begin = time.perf_counter()
    async with client, bulk_issue(client, "SOAK", recipients(size), concurrency=CONCURRENCY) as run:
        async for result in run:
            if result.status is not BulkStatus.ISSUED or result.voucher is None:
                sys.exit(f"not issued: {result.error}")
            had.add(result.recipient)
            codes.add(int(result.voucher.code))
            if had.count % REPORT_EVERY == 0:
                say(f"{had.count:,} of {size:,}, {peak_mib():.1f} MiB")
    if not had.count == codes.count == run.summary.issued == size:
        sys.exit(f"{had.count} recipients and {codes.count} codes, not {size}")
    elapsed_s = time.perf_counter() - begin
    return {"tasks": server.most_tasks, "peak_mib": peak_mib(), "elapsed_s": elapsed_s}


def measure() -> Iterator[Row]:
    small, large = (in_fresh_process("soak.py", str(size)) for size in SIZES)
    for size, figures in zip(SIZES, (small, large), strict=True):
        peak, took = figures["peak_mib"], figures["elapsed_s"]
        say(f"{size:,} recipients: peak {peak:.1f} MiB, {took:.0f} s")
    apart = large["peak_mib"] - small["peak_mib"]
    what = f"Peak of memory, bulk issue to {SIZES[1]:,}"
    yield Row(
        what,
        f"{large['peak_mib']:.1f} MiB",
        f"to {SIZES[0]:,} {small['peak_mib']:.1f} MiB",
        f"{apart:+.1f} MiB",
        SPREAD_MIB.text,
        SPREAD_MIB.is_met_by(apart),
    )
    most_tasks = max(small["tasks"], large["tasks"])
    yield figure(f"Tasks at once, {CONCURRENCY} calls at once", most_tasks, "{:.0f}", TASKS)


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].isdecimal():
        print(json.dumps(asyncio.run(soak(int(sys.argv[1])))))
    else:
        main(measure)
