"""A process that dies leaves open what was in flight, however many waited for their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from simulation.clock import VirtualClock
from simulation.loop import CrashError, VirtualLoop
from support.answers import ok
from support.limited_server import LimitedServer, client_at
from support.slow_ledger_store import SlowLedgerStore

from rm_voucher import FlowPolicy, Request, Response, VoucherClient, bulk_issue
from rm_voucher.ledger import AttemptState, Ledger
from rm_voucher.ledger.memory import MemoryTables
from rm_voucher.ledger.rules.records import IssueAttempt
from rm_voucher.runtime import Runtime

_RATE_PER_S = 50.0
_LATENCY_S = 0.05
_COMMIT_S = 0.01
_QUEUE = 256


async def one_by_one(client: VoucherClient, ledger: Ledger) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(_QUEUE):
            group.create_task(ledger.issue(client, "B", f"r{number}"))


async def in_a_run(client: VoucherClient, ledger: Ledger) -> None:
    run = bulk_issue(client, "B", range(_QUEUE), concurrency=64, ledger=ledger, signers=0)
    async with run as results:
        async for _ in results:
            pass


async def finishing(client: VoucherClient, ledger: Ledger) -> None:
    await asyncio.gather(*(ledger.submit("B", f"r{number}") for number in range(_QUEUE)))
    await ledger.finish(client, "B", concurrency=64)


def open_after_kill(
    issue_all: Callable[[VoucherClient, Ledger], Awaitable[None]],
    killed_after_s: float,
    *,
    token_s: float = 0.0,
    rate_per_s: float | None = _RATE_PER_S,
) -> tuple[int, int]:
    """Return how many attempts a killed process left open, and how many were sent."""
    clock, tables = VirtualClock(), MemoryTables()
    server = LimitedServer(clock, latency_s=_LATENCY_S)

    async def serve(request: Request) -> Response:
        if request.operation == "token":
            await asyncio.sleep(token_s)
            return ok({"accessToken": "t", "expiresIn": 2_591_999})
        if request.operation == "issue":
            return await server(request)
        return ok({"items": [], "code": "SUCCESS"})

    async def main() -> None:
        flow = FlowPolicy(rate_per_s=rate_per_s)
        client = client_at(clock, serve, token_source=None, sleep=asyncio.sleep, flow=flow)
        runtime = Runtime(clock=clock.wall, monotonic=clock.monotonic, sleep=asyncio.sleep)
        async with Ledger(SlowLedgerStore(_COMMIT_S, tables), runtime=runtime) as ledger:
            await ledger.prepare(client, "B")
            if token_s:  # of the listing, it ends
                client.caller.tokens.refuse(await client.caller.tokens.token())
            await issue_all(client, ledger)

    loop = VirtualLoop(clock)
    loop.crash_at(clock.now + killed_after_s)
    with pytest.raises(CrashError):
        loop.run(main)
    attempts: list[IssueAttempt] = list(tables.attempts.values())
    return sum(each.state is AttemptState.SENDING for each in attempts), len(server.log)


@pytest.mark.parametrize("killed_after_s", [1.0, 2.503, 4.517])
@pytest.mark.parametrize("issue_all", [one_by_one, in_a_run, finishing])
def test_what_waits_for_its_turn_is_not_open(
    issue_all: Callable[[VoucherClient, Ledger], Awaitable[None]], killed_after_s: float
) -> None:
    """At most the rate times what one issue takes, commits included, and two more."""
    left_open, sent = open_after_kill(issue_all, killed_after_s)
    assert sent > 5
    assert left_open <= _RATE_PER_S * (_LATENCY_S + 2 * _COMMIT_S) + 2


@pytest.mark.parametrize("killed_after_s", [0.08, 0.1, 0.15])
def test_of_a_run_at_most_twice_its_concurrency_is_open(killed_after_s: float) -> None:
    """Without a limit: what is in flight, and the commits before and after that go on meanwhile."""
    left_open, sent = open_after_kill(in_a_run, killed_after_s, rate_per_s=None)
    assert sent > 0
    assert 64 <= left_open <= 2 * 64


@pytest.mark.parametrize("issue_all", [one_by_one, in_a_run, finishing])
def test_what_waits_for_a_token_is_not_open(
    issue_all: Callable[[VoucherClient, Ledger], Awaitable[None]],
) -> None:
    """Not one: without a token nothing is in flight."""
    assert open_after_kill(issue_all, 20.0, token_s=15.0) == (0, 0)
