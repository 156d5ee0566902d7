"""One process of several that share a rate: it issues for so long, and says what it met.

``python rate_process.py STORE|- CONCURRENCY``, with the ``RM_`` variables of the emulator. It says
that it is ready, and reads when to stop, in seconds of the wall clock.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable

from rm_voucher import (
    Attempt,
    AttemptResult,
    Credentials,
    Environment,
    VoucherClient,
    bulk_issue,
)
from rm_voucher.shared import open_shared_store


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main(store_url: str, concurrency: int) -> None:
    met: dict[str, Counter[int]] = {"taken": Counter(), "throttled": Counter(), "other": Counter()}

    def count(attempt: Attempt) -> Callable[[AttemptResult], None] | None:
        def after(result: AttemptResult) -> None:
            kinds = {200: "taken", 429: "throttled"}
            met[kinds.get(result.http_status or 0, "other")][int(time.time())] += 1

        return after if attempt.operation == "issue" else None

    def recipients(until: float):
        number = 0
        while time.time() < until:
            yield number
            number += 1

    store = None if store_url == "-" else open_shared_store(store_url)
    async with VoucherClient(
        Credentials.from_env(), environment=Environment.from_env(), shared=store, hooks=[count]
    ) as client:
        say("ready")
        until = float(sys.stdin.readline())
        async with bulk_issue(
            client, "B", recipients(until), concurrency=concurrency, signers=0
        ) as run:
            async for _ in run:
                pass
        state = client.flow
    if store is not None:
        await store.aclose()
    say(json.dumps({**met, "processes": state.processes, "away": state.store_away_s}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
