"""What is told late, or was told long ago, says little about the server now."""

import asyncio

import pytest
from simulation.clock import VirtualClock
from support.answers import NOT_SENT, ok
from support.limited_server import client_at, in_virtual_time

from rm_voucher import ConnectTimeoutError, ResponseTimeoutError, RetryPolicy

FOUND = ok({"item": {"code": "X", "status": "ISSUED"}, "code": "SUCCESS"})
ONCE = RetryPolicy(max_attempts=1)


def test_late_failures_are_no_failing_server():
    """Calls that hang from a moment in which the server was gone, and fail together long after,
    pause nobody: what was sent after them has been answered."""

    async def main(clock: VirtualClock) -> None:
        async def serve(request):
            if "HANG" in request.url.path:
                await asyncio.sleep(30)
                raise ResponseTimeoutError("x: no answer in time")
            await asyncio.sleep(0.02)
            return FOUND

        client = client_at(clock, serve, retry=ONCE)
        hung = [asyncio.create_task(client.get("HANG")) for _ in range(40)]
        await asyncio.sleep(1)
        await client.get("X")
        results = await asyncio.gather(*hung, return_exceptions=True)
        assert {type(result) for result in results} == {ResponseTimeoutError}
        assert client.flow.outage_s is None
        begin = clock.now
        await client.get("X")
        assert clock.now - begin == pytest.approx(0.02)

    in_virtual_time(main)


@pytest.mark.parametrize("is_back", [True, False])
def test_patience_is_not_out_for_want_of_probes(is_back):
    """After a night in which nobody called, the first calls are not failed for yesterday's
    outage: one is sent, and the others wait for what becomes of it."""

    async def main(clock: VirtualClock) -> None:
        down = [True]

        async def serve(request):
            await asyncio.sleep(0.5)
            if down:
                raise type(NOT_SENT)(*NOT_SENT.args)
            return FOUND

        client = client_at(clock, serve, retry=ONCE)
        await asyncio.gather(*(client.get("X") for _ in range(20)), return_exceptions=True)
        assert client.flow.outage_s == 0
        await asyncio.sleep(8 * 3600)
        if is_back:
            down.clear()
        begin = clock.now
        results = await asyncio.gather(
            *(client.get("X") for _ in range(10)), return_exceptions=True
        )
        assert clock.now - begin < 2.5
        if is_back:
            assert [getattr(result, "code", result) for result in results] == ["X"] * 10
        else:
            assert [type(result) for result in results[1:]] == [ConnectTimeoutError] * 9

    in_virtual_time(main)
