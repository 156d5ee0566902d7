"""Rule: whose lease has run out, by which it shows that it lives, sends no more of what it held.

Two ledgers on one PostgreSQL. At each step of the first one's way to a code its backends are ended
and its lease runs out, and before it can go on, the second takes over: it recovers, settles and
issues. Then the first goes on. Whatever the step: a code for each request, and none lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import pytest
from support.doubles import FakeTime
from support.ledger_clients import B, Gate, Place, client_of, place, reported
from support.postgres import execute, run_sql

from rm_voucher import OutcomeUnknownError, VoucherClient, VoucherError
from rm_voucher.emulator import Fault
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.sql.store import SqlLedgerStore
from rm_voucher.runtime import Runtime

pytestmark = pytest.mark.long

_END = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = 'first'"
)
_RUN_OUT = "UPDATE rm_ledger_leases SET until = 0 WHERE holder = %s"


@attrs.define
class Duel:
    """The first ledger, whose connection is ended, and the second, which takes over then."""

    place: Place
    url: str
    first: Ledger
    second: Ledger
    takeovers: int = 0

    async def take_over(self) -> None:
        """End the first one's backends and lease; let the second do all that there is to do."""
        self.takeovers += 1
        await run_sql(self.url, _END)
        await run_sql(self.url, _RUN_OUT, self.first.store.owner)
        await self.second.recover()
        await _finish(self.second, self.place.client)

    def take_over_from_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        """The same, while the thread that called it stands still."""
        asyncio.run_coroutine_threadsafe(self.take_over(), loop).result()

    def client(self, *, behind: Any = None, sleep: Any = None) -> VoucherClient:
        """Return a client of the first ledger's own."""
        options: dict[str, Any] = {} if behind is None else {"transport": behind}
        if sleep is not None:
            time = self.place.time
            options["runtime"] = attrs.evolve(time.runtime, sleep=sleep)
        return client_of(self.place.emulator, self.place.time, **options)


async def _finish(ledger: Ledger, client: VoucherClient) -> None:
    """Settle and issue. What is held is what the listing can't tell: nobody decides here."""
    try:
        await ledger.finish(client, B)
    except OutcomeUnknownError:
        pass


@pytest.fixture
async def duel(postgres_ledger_url: str, time: FakeTime) -> AsyncIterator[Duel]:
    at = place(time)

    def ledger(name: str) -> Ledger:
        runtime = Runtime(clock=time.clock, monotonic=time.clock, sleep=time.sleep)
        store = SqlLedgerStore(f"{postgres_ledger_url}?application_name={name}", runtime=runtime)
        return at.ledger(store=store)

    first, second = ledger("first"), ledger("second")
    async with first, second:
        await second.submit(B, "another")
        yield Duel(at, postgres_ledger_url, first, second)


# The steps. Each lets `take_over` happen once at its instant, and returns the first one's client.

Step = Callable[[Duel], VoucherClient]


def _at_write(duel: Duel, transition: str, *, committed: bool) -> VoucherClient:
    """Take over before or after the commit of the first transaction with such a transition."""
    store: Any = duel.first.store
    database, loop = store._database, asyncio.get_running_loop()
    right_all, right_write = store._commit_all, database._write
    kinds: list[str] = []

    async def commit_all(operations: Any) -> Any:
        kinds[:] = [kind.__name__ for kind, _ in operations]
        return await right_all(operations)

    def write(work: Any, **how: Any) -> Any:
        if transition not in kinds or duel.takeovers:
            return right_write(work, **how)
        if committed:
            right_write(work, **how)
            duel.take_over_from_thread(loop)
            raise ConnectionResetError("the answer to the commit is lost")

        def interrupted(connection: Any) -> Any:
            result = work(connection)
            duel.take_over_from_thread(loop)
            return result

        return right_write(interrupted, **how)

    store._writer._commit = commit_all
    database._write = write
    return duel.client()


def before_ask_is_durable(duel: Duel) -> VoucherClient:
    return _at_write(duel, "ask", committed=False)


