"""Bulk issue through a ledger: it may be repeated, and what is unknown is settled at its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.answers import rm_error
from support.bulk_runs import code_of
from support.cancellation import turn
from support.voucher_shop import (
    SETTLE_S,
    Shop,
    assert_sound,
    in_turn,
    issue,
    lost,
    lost_before,
    summed_up,
)

from rm_voucher import (
    BatchStoppedError,
    BulkStatus,
    BulkSummary,
    ConfigurationError,
    IdempotencyConflictError,
    InvalidRequestError,
    LedgerError,
    OutcomeUnknownError,
    OutOfStockError,
    bulk_issue,
)
from rm_voucher.ledger import AttemptState, Ledger
from rm_voucher.ledger.memory import MemoryLedgerStore, MemoryTables

ISSUED, FAILED, UNRESOLVED = BulkStatus.ISSUED, BulkStatus.FAILED, BulkStatus.UNRESOLVED


@pytest.fixture
def shop(credentials, time) -> Shop:
    return Shop(credentials, time)


@pytest.fixture
async def ledger(shop) -> AsyncIterator[Ledger]:
    async with Ledger.in_memory(mode="exclusive", **shop.settings) as ledger:
        yield ledger


async def test_bulk_ledger_again_returns_the_same(shop, ledger):
    """The same recipients again have the same vouchers, and nothing is sent."""
    first = await issue(shop, ledger, range(100), concurrency=8)
    again = await issue(shop, ledger, map(str, range(100)), concurrency=8)
    assert again.codes == {str(name): code for name, code in first.codes.items()}
    assert shop.posts == 100
    assert {result.attempts for result in first.results} == {1}
    assert {result.attempts for result in again.results} == {0}
    assert again.summary == BulkSummary(asked=100, issued=100)
    await assert_sound(shop, ledger, first.codes)


async def test_bulk_ledger_left_early_and_resumed(shop, ledger):
    """A run that was left early is gone on with: who has a voucher keeps it."""
    async with shop.client() as client:
        run = bulk_issue(client, "B", range(40), ledger=ledger, concurrency=4)
        results = []
        async with run:
            async for result in run:
                results.append(result)
                if len(results) == 5:
                    break
    left = summed_up(run, results + run.undelivered)
    assert 5 <= len(left.codes) < 40
    resumed = await issue(shop, ledger, range(40))
    assert left.codes.items() <= resumed.codes.items()
    assert shop.posts == len(shop.issued) == len(resumed.codes) == 40
    await assert_sound(shop, ledger, resumed.codes)


async def test_bulk_ledger_duplicates_share_a_voucher(shop, ledger):
    """Who stands in the list several times has one voucher, and a result each time."""
    shop.on_issue = in_turn(lost, lost_before)
    ran = await issue(shop, ledger, ["a", "b", "a", "c", "a", "b"])
    assert ran.statuses == [(name, ISSUED) for name in "aaabbc"]
    assert len({(r.recipient, code_of(r)) for r in ran.results}) == 3
    await assert_sound(shop, ledger, ran.codes)
    assert len(shop.issued) == 3


async def test_bulk_ledger_settles_unknown_outcomes_at_the_end(shop, ledger, time):
    """Lost answers are held; at the end the listing shows their codes, and the rest is issued."""
    shop.on_issue = in_turn(*[lost, lost_before, None] * 10)
    seen: list[BulkSummary] = []
    ran = await issue(shop, ledger, range(30), concurrency=4, on_progress=seen.append)
    assert ran.summary == BulkSummary(asked=30, issued=30)
    assert max(summary.held for summary in seen) == 20
    assert all(summary.in_flight >= summary.held for summary in seen)
    assert sum(time.slept) >= SETTLE_S
    assert (shop.posts, len(shop.issued)) == (40, 30)
    await assert_sound(shop, ledger, ran.codes)


async def test_bulk_ledger_many_unknown_outcomes_are_settled_midway(shop, ledger):
    """More than fifty unknown outcomes have the listing read while the run goes on."""
    shop.on_issue = in_turn(*[lost, None, None, None] * 60)
    held = []
    ran = await issue(
        shop, ledger, range(400), concurrency=4, on_progress=lambda s: held.append(s.held)
    )
    assert (ran.summary.issued, len(shop.issued)) == (400, 400)
    assert max(held) < 60
    await assert_sound(shop, ledger, ran.codes)


async def test_bulk_ledger_shared_batch_holds_for_a_person(shop):
    """In a shared batch a lost answer is left to a person; what was not issued is issued again."""
    shop.on_issue = in_turn(lost, None, None, None)
    async with Ledger.in_memory(**shop.settings) as ledger:
        ran = await issue(shop, ledger, "abcd", concurrency=1)
        assert ran.statuses == [("a", UNRESOLVED), *((name, ISSUED) for name in "bcd")]
        (held,) = await ledger.attempts("B")
        (error,) = [r.error for r in ran.results if r.error]
        assert isinstance(error, OutcomeUnknownError)
        assert (error.attempt_id, held.state) == (held.id, AttemptState.UNRESOLVED)
        again = await issue(shop, ledger, "abcd")
        assert again.statuses == ran.statuses
        assert shop.posts == 4
        (code,) = set(shop.issued) - set(ran.codes.values())
        await ledger.resolve(held.id, adopt=code)
        last = await issue(shop, ledger, "abcd")
        assert last.codes == {**ran.codes, "a": code}
        shop.on_issue = in_turn(lost_before)
        assert (await issue(shop, ledger, "e")).statuses == [("e", ISSUED)]
        await assert_sound(shop, ledger, last.codes)


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_bulk_ledger_sold_out_then_topped_up(credentials, time, concurrency):
    """A batch that is sold out fails the rest; who had a voucher still has it; later it goes on."""
    shop = Shop(credentials, time, quantity=3)
    async with Ledger.in_memory(mode="exclusive", **shop.settings) as ledger:
        first = await issue(shop, ledger, "cde", concurrency=concurrency)
        ran = await issue(shop, ledger, "abcdef", concurrency=concurrency)
        assert ran.codes == first.codes
        errors = {r.recipient: type(r.error) for r in ran.results if r.error}
        assert errors == dict.fromkeys("abf", OutOfStockError)
        assert shop.posts <= 3 + 2 * concurrency
        shop.top_up(3)
        last = await issue(shop, ledger, "abcdef")
        assert last.summary == BulkSummary(asked=6, issued=6)
        assert first.codes.items() <= last.codes.items()
        await assert_sound(shop, ledger, last.codes)


async def test_bulk_ledger_sold_out_while_settling(credentials, time):
    """Who is held, got nothing, and then finds the batch sold out, failed with that.

    Who it is does not matter: the code is as good for another.
    """
    shop = Shop(credentials, time, quantity=3)
    shop.on_issue = in_turn(lost_before, lost)
    async with Ledger.in_memory(mode="exclusive", **shop.settings) as ledger:
        ran = await issue(shop, ledger, "abcd", concurrency=1)
        assert ran.summary == BulkSummary(asked=4, issued=3, failed=1)
        assert [type(r.error) for r in ran.results if r.error] == [OutOfStockError]
        await assert_sound(shop, ledger, ran.codes)


async def test_bulk_ledger_listing_fails_while_settling(shop, ledger):
    """When the listing can't be read, what is unknown stays so, and another run settles it."""
    refused = rm_error("PERMISSION_DENIED", 403)
    shop.on_issue = in_turn(lost, lost_before)
    async with shop.client() as client:
        await ledger.prepare(client, "B")
    shop.on_listing = lambda read: refused
    ran = await issue(shop, ledger, "abcd", concurrency=1)
    assert ran.statuses == [("a", UNRESOLVED), ("b", UNRESOLVED), ("c", ISSUED), ("d", ISSUED)]
    shop.on_listing = lambda read: read()
    last = await issue(shop, ledger, "abcd")
    assert ran.codes.items() <= last.codes.items()
    assert last.summary.issued == 4


