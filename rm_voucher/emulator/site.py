"""What the merchants of one emulator share: the time, the journal, the address, the key."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from rm_voucher.emulator.exchange import Journal
from rm_voucher.emulator.keys import new_private_key
from rm_voucher.emulator.records import Record
from rm_voucher.emulator.reply import Reply
from rm_voucher.emulator.state import VoucherState
from rm_voucher.emulator.virtual_clock import VirtualClock
from rm_voucher.signing.rsa import RsaSigner
from rm_voucher.transport.base import Request

IN_MEMORY = "https://emulator.invalid"
"""Where an emulator is that is not served: a name that leads nowhere."""


@attrs.define(eq=False)
class Site:
    """The server that the merchants are customers of."""

    wire_clock: Callable[[], float]
    """Unix seconds as the clients have them, never set ahead."""
    clock: VirtualClock
    reply: Callable[[Request], Reply]
    """Answers a request, whichever merchant's it is."""
    books_beside: Callable[[int], Sequence[VoucherState]]
    """Gives the books of all merchants but the one with a number."""
    journal: Journal = attrs.field(factory=Journal)
    url: str = IN_MEMORY
    """Where customers' browsers find it, without a slash at the end."""
    client_url: str = IN_MEMORY
    """Where clients in other processes find it, likewise."""
    callback_signer: RsaSigner | None = attrs.field(default=None, repr=False)
    """What signs callbacks, None for a new key."""
    on_touch: Callable[[Any, Record], object] | None = None
    """Told of each voucher that changed, and whose it is."""
    beginnings: Iterator[int] = attrs.field(factory=lambda: itertools.count(1), repr=False)
    """A number for each time that a merchant's books are opened."""
    changes: int = 0
    """How often somebody steered the emulator."""

    def signer(self) -> RsaSigner:
        """Return what signs callbacks, those of all merchants: a server has one key."""
        with self.clock.lock:  # a test may ask for it while a thread serves
            if self.callback_signer is None:
                self.callback_signer = RsaSigner.from_pem(new_private_key())
            return self.callback_signer
