"""The sweeper, in virtual time: what calls and processes left is finished, and nobody asks."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import attrs
import pytest
from simulation import mutants
from simulation.books import Books
from simulation.campaign import WatchedWire, WatchedWorld
from simulation.disk import Disk, open_ledger
from simulation.seams import Seams

from rm_voucher import (
    FlowPolicy,
    OutcomeUnknownError,
    Request,
    Response,
    Runtime,
    VoucherClient,
)
from rm_voucher.emulator import Fault, Guesses
from rm_voucher.ledger import AttemptState, Ledger, RequestState
from rm_voucher.ledger.leases import LASTS_S, Lease
from rm_voucher.ledger.reconcile import Reconciler
from rm_voucher.ledger.rules.commands import Settlement
from rm_voucher.ledger.rules.settling import settle
from rm_voucher.shared import MemorySharedStore

B = "B"
SETTLE_S = 40.0
ROUNDS_S = 30.0
"""So long after ``settle_s`` all must be settled."""
DONE, NOT_DONE = Fault.DROP_AFTER_COMMIT, Fault.DROP_BEFORE_COMMIT


class Counting(WatchedWire):
    """Counts the requests of all processes, by operation."""

    def __init__(self, world: WatchedWorld, sent: Counter[str]) -> None:
        super().__init__(world)
        self._sent = sent

    async def send(self, request: Request) -> Response:
        self._sent[request.operation] += 1
        return await super().send(request)


@attrs.define
class Merchant:
    """Processes that share a ledger and an account."""

    world: WatchedWorld
    disk: Disk
    sent: Counter[str] = attrs.field(factory=Counter)

    def ledger(self, **settings: Any) -> Ledger:
        given = {"mode": "exclusive", "settle_s": SETTLE_S, "sweeps": True, **settings}
        return open_ledger(self.disk, **given)

    def client(self, **options: Any) -> VoucherClient:
        client: VoucherClient = self.world.client(
            transport=Counting(self.world, self.sent), **options
        )
        return client

    async def lose(self, ledger: Ledger, client: VoucherClient, name: str, fault: Fault) -> None:
        self.world.emulator.fail_next("issue", fault)
        with pytest.raises(OutcomeUnknownError):
            await ledger.issue(client, B, name)

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run processes to their end; no promise may be broken."""
        try:
            self.world.run(main)
        finally:
            assert self.disk.books.broken == []

    def state(self, name: str) -> RequestState:
        return self.disk.books.requests[name].state


@pytest.fixture
def merchant() -> Merchant:
    return merchant_with({B: 1000})


def merchant_with(batches: dict[str, int], **guesses: Any) -> Merchant:
    books = Books()
    world = WatchedWorld(
        books, 1, seams=Seams(), batches=batches, guesses=Guesses(**guesses), latency_s=0.05
    )
    books.now = world.clock.monotonic
    return Merchant(world, Disk(world, books, lost_rate=0.0, failed_rate=0.0))


def test_lost_answers_are_settled_and_issued_again(merchant: Merchant) -> None:
    """One was executed and one was not: both requests have a code, and nobody asked."""

    async def main() -> None:
        async with merchant.ledger() as ledger:
            client = merchant.client()
            await merchant.lose(ledger, client, "done", DONE)
            await merchant.lose(ledger, client, "not done", NOT_DONE)
            begun = merchant.sent.copy()
            await asyncio.sleep(SETTLE_S - 10)
            assert merchant.sent == begun  # too early for a listing
            await asyncio.sleep(10 + ROUNDS_S)
            assert merchant.state("done") is RequestState.ASSIGNED
            assert merchant.state("not done") is RequestState.ASSIGNED
            assert (merchant.sent - begun)["issue"] == 1
            assert await ledger.attempts() == []

    merchant.run(main)
    assert len(merchant.world.emulator.issued(B)) == 2


def test_nothing_is_asked_where_nothing_is_unknown(merchant: Merchant) -> None:
    """Ten idle minutes of two processes, after a baseline and some issues, cost no request."""

    async def main() -> None:
        async with merchant.ledger() as one, merchant.ledger() as two:
            client = merchant.client()
            for ledger in (one, two):
                for number in range(3):
                    await ledger.issue(client, B, f"{id(ledger)} {number}")
            begun = merchant.sent.copy()
            await asyncio.sleep(600)
            assert merchant.sent == begun

    merchant.run(main)


