"""Transactions that share a batch's lock: what they may do beside each other, and what not."""

from __future__ import annotations

import asyncio
import copy
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.doubles import FakeTime
from support.ledger_rows import BATCH, begin, bring, codes, issue, runtime_at, start

from rm_voucher.exceptions import LedgerError
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.memory import MemoryTables, MemoryUnitOfWork
from rm_voucher.ledger.rules.commands import Ask, Claimed, Confirm, End, Settlement
from rm_voucher.ledger.rules.records import (
    AttemptState,
    Batch,
    Code,
    CodeOrigin,
    CodeState,
    IssueAttempt,
    IssueRequest,
)
from rm_voucher.ledger.rules.settling import settle
from rm_voucher.ledger.rules.transitions import SHARING, ask, confirm, end
from rm_voucher.ledger.rules.unit_of_work import NeedsExclusiveError
from rm_voucher.ledger.sql.shared import SharedUnitOfWork
from rm_voucher.ledger.sql.unit_of_work import SqlUnitOfWork

OWNERS = ("one", "two")


class SharedUnit(MemoryUnitOfWork):
    """A transaction in memory that shares its batches' locks, and notes which requests it locks."""

    is_shared = True

    def requests(self) -> set[str]:
        return {*self._loaded[IssueRequest], *self._absent[IssueRequest]}


def attempted(tables: MemoryTables, owner: str) -> list[str]:
    """Return the attempts that a process sends."""
    return sorted(
        row.id
        for row in tables.attempts.values()
        if row.owner == owner and row.state is AttemptState.SENDING
    )


def step(tables: MemoryTables, owner: str, what: int, which: int, code: str) -> tuple[Any, Any]:
    """Return a transition and its item, as a process may run them on these rows."""
    mine = attempted(tables, owner)
    if what == 0 or not mine:
        name = f"r{which}"
        return ask, Ask(
            batch="B",
            request_id=name,
            content="",
            attempt_id=f"{owner} {code}",
            owner=owner,
            at=1.0,
        )
    attempt = tables.attempts[mine[which % len(mine)]]
    if what == 1:
        return confirm, Confirm(
            batch="B",
            request_id=attempt.request_id or "nobody",
            attempt_id=attempt.id,
            code=code,
            qr_url=None,
            at=2.0,
        )
    state = AttemptState.REJECTED if what == 2 else AttemptState.AMBIGUOUS
    return end, End(batch="B", attempt_id=attempt.id, state=state, at=3.0)


def run(tables: MemoryTables, transition: Any, item: Any) -> None:
    unit = MemoryUnitOfWork(tables)
    transition(unit, [item])
    unit.flush()


def try_shared(tables: MemoryTables, transition: Any, item: Any) -> SharedUnit | None:
    """Run it on a copy; return the transaction, or None if it must be alone."""
    unit = SharedUnit(copy.deepcopy(tables))
    try:
        transition(unit, [item])
        unit.flush()
    except NeedsExclusiveError:
        return None
    return unit


def rows(tables: MemoryTables) -> dict[str, list[str]]:
    kinds: dict[str, dict[str, Any]] = {
        "requests": tables.requests,
        "attempts": tables.attempts,
        "codes": tables.codes,
    }
    return {kind: sorted(map(repr, of_kind.values())) for kind, of_kind in kinds.items()} | {
        "given": sorted(map(repr, tables.code_of.items()))
    }


STEPS = st.lists(
    st.tuples(st.sampled_from(OWNERS), st.integers(0, 3), st.integers(0, 4)), max_size=15
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.integers(0, 3), st.integers(0, 4), st.integers(0, 3), st.integers(0, 4))
def test_what_shares_the_lock_may_come_in_any_order(
    history: list[tuple[str, int, int]], what: int, which: int, other: int, another: int
) -> None:
    """Two transactions of two processes that may share it, and lock no row both, do the same in
    either order: so they may run at the same time."""
    tables = MemoryTables()
    tables.batches["B"] = Batch("B", baseline_at=0.0)
    for number, (owner, kind, name) in enumerate(history):
        run(tables, *step(tables, owner, kind, name, f"C{number}"))
    first = step(tables, "one", what, which, "C one")
    second = step(tables, "two", other, another, "C two")
    units = [try_shared(tables, *each) for each in (first, second)]
    if None in units:
        return
    one, two = units
    assert one is not None
    assert two is not None
    if one.requests() & two.requests():
        return  # the rows' locks let one wait for the other
    ends = []
    for order in ((first, second), (second, first)):
        there = copy.deepcopy(tables)
        for each in order:
            assert try_shared(there, *each) is not None  # neither makes the other be alone
            run(there, *each)
        ends.append(rows(there))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("what", range(4), ids=["ask", "confirm", "rejected", "ambiguous"])
