"""By what rules a store decides, and that all stores decide alike, whatever is asked in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection
from support.doubles import FakeTime
from support.event_stores import ISSUED, REDEEMED, VOID, event

from rm_voucher.models import VoucherStatus
from rm_voucher.webhooks import EventState, EventStore, MemoryEventStore, VoucherEvent
from rm_voucher.webhooks.records import (
    DELIVERY_S,
    Disposition,
    Expectation,
    Lease,
    Record,
    decide,
    microseconds,
    retry_delay_s,
    review,
)
from rm_voucher.webhooks.sql.schema import SCHEMA
from rm_voucher.webhooks.sql.store import SqlEventStore

DAY_S = 86_400.0
NOW = 1_700_000_000.0
TIMES = st.none() | st.integers(0, 3)
CODES = st.sampled_from(["A", "B"])
EVENTS = st.builds(event, CODES, st.sampled_from([ISSUED, VOID]), TIMES)
OWNERS = ("one", "two")


@given(
    state=st.none() | st.sampled_from(EventState),
    newest=TIMES,
    owner=st.sampled_from([None, "me", "other"]),
    left_s=st.sampled_from([-1.0, 0.0, 1.0]),
    at=TIMES,
    takes_stale=st.booleans(),
)
def test_decide(state, newest, owner, left_s, at, takes_stale) -> None:
    """What ended is done; then who else holds the voucher; then what is newest."""
    base = microseconds(event(at=0).updated_at)
    lease = Lease(
        newest=None if newest is None else base + newest * 1_000_000,
        owner=owner,
        leased_until=NOW + left_s,
    )
    record = Record(event=event(at=at), at=NOW, takes_stale=takes_stale)
    found = decide(state, lease, record, owner="me")
    is_stale = at is not None and newest is not None and at < newest
    if state in (EventState.DONE, EventState.STALE):
        assert found is Disposition.DONE
    elif owner == "other" and left_s > 0:
        assert found is Disposition.BUSY
    elif is_stale and not takes_stale:
        assert found is Disposition.STALE
    else:
        assert found is Disposition.READY


@given(st.integers(0, 10**9))
def test_retry_waits_longer(attempts: int) -> None:
    """Never shorter than after the attempt before, between a minute and a day."""
    assert 60 <= retry_delay_s(attempts) <= retry_delay_s(attempts + 1) <= DAY_S
    assert retry_delay_s(10**9) == DAY_S


@given(
    tries=st.integers(0, 10**9),
    came=st.lists(st.sampled_from(list(VoucherStatus)), max_size=3),
    final=st.sets(st.sampled_from(list(VoucherStatus))),
    late_s=st.floats(0, 1e9),
)
def test_review(tries, came, final, late_s) -> None:
    """It ends with a final event, begins anew with another, and is looked up without any."""
    expectation = Expectation(code="A", since=NOW, due_at=NOW + 1, tries=tries)
    now = NOW + 1 + late_s
    following, looks_up = review(expectation, came, final=final, now=now)
    assert looks_up == (not came)
    if set(came) & final:
        assert following is None
    elif came:
        assert following == Expectation(code="A", since=now, due_at=now + DELIVERY_S, tries=0)
    else:
        wait_s = min(DELIVERY_S * 2.0 ** min(tries, 30), DAY_S)
        expected = Expectation(code="A", since=NOW, due_at=now + wait_s, tries=tries + 1)
        assert following == expected


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=8))])))
def test_microseconds_are_exact(instant: datetime) -> None:
    """Each microsecond is a number of its own, in any zone, also centuries from now."""
    number = microseconds(instant)
    assert number is not None
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=number) == instant
    assert microseconds(None) is None


def test_masked_expectation() -> None:
    """What waits for a voucher does not show its code."""
    assert "NAklEfbVdV" not in repr(Expectation(code="NAklEfbVdV", since=0.0, due_at=0.0))


async def empty(store: SqlEventStore) -> None:
    """Leave nothing of the example before."""

    def work(connection: Connection) -> None:
        for table in SCHEMA.tables.sorted_tables:
            connection.execute(table.delete())

    await store.database.write(work)


class Stores(RuleBasedStateMachine):
    """Asks a store in memory and one in a database the same, and compares what they answer."""

    def __init__(self, url: str = "") -> None:
        super().__init__()
        self.time = FakeTime()
        self.runner = asyncio.Runner()
        self.directory = TemporaryDirectory()
        self.url = url or f"sqlite:///{Path(self.directory.name) / 'events.db'}"
        self.memory = MemoryEventStore(runtime=self.time.runtime)
        self.sql = SqlEventStore(self.url, runtime=self.time.runtime)
        self.sql._owner = self.memory.owner
        self.both("__aenter__")
        self.runner.run(empty(self.sql))

    def teardown(self) -> None:
        self.both("aclose")
        self.runner.close()
        self.directory.cleanup()

    def both(self, name: str, *args: Any, **kwargs: Any) -> list[Any]:
        async def ask(store: EventStore) -> Any:
            asked: Coroutine[Any, Any, Any] = getattr(store, name)(*args, **kwargs)
            return await asked

        return [self.runner.run(ask(store)) for store in (self.memory, self.sql)]

    def same(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self.time.now += 0.0314159  # so that no two are due at one moment, in either order
        memory, sql = self.both(name, *args, **kwargs)
        assert memory == sql
        return memory

    @rule(owner=st.sampled_from(OWNERS))
    def become(self, owner: str) -> None:
        self.memory._owner = self.sql._owner = owner

    @rule(one=EVENTS, lease_s=st.sampled_from([None, 30.0]), takes_stale=st.booleans())
    def record(self, one: VoucherEvent, lease_s: float | None, takes_stale: bool) -> None:
        self.same("record", one, lease_s=lease_s, takes_stale=takes_stale)

    @rule(one=EVENTS, state=st.sampled_from(EventState))
    def finish(self, one: VoucherEvent, state: EventState) -> None:
        self.same("finish", one, state)

    @rule(one=EVENTS, fails=st.booleans())
    def handle(self, one: VoucherEvent, fails: bool) -> None:
        if self.same("record", one, lease_s=30.0) is Disposition.READY:
            self.same("finish", one, EventState.RECORDED if fails else EventState.DONE)

    @rule(limit=st.integers(1, 4))
    def due(self, limit: int) -> None:
        self.same("due", limit)

    @rule(codes=st.lists(CODES, max_size=3, unique=True))
    def expect(self, codes: list[str]) -> None:
        for code in codes:
            self.same("expect", [code])

    @rule(codes=st.lists(CODES, max_size=2))
    def forget(self, codes: list[str]) -> None:
        self.same("forget", codes)

    @rule(limit=st.integers(1, 2), final=st.sets(st.sampled_from([ISSUED, REDEEMED, VOID])))
    def take_missed(self, limit: int, final: set[VoucherStatus]) -> None:
        found = []
        while taken := self.same("take_missed", limit, final=final):
            found += taken
            assert len(taken) <= limit
        assert len(set(found)) == len(found)

    @rule(keep_s=st.sampled_from([0.0, 100.0]))
    def prune(self, keep_s: float) -> None:
        self.same("prune", keep_s=keep_s)

    @rule(seconds=st.sampled_from([1.0, 29.0, 31.0, 100.0, 360.0, 1000.0, DAY_S]))
    def wait(self, seconds: float) -> None:
        self.time.now += seconds

    @rule()
    def open_again(self) -> None:
        """What is in the database is all that counts."""
        self.runner.run(self.sql.aclose())
        owner, self.sql = self.sql.owner, SqlEventStore(self.url, runtime=self.time.runtime)
        self.sql._owner = owner
        self.runner.run(self.sql.__aenter__())

    @invariant()
    def counts(self) -> None:
        memory, sql = self.both("counts")
        assert memory == sql


@pytest.mark.parametrize(
    ("kind", "examples"),
    [
        ("sqlite", 4),
        ("postgresql", 2),
        pytest.param("sqlite", 20, marks=pytest.mark.long),
        pytest.param("postgresql", 10, marks=pytest.mark.long),
    ],
)
def test_stores_agree(kind: str, examples: int, request: pytest.FixtureRequest) -> None:
    """Memory and databases answer the same, whatever is asked, and after opening again."""
    url = "" if kind == "sqlite" else request.getfixturevalue("postgres_events_url")
    limits = settings(max_examples=examples, stateful_step_count=40)
    # A factory will do, says the documentation.
    run_state_machine_as_test(lambda: Stores(url), settings=limits)  # type: ignore[arg-type]