def after_ask_is_durable(duel: Duel) -> VoucherClient:
    return _at_write(duel, "ask", committed=True)


def before_confirm_is_durable(duel: Duel) -> VoucherClient:
    return _at_write(duel, "confirm", committed=False)


def after_confirm_is_durable(duel: Duel) -> VoucherClient:
    return _at_write(duel, "confirm", committed=True)


def _overtaken_asleep(duel: Duel) -> VoucherClient:
    async def sleep(seconds: float) -> None:
        if not duel.takeovers:
            await duel.take_over()
        await duel.place.time.sleep(seconds)

    return duel.client(sleep=sleep)


def while_it_waits_to_repeat(duel: Duel) -> VoucherClient:
    duel.place.emulator.fail_next("issue", Fault.THROTTLE)
    return _overtaken_asleep(duel)


def while_it_waits_for_its_turn(duel: Duel) -> VoucherClient:
    client = _overtaken_asleep(duel)
    client.caller.flow.pause_until(duel.place.time.now + 30)
    return client


class _Overtaken(Gate):
    """Takes over when an operation was answered, or before it is sent."""

    def __init__(self, duel: Duel, operation: str, *, is_before: bool = False) -> None:
        super().__init__(duel.place.emulator.transport(), operation)
        self._duel, self._operation, self._is_before = duel, operation, is_before
        self.opened.set()

    async def send(self, request: Any) -> Any:
        is_now = request.operation == self._operation and not self._duel.takeovers
        if is_now and self._is_before:
            await self._duel.take_over()
        answer = await super().send(request)
        if is_now and not self._is_before:
            await self._duel.take_over()
        return answer


def while_it_waits_for_a_token(duel: Duel) -> VoucherClient:
    """Of the first call: the batch was made ready before."""
    return duel.client(behind=_Overtaken(duel, "token"))


def while_the_answer_is_on_its_way(duel: Duel) -> VoucherClient:
    return duel.client(behind=_Overtaken(duel, "issue"))


STEPS: tuple[Step, ...] = (
    before_ask_is_durable,
    after_ask_is_durable,
    while_it_waits_for_a_token,
    while_it_waits_for_its_turn,
    while_it_waits_to_repeat,
    while_the_answer_is_on_its_way,
    before_confirm_is_durable,
    after_confirm_is_durable,
)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
async def test_connection_that_is_lost_at_a_step(duel: Duel, step: Step) -> None:
    """Of two requests each has its code in the end, and the server has issued no third one."""
    await duel.first.prepare(duel.place.client, B)
    async with step(duel) as client:
        try:
            await duel.first.issue(client, B, "r")
        except VoucherError:
            pass  # it may be asked again, and is below
        await _finish(duel.first, client)
        assert duel.takeovers == 1
        given = {name: (await duel.first.issue(client, B, name)).code for name in ("r", "another")}
    assert await reported(duel.second) == given
    assert sorted(duel.place.issued) == sorted(given.values())
    assert (await duel.second.counts()).spare == 0


async def test_first_byte_right_after_the_connection_is_lost(duel: Duel) -> None:
    """Between the last look at its attempt and its first byte nothing can come: what is sent then
    is settled as what was lost, and issues nothing twice."""

    class Cut(_Overtaken):
        async def send(self, request: Any) -> Any:
            if request.operation == "issue" and not self._duel.takeovers:
                self._duel.takeovers += 1
                execute(self._duel.url, _END)
                await self._duel.second.recover()
            return await self._behind.send(request)

    await duel.first.prepare(duel.place.client, B)
    async with duel.client(behind=Cut(duel, "issue")) as client:
        try:
            await duel.first.issue(client, B, "r")
        except VoucherError:
            pass
        await _finish(duel.second, duel.place.client)
    given = await reported(duel.second)
    assert sorted(given.values()) == sorted(duel.place.issued)
    assert (len(given), (await duel.second.counts()).spare) == (2, 0)
