"""Bulk issue to a million recipients takes as much memory, and as many tasks, as to 10,000.

Each size runs in a fresh process, over the memory transport and without signing, and keeps no
result. Fails when a recipient has not exactly one code of its own, when tasks are not fewer than
twice the concurrency at any sample, or when the peaks of memory differ by SPREAD_MIB or more.
"""

import asyncio
import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

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
SPREAD_MIB = 30.0
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
                print(f"  {had.count:,} of {size:,}, {peak_mib():.1f} MiB", file=sys.stderr)
    if not had.count == codes.count == run.summary.issued == size:
        sys.exit(f"{had.count} recipients and {codes.count} codes, not {size}")
    elapsed_s = time.perf_counter() - begin
    return {"tasks": server.most_tasks, "peak_mib": peak_mib(), "elapsed_s": elapsed_s}


def in_fresh_process(size: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, str(size)], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.returncode)
    figures: dict[str, float] = json.loads(done.stdout)
    print(
        f"{size:,} recipients: peak {figures['peak_mib']:.1f} MiB, "
        f"at most {figures['tasks']} tasks, {figures['elapsed_s']:.0f} s",
        flush=True,
    )
    return figures


def main() -> None:
    small, large = (in_fresh_process(size) for size in SIZES)
    spread_mib = abs(large["peak_mib"] - small["peak_mib"])
    most_tasks = max(small["tasks"], large["tasks"])
    print(f"peaks {spread_mib:.1f} MiB apart (limit {SPREAD_MIB:.0f})")
    print(f"at most {most_tasks} tasks at once (limit {2 * CONCURRENCY})")
    if spread_mib >= SPREAD_MIB:
        sys.exit("memory grows with the number of recipients")
    if most_tasks >= 2 * CONCURRENCY:
        sys.exit("tasks are not bounded")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(asyncio.run(soak(int(sys.argv[1])))))
    else:
        main()
