"""A request has the token of the moment in which it is sent, not of the one in which it queued."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from simulation.clock import VirtualClock
from support.answers import ok, rm_error
from support.limited_server import client_at, in_virtual_time

from rm_voucher import (
    BulkStatus,
    ConfigurationError,
    FlowPolicy,
    OutcomeUnknownError,
    Request,
    Response,
    ResponseTimeoutError,
    RetryPolicy,
    StaticToken,
    VoucherClient,
    bulk_issue,
)
from rm_voucher.ledger import Ledger
from rm_voucher.runtime import Runtime

MakeClient = Callable[..., VoucherClient]
_QUEUE = 256
_LATENCY_S = 0.05
_RATE_PER_S = 50.0


class Revoking:
    """Takes the latest token alone, and knows how many requests were in flight at a revocation."""

    def __init__(self, clock: VirtualClock, *, grant_s: float = 0.05) -> None:
        self.clock = clock
        self.grant_s = grant_s
        self.number = 0
        self.in_flight = 0
        self.in_flight_then = 0
        self.counts: Counter[str] = Counter()
        self.came_at: list[float] = []

    def revoke(self) -> None:
        self.number += 1
        self.in_flight_then = self.in_flight

    async def __call__(self, request: Request) -> Response:
        if request.operation == "token":
            await asyncio.sleep(self.grant_s)
            self.counts["token"] += 1
            return ok({"accessToken": f"t{self.number}", "expiresIn": 2_591_999})
        self.in_flight += 1
        self.came_at.append(self.clock.now)
        await asyncio.sleep(_LATENCY_S / 2)
        is_known = request.headers["Authorization"] == f"Bearer t{self.number}"
        await asyncio.sleep(_LATENCY_S / 2)
        self.in_flight -= 1
        if not is_known:
            self.counts["refused"] += 1
            return rm_error("TOKEN_EXPIRED", 401)
        if request.operation != "issue":
            return ok({"items": [], "code": "SUCCESS"})
        self.counts["issued"] += 1
        return ok({"item": {"code": f"C{self.counts['issued']}"}, "code": "SUCCESS"})


async def one_by_one(client: VoucherClient, clock: VirtualClock) -> int:
    vouchers = await asyncio.gather(*(client.issue("B") for _ in range(_QUEUE)))
    return len({voucher.code for voucher in vouchers})


async def in_a_run(client: VoucherClient, clock: VirtualClock) -> int:
    async with bulk_issue(client, "B", range(_QUEUE), concurrency=64, signers=0) as run:
        return sum([result.status is BulkStatus.ISSUED async for result in run])


async def through_a_ledger(client: VoucherClient, clock: VirtualClock) -> int:
    async with Ledger.in_memory(runtime=Runtime(monotonic=clock.monotonic)) as ledger:
        vouchers = await asyncio.gather(
            *(ledger.issue(client, "B", f"r{number}") for number in range(_QUEUE))
        )
    return len({voucher.code for voucher in vouchers})


@pytest.mark.parametrize("issue_all", [one_by_one, in_a_run, through_a_ledger])
def test_revocation_costs_what_is_in_flight(
    issue_all: Callable[[VoucherClient, VirtualClock], Awaitable[int]],
) -> None:
    """Those that wait for their turn are sent with the new token, when it comes."""

    async def main(clock: VirtualClock) -> None:
        server = Revoking(clock)
        flow = FlowPolicy(rate_per_s=_RATE_PER_S)
        client = client_at(clock, server, token_source=None, sleep=asyncio.sleep, flow=flow)
        clock.after(2, server.revoke)
        assert await issue_all(client, clock) == _QUEUE
        assert server.counts["token"] == 2
        assert 0 < server.counts["refused"] <= server.in_flight_then + 4

    in_virtual_time(main)


def test_repeat_has_the_token_of_then() -> None:
    """So is a call that waits before it is sent again."""

    async def main(clock: VirtualClock) -> None:
        server = Revoking(clock)
        throttles = iter([rm_error("TOO_MANY_REQUEST_PER_SECOND", 429)] * 20)

        async def serve(request: Request) -> Response:
            throttled = None if request.operation == "token" else next(throttles, None)
            return throttled or await server(request)

        retry = RetryPolicy(initial_wait_s=4, max_wait_s=4)
        client = client_at(
            clock, serve, token_source=None, sleep=asyncio.sleep, retry=retry,
            flow=FlowPolicy(adaptive=False),
        )  # fmt: skip
        calls = [asyncio.create_task(client.issue("B")) for _ in range(20)]
        await asyncio.sleep(1)
        server.revoke()
        await client.issue("B")
        assert server.counts["refused"] == 1
        await asyncio.gather(*calls)
        assert server.counts["refused"] == 1

    in_virtual_time(main)


def test_turns_that_waited_for_a_token_are_taken_anew() -> None:
    """While a new token is bought, calls whose turn had come don't gather and go all at once: only
    those of the last quarter of a second."""

    async def main(clock: VirtualClock) -> None:
        server = Revoking(clock, grant_s=3)
        flow = FlowPolicy(rate_per_s=_RATE_PER_S)
        client = client_at(clock, server, token_source=None, sleep=asyncio.sleep, flow=flow)
        clock.after(5, server.revoke)
        assert await one_by_one(client, clock) == _QUEUE
        came = server.came_at
        most = max(sum(at <= other < at + 0.5 for other in came) for at in came)
        assert most <= _RATE_PER_S * (0.5 + 0.25) + 4

    in_virtual_time(main)


@pytest.mark.parametrize("error", [RuntimeError("defect"), ConfigurationError("none left")])
async def test_token_that_fails_before_a_repeat_hides_no_unknown_outcome(
    make_client: MakeClient, error: Exception
) -> None:
    """A void whose answer was lost is to be sent again, for the voucher shows no trace of it; but
    the first may yet arrive."""

    class Failing(StaticToken):
        fails = False

        async def token(self) -> str:
            if self.fails:
                raise error
            return await super().token()

    def serve(request: Request) -> Response:
        if request.operation == "void":
            raise ResponseTimeoutError("void: no answer in time")
        tokens.fails = True
        return ok({"item": {"code": "X", "status": "ISSUED"}, "code": "SUCCESS"})

    tokens = Failing("token")
    with pytest.raises(OutcomeUnknownError):
        await make_client(serve, token_source=tokens).void("X")
    assert tokens.fails


async def test_token_that_fails_before_the_first_attempt(make_client: MakeClient) -> None:
    """What a source raises is raised as it is: nothing was sent."""

    class Failing(StaticToken):
        async def token(self) -> str:
            raise RuntimeError("defect")

    with pytest.raises(RuntimeError, match="defect"):
        await make_client(print, token_source=Failing("token")).void("X")
