"""What the brokers of FastStream have in common: one order, publish and then acknowledge."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import abstractmethod
from typing import Annotated, Any

from rm_voucher.extras import extra
from rm_voucher.worker.broker import (
    ATTEMPT_HEADER,
    REASON_HEADER,
    Broker,
    Handler,
    QueueNames,
)
from rm_voucher.worker.dispositions import Delivery, HandOn, Later, Park

with extra("worker", __name__):
    from faststream import Context
    from faststream.message import StreamMessage

log: logging.Logger = logging.getLogger("rm_voucher.worker")
_BREATH_S = 1.0
_MAX_REASON_CHARS = 1_000


class FastStreamBroker(Broker):
    """A broker that FastStream speaks to. Subclasses say what differs.

    ``broker`` is FastStream's own. It is made and owned here.
    """

    broker: Any
    _handler: Handler
    _is_closing = False

    def __init__(self, names: QueueNames) -> None:
        self.names = names

    async def start(self, handler: Handler) -> None:
        """See `Broker.start`."""
        self._handler = handler
        await self._prepare()
        await self.broker.start()

    async def pause(self) -> None:
        """See `Broker.pause`."""
        for subscriber in self.broker.subscribers:
            subscriber.running = False  # FastStream drops what comes then, not acknowledged

    async def close(self) -> None:
        """See `Broker.close`."""
        self._is_closing = True
        await self.broker.stop()

    async def hand_on(self, message: bytes) -> None:
        """See `Broker.hand_on`."""
        await self.publish(self.names.vouchers, message, {})

    async def tell_away(self, *_: object) -> None:
        """Say that the link is lost; one that is closed is not."""
        if not self._is_closing:
            log.warning("the broker is away")

    async def tell_back(self, *_: object) -> None:
        """Say that the link is there again."""
        log.warning("the broker is back")

    @abstractmethod
    async def _prepare(self) -> None:
        """Connect, and make the queues that only receive."""

    @abstractmethod
    async def publish(self, queue: str, body: bytes, headers: dict[str, str]) -> None:
        """Publish a message; return when the broker has it for good."""

    @abstractmethod
    async def defer(self, message: StreamMessage[Any], attempt: int, delay_s: float) -> bool:
        """Have a message delivered again after a delay.

        Return whether that is another message, so that this one is to be acknowledged.
        """

    async def attempt_of(self, message: StreamMessage[Any]) -> int:
        """Return which delivery of its message this is."""
        given = str(message.headers.get(ATTEMPT_HEADER, ""))
        return int(given) if given.isdecimal() and len(given) < 10 else 1

    async def handle(
        self, body: bytes, message: Annotated[StreamMessage[Any], Context("message")]
    ) -> None:
        """Be FastStream's handler."""
        await self.process(message)

    async def acknowledge(self, message: StreamMessage[Any]) -> None:
        """Tell the broker that a message is done with."""
        await message.ack()

    async def process(self, message: StreamMessage[Any]) -> None:
        """Have a message handled, and do what follows from it."""
        try:
            attempt = await self.attempt_of(message)
            disposition = await self._handler(Delivery(message.body, attempt))
            match disposition:
                case HandOn(voucher):
                    if voucher is not None:
                        await self.hand_on(voucher)
                case Later(delay_s):
                    if not await self.defer(message, attempt, delay_s):
                        return
                case Park(reason):
                    text = reason[:_MAX_REASON_CHARS]
                    await self.publish(self.names.parked, message.body, {REASON_HEADER: text})
                case _:  # Leave
                    return
            await self.acknowledge(message)
        except Exception as exc:  # noqa: BLE001 - of the broker's libraries, which name no base
            log.warning("a message comes back: the broker failed (%s)", type(exc).__name__)
            await asyncio.sleep(_BREATH_S)  # or a broker that refuses would be asked in a circle
            with contextlib.suppress(Exception):
                await message.nack()


async def as_sent(message: StreamMessage[Any]) -> bytes:
    """Leave a message's body as it was sent: its sender's content type is not to be trusted."""
    return bytes(message.body)
