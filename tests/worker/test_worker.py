"""`Worker`: each message becomes one voucher, whatever it meets. In virtual time, in memory."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import attrs
import orjson
import pytest
from simulation.clock import VirtualClock
from simulation.loop import VirtualLoop

from rm_voucher import RetryPolicy, Runtime, VoucherClient
from rm_voucher.emulator import Emulator, Fault, FaultPlan
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.ledger import Ledger
from rm_voucher.worker import Delivery, MemoryBroker, Worker, WorkerSettings
from rm_voucher.worker.dispositions import Kind, Leave, Park

BATCH = "TEA"
SETTLE_S = 20.0


def body(request_id: str, content: Any = None) -> bytes:
    return orjson.dumps({"request_id": request_id, "content": content})


@attrs.define
class Place:
    """An emulator, a ledger and a broker in virtual time."""

    clock: VirtualClock
    emulator: Emulator
    client: VoucherClient
    ledger: Ledger
    broker: MemoryBroker
    runtime: Runtime

    def worker(self, **options: Any) -> Worker:
        return Worker(self.client, self.ledger, BATCH, runtime=self.runtime, **options)

    async def work_off(self, *bodies: bytes, **options: Any) -> Worker:
        """Work until each message is handed on or parked."""
        worker = self.worker(**options)
        for each in bodies:
            self.broker.publish(each)
        async with worker.working(self.broker):
            await self.broker.wait_idle()
        return worker

    @property
    def codes(self) -> dict[str, set[str]]:
        """The codes that were handed on, by the ids of their requests."""
        handed: dict[str, set[str]] = {}
        for message in map(orjson.loads, self.broker.vouchers):
            handed.setdefault(message["request_id"], set()).add(message["code"])
        return handed


Test = Callable[[Place], Coroutine[Any, Any, None]]


def in_virtual_time(
    *,
    quantity: int = 1000,
    faults: FaultPlan | None = None,
    guesses: Any = None,
    mode: Any = "exclusive",
    retry: RetryPolicy | None = None,
) -> Callable[[Test], Callable[[], None]]:
    """Run a test in virtual time, with its place."""

    def decorate(test: Test) -> Callable[[], None]:
        def run() -> None:
            clock = VirtualClock()
            runtime = Runtime(
                clock=clock.wall, monotonic=clock.monotonic, random=random.Random(7).random
            )
            emulator = Emulator(
                seed=7,
                clock=clock.true_wall,
                batches={BATCH: quantity},
                faults=faults or FaultPlan(),
            )

            async def main() -> None:
                client = emulator.client(runtime=runtime, retry=retry or RetryPolicy())
                ledger = Ledger.in_memory(
                    runtime=runtime, mode=mode, settle_s=SETTLE_S, sweeps=True
                )
                broker = MemoryBroker(prefetch=8, runtime=runtime)
                async with client, ledger:
                    await test(Place(clock, emulator, client, ledger, broker, runtime))

            VirtualLoop(clock).run(main)

        run.__doc__ = test.__doc__
        return run

    return decorate


@in_virtual_time()
async def test_each_message_becomes_a_voucher(place: Place) -> None:
    """With its id and content in the message that hands it on, and its QR code."""
    bodies = [body(f"order {n}", {"member": n}) for n in range(100)]
    await place.work_off(*bodies)
    messages = [orjson.loads(message) for message in place.broker.vouchers]
    assert sorted(message["content"]["member"] for message in messages) == list(range(100))
    assert {message["code"] for message in messages} == set(place.emulator.issued(BATCH))
    assert all(message["qr_url"].startswith("https://") for message in messages)


@in_virtual_time()
async def test_copies_bring_the_same_code(place: Place) -> None:
    """At once, in another order, and after a restart: one code an id, handed on each time."""
    bodies = [body(f"order {n % 10}") for n in range(50)]
    random.Random(1).shuffle(bodies)
    worker = await place.work_off(*bodies)
    await place.work_off(body("order 3"))
    assert len(place.emulator.issued(BATCH)) == 10
    assert {len(codes) for codes in place.codes.values()} == {1}
    assert len(place.broker.vouchers) == 51
    assert worker.processed == Counter(handed_on=50)


@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        (b"\xff", "no JSON object"),
        (b"{", "no JSON object"),
        (b"[]", "no JSON object"),
        (b'"order 1"', "no JSON object"),
        (b"{}", "A request id is text"),
        (b'{"request_id": 1}', "A request id is text"),
        (b'{"request_id": ""}', "A request id is text"),
        (b'{"request_id": "\\ud800"}', "no JSON object"),
        (b'{"request_id": "a\\u0000"}', "control characters"),
        (b'{"request_id": "%s"}' % (b"x" * 5000), "A request id is text"),
        (b'{"request_id": "x", "content": "%s"}' % (b"x" * 70_000), "65,536 are allowed"),
        (b'{"request_id": "x", "content": %s1%s}' % (b"[" * 600, b"]" * 600), "nested"),
        # It could be kept, but the voucher's message is a level deeper.
        (b'{"request_id": "x", "content": %s1%s}' % (b"[" * 254, b"]" * 254), "nested"),
        (body("order 1", "secret"), "IdempotencyConflictError"),
    ],
)
def test_poison_is_parked_and_the_rest_goes_on(poison: bytes, reason: str) -> None:
    """Once, as it was sent, with a reason that does not quote it."""

    @in_virtual_time()
    async def run(place: Place) -> None:
        await place.work_off(body("order 1", "42"))
        worker = await place.work_off(poison, body("order 2"))
        ((parked, why),) = place.broker.parked
        assert parked == poison
        assert reason in why
        assert "secret" not in why
        assert set(place.codes) == {"order 1", "order 2"}
        assert worker.processed == Counter(parked=1, handed_on=1)

    run()


@in_virtual_time(
    faults=FaultPlan(rate=0.2), retry=RetryPolicy(max_attempts=2), mode="exclusive", quantity=2000
)
async def test_faults_of_all_kinds(place: Place) -> None:
    """Whatever a fifth of all requests meets: one code an id, all handed on, none too many."""
    ids = [f"order {n}" for n in range(100)]
    bodies = [body(name) for name in ids] * 3
    random.Random(2).shuffle(bodies)
    await place.work_off(*bodies)
    assert sorted(place.codes) == sorted(ids)
    assert {len(codes) for codes in place.codes.values()} == {1}
    counts = await place.ledger.counts(BATCH)
    assert counts.assigned == len(ids)
    assert len(place.emulator.issued(BATCH)) == counts.assigned + counts.spare
    assert place.broker.parked == []


@in_virtual_time(retry=RetryPolicy(max_attempts=1))
async def test_unknown_outcome_comes_back_once(place: Place) -> None:
    """After a delay that fits the time to settle: not every few seconds meanwhile."""
    place.emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
    before = place.clock.now
    worker = await place.work_off(body("order 1"))
    assert worker.processed == Counter(later=1, handed_on=1)
    assert SETTLE_S < place.clock.now - before < SETTLE_S + 10
    assert len(place.emulator.issued(BATCH)) == 1


@in_virtual_time(quantity=1)
async def test_sold_out_comes_back_until_it_is_parked(place: Place) -> None:
    """At longer and longer intervals, a bounded number of times; then a person has it."""
    await place.work_off(body("order 1"))
    before = place.clock.now
    settings = WorkerSettings(first_delay_s=10.0, longest_delay_s=40.0, max_attempts=4)
    worker = await place.work_off(body("order 2"), settings=settings)
    assert worker.processed == Counter(later=3, parked=1)
    ((_, reason),) = place.broker.parked
    assert reason.startswith("delivered 4 times in vain, at last OutOfStockError")
    assert 35.0 < place.clock.now - before < 110.0


@in_virtual_time()
async def test_message_that_ends_its_worker_is_parked(place: Place) -> None:
    """A broker that counts deliveries tells of one that never came to its end."""
    found = await place.worker().handle(Delivery(body("order 1"), attempt=51))
    assert isinstance(found, Park)
    assert place.emulator.issued(BATCH) == ()


@in_virtual_time(quantity=0)
async def test_what_would_meet_the_next_one_holds_its_place(place: Place) -> None:
    """A queue does not pass by in vain: eight places, each held for five seconds."""
    worker = place.worker(settings=WorkerSettings(max_attempts=50))
    for n in range(1000):
        place.broker.publish(body(f"order {n}"))
    async with worker.working(place.broker):
        await asyncio.sleep(60.0)
    assert worker.processed[Kind.LATER] <= 8 * 60 / 2.5 + 8


@in_virtual_time()
async def test_stop_finishes_what_is_at_work_and_takes_no_more(place: Place) -> None:
    """Those at work are handed on; the others stay at the broker for the next worker."""
    for n in range(100):
        place.broker.publish(body(f"order {n}"))
    worker = place.worker()
    async with worker.working(place.broker):
        while worker.in_flight < 8:
            await asyncio.sleep(0)
    handed = len(place.broker.vouchers)
    assert 0 < handed < 100
    assert await place.broker.backlog() == 100 - handed
    assert worker.is_stopping
    await place.work_off()
    assert len(place.codes) == 100
    assert len(place.emulator.issued(BATCH)) == 100


@in_virtual_time()
async def test_stop_gives_up_what_takes_too_long(place: Place) -> None:
    """After its deadline; the call goes on in the ledger, and another worker hands it on."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hand_on(*_: object) -> None:
        reached.set()
        await go_on.wait()

    place.broker.publish(body("order 1"))
    worker = place.worker(hand_on=hand_on)
    before = place.clock.now
    async with worker.working(place.broker, stop_s=10.0):
        await reached.wait()
    assert place.clock.now - before < 12.0
    assert worker.processed == Counter(left=1)
    await place.work_off()
    assert set(place.codes) == {"order 1"}


