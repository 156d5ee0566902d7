"""A bulk run bears a server that throttles for long, and not for ever."""

import pytest
from simulation.clock import VirtualClock
from support.answers import THROTTLED
from support.limited_server import LimitedServer, bulk_for, client_at, in_virtual_time
from support.scripted_server import ScriptedServer

from rm_voucher import (
    BulkResult,
    BulkStatus,
    ConnectTimeoutError,
    FlowPolicy,
    RateLimitError,
    RetryPolicy,
    Timeout,
    VoucherClient,
    bulk_issue,
)


class MinuteServer(LimitedServer):
    """Takes 600 a minute, as fast as they come, and throttles until the next one."""

    minute, taken = 0, 0

    def _takes_one(self) -> bool:
        if self.minute != self.clock.now // 60:
            self.minute, self.taken = int(self.clock.now // 60), 0
        self.taken += 1
        return self.taken <= 600


@pytest.mark.parametrize("concurrency", [2, pytest.param(8, marks=pytest.mark.long), 64])
def test_limit_by_the_minute_costs_no_recipient(concurrency):
    """Whoever went too fast is throttled for most of a minute, more often than the retry policy has
    attempts; each recipient has a voucher in the end, and the limit is used nearly whole."""

    async def main(clock: VirtualClock) -> None:
        server = MinuteServer(clock)
        async with client_at(clock, server) as client:
            results = await bulk_for(client, clock, 300, concurrency=concurrency)
        assert {result.status for result in results} == {BulkStatus.ISSUED}
        assert server.taken_per_s(1020, 1260) >= 0.9 * 10

    in_virtual_time(main)


async def issue_all(client: VoucherClient, count: int) -> list[BulkResult[int]]:
    async with client, bulk_issue(client, "B", range(count), concurrency=4) as run:
        return [result async for result in run]


@pytest.mark.parametrize(("max_outage_wait_s", "borne_s"), [(60, 60), (3600, 120)])
def test_throttles_without_end_end_a_call(max_outage_wait_s, borne_s):
    """After `max_outage_wait_s`, and after two minutes, they count as attempts: the recipient
    ends FAILED, with no voucher."""

    async def main(clock: VirtualClock) -> None:
        server = LimitedServer(clock, by_chance=1.0)
        flow = FlowPolicy(max_outage_wait_s=max_outage_wait_s)
        results = await issue_all(client_at(clock, server, flow=flow), 4)
        assert {type(result.error) for result in results} == {RateLimitError}
        assert {result.status for result in results} == {BulkStatus.FAILED}
        assert all(result.attempts > 6 for result in results)
        assert borne_s < clock.now - 1000 < borne_s + 60

    in_virtual_time(main)


@pytest.mark.parametrize(
    ("settings", "attempts"),
    [
        ({"retry": RetryPolicy(max_attempts=1)}, 1),
        ({"retry": RetryPolicy(max_attempts=3), "flow": FlowPolicy(adaptive=False)}, 3),
    ],
)
def test_each_throttle_counts_where_nothing_slows_the_run(settings, attempts):
    """Who wants no second attempt gets none; and where a throttle lowers no rate, six are enough to
    give up."""

    async def main(clock: VirtualClock) -> None:
        server = LimitedServer(clock, by_chance=1.0)
        results = await issue_all(client_at(clock, server, **settings), 4)
        assert [result.attempts for result in results] == [attempts] * 4

    in_virtual_time(main)


async def test_throttles_end_where_the_clock_stands_still(make_client):
    """A test's clock may; its run ends all the same."""
    client = make_client(ScriptedServer([THROTTLED] * 2000), monotonic=lambda: 1000.0)
    (result,) = await issue_all(client, 1)
    assert result.attempts == 1006


def test_deadlines_end_no_run_in_no_time():
    """While all wait, a recipient's call waits until its own deadline: refused at once, thousands
    would be FAILED in a second."""

    async def main(clock: VirtualClock) -> None:
        client = client_at(
            clock, LimitedServer(clock), timeout=Timeout(connect_s=5, attempt_s=10, total_s=20)
        )
        client.caller.flow.pause_until(clock.now + 600)
        results = await issue_all(client, 8)
        assert {type(result.error) for result in results} == {ConnectTimeoutError}
        assert clock.now == pytest.approx(1000 + 2 * 15, abs=1)

    in_virtual_time(main)