def test_who_submits_and_leaves_is_issued_to(merchant: Merchant) -> None:
    """A request that waits, and that nobody issues to, gets its voucher within two rounds."""

    async def main() -> None:
        async with merchant.ledger() as ledger:
            await ledger.prepare(merchant.client(), B)
            await ledger.submit(B, "left alone")
            await asyncio.sleep(15)
            assert merchant.state("left alone") is RequestState.ASSIGNED

    merchant.run(main)


@pytest.mark.parametrize("fault", [DONE, NOT_DONE])
def test_what_a_dead_process_left_is_finished_by_a_living_one(
    merchant: Merchant, fault: Fault
) -> None:
    """It dies while its call is in flight. Its lease runs out, and another takes over."""

    async def main() -> None:
        async with merchant.ledger() as living:
            await living.prepare(merchant.client(), B)
            dying = merchant.ledger()
            await dying.__aenter__()
            merchant.world.emulator.fail_next("issue", fault)
            call = asyncio.create_task(dying.issue(merchant.client(), B, "r"))
            while "r" not in merchant.disk.books.requests:
                await asyncio.sleep(0.01)
            number = merchant.disk.stores.index(dying.store)  # type: ignore[arg-type]
            merchant.disk.stores[number].cut(math.inf)
            await asyncio.sleep(LASTS_S + SETTLE_S + ROUNDS_S)
            assert merchant.state("r") is RequestState.ASSIGNED
            assert await living.attempts(states=[AttemptState.SENDING]) == []
            call.cancel()
            merchant.disk.stores[number].cut(0.0)
            await dying.aclose()

    merchant.run(main)
    assert len(merchant.world.emulator.issued(B)) == 1


