"""A bulk issue's calls go on while its ledger commits, and are never more than it was told."""

from __future__ import annotations

import asyncio

from simulation.clock import VirtualClock
from simulation.loop import VirtualLoop
from support.answers import ok
from support.limited_server import client_at
from support.slow_ledger_store import SlowLedgerStore

from rm_voucher import Request, Response, StaticToken, bulk_issue
from rm_voucher.ledger import Ledger
from rm_voucher.runtime import Runtime

_CONCURRENCY = 16
_RECIPIENTS = 640
_CALL_S = 0.05
_COMMIT_S = 0.02


def test_calls_go_on_while_the_ledger_commits() -> None:
    """A run takes what its calls take, and not what the two commits of each take besides."""
    clock = VirtualClock()
    calls = most_calls = issued = 0

    async def serve(request: Request) -> Response:
        nonlocal calls, most_calls, issued
        if request.operation != "issue":
            return ok({"items": [], "code": "SUCCESS"})
        calls += 1
        most_calls = max(most_calls, calls)
        await asyncio.sleep(_CALL_S)
        calls -= 1
        issued += 1
        return ok({"item": {"code": f"C{issued:08}", "qrUrl": "https://x"}, "code": "SUCCESS"})

    async def main() -> float:
        client = client_at(clock, serve, token_source=StaticToken("t"), sleep=asyncio.sleep)
        runtime = Runtime(clock=clock.wall, monotonic=clock.monotonic, sleep=asyncio.sleep)
        async with Ledger(SlowLedgerStore(_COMMIT_S), runtime=runtime) as ledger:
            await ledger.prepare(client, "B")
            begun = clock.now
            run = bulk_issue(
                client, "B", range(_RECIPIENTS), concurrency=_CONCURRENCY, ledger=ledger, signers=0
            )
            async with run:
                async for result in run:
                    assert result.voucher is not None
            return clock.now - begun

    took_s = VirtualLoop(clock).run(main)
    assert issued == _RECIPIENTS
    assert most_calls == _CONCURRENCY
    assert took_s <= 1.1 * _RECIPIENTS / _CONCURRENCY * _CALL_S
