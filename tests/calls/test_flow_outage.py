"""A server that is down for a minute in the middle of a bulk run."""

import asyncio

import pytest
from simulation.clock import VirtualClock
from support.answers import ok
from support.limited_server import LimitedServer, bulk_for, client_at, in_virtual_time

from rm_voucher import BulkStatus, ConnectError, Response, ResponseLostError, RetryPolicy, Timeout

DOWN_AT, UP_AT, END = 1020.0, 1080.0, 1096.0


async def refuses(request):
    raise ConnectError("x: no connection")


async def resets(request):
    raise ResponseLostError("x: the server closed the connection")


async def unavailable(request):
    return Response(status=503, body=b"<html>Service Unavailable</html>")


async def hangs(request):
    await asyncio.sleep(1000)
    return ok({})


def run_through_outage(fails, *, per_s, concurrency, latency_s=0.05, emptied=False, **options):
    async def main(clock: VirtualClock):
        server = LimitedServer(clock, per_s=per_s, latency_s=latency_s)
        clock.at(DOWN_AT, setattr, server, "fails", fails)
        clock.at(UP_AT, setattr, server, "fails", None)
        if emptied:
            for tenth in range(10):
                clock.at(UP_AT + tenth / 10, server.empty)
        async with client_at(clock, server, **options) as client:
            results = await bulk_for(client, clock, END - 1000, concurrency=concurrency)
            assert client.flow.waiting == 0
            assert client.flow.outage_s is None
        return server, results

    return in_virtual_time(main)


def check(server, results):
    normal = server.taken_per_s(DOWN_AT - 8, DOWN_AT)
    assert server.count("failed", DOWN_AT, UP_AT) < 0.05 * normal * (UP_AT - DOWN_AT)
    assert server.taken_per_s(UP_AT + 10, END) >= 0.9 * normal
    codes = [result.voucher.code for result in results if result.status is BulkStatus.ISSUED]
    assert len(set(codes)) == len(codes)
    assert set(codes) == set(server.codes)


@pytest.mark.parametrize(
    ("per_s", "concurrency", "latency_s"),
    [
        (60, 24, 0.01),
        pytest.param(100, 64, 0.05, marks=pytest.mark.long),
        pytest.param(1e9, 32, 0.25, marks=pytest.mark.long),
    ],
)
def test_no_connection(per_s, concurrency, latency_s):
    """Through a minute without connections a run asks little, is back at its speed 10 s after, and
    every recipient has a voucher of their own in the end."""
    server, results = run_through_outage(
        refuses, per_s=per_s, concurrency=concurrency, latency_s=latency_s
    )
    check(server, results)
    assert {result.status for result in results} == {BulkStatus.ISSUED}


@pytest.mark.parametrize("fails", [resets, pytest.param(unavailable, marks=pytest.mark.long)])
def test_unknown_outcomes(fails):
    """What is answered 503 or with a reset may have been done: each of those recipients is
    unresolved, all others have a voucher, and nothing is sent twice."""
    server, results = run_through_outage(fails, per_s=100, concurrency=64)
    check(server, results)
    unresolved = [result for result in results if result.status is BulkStatus.UNRESOLVED]
    assert len(unresolved) == server.count("failed", DOWN_AT, UP_AT)
    assert len(unresolved) + len(server.codes) == len(results)


def test_no_answers():
    """A server that takes requests and never answers is asked no more either."""
    server, results = run_through_outage(
        hangs, per_s=100, concurrency=64, timeout=Timeout(connect_s=1, attempt_s=5)
    )
    check(server, results)


def test_throttled_on_its_return():
    """A server that throttles in the first second after an outage slows nobody down for long."""
    server, results = run_through_outage(
        refuses, per_s=100, concurrency=64, emptied=True, retry=RetryPolicy(max_attempts=12)
    )
    check(server, results)
