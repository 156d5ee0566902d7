"""What every store answers to events: in memory, in SQLite and in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from support.doubles import FakeTime
from support.event_stores import REDEEMED, VOID, do, event, store_maker, tally, uses

from rm_voucher.exceptions import EventStoreError
from rm_voucher.webhooks import EventState, EventStore, MemoryEventStore
from rm_voucher.webhooks.records import DELIVERY_S, Disposition

DONE, RECORDED = EventState.DONE, EventState.RECORDED
READY, BUSY = Disposition.READY, Disposition.BUSY


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, time: FakeTime) -> Callable[[], EventStore]:
    """Make stores of each kind in turn; the test enters them."""
    return store_maker(request.param, request, time)


@pytest.fixture
async def store(make: Callable[[], EventStore]) -> AsyncIterator[EventStore]:
    """An open store, of each kind in turn."""
    async with make() as store:
        yield store


@pytest.fixture
def become(store: EventStore) -> Callable[[str], None]:
    """Let the store pass for another process's, on the same events."""

    def become(owner: str) -> None:
        store._owner = owner

    return become


async def test_store_that_is_not_open(make: Callable[[], EventStore]) -> None:
    """Before it was opened, and after it was closed, it says so; closing twice is no error."""
    store = make()
    for is_closed in (False, True):
        for use in uses(store):
            with pytest.raises(EventStoreError, match=r"^The store of callbacks is not open\.$"):
                await use
        if not is_closed:
            async with store:
                await store.claim("mine")
    await store.aclose()


async def test_store_is_entered_once(store: EventStore) -> None:
    """One that is open already is left as it is."""
    with pytest.raises(EventStoreError, match=r"^The store of callbacks is open already\.$"):
        await store.__aenter__()
    assert await store.record(event()) is READY


async def test_record_new_event(store: EventStore) -> None:
    """A new event is to be handled, and waits from then on."""
    assert await store.counts() == tally()
    assert await store.record(event()) is READY
    assert await store.counts() == tally(waiting=1)


async def test_record_done_event(store: EventStore) -> None:
    """A repeat of one that is done is never handled again, also in a newer delivery of it."""
    await do(store, event())
    for takes_stale in (False, True):
        assert await store.record(event(), lease_s=9, takes_stale=takes_stale) is Disposition.DONE
    assert await store.counts() == tally(done=1)


async def test_record_failed_event(store: EventStore) -> None:
    """One whose handler failed is to be handled again, as often as it comes."""
    for _ in range(3):
        assert await store.record(event(), lease_s=9) is READY
        await store.finish(event(), RECORDED)
    assert await store.counts() == tally(waiting=1)


async def test_record_unfinished_event(store: EventStore) -> None:
    """One whose process died is to be handled again."""
    assert [await store.record(event()) for _ in range(2)] == [READY, READY]
    assert await store.counts() == tally(waiting=1)


async def test_record_stale_event(store: EventStore) -> None:
    """One that changed before the newest done one is not handled; from then on it is done."""
    await do(store, event(at=0.000002, status=VOID))
    stale = event(at=0.000001)
    assert await store.record(stale, lease_s=9) is Disposition.STALE
    assert await store.counts() == tally(done=1, stale=1)
    for takes_stale in (False, True):
        assert await store.record(stale, takes_stale=takes_stale) is Disposition.DONE
    assert await store.due(9) == []


async def test_record_stale_event_leases_nothing(store: EventStore, become) -> None:
    """What is not handled keeps nobody away from its voucher."""
    await do(store, event(at=1, status=VOID))
    await store.record(event(), lease_s=9)
    become("other")
    assert await store.record(event(at=2), lease_s=9) is READY


@pytest.mark.parametrize("at", [5, 6, None])
async def test_record_event_that_is_not_stale(store: EventStore, at: float | None) -> None:
    """One of the same moment is not stale, and neither is one that does not say when."""
    await do(store, event(at=5, status=VOID))
    assert await store.record(event(at=at)) is READY


async def test_record_event_taken_though_stale(store: EventStore) -> None:
    """Who takes stale ones gets them; the newest done one stays the newest."""
    await do(store, event(at=5, status=VOID))
    taken = event(at=3, status=REDEEMED)
    assert await store.record(taken, takes_stale=True) is READY
    await store.finish(taken, DONE)
    assert await store.record(event(at=4)) is Disposition.STALE