class BreakingStore(MemoryLedgerStore):
    """Breaks after so many commits of a kind."""

    def __init__(self, kind: str, commits: int, tables: MemoryTables) -> None:
        super().__init__(tables)
        self._kind = kind
        self._left = commits

    async def commit(self, transition, item):
        await asyncio.sleep(0)
        if transition.__name__ == self._kind:
            self._left -= 1
        if self._left < 0:
            raise LedgerError("The disk is full.")
        return await super().commit(transition, item)


@pytest.mark.parametrize(("kind", "unknown"), [("ask", 8), ("confirm", 8), ("end", 3 + 8)])
async def test_bulk_ledger_storage_breaks(shop, kind, unknown):
    """A storage that breaks ends the run: unresolved is at most what was in flight, or lost its
    answer. Another run, with a storage that is well, gives to each what is theirs."""
    shop.on_issue = in_turn(*[None, None, None, None, None, lost] * 3)
    tables = MemoryTables()
    store = BreakingStore(kind, 2, tables)
    async with Ledger(store, mode="exclusive", **shop.settings) as broken:
        ran = await issue(shop, broken, range(200), concurrency=4)
    assert ran.summary.unresolved <= unknown
    assert {type(r.error) for r in ran.results if r.status is FAILED} == {LedgerError}
    assert shop.posts < 30
    shop.on_issue = lambda issue: issue()
    async with Ledger(MemoryLedgerStore(tables), mode="exclusive", **shop.settings) as ledger:
        last = await issue(shop, ledger, range(200))
        assert last.summary.issued == 200
        assert ran.codes.items() <= last.codes.items()
        await assert_sound(shop, ledger, last.codes)


