"""How a bulk run finds and follows a limit that it was not told of."""

import asyncio

import attrs
import pytest
from simulation.clock import VirtualClock
from support.doubles import NoSigner
from support.limited_server import (
    LimitedServer,
    bulk_for,
    client_at,
    codes_of,
    in_virtual_time,
    rate_of,
)

from rm_voucher import BulkStatus, FlowPolicy, RetryPolicy
from rm_voucher.emulator import Check, Emulator
from rm_voucher.transport.memory import MemoryTransport


def run_bulk(server_options, concurrency, seconds, changes, **client_options):
    """Return the server after a bulk run; ``changes`` are pairs of seconds and a new limit."""

    async def main(clock: VirtualClock) -> LimitedServer:
        server = LimitedServer(clock, **server_options)
        for after_s, per_s in changes:
            clock.after(after_s, setattr, server, "per_s", per_s)
        async with client_at(clock, server, **client_options) as client:
            results = await bulk_for(client, clock, seconds, concurrency=concurrency)
        assert {result.status for result in results} == {BulkStatus.ISSUED}
        assert sorted(codes_of(results)) == sorted(server.codes)
        return server

    return in_virtual_time(main)


@pytest.mark.parametrize(
    ("per_s", "latency_s", "concurrency", "seed"),
    [
        (50, 0.004, 64, 1),
        pytest.param(50, 0.05, 64, 2, marks=pytest.mark.long),
        pytest.param(50, 0.2, 256, 3, marks=pytest.mark.long),
        pytest.param(200, 0.05, 64, 4, marks=pytest.mark.long),
    ],
)
def test_limit_is_found_and_followed(per_s, latency_s, concurrency, seed):
    """After 30 s, 90 % of a limit are used and at most 2 % throttled; so 30 s after it doubled; and
    5 s after it was halved, fewer than 2 % are throttled."""
    server = run_bulk(
        {"per_s": per_s, "latency_s": latency_s, "seed": seed},
        concurrency,
        74,
        [(34, 2 * per_s), (64, per_s)],
    )
    begin = 1000.0
    assert server.taken_per_s(begin + 30, begin + 34) >= 0.9 * per_s
    assert server.throttled_share(begin + 30, begin + 34) <= 0.02
    assert server.taken_per_s(begin + 60, begin + 64) >= 0.9 * 2 * per_s
    assert server.throttled_share(begin + 60, begin + 64) <= 0.02
    assert server.taken_per_s(begin + 69, begin + 74) >= 0.5 * per_s
    assert server.throttled_share(begin + 69, begin + 74) < 0.02


@pytest.mark.long
def test_high_limit_is_found():
    """A limit of 1,000 a second is found within 30 s (here: 12), and its half within 5 s."""
    server = run_bulk({"per_s": 1000}, 128, 20, [(14, 500)])
    begin = 1000.0
    assert server.taken_per_s(begin + 12, begin + 14) >= 900
    assert server.throttled_share(begin + 12, begin + 14) <= 0.02
    assert server.taken_per_s(begin + 19, begin + 20) >= 250
    assert server.throttled_share(begin + 19, begin + 20) < 0.02


@pytest.mark.parametrize("seed", [1, pytest.param(7, marks=pytest.mark.long)])
def test_throttles_by_chance_slow_a_run_little(seed):
    """Where one request in two hundred is throttled whatever the rate, it goes on nearly as fast as
    where none is, also where the first comes soon, or some of them together."""
    options = {"by_chance": 0.005, "seed": seed}
    server = run_bulk(options, 64, 8, [], retry=RetryPolicy(max_attempts=9))
    assert server.throttled_share(1000, 1008) > 0.003
    assert server.taken_per_s(1000, 1008) >= 0.9 * 64 / (0.05 * 1.1)


def test_no_limit_no_wait():
    """A server that throttles nobody is asked as fast as the calls come."""
    server = run_bulk({"latency_s": 0.1}, 30, 10, [])
    assert server.taken_per_s(1001, 1010) >= 0.9 * 30 / (0.1 * 1.1)


def test_emulator_limit_is_found():
    """The emulator's own rate limit is used to 90 % after 30 s, with at most 2 % throttled."""

    async def main(clock: VirtualClock) -> tuple[list[float], list[float]]:
        emulator = Emulator(
            seed=1,
            rate_limit=50,
            batches={"B": 10_000},
            clock=clock.wall,
            disabled_checks=[Check.SIGNATURE],
        )
        taken: list[float] = []
        throttled: list[float] = []

        async def serve(request):
            await asyncio.sleep(0.02)
            answer = emulator.handle(request)
            (throttled if answer.status == 429 else taken).append(clock.now)
            return answer

        runtime = attrs.evolve(emulator.runtime, monotonic=clock.monotonic)
        async with emulator.client(
            transport=MemoryTransport(serve), signer=NoSigner(), runtime=runtime
        ) as client:
            results = await bulk_for(client, clock, 40, concurrency=64)
        assert len(set(codes_of(results))) == len(results)
        assert len(results) == len(emulator.issued("B"))
        return taken, throttled

    taken, throttled = in_virtual_time(main)
    settled = sum(1 for when in taken if 1030 <= when < 1040)
    refused = sum(1 for when in throttled if 1030 <= when < 1040)
    assert settled >= 0.9 * 50 * 10
    assert refused <= 0.02 * (settled + refused)


@pytest.mark.long
@pytest.mark.parametrize("policy", [FlowPolicy(), FlowPolicy(rate_per_s=300)])
def test_throttle_in_quiet_times_does_not_slow_a_later_run(policy):
    """A single call that others' load throttled, a minute after a run, costs the next run no more
    than half a minute."""

    async def main(clock: VirtualClock) -> float:
        server = LimitedServer(clock, per_s=100)
        async with client_at(clock, server, flow=policy) as client:
            await bulk_for(client, clock, 15, concurrency=32)
            await asyncio.sleep(60)
            server.empty()
            clock.after(0.02, server.empty)
            await client.issue("B")
            assert server.log[-2][1] == "throttled"
            begin = clock.now
            await bulk_for(client, clock, 35, concurrency=32)
        return server.taken_per_s(begin + 30, begin + 35)

    assert in_virtual_time(main) >= 90


def test_throttle_does_not_count_time_that_has_not_passed():
    """The first turn after the first throttle raises the rate by no more than its wait does."""

    async def main(clock: VirtualClock) -> tuple[float, float]:
        server = LimitedServer(clock, per_s=100)
        async with client_at(clock, server) as client:
            await bulk_for(client, clock, 1, concurrency=1)
            server.empty()
            await asyncio.gather(*(client.issue("B") for _ in range(20)))
            first = rate_of(client)
            await client.issue("B")
            return first, rate_of(client)

    first, second = in_virtual_time(main)
    assert first <= second <= 1.2 * first
