"""A rate that the user gave, and what `VoucherClient.flow` shows."""

import asyncio

import pytest
from simulation.clock import VirtualClock
from support.limited_server import LimitedServer, bulk_for, client_at, in_virtual_time, rate_of

from rm_voucher import (
    BulkStatus,
    ConfigurationError,
    FlowPolicy,
    FlowState,
    RetryPolicy,
    bulk_issue,
)

LATE_S = 0.02


def assert_never_above(times, per_s):
    """Check each window that begins and ends with a request."""
    least = float("inf")
    for number, when in enumerate(times):
        least = min(least, number - when * per_s)
        in_worst_window = number - when * per_s - least + 1
        assert in_worst_window <= 1 + LATE_S * per_s + 1e-6


@pytest.mark.parametrize("per_s", [0.5, 7, 80, 300])
def test_rate_is_never_passed(per_s):
    """In no window are more sent than the user's rate allows, give or take what 20 ms hold, nor
    after a pause; and it is used."""

    async def main(clock: VirtualClock) -> None:
        sent = []

        async def serve(request):
            sent.append(clock.now)
            return await server(request)

        server = LimitedServer(clock)
        policy = FlowPolicy(rate_per_s=per_s)
        async with client_at(clock, serve, flow=policy) as client:
            for _ in range(2):
                begin = clock.now
                await bulk_for(client, clock, 5, concurrency=20)
                count = sum(begin <= when < begin + 5 for when in sent)
                assert count >= 0.95 * per_s * 5 - 1
                await asyncio.sleep(5.3)
            assert client.flow.rate_per_s == per_s
        assert_never_above(sent, per_s)

    in_virtual_time(main)


def test_throttle_lowers_a_users_rate():
    """A server that takes less than the user's rate is asked for no more than it takes; once it
    takes more, the user's rate is reached again and not passed."""

    async def main(clock: VirtualClock) -> None:
        sent = []

        async def serve(request):
            sent.append(clock.now)
            return await server(request)

        server = LimitedServer(clock, per_s=40)
        clock.at(1030, setattr, server, "per_s", 1e9)
        async with client_at(clock, serve, flow=FlowPolicy(rate_per_s=60)) as client:
            await bulk_for(client, clock, 25, concurrency=32)
            assert rate_of(client) < 50
            assert server.taken_per_s(1015, 1025) >= 0.9 * 40
            await bulk_for(client, clock, 40, concurrency=32)
            assert client.flow.rate_per_s == 60
        assert server.taken_per_s(clock.now - 5, clock.now) >= 0.9 * 60
        assert_never_above(sent, 60)

    in_virtual_time(main)


def test_state_in_each_phase():
    """`VoucherClient.flow` shows the rate, the throttles, who waits, a hold and an outage."""

    async def main(clock: VirtualClock) -> None:
        server = LimitedServer(clock, per_s=5, latency_s=0.01)
        async with client_at(clock, server) as client:
            assert client.flow == FlowState(
                rate_per_s=None, throttled=0, waiting=0, retry_after_s=0.0, outage_s=None
            )
            calls = [asyncio.create_task(client.issue("B")) for _ in range(12)]
            await asyncio.sleep(1)
            assert client.flow.throttled == server.count("throttled", 0, clock.now) > 0
            assert 0.9 <= rate_of(client) <= 10
            assert client.flow.waiting > 0
            await asyncio.gather(*calls)
            assert client.flow.waiting == 0

    in_virtual_time(main)


@pytest.mark.parametrize("name", ["rate_per_s", "probe_interval_s", "max_outage_wait_s"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "50"])
def test_policy_refuses_what_is_no_time_or_rate(name, value):
    """A rate or time that is not a finite number above 0 is refused."""
    with pytest.raises(ConfigurationError, match=name):
        FlowPolicy(**{name: value})


@pytest.mark.parametrize("value", [19, 0, -1, float("nan"), float("inf"), "50", None])
def test_policy_refuses_few_failing_calls(value):
    """Fewer than 20 failing calls may be bad luck, which pauses nobody; never is no number."""
    with pytest.raises(ConfigurationError, match="failure_threshold must be 20 or more"):
        FlowPolicy(failure_threshold=value)


def test_every_call_counts():
    """Reads, changes and bulk runs share the one rate."""

    async def main(clock: VirtualClock) -> None:
        server = LimitedServer(clock, latency_s=0.01)
        async with client_at(clock, server, flow=FlowPolicy(rate_per_s=10)) as client:
            bulk = asyncio.create_task(bulk_for(client, clock, 5, concurrency=5))
            for _ in range(10):
                await client.issue("B")
            results = await bulk
        assert {result.status for result in results} == {BulkStatus.ISSUED}
        assert server.count("taken", 1000, 1005) <= 10 * (5 + LATE_S) + 1

    in_virtual_time(main)


def test_throttles_by_chance_change_no_rate():
    """Where a client shall not learn, a throttle makes its own call wait, and is counted."""

    async def main(clock: VirtualClock) -> None:
        server = LimitedServer(clock, per_s=20)
        policy = FlowPolicy(adaptive=False)
        retry = RetryPolicy(max_attempts=50)
        async with client_at(clock, server, flow=policy, retry=retry) as client:
            async with bulk_issue(client, "B", range(50), concurrency=50) as run:
                async for result in run:
                    assert result.status is BulkStatus.ISSUED
            assert client.flow.throttled > 0
            assert client.flow.rate_per_s is None
            assert client.caller.flow.unlimited

    in_virtual_time(main)


@pytest.mark.parametrize("value", ["no", "", 0, 1, None])
def test_policy_learns_or_does_not(value):
    """Text such as "no" would be taken for a yes."""
    with pytest.raises(ConfigurationError, match="adaptive must be True or False"):
        FlowPolicy(adaptive=value)