@pytest.mark.parametrize("state", [AttemptState.SENDING, AttemptState.AMBIGUOUS, None])
def test_what_all_share_is_changed_alone(what: int, state: AttemptState | None) -> None:
    """Two that did it at once would take one spare or one detached attempt, or leave one behind."""
    tables = MemoryTables()
    tables.put(Batch("B", baseline_at=0.0))
    if state is None:
        tables.put(Code("SPARE", "B", CodeState.SPARE, CodeOrigin.RESPONSE, 1.0))
    tables.put(IssueAttempt("1", "B", None, "one", state or AttemptState.SENDING, 1.0))
    item: Any
    transition, item = step(tables, "one", what, 0, "C")
    if state is AttemptState.AMBIGUOUS and what:  # `step` finds none that is sending
        late = Confirm(batch="B", request_id="r", attempt_id="1", code="C", qr_url=None, at=2.0)
        transition, item = confirm, late
    assert try_shared(tables, transition, item) is None


def test_only_issuing_shares_the_lock() -> None:
    """All that settles is alone with its batch."""
    assert {transition.__name__ for transition in SHARING} == {"ask", "check", "confirm", "end"}


# On PostgreSQL


@pytest.fixture
def open_ledger(postgres_ledger_url: str, time: FakeTime) -> Any:
    return lambda: Ledger.open(postgres_ledger_url, runtime=runtime_at(time))


async def test_processes_keep_codes_at_the_same_time(
    open_ledger: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a transaction of one stands still, the other's go on; what must be alone waits."""
    holds, goes_on = threading.Event(), threading.Event()
    async with open_ledger() as one, open_ledger() as two:
        await begin(one)
        loop = asyncio.get_running_loop()

        def stand_still(unit: Any, items: Any) -> Any:
            answers = ask(unit, items)
            unit.flush()
            holds.set()
            assert goes_on.wait(30)
            return answers

        monkeypatch.setattr("rm_voucher.ledger.sql.store.SHARING", {*SHARING, stand_still})
        item = Ask(
            batch=BATCH, request_id="a", content="", attempt_id="1", owner=one.store.owner, at=1.0
        )
        asking = asyncio.create_task(one.store.commit(stand_still, item))
        await loop.run_in_executor(None, holds.wait)
        code = await issue(two, "b")
        settling = asyncio.create_task(two.store.commit(settle, Settlement(batch=BATCH, at=2.0)))
        done, _ = await asyncio.wait([settling], timeout=0.2)
        assert not done
        goes_on.set()
        assert isinstance(await asking, Claimed)
        await settling
        assert (await codes(two))["b"] == code


async def test_issuing_needs_nobody_to_wait(
    open_ledger: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request's way to its code is never alone with its batch; a spare's is."""
    alone: list[str] = []
    right = SqlUnitOfWork.lock_batches

    def lock(self: SqlUnitOfWork, keys: Any) -> Any:
        alone.extend(keys)
        return right(self, keys)

    async with open_ledger() as ledger:
        await begin(ledger)
        monkeypatch.setattr(SqlUnitOfWork, "lock_batches", lock)
        for number in range(20):
            await issue(ledger, f"r{number}")
        assert alone == []
        claimed = await start(ledger, "late")
        assert isinstance(claimed, Claimed)
        known = (await codes(ledger))["r0"]  # a code that another request has
        refused = await bring(ledger, "late", claimed.attempt_id, known or "")
        assert isinstance(refused, LedgerError)
        assert alone == [BATCH]


def test_rows_that_were_not_read_before_are_never_looked_for() -> None:
    """A transaction that shares the lock has read all that it may; for more it must be alone."""
    unit = SharedUnitOfWork.__new__(SharedUnitOfWork)
    unit._served = {"r1"}
    with pytest.raises(NeedsExclusiveError):
        unit.find_codes(["r1", "r2"])
    with pytest.raises(NeedsExclusiveError):
        unit.load(IssueRequest, ["r2"])
    with pytest.raises(NeedsExclusiveError):
        unit.lock_batches([BATCH])
