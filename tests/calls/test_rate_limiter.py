"""The rate under any sequence of events, and that it keeps nothing of each."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation.clock import VirtualClock
from support.limited_server import client_at

from rm_voucher import ConnectTimeoutError, FlowPolicy, Runtime
from rm_voucher.calls.flow import Flow
from rm_voucher.calls.rate_limiter import _MOST_BY_CHANCE, _MOST_PER_S, ALONE

DAYS_S = 86_400.0 * 30
EVENTS = ["accepted", "throttled", "throttled late", "failed", "hold", "turn", "many"]

steps = st.lists(
    st.tuples(
        st.sampled_from(EVENTS),
        st.one_of(
            st.just(0.0),
            st.floats(0, 1e-9),
            st.floats(0, 0.1),
            st.floats(0, 30),
            st.floats(0, DAYS_S),
        ),
    ),
    max_size=120,
)
policies = st.builds(
    FlowPolicy,
    rate_per_s=st.one_of(st.none(), st.floats(1e-3, 1e6)),
    probe_interval_s=st.floats(0.01, 1000),
    max_outage_wait_s=st.floats(0.01, 1000),
)


class Clock:
    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= 0.25
        self.now += seconds


def flow_on(clock: Clock, policy: FlowPolicy | None = None, luck: float = 0.5) -> Flow:
    runtime = Runtime(monotonic=clock.monotonic, sleep=clock.sleep, random=lambda: luck)
    return Flow(policy or FlowPolicy(), runtime)


def check(flow: Flow, clock: Clock, policy: FlowPolicy) -> None:
    state = flow.state
    rate = state.rate_per_s
    assert rate is None or 0 < rate <= max(_MOST_PER_S, policy.rate_per_s or 0)
    if policy.rate_per_s is not None:
        assert rate is not None
        assert rate <= policy.rate_per_s
    assert 0 <= state.retry_after_s <= 120 + 1e-6
    assert state.waiting == 0
    assert state.outage_s is None or 0 <= state.outage_s < 1e12
    # A turn is at most one interval of the least rate away, or the rest after a cut.
    least = min(1.0, policy.rate_per_s or 1.0) * ALONE.cut
    assert flow._pace.bucket.wait_s(clock.now) <= 1 / least + 0.1 + 1e-6
    assert flow._pace.breaker.wait_s(clock.now) <= max(policy.probe_interval_s, 60) + 1e-6
    if flow.unlimited:
        assert rate is None
        assert state.retry_after_s == 0
        assert state.outage_s is None
        assert flow._pace.bucket.wait_s(clock.now) <= 0


@given(policies, steps, st.floats(0, 1e7), st.floats(0, 1, exclude_max=True))
async def test_rate_is_sane_after_anything(policy, steps, start, luck):
    """After any events at any times, also days apart or none: the rate is positive and within what
    the user set, every wait is short and finite, and only a flow that holds nobody is free."""
    clock = Clock(start)
    flow = flow_on(clock, policy, luck)
    for event, seconds in steps:
        clock.now += seconds
        now = clock.now
        match event:
            case "accepted":
                flow.answered(now, now)
            case "throttled":
                flow.throttled(now, now)
            case "throttled late":
                flow.throttled(now - 5, now)
            case "failed":
                flow.failed("a call", now, now)
            case "hold":
                flow.pause_until(now + min(seconds, 120.0))
            case "many":
                for _ in range(30):
                    flow.failed(object(), now, now)
            case "turn":
                try:
                    await flow.acquire("x", latest=now + 0.2, is_bulk=bool(int(seconds) % 2))
                    assert flow.state.retry_after_s == 0
                except ConnectTimeoutError:
                    pass
                assert clock.now <= now + 0.2 + 1e-6
        check(flow, clock, policy)


@given(st.floats(1, 1e5), st.integers(1, 50), st.booleans())
async def test_rate_comes_back_from_throttles(start_per_s, throttles, spread):
    """Whatever the rate was, throttles lower it, down to about one a second; used whole, it grows
    until there is none."""
    clock = Clock()
    flow = flow_on(clock)
    for _ in range(min(int(start_per_s), 2000)):
        clock.now += 1 / start_per_s
        flow.answered(clock.now, clock.now)
    for _ in range(_MOST_BY_CHANCE):
        flow.throttled(clock.now, clock.now)
    rate = float("inf")
    for _ in range(throttles):
        flow.throttled(clock.now, clock.now)
        cut = flow.state.rate_per_s
        assert cut is not None
        assert cut <= rate
        rate = cut
        clock.now += 0.2 if spread else 0.0
    assert rate >= ALONE.cut
    for _ in range(20):
        await flow.acquire("x", latest=None, is_bulk=False)
        grown = flow.state.rate_per_s
        assert grown is not None
        assert grown >= rate
        rate = grown


def test_throttles_by_chance_lower_no_rate():
    """One throttle in a hundred attempts lowers no rate, however long it goes on."""
    clock = Clock()
    flow = flow_on(clock)
    for number in range(1, 50_001):
        clock.now += 0.001
        flow.answered(clock.now, clock.now)
        if number % 100 == 0:
            flow.throttled(clock.now, clock.now)
            assert flow.state.rate_per_s is None
    assert flow.state.throttled == 500


@pytest.mark.parametrize(
    ("answers", "borne"), [(0, 0), (99, 0), (100, 1), (499, 4), (500, 5), (9999, 5)]
)
def test_throttles_at_once_lower_no_rate(answers, borne):
    """Nor do five at once, to begin with and again after five hundred answers, but the sixth."""
    clock = Clock()
    flow = flow_on(clock)
    for _ in range(5):
        flow.throttled(clock.now, clock.now)
    for _ in range(answers):
        flow.answered(clock.now, clock.now)
    rates = []
    for _ in range(borne + 1):
        flow.throttled(clock.now, clock.now)
        rates.append(flow.state.rate_per_s)
    *before, last = rates
    assert before == [None] * borne
    assert last is not None
    assert 10 <= last <= 20_000


async def test_lifted_limit_is_forgotten():
    """Once a server throttles nobody any more, the rate grows until there is none, and calls are
    sent without asking."""
    clock = Clock()
    flow = flow_on(clock)
    for _ in range(45_000):
        flow.answered(clock.now, clock.now)
    for _ in range(_MOST_BY_CHANCE + 1):
        flow.throttled(clock.now, clock.now)
    begin = clock.now
    assert flow.state.rate_per_s is not None
    assert not flow.unlimited
    while flow.state.rate_per_s is not None:
        assert clock.now < begin + 30
        await flow.acquire("x", latest=None, is_bulk=False)
    assert flow.unlimited


def test_nothing_is_kept_of_a_call():
    """After 100,000 events of every kind the flow is as large as after a few."""
    clock = Clock()
    flow = flow_on(clock)

    def some(events: int) -> None:
        for number in range(events):
            clock.now += 0.01
            flow.answered(clock.now, clock.now)
            flow.failed(object(), clock.now, clock.now)
            if number % 50 == 0:
                flow.throttled(clock.now, clock.now)
                flow.pause_until(clock.now + 0.001)
            if number % 7 == 0:
                assert flow.state.waiting == 0

    some(1000)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        some(50_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20_000


async def test_nothing_is_kept_of_a_turn():
    """10,000 calls that waited for a turn leave nothing behind."""
    clock = VirtualClock()

    async def sleep(seconds: float) -> None:
        clock.now += seconds

    flow = client_at(clock, print, flow=FlowPolicy(rate_per_s=100), sleep=sleep).caller.flow

    async def some(turns: int) -> None:
        for number in range(turns):
            await flow.acquire("x", latest=None, is_bulk=number % 2 == 0)

    await some(100)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        await some(10_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20_000