async def test_bulk_ledger_request_id(shop, ledger):
    """A recipient of any kind has the id that the function gives it, and passes through itself."""
    people = [{"mail": "a@x.invalid"}, {"mail": "b@x.invalid"}]
    ran = await issue(shop, ledger, people, request_id=lambda person: person["mail"])
    assert sorted(r.recipient["mail"] for r in ran.results) == ["a@x.invalid", "b@x.invalid"]
    asked = [request.id async for request, _ in ledger.requests("B")]
    assert sorted(asked) == ["a@x.invalid", "b@x.invalid"]


@pytest.mark.parametrize("recipient", [None, 1.5, b"a", ("a",)])
async def test_bulk_ledger_recipient_without_an_id(shop, ledger, recipient):
    """A recipient that is no id, and no function that gives one: failed, and the error says why."""
    ran = await issue(shop, ledger, [recipient])
    (result,) = ran.results
    assert (result.status, type(result.error)) == (FAILED, ConfigurationError)
    assert "request_id=" in str(result.error)
    assert shop.posts == 0


@pytest.mark.parametrize("recipient", ["", "a\n", "x" * 1001])
async def test_bulk_ledger_bad_id_fails_alone(shop, ledger, recipient):
    """An id that can be none fails its recipient; the others go on."""
    ran = await issue(shop, ledger, [recipient, "a", "b"], concurrency=1)
    assert ran.summary == BulkSummary(asked=3, issued=2, failed=1)
    assert isinstance(ran.results[0].error, InvalidRequestError)


async def test_bulk_ledger_id_of_another_batch_fails_alone(shop, ledger):
    """An id that was used with another batch fails its recipient; the others go on."""
    await issue(shop, ledger, "b", batch="C")
    ran = await issue(shop, ledger, "abc", concurrency=1)
    assert ran.statuses == [("a", ISSUED), ("b", FAILED), ("c", ISSUED)]
    assert [type(r.error) for r in ran.results if r.error] == [IdempotencyConflictError]


async def test_bulk_ledger_given_up_request_fails_alone(shop, ledger):
    """A request that a person gave up fails its recipient; the others go on."""
    shop.on_issue = in_turn(lost)
    async with shop.client() as client:
        with pytest.raises(OutcomeUnknownError):
            await ledger.issue(client, "B", "a")
    (attempt,) = await ledger.attempts()
    await ledger.resolve(attempt.id, write_off=True)
    ran = await issue(shop, ledger, "abc", concurrency=1)
    assert ran.statuses == [("a", FAILED), ("b", ISSUED), ("c", ISSUED)]


async def test_bulk_ledger_batch_is_stopped(shop, ledger):
    """A code that comes twice stops the batch: the rest failed, and no call is sent for them."""
    first: list[Any] = []

    def same(issue):
        first.append(first[0] if first else issue())
        return first[-1]

    shop.on_issue = same
    ran = await issue(shop, ledger, range(50), concurrency=2)
    assert ran.summary.issued == 1
    assert ran.summary.unresolved <= 4
    stopped = [type(r.error) for r in ran.results if r.status is FAILED]
    assert set(stopped) == {BatchStoppedError}
    assert shop.posts <= 6
    again = await issue(shop, ledger, range(50))
    assert again.codes == ran.codes


async def test_bulk_ledger_static_batch_is_refused(shop, ledger):
    """A batch with one code for everybody is a mistake: nobody is asked for."""
    shop.emulator.add_batch("static", key="S", static_code="SAME", quantity=10)
    run = bulk_issue(shop.client(), "S", [*"abc"], ledger=ledger)
    with pytest.raises(InvalidRequestError, match="static"):
        async with run:
            async for _ in run:
                pass
    assert run.summary == BulkSummary()


async def test_bulk_ledger_call_of_another_process(shop):
    """Who is being issued to by another process is held, and has that voucher in the end."""
    gate, held = asyncio.Event(), asyncio.Event()

    async def slowly(issue):
        await gate.wait()
        return issue()

    shop.on_issue = slowly
    tables = MemoryTables()
    async with (
        Ledger(MemoryLedgerStore(tables), **shop.settings) as mine,
        Ledger(MemoryLedgerStore(tables), **shop.settings) as other,
        shop.client() as client,
    ):
        theirs = asyncio.create_task(other.issue(client, "B", "a"))
        while not shop.posts:
            await turn()

        def progressed(summary: BulkSummary) -> None:
            if summary.held:
                held.set()
                gate.set()

        ran = await issue(shop, mine, "a", on_progress=progressed)
        assert held.is_set()
        assert ran.codes == {"a": (await theirs).code}
        assert shop.posts == 1