def test_processes_read_one_listing_at_a_time(
    merchant: Merchant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five know of the same unknown outcome; one reads, and nobody reads after it."""
    readings = count_readings(monkeypatch)

    async def main() -> None:
        async with asyncio.TaskGroup() as processes:
            for number in range(5):
                processes.create_task(live(number))

    async def live(number: int) -> None:
        async with merchant.ledger() as ledger:
            client = merchant.client()
            await ledger.prepare(client, B)
            if not number:
                await merchant.lose(ledger, client, "r", DONE)
            await asyncio.sleep(SETTLE_S + ROUNDS_S + 10)

    merchant.run(main)
    assert readings["at once"] == 1
    assert readings["in all"] == 1
    assert merchant.state("r") is RequestState.ASSIGNED


def test_what_another_process_has_just_settled_is_not_read_again(
    merchant: Merchant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was unknown when this one looked, and not any more when it had the lease."""
    readings, take, first = count_readings(monkeypatch), Lease.take, list[object]()

    async def take_late(lease: Any) -> bool:
        first.append(lease._store)
        while lease._store is not first[0] and merchant.state("r") is not RequestState.ASSIGNED:
            await asyncio.sleep(1)
        return await take(lease)

    monkeypatch.setattr(Lease, "take", take_late)

    async def main() -> None:
        async with merchant.ledger() as one, merchant.ledger() as two:
            client = merchant.client()
            await two.prepare(client, B)
            await merchant.lose(one, client, "r", DONE)
            await asyncio.sleep(SETTLE_S + ROUNDS_S + 10)

    merchant.run(main)
    assert len({id(store) for store in first}) == 2
    assert readings["in all"] == 1


def count_readings(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count listings that are read to settle something, and the most at the same time."""
    readings, right = Counter[str](), Reconciler.settle

    async def settle(*args: Any, **settings: Any) -> Any:
        readings["now"] += 1
        readings["in all"] += 1
        readings["at once"] = max(readings["at once"], readings["now"])
        try:
            return await right(*args, **settings)
        finally:
            readings["now"] -= 1

    monkeypatch.setattr(Reconciler, "settle", settle)
    return readings


@pytest.mark.parametrize("has_held", [False, True])
def test_listing_that_settles_nothing_is_read_rarely(*, has_held: bool) -> None:
    """The balance says that a voucher is missing in it: it is read again, a fifth of the time.

    What an earlier listing left to a person is no success of a later one.
    """
    merchant = merchant_with({B: 1000}, listing_delay_s=10_000.0)

    async def main() -> None:
        async with merchant.ledger() as one, merchant.ledger() as two:
            client = merchant.client()
            await one.prepare(client, B)
            await two.prepare(client, B)
            if has_held:
                await merchant.lose(one, client, "held", NOT_DONE)
                (attempt,) = await one.attempts()
                await one.store.commit(settle, Settlement(batch=B, at=0.0, hold=(attempt.id,)))
            await merchant.lose(one, client, "r", NOT_DONE)
            await one.issue(client, B, "not listed yet")
            begun = merchant.sent["vouchers"]
            await asyncio.sleep(SETTLE_S + 600)
            assert 2 <= merchant.sent["vouchers"] - begun <= 600 / 20
            assert len(await one.attempts()) == 1 + has_held

    merchant.run(main)


def test_batch_that_fails_does_not_keep_others_waiting(merchant: Merchant) -> None:
    """Out of stock in one, whose sweeps become rare, and a lost answer in the other."""
    merchant = merchant_with({B: 1000, "EMPTY": 1})

    async def main() -> None:
        async with merchant.ledger() as ledger:
            client = merchant.client()
            await ledger.issue(client, "EMPTY", "the only one")
            await ledger.submit("EMPTY", "too late")
            await merchant.lose(ledger, client, "r", DONE)
            begun = merchant.sent["issue"]
            await asyncio.sleep(SETTLE_S + ROUNDS_S)
            assert merchant.state("r") is RequestState.ASSIGNED
            assert merchant.sent["issue"] - begun <= 5

    merchant.run(main)


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 4])
def test_lost_answers_settle_at_full_load(processes: int) -> None:
    """More is to be issued than the rate allows, and the listing is long: three lost answers are
    settled in time, with a fifth of the requests at most; so it is where processes share a rate."""
    merchant = merchant_with({B: 20_000}, page_size=100)
    clock = merchant.world.clock
    for _ in range(4_000):
        merchant.world.emulator.state.issue(B)
    clock.run_for(10)
    lost = [f"lost {number}" for number in range(3)]
    store = MemorySharedStore(runtime=Runtime(clock=clock.true_wall))
    ready = asyncio.Barrier(processes)
    begun: Counter[str] = Counter()

    async def live(number: int) -> None:
        shared = store if processes > 1 else None
        flow = FlowPolicy(rate_per_s=50)
        async with (
            merchant.ledger() as ledger,
            merchant.client(flow=flow, shared=shared) as client,
        ):
            await ledger.prepare(client, B)
            await ready.wait()
            for name in lost[number::processes]:
                await merchant.lose(ledger, client, name, DONE)
            await ready.wait()
            if not number:
                begun.update(merchant.sent)
            end = clock.now + SETTLE_S + ROUNDS_S

            async def work(worker: int) -> None:
                count = 0
                while clock.now < end:
                    await ledger.issue(client, B, f"{number} {worker} {count}")
                    count += 1

            await asyncio.gather(*(work(worker) for worker in range(256 // processes)))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(processes):
                group.create_task(live(number))

    merchant.run(main)
    sent = merchant.sent - begun
    assert 45 <= sent.total() / (SETTLE_S + ROUNDS_S) <= 55  # one rate for all
    assert 0 < sent["vouchers"] + sent["batches"] <= 0.2 * sent.total()
    assert {merchant.state(name) for name in lost} == {RequestState.ASSIGNED}


@pytest.mark.parametrize(
    ("mutant", "test"),
    [
        (mutants.take_every_lease, test_processes_read_one_listing_at_a_time),
        (mutants.take_nobody_for_dead, test_what_a_dead_process_left_is_finished_by_a_living_one),
    ],
    ids=lambda each: each.__name__,
)
def test_sweeping_without_leases_is_noticed(
    merchant: Merchant, monkeypatch: pytest.MonkeyPatch, mutant: Any, test: Any
) -> None:
    """Two sweepers, and a lease without an end."""
    mutant(monkeypatch)
    more = (DONE,) if mutant is mutants.take_nobody_for_dead else (monkeypatch,)
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        test(merchant, *more)
