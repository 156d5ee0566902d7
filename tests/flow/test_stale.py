"""What is told late, or was told long ago, says little about the server now."""

import asyncio

import pytest
from conftest import ok
from flow.limited import client_at, in_virtual_time
from simulation.clock import VirtualClock

from rm_voucher import ResponseTimeoutError, RetryPolicy

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
        assert client.flow.failing_s is None
        begin = clock.now
        await client.get("X")
        assert clock.now - begin == pytest.approx(0.02)

    in_virtual_time(main)
