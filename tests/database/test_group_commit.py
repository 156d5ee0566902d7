"""One writer commits what many tasks want to write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from simulation.clock import VirtualClock
from simulation.loop import VirtualLoop

from rm_voucher.database import group_commit
from rm_voucher.database.group_commit import GroupCommit, UnavailableError


class Store:
    """Takes groups of numbers; a negative one spoils its group."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.down: Exception | None = None

    async def commit(self, operations: Sequence[int]) -> list[int | Exception]:
        self.groups.append(list(operations))
        self.entered.set()
        await self.gate.wait()
        if self.down is not None:
            raise self.down
        if any(number < 0 for number in operations):
            raise ValueError("spoilt")
        return [LookupError("zero") if number == 0 else number * 10 for number in operations]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def writer(store: Store) -> AsyncIterator[GroupCommit[int, int | Exception]]:
    writer: GroupCommit[int, int | Exception] = GroupCommit(store.commit)
    yield writer
    store.gate.set()
    await writer.close()


async def test_group_many_operations_in_few_transactions(writer, store, monkeypatch) -> None:
    """What is asked at once is committed together, in order, up to the largest group."""
    monkeypatch.setattr(group_commit, "_MAX_OPERATIONS", 64)
    numbers = range(1, 201)
    results = await asyncio.gather(*map(writer.run, numbers))
    assert results == [number * 10 for number in numbers]
    assert [len(group) for group in store.groups] == [64, 64, 64, 8]
    assert [number for group in store.groups for number in group] == list(numbers)


def ended_at(
    *comings: float, takes_s: float, longest_s: float = 1.0, many: int = 64
) -> tuple[list[float], list[list[int]]]:
    """Return when operations that come at those times end, and their groups, in virtual time."""
    clock = VirtualClock()
    groups: list[list[int]] = []

    async def commit(operations: Sequence[int]) -> Sequence[int]:
        groups.append(list(operations))
        await asyncio.sleep(takes_s)
        return operations

    async def main() -> list[float]:
        begun = clock.now
        writer: GroupCommit[int, int] = GroupCommit(commit)

        async def run(number: int, coming: float) -> float:
            await asyncio.sleep(coming)
            await writer.run(number)
            return round(clock.now - begun, 6)

        ends = await asyncio.gather(*(run(*one) for one in enumerate(comings)))
        await writer.close()
        return ends

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group_commit, "_LONGEST_LINGER_S", longest_s)
        patch.setattr(group_commit, "_MANY", many)
        ends = VirtualLoop(clock).run(main)
    return ends, groups


def test_group_lone_operation_does_not_linger() -> None:
    """One operation after the other never waits for company."""
    ends, groups = ended_at(0.0, 0.1, 0.2, takes_s=0.05)
    assert ends == [0.05, 0.15, 0.25]
    assert groups == [[0], [1], [2]]


def test_group_lingers_for_company_after_a_crowd() -> None:
    """After a group of several, for as long as that took: those that come meanwhile go along."""
    ends, groups = ended_at(0.0, 0.0, 0.05, 0.07, 0.2, takes_s=0.05)
    assert ends == [0.05, 0.05, 0.15, 0.15, 0.3]
    assert groups == [[0, 1], [2, 3], [4]]


def test_group_lingers_no_longer_than_the_longest() -> None:
    """A database that is slow makes nobody wait twice."""
    ends, _ = ended_at(0.0, 0.0, 0.5, takes_s=0.5, longest_s=0.01)
    assert ends == [0.5, 0.5, 1.01]


def test_group_lingers_no_longer_than_until_many_wait() -> None:
    """A group of many is worth a transaction."""
    ends, groups = ended_at(0.0, 0.0, 0.06, 0.07, 0.08, takes_s=0.05, many=3)
    assert ends == [0.05, 0.05, 0.13, 0.13, 0.13]
    assert groups == [[0, 1], [2, 3, 4]]


