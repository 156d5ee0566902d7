"""The port to a broker: requests come from it, and vouchers, delays and dead letters go to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import attrs

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.worker.dispositions import Delivery, Disposition

REASON_HEADER = "rm-reason"
ATTEMPT_HEADER = "rm-attempt"


class Handler(Protocol):
    """What a broker calls with each message: `Worker.handle`. It raises nothing.

    It returns a `HandOn`, `Later`, `Park` or `Leave`: what the broker does with the message then.
    """

    async def __call__(self, delivery: Delivery, /) -> Disposition:
        """Handle a message."""
        ...


@attrs.frozen(kw_only=True)
class QueueNames:
    """The names of queues, streams or topics.

    Attributes:
        requests: where the requests come from.
        vouchers: where the vouchers go to.
    """

    requests: str = "requests"
    vouchers: str = "vouchers"

    def __attrs_post_init__(self) -> None:
        if not self.requests or not self.vouchers or self.requests == self.vouchers:
            raise ConfigurationError("Requests and vouchers need queues of different names.")

    @property
    def parked(self) -> str:
        """Where messages wait for a person."""
        return f"{self.requests}.parked"

    @property
    def later(self) -> str:
        """Where messages wait until they are due."""
        return f"{self.requests}.later"


class Broker(ABC):
    """Delivers requests to a handler, and does with each what the handler returns.

    Each implementation keeps one order: what follows from a message is durable at the broker before
    the message is acknowledged. So a crash brings a message again, and loses none.
    """

    names: QueueNames

    @abstractmethod
    async def start(self, handler: Handler) -> None:
        """Connect, make the queues that are missing, and deliver."""

    @abstractmethod
    async def pause(self) -> None:
        """Deliver nothing more; what was delivered goes on."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect. What is not acknowledged is delivered again, to another worker."""

    @abstractmethod
    async def hand_on(self, message: bytes) -> None:
        """Publish a voucher's message; return when the broker has it for good."""

    @abstractmethod
    async def backlog(self) -> int | None:
        """Return how many requests nobody has taken yet; None where the broker does not tell."""

    @property
    @abstractmethod
    def is_connected(self) -> bool:
        """Whether the broker can be reached, as far as is known."""
