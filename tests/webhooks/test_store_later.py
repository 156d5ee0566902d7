"""What every store says later: of events that wait, vouchers that are waited for, and old ones."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.doubles import FakeTime
from support.event_stores import REDEEMED, VOID, do, event, store_maker, tally

from rm_voucher.webhooks import EventState, EventStore
from rm_voucher.webhooks.records import DELIVERY_S, Disposition

DONE, RECORDED = EventState.DONE, EventState.RECORDED
READY, BUSY = Disposition.READY, Disposition.BUSY
DAY_S = 86_400.0


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, time: FakeTime) -> AsyncIterator[EventStore]:
    """An open store, of each kind in turn."""
    async with store_maker(request.param, request, time)() as store:
        yield store


async def test_due_after_rm_has_given_up(store: EventStore, time: FakeTime) -> None:
    """Not while RM may still deliver it, which is six minutes."""
    assert DELIVERY_S == 360
    await store.record(event())
    time.now += 359.75
    assert await store.due(9) == []
    time.now += 0.25
    assert await store.due(9) == [event()]


async def test_due_in_order_and_limited(store: EventStore, time: FakeTime) -> None:
    """What waits for the longest comes first."""
    events = [event(code) for code in "DACB"]
    for one in events:
        await store.record(one)
        time.now += 1
    time.now += DELIVERY_S
    assert await store.due(9) == events
    assert await store.due(3) == events[:3]


async def test_due_counts_from_the_first_delivery(store: EventStore, time: FakeTime) -> None:
    """A later delivery of the same event puts nothing off."""
    await store.record(event())
    time.now += 240
    await store.record(event())
    time.now += 120
    assert await store.due(9) == [event()]


async def test_due_is_later_after_each_failure(store: EventStore, time: FakeTime) -> None:
    """Twice as long each time, up to a day; a failure never makes it due earlier."""
    await store.record(event())
    await store.finish(event(), RECORDED)
    time.now += 359.75
    assert await store.due(9) == []
    time.now += 0.25
    waits: list[float] = []
    for _ in range(14):
        assert await store.due(9) == [event()]
        await store.finish(event(), RECORDED)
        wait_s = min(60 * 2.0 ** (len(waits) + 2), DAY_S)
        time.now += wait_s - 0.25
        assert await store.due(9) == []
        time.now += 0.25
        waits.append(wait_s)
    assert waits[-2:] == [DAY_S, DAY_S]


async def test_due_is_nothing_that_ended(store: EventStore, time: FakeTime) -> None:
    """Neither what is done nor what was stale."""
    await do(store, event(at=1))
    await store.record(event(at=0))
    time.now += 2 * DAY_S
    assert await store.due(9) == []


async def test_due_events_are_what_was_recorded(store: EventStore, time: FakeTime) -> None:
    """A voucher comes back whole: fields and a status that nobody documented, and microseconds."""
    strange = event(
        "ä\u2028\U0001f600",
        "NOT DOCUMENTED",
        at=0.123456,
        amount_sen=1050,
        payload={"a": [1, None, "x"]},
        extra={"newField": {"b": 2.5}},
    )
    bare = event("B", at=None)
    for one in (strange, bare):
        await store.record(one)
        time.now += 1
    time.now += DELIVERY_S
    found = await store.due(9)
    assert found == [strange, bare]
    assert found[0].voucher == strange.voucher
    assert found[0].status == "NOT DOCUMENTED"


async def test_expected_voucher_is_missed(store: EventStore, time: FakeTime) -> None:
    """It is told once RM has given up, and again after waits that double up to a day."""
    await store.expect(["A"])
    assert await store.counts() == tally(expected=1)
    waits: list[float] = []
    wait_s = DELIVERY_S
    for _ in range(12):
        time.now += wait_s - 0.25
        assert await store.take_missed(9, final=[VOID]) == []
        time.now += 0.25
        assert await store.take_missed(9, final=[VOID]) == ["A"]
        assert await store.take_missed(9, final=[VOID]) == []
        waits.append(wait_s)
        wait_s = min(DELIVERY_S * 2.0 ** (len(waits) - 1), DAY_S)
    assert waits[:4] == [360, 360, 720, 1440]
    assert waits[-1] == DAY_S


async def test_expected_voucher_that_something_came_for(store: EventStore, time: FakeTime) -> None:
    """After an event, failed or not, the next has its whole time too; nothing is looked up."""
    await store.expect(["A"])
    time.now += DELIVERY_S
    assert await store.take_missed(9, final=[VOID]) == ["A"]
    time.now += 100
    await store.record(event("A", REDEEMED))
    time.now += 260
    assert await store.take_missed(9, final=[VOID]) == []
    time.now += 359.75
    assert await store.take_missed(9, final=[VOID]) == []
    time.now += 0.25
    assert await store.take_missed(9, final=[VOID]) == ["A"]
    time.now += DELIVERY_S  # as after a first look-up, not longer
    assert await store.take_missed(9, final=[VOID]) == ["A"]


async def test_expected_voucher_that_is_final(store: EventStore, time: FakeTime) -> None:
    """An event of a final status ends it, also before another one; one of others does not."""
    await store.expect(["A", "B"])
    await store.record(event("A", VOID))
    time.now += 1
    await store.record(event("A", REDEEMED, at=1))
    await store.record(event("B", REDEEMED))
    time.now += DELIVERY_S
    assert await store.take_missed(9, final=[VOID]) == []
    assert await store.counts() == tally(waiting=3, expected=1)
    time.now += DELIVERY_S
    assert await store.take_missed(9, final=[VOID]) == ["B"]


async def test_expected_voucher_looks_at_what_came_since(store: EventStore, time: FakeTime) -> None:
    """What came before it was waited for is not what it waits for; another voucher's neither."""
    await store.record(event("A", VOID))
    time.now += 0.25
    await store.expect(["A"])
    await store.record(event("B", VOID))
    time.now += DELIVERY_S
    assert await store.take_missed(9, final=[VOID]) == ["A"]