async def test_group_bad_operation_fails_alone(writer, store) -> None:
    """The others of its group are committed, each alone, and have their results."""
    first, bad, last = await asyncio.gather(*map(writer.run, (1, -1, 2)), return_exceptions=True)
    assert (first, last) == (10, 20)
    assert isinstance(bad, ValueError)
    assert store.groups == [[1, -1, 2], [1], [-1], [2]]


async def test_group_refused_operation_returns_its_result(writer, store) -> None:
    """An error that stands in the place of a result is a result, and spoils no group."""
    refused, fine = await asyncio.gather(writer.run(0), writer.run(1))
    assert isinstance(refused, LookupError)
    assert fine == 10
    assert store.groups == [[0, 1]]


async def test_group_is_not_replayed_when_the_database_is_out_of_reach(writer, store) -> None:
    """All fail at once: 500 operations must not wait for it 500 times."""
    store.down = RuntimeError("down")
    store.down.__cause__ = UnavailableError()
    results = await asyncio.gather(*map(writer.run, range(1, 6)), return_exceptions=True)
    assert results == [store.down] * 5
    assert len(store.groups) == 1
    store.down = None
    assert await writer.run(7) == 70


async def test_group_cancelled_waiter_of_a_failed_group(writer, store) -> None:
    """It is left out when the others are told of the error."""
    store.gate.clear()
    asked = [asyncio.create_task(writer.run(number)) for number in (1, 2)]
    await store.entered.wait()
    asked[0].cancel()
    store.down = RuntimeError("down")
    store.down.__cause__ = UnavailableError()
    store.gate.set()
    with pytest.raises(RuntimeError, match="down"):
        await asked[1]
    assert asked[0].cancelled()
    store.down = None


async def test_group_cancelled_waiter_leaves_its_operation(writer, store) -> None:
    """The operation is committed, and the others of its group get their results."""
    store.gate.clear()
    first = asyncio.create_task(writer.run(1))
    await store.entered.wait()
    cancelled, other = (asyncio.create_task(writer.run(number)) for number in (2, 3))
    while len(writer._waiting) < 3:
        await asyncio.sleep(0)
    cancelled.cancel()
    store.gate.set()
    assert await first == 10
    assert await other == 30
    assert cancelled.cancelled()
    assert store.groups == [[1], [2, 3]]


async def test_close_commits_what_waits(store) -> None:
    """Nothing that was asked before the end is left out."""
    writer: GroupCommit[int, int | Exception] = GroupCommit(store.commit)
    store.gate.clear()
    asked = [asyncio.create_task(writer.run(number)) for number in (1, 2, 3)]
    await store.entered.wait()
    asked.append(asyncio.create_task(writer.run(4)))
    closing = asyncio.create_task(writer.close())
    await asyncio.sleep(0)
    store.gate.set()
    await closing
    assert await asyncio.gather(*asked) == [10, 20, 30, 40]


async def test_close_without_operations(store) -> None:
    """A writer that was asked nothing ends."""
    await GroupCommit(store.commit).close()
    assert store.groups == []


async def test_cancelled_writer_leaves_nobody_waiting(store) -> None:
    """At the end of a loop, who waits is cancelled, and so is who comes later."""
    writer: GroupCommit[int, int | Exception] = GroupCommit(store.commit)
    store.gate.clear()
    asked = asyncio.create_task(writer.run(1))
    await store.entered.wait()
    writer._task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    with pytest.raises(asyncio.CancelledError):
        await writer.run(2)


def test_group_of_another_loop_is_refused(store) -> None:
    """Nobody would be told there of what the writer does."""

    async def open_writer() -> GroupCommit[int, int]:
        return GroupCommit(store.commit)

    with asyncio.Runner() as runner:
        writer = runner.run(open_writer())
        with asyncio.Runner() as other, pytest.raises(RuntimeError, match="another event loop"):
            other.run(writer.run(1))
        assert runner.run(writer.run(2)) == 20
        runner.run(writer.close())
    assert store.groups == [[2]]