async def test_stale_counts_against_done_ones_only(store: EventStore) -> None:
    """A newer event that failed, is handled, or was found stale itself, makes none stale."""
    newer = event(at=9, status=VOID)
    await store.record(newer)
    assert await store.record(event(at=1)) is READY
    await store.finish(newer, RECORDED)
    assert await store.record(event(at=1)) is READY
    await store.finish(newer, EventState.STALE)
    assert await store.record(event(at=1)) is READY
    assert await store.counts() == tally(waiting=1, stale=1)


async def test_newest_survives_an_event_without_a_time(store: EventStore) -> None:
    """That one without a time is done says nothing about what is newest, before and after."""
    await do(store, event(at=None))
    assert await store.record(event(at=-9, status=REDEEMED)) is READY
    await do(store, event(at=5), event(at=None, status=VOID))
    assert await store.record(event(at=4)) is Disposition.STALE


async def test_stale_is_each_vouchers_own(store: EventStore) -> None:
    """What is done for one voucher makes no other's stale."""
    await do(store, event("A", at=9))
    assert await store.record(event("B", at=1)) is READY


async def test_lease_keeps_others_away(store: EventStore, become) -> None:
    """Until the handling ends others are told BUSY, for every event of the voucher."""
    mine = store.owner
    assert await store.record(event(), lease_s=30) is READY
    become("other")
    for one in (event(), event(at=1, status=VOID)):
        assert await store.record(one, lease_s=30) is BUSY
    assert await store.record(event("B"), lease_s=30) is READY
    become(mine)
    assert await store.record(event(), lease_s=30) is READY


async def test_lease_runs_out(store: EventStore, time: FakeTime, become) -> None:
    """To the moment, so that a process that died stops nobody for ever."""
    await store.record(event(), lease_s=30)
    become("other")
    time.now += 29.75
    assert await store.record(event()) is BUSY
    time.now += 0.25
    assert await store.record(event()) is READY


async def test_lease_is_prolonged(store: EventStore, time: FakeTime, become) -> None:
    """Who is told READY again has the whole time again."""
    await store.record(event(), lease_s=30)
    time.now += 20
    await store.record(event(), lease_s=30)
    become("other")
    time.now += 29
    assert await store.record(event()) is BUSY


async def test_record_without_a_lease_claims_nothing(store: EventStore, become) -> None:
    """Others are told READY meanwhile, and are not kept away."""
    await store.record(event())
    become("other")
    assert await store.record(event()) is READY


@pytest.mark.parametrize("state", EventState)
async def test_finish_gives_the_lease_up(store: EventStore, become, state: EventState) -> None:
    """However the handling ended, others need not wait until the lease runs out."""
    await store.record(event(), lease_s=30)
    await store.finish(event(), state)
    become("other")
    assert await store.record(event(at=1, status=VOID), lease_s=30) is READY


async def test_finish_too_late_leaves_the_lease_of_another(
    store: EventStore, time: FakeTime, become
) -> None:
    """Whose own lease has run out meanwhile must not give up what another holds now."""
    mine = store.owner
    await store.record(event(), lease_s=30)
    time.now += 30
    become("other")
    assert await store.record(event(at=1, status=VOID), lease_s=30) is READY
    become(mine)
    await store.finish(event(), RECORDED)
    become("third")
    assert await store.record(event(at=2), lease_s=30) is BUSY


async def test_busy_event_is_recorded(store: EventStore, time: FakeTime, become) -> None:
    """One that comes while another of its voucher is handled is kept: RM may not come again."""
    other = event(at=1, status=VOID)
    await store.record(event(), lease_s=30)
    become("other")
    assert await store.record(other) is BUSY
    assert await store.counts() == tally(waiting=2)
    time.now += DELIVERY_S
    assert other in await store.due(9)


async def test_failure_after_done_changes_nothing(store: EventStore) -> None:
    """A process that took too long does not undo what another has done meanwhile."""
    await do(store, event())
    await store.finish(event(), RECORDED)
    assert await store.record(event()) is Disposition.DONE
    assert await store.counts() == tally(done=1)


async def test_finish_of_what_was_never_recorded(store: EventStore) -> None:
    """It is no error: it may have been pruned. That it is done is remembered of its voucher."""
    for state in EventState:
        await store.finish(event(at=5), state)
    assert await store.counts() == tally()
    assert await store.record(event(at=4)) is Disposition.STALE


async def test_store_opens_where_its_handlers_can(time: FakeTime) -> None:
    """One in memory has no transactions, and says which has."""
    async with MemoryEventStore(runtime=time.runtime) as store:
        assert not store.has_transactions
        with pytest.raises(EventStoreError, match=r"open_event_store\(url\) gives one"):
            store.transaction(event())
