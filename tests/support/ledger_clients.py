"""A ledger and its client on an emulator, at one injected time, and a way to stop them half-way."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import attrs
from support.doubles import FakeTime
from support.fault_stage import ME
from support.runtimes import with_runtime

from rm_voucher import LedgerError, Request, Response, RetryPolicy, Transport, VoucherClient
from rm_voucher.emulator import Emulator, Guesses
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.memory import MemoryLedgerStore, MemoryTables
from rm_voucher.ledger.store import LedgerStore
from rm_voucher.runtime import Runtime

B = "B"
SETTLE_S = 300.0


class Gate(Transport):
    """Holds answers back, those of one operation, until it is opened; counts what has come."""

    def __init__(self, behind: Transport, operation: str) -> None:
        self._behind = behind
        self._operation = operation
        self.opened = asyncio.Event()
        self.arrived = asyncio.Event()

    async def send(self, request: Request) -> Response:
        answer = await self._behind.send(request)
        if request.operation == self._operation:
            self.arrived.set()
            await self.opened.wait()
        return answer


class Wait:
    """A sleep that a test sees begin, and ends: ``Retry-After``, say."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.over = asyncio.Event()

    async def sleep(self, _: float) -> None:
        self.begun.set()
        await self.over.wait()


class FailingStore(MemoryLedgerStore):
    """Can't commit these transitions, or any."""

    fails: Collection[object] | None = ()

    async def commit(self, transition: Any, item: Any) -> Any:
        if self.fails is None or transition in self.fails:
            raise LedgerError("the disk is full") from OSError("No space left on device")
        return await super().commit(transition, item)


@attrs.define
class Place:
    """An emulator with a batch B, and what is needed to issue from it."""

    time: FakeTime
    emulator: Emulator
    client: VoucherClient
    tables: MemoryTables = attrs.field(factory=MemoryTables)
    wall_ahead_s: float = 0.0
    """How far this machine's clock is ahead of the server's."""

    def ledger(
        self, mode: str = "exclusive", *, store: LedgerStore | None = None, **options: Any
    ) -> Ledger:
        """Return a ledger on what the last one left, as after a restart."""
        given: dict[str, Any] = {"mode": mode, "settle_s": SETTLE_S, **options}
        runtime = Runtime(
            clock=lambda: self.time.now + self.wall_ahead_s,
            monotonic=self.time.clock,
            sleep=self.time.sleep,
        )
        return Ledger(store or MemoryLedgerStore(self.tables), runtime=runtime, **given)

    def gate(self, operation: str = "issue") -> tuple[Gate, VoucherClient]:
        """Return a client whose answers are held back."""
        gate = Gate(self.emulator.transport(), operation)
        return gate, client_of(self.emulator, self.time, transport=gate)

    @property
    def posts(self) -> int:
        return self.emulator.requests["issue"]

    @property
    def issued(self) -> list[str]:
        return list(self.emulator.issued(B))


def client_of(emulator: Emulator, time: FakeTime, **options: Any) -> VoucherClient:
    given: dict[str, Any] = {
        "runtime": time.runtime,
        "retry": RetryPolicy(max_attempts=2),
        **options,
    }
    return emulator.client(**with_runtime(given))


def place(time: FakeTime, *, quantity: int = 100, **guesses: Any) -> Place:
    emulator = Emulator(
        seed=1,
        credentials=ME,
        clock=time.clock,
        batches={B: quantity},
        guesses=Guesses(**guesses),
    )
    return Place(time, emulator, client_of(emulator, time))


def ledger_tasks() -> list[asyncio.Task[Any]]:
    """Return the tasks of all ledgers: calls, and listings that are read beside them."""
    return [task for task in asyncio.all_tasks() if task.get_name() == "rm-voucher ledger"]


async def reported(ledger: Ledger) -> dict[str, str]:
    """Return each request's code, or its state."""
    return {
        request.id: str(request.state) if voucher is None else voucher.code
        async for request, voucher in ledger.requests(B)
    }
