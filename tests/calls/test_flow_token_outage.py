"""A server of tokens that is away for a while."""

import asyncio
from collections import Counter

import pytest
from simulation.clock import VirtualClock
from support.answers import ok, rm_error
from support.limited_server import client_at, in_virtual_time

from rm_voucher import (
    BulkStatus,
    ConnectError,
    ConnectTimeoutError,
    FlowPolicy,
    StaticToken,
    Timeout,
    bulk_issue,
)
from rm_voucher.ledger import Ledger
from rm_voucher.runtime import Runtime


class Server:
    """Gives tokens while it is there, and takes the latest."""

    def __init__(self, *, is_there: bool) -> None:
        self.is_there = is_there
        self.number = 0
        self.issued = 0
        self.token_requests = 0

    def end_token(self) -> None:
        self.number += 1

    async def __call__(self, request):
        await asyncio.sleep(0.05)
        if request.operation == "token":
            self.token_requests += 1
            if not self.is_there:
                raise ConnectError("token: no connection")
            return ok({"accessToken": f"t{self.number}", "expiresIn": 2_591_999})
        if request.operation != "issue":
            return ok({"items": [], "code": "SUCCESS"})
        if request.headers["Authorization"] != f"Bearer t{self.number}":
            return rm_error("TOKEN_EXPIRED", 401)
        self.issued += 1
        return ok({"item": {"code": f"C{self.issued}"}, "code": "SUCCESS"})


def client_of(clock, server, **options):
    return client_at(clock, server, token_source=None, sleep=asyncio.sleep, **options)


def run_through(begin_with_a_token):
    """Return how a run of 500 ended through a time without a new token, and the server.

    Where the server has answered before, that is 40 s.
    """

    async def main(clock: VirtualClock):
        server = Server(is_there=begin_with_a_token)
        client = client_of(clock, server)
        if begin_with_a_token:
            await client.issue("B")
            server.end_token()
            server.is_there = False
            clock.after(40, setattr, server, "is_there", True)
        else:
            clock.after(3, setattr, server, "is_there", True)
        async with bulk_issue(client, "B", range(500), concurrency=64) as run:
            ended = Counter([result.status async for result in run])
        assert client.flow.outage_s is None
        assert client.flow.waiting == 0
        assert (1040 if begin_with_a_token else 1003) < clock.now < 1060
        return ended, server

    return in_virtual_time(main)


@pytest.mark.parametrize("begin_with_a_token", [False, True])
def test_run_waits_for_a_token(begin_with_a_token):
    """A run that has no token, or whose token ended, waits for the server of tokens as it does for
    the other: it costs the calls that tell of it, and no more."""
    ended, server = run_through(begin_with_a_token)
    failed = ended[BulkStatus.FAILED]
    assert failed == 19 if begin_with_a_token else failed <= 19
    assert ended.total() == 500
    assert server.issued == ended[BulkStatus.ISSUED] + begin_with_a_token
    assert server.token_requests < 40


def test_ledger_run_waits_for_a_token():
    """So does a run through a ledger, which issues what failed when it is run again."""

    async def main(clock: VirtualClock) -> None:
        server = Server(is_there=True)
        client = client_of(clock, server)
        async with Ledger.in_memory(runtime=Runtime(monotonic=clock.monotonic)) as ledger:
            await ledger.issue(client, "B", "first")
            server.end_token()
            server.is_there = False
            clock.after(40, setattr, server, "is_there", True)
            for expected in (481, 500):
                async with bulk_issue(
                    client, "B", range(500), concurrency=64, ledger=ledger
                ) as run:
                    results = [result async for result in run]
                assert len(results) == 500
                assert run.summary.issued == expected
        assert server.issued == 501

    in_virtual_time(main)


def test_patience_ends_for_a_token():
    """Who waits for a token longer than `max_outage_wait_s` fails, unsent."""

    async def main(clock: VirtualClock) -> None:
        server = Server(is_there=False)
        client = client_of(clock, server, flow=FlowPolicy(max_outage_wait_s=30))
        calls = [client.issue("B") for _ in range(64)]
        ends = Counter(map(type, await asyncio.gather(*calls, return_exceptions=True)))
        assert ends[ConnectError] >= 19
        assert ends[ConnectTimeoutError] >= 30
        assert ends.total() == 64
        assert clock.now < 1000 + 12 + 30 + 15
        assert server.issued == 0

    in_virtual_time(main)


def test_deadline_of_a_token_is_no_failing_server():
    """That a token does not come before a call's own deadline says nothing about the server."""

    class Slow(StaticToken):
        async def token(self):
            await asyncio.sleep(1000)
            return "late"

    async def main(clock: VirtualClock) -> None:
        client = client_at(clock, print, token_source=Slow("x"))
        timeout = Timeout(connect_s=1, attempt_s=5, total_s=10)
        calls = [client.get("X", timeout=timeout) for _ in range(50)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(end) for end in ends} == {ConnectTimeoutError}
        assert client.flow.outage_s is None

    in_virtual_time(main)