@in_virtual_time(quantity=0)
async def test_what_is_refused_while_it_stops_is_left(place: Place) -> None:
    """The next worker may have more time; and what comes after the stop is not begun."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hand_on(*_: object) -> None:
        reached.set()
        await go_on.wait()
        raise ConnectionError("away")

    place.emulator.add_batch("COFFEE", key="COFFEE", quantity=1)
    worker = place.worker(hand_on=hand_on)
    worker.batch_key = "COFFEE"
    place.broker.publish(body("order 1"))
    async with worker.working(place.broker):
        await reached.wait()
        asyncio.get_running_loop().call_later(1.0, go_on.set)
    assert worker.processed == Counter(left=1)
    assert isinstance(await worker.handle(Delivery(body("order 2"))), Leave)
    assert worker.processed == Counter(left=1)


@in_virtual_time()
async def test_hand_on_that_fails_is_tried_again(place: Place) -> None:
    """It gets the request and its voucher, the same each time; its error is in no log."""
    got: list[tuple[str, Any, str]] = []

    async def hand_on(request: Any, voucher: Any) -> None:
        got.append((request.id, request.content, voucher.code))
        if len(got) < 3:
            raise RuntimeError(voucher.code)

    worker = await place.work_off(body("order 1", "42"), hand_on=hand_on)
    (code,) = place.emulator.issued(BATCH)
    assert got == [("order 1", "42", code)] * 3
    assert worker.processed == Counter(later=2, handed_on=1)
    assert place.broker.vouchers == []


@in_virtual_time()
async def test_on_error_gets_a_likeness_without_the_code(place: Place) -> None:
    """What `hand_on` raised, masked; that the function fails itself is logged."""
    got: list[Exception] = []

    async def hand_on(_: Any, voucher: Any) -> None:
        if not got:
            raise KeyError(f"{voucher.code} at {voucher.qr_url}")

    def on_error(error: Exception) -> None:
        got.append(error)
        raise ZeroDivisionError

    worker = await place.work_off(body("order 1"), hand_on=hand_on, on_error=on_error)
    (code,) = place.emulator.issued(BATCH)
    (error,) = got
    assert type(error).__name__ == "KeyError"
    assert code not in repr(error)
    assert "https" not in repr(error)
    assert worker.processed == Counter(later=1, handed_on=1)


@in_virtual_time()
async def test_on_error_is_told_of_a_defect(place: Place) -> None:
    """By its class: which code its text may have, nothing tells."""
    got: list[str] = []

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    worker = place.worker(on_error=lambda error: got.append(repr(error)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place.ledger, "issue", broken)
        await worker.handle(Delivery(body("order 1")))
    assert got == ["ZeroDivisionError('…')"]


@in_virtual_time()
async def test_on_error_may_get_a_voucher_without_a_picture(place: Place) -> None:
    """A code without a QR code's URL is masked too."""
    got: list[str] = []

    async def hand_on(_: Any, voucher: Any) -> None:
        if not got:
            raise KeyError(voucher.code)

    real = place.ledger.issue

    async def issue(*args: Any, **kwargs: Any) -> Any:
        return attrs.evolve(await real(*args, **kwargs), qr_url="")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place.ledger, "issue", issue)
        await place.work_off(
            body("order 1"), hand_on=hand_on, on_error=lambda error: got.append(repr(error))
        )
    (code,) = place.emulator.issued(BATCH)
    assert len(got) == 1
    assert code not in got[0]


async def test_ledger_that_does_not_sweep_is_refused() -> None:
    """Nobody would settle what is unknown, and its messages would come back in vain."""
    client = Emulator(batches={BATCH: 1}).client()
    async with client, Ledger.in_memory() as ledger:
        with pytest.raises(ConfigurationError, match="sweeps=True"):
            Worker(client, ledger, BATCH)


def test_no_code_is_in_a_log_or_a_repr(caplog: pytest.LogCaptureFixture) -> None:
    """Not of what is handed on, comes back or is parked, at any level."""
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []

    @in_virtual_time(faults=FaultPlan(rate=0.3), retry=RetryPolicy(max_attempts=1))
    async def run(place: Place) -> None:
        worker = place.worker()
        for n in range(40):
            seen.append(repr(await worker.handle(Delivery(body(f"order {n}")))))
        seen.extend(place.emulator.issued(BATCH))

    run()
    codes = [text for text in seen if "(" not in text]
    assert len(codes) > 20
    shown = caplog.text + "".join(text for text in seen if "(" in text)
    assert not any(code in shown for code in codes)