async def test_expect_again_changes_nothing(store: EventStore, time: FakeTime) -> None:
    """Neither when it is due, nor how long it waits, nor what it has seen; duplicates are one."""
    await store.expect(["A", "B", "A"])
    time.now += 100
    await store.expect(["B", "A"])
    time.now += 260
    assert sorted(await store.take_missed(9, final=[])) == ["A", "B"]
    await store.expect(["A"])
    time.now += DELIVERY_S
    assert sorted(await store.take_missed(9, final=[])) == ["A", "B"]
    await store.expect(["A"])
    time.now += DELIVERY_S
    assert await store.take_missed(9, final=[]) == []
    assert await store.counts() == tally(expected=2)


async def test_forget_ends_the_waiting(store: EventStore, time: FakeTime) -> None:
    """For these vouchers, whether waited for or not; afterwards one may be expected anew."""
    await store.expect(iter(["A", "B"]))
    await store.forget(iter(["A", "C", "A"]))
    time.now += DELIVERY_S
    assert await store.take_missed(9, final=[]) == ["B"]
    await store.expect(["A"])
    time.now += DELIVERY_S
    assert sorted(await store.take_missed(9, final=[])) == ["A", "B"]


async def test_expect_and_forget_nothing(store: EventStore) -> None:
    """No codes are no error."""
    await store.expect([])
    await store.forget([])
    assert await store.take_missed(9, final=[]) == []
    assert await store.counts() == tally()


async def test_missed_vouchers_are_limited(store: EventStore, time: FakeTime) -> None:
    """What is due for the longest is reviewed first, and the rest after it."""
    for code in ("C", "A", "D", "B"):
        await store.expect([code])
        time.now += 1
    time.now += DELIVERY_S
    assert await store.take_missed(3, final=[]) == ["C", "A", "D"]
    assert await store.take_missed(3, final=[]) == ["B"]


async def test_prune_forgets_what_ended(store: EventStore, time: FakeTime) -> None:
    """Ended events, done and stale, after the time; a delivery of one would be new again."""
    await do(store, event("A", at=1), event("B"))
    await store.record(event("A", at=0))
    time.now += 100
    assert await store.prune(keep_s=100) == 0
    await do(store, event("C"))
    time.now += 0.25
    assert await store.prune(keep_s=100) == 3
    assert await store.counts() == tally(done=1)
    assert await store.record(event("A", at=0)) is READY
    assert await store.record(event("C")) is Disposition.DONE


async def test_prune_keeps_what_waits(store: EventStore, time: FakeTime) -> None:
    """However old it is, with what its voucher remembers."""
    await do(store, event(at=5, status=VOID))
    waiting = event(at=6)
    await store.record(waiting)
    time.now += 9 * DAY_S
    assert await store.prune(keep_s=0) == 1
    assert await store.due(9) == [waiting]
    assert await store.record(event(at=4)) is Disposition.STALE


async def test_prune_keeps_leases_in_use(store: EventStore, time: FakeTime) -> None:
    """A lease is not given up because another process has done all there was."""
    mine = store.owner
    await store.record(event(), lease_s=30)
    store._owner = "other"
    await store.finish(event(), DONE)
    time.now += 1
    assert await store.prune(keep_s=0) == 1
    assert await store.record(event(at=2)) is BUSY
    store._owner = mine
    assert await store.record(event(at=2)) is READY


async def test_prune_forgets_vouchers(store: EventStore, time: FakeTime) -> None:
    """Of whom nothing is left, so that nothing grows for ever."""
    await do(store, event(at=5))
    time.now += 1
    await store.prune(keep_s=0)
    assert await store.record(event(at=1, status=VOID)) is READY


async def test_prune_keeps_what_a_look_up_may_show(store: EventStore, time: FakeTime) -> None:
    """While a voucher is waited for, it is looked up: what is done must not be new by then."""
    await do(store, event("A"), event("B"))
    await store.expect(["A"])
    time.now += 1
    assert await store.prune(keep_s=0) == 1
    assert await store.record(event("A")) is Disposition.DONE
    await store.forget(["A"])
    assert await store.prune(keep_s=0) == 1
