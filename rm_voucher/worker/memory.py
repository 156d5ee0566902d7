"""A broker in this object: for tests, and to try a worker without one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable

import attrs

from rm_voucher.runtime import Runtime
from rm_voucher.worker.broker import Broker, Handler, QueueNames
from rm_voucher.worker.dispositions import Delivery, HandOn, Later, Park


class MemoryBroker(Broker):
    """Keeps messages for as long as this object lives. ``prefetch`` are handled at once."""

    def __init__(
        self, requests: Iterable[bytes] = (), *, prefetch: int = 64, runtime: Runtime | None = None
    ) -> None:
        self.names: QueueNames = QueueNames()
        self.vouchers: list[bytes] = []
        self.parked: list[tuple[bytes, str]] = []
        """The messages that wait for a person, each with the reason."""
        self._runtime = runtime or Runtime()
        self._requests: asyncio.Queue[Delivery] = asyncio.Queue()
        self._places = asyncio.Semaphore(prefetch)
        self._unfinished = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._delivering: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        for body in requests:
            self.publish(body)

    def publish(self, body: bytes) -> None:
        """Add a request."""
        self._unfinished += 1
        self._is_idle.clear()
        self._requests.put_nowait(Delivery(body))

    async def wait_idle(self) -> None:
        """Return when each message is handed on or parked."""
        await self._is_idle.wait()

    async def start(self, handler: Handler) -> None:
        """See `Broker.start`."""
        self._delivering = asyncio.create_task(self._deliver(handler))

    async def pause(self) -> None:
        """See `Broker.pause`."""
        if self._delivering is not None:
            self._delivering.cancel()

    async def close(self) -> None:
        """See `Broker.close`."""
        await self.pause()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def hand_on(self, message: bytes) -> None:
        """See `Broker.hand_on`."""
        self.vouchers.append(message)

    async def backlog(self) -> int | None:
        """See `Broker.backlog`."""
        return self._requests.qsize()

    @property
    def is_connected(self) -> bool:
        """See `Broker.is_connected`."""
        return self._delivering is not None and not self._delivering.done()

    async def _deliver(self, handler: Handler) -> None:
        while True:
            await self._places.acquire()
            self._begin(self._process(handler, await self._requests.get()))

    async def _process(self, handler: Handler, delivery: Delivery) -> None:
        try:
            disposition = await handler(delivery)
        finally:
            self._places.release()
        match disposition:
            case HandOn(message):
                if message is not None:
                    await self.hand_on(message)
            case Park(reason):
                self.parked.append((delivery.body, reason))
            case Later(delay_s):
                self._begin(self._return(delivery, delay_s))
                return
            case _:  # Leave
                self._requests.put_nowait(delivery)
                return
        self._unfinished -= 1
        if not self._unfinished:
            self._is_idle.set()

    async def _return(self, delivery: Delivery, delay_s: float) -> None:
        await self._runtime.sleep(delay_s)
        self._requests.put_nowait(attrs.evolve(delivery, attempt=delivery.attempt + 1))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
