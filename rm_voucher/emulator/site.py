"""What the merchants of one emulator share: the time, the journal, the address."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from rm_voucher.emulator.exchange import Journal
from rm_voucher.emulator.reply import Reply
from rm_voucher.emulator.virtual_clock import VirtualClock
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
    journal: Journal = attrs.field(factory=Journal)
    url: str = IN_MEMORY
    """Where customers' browsers find it, without a slash at the end."""
    changes: int = 0
    """How often somebody steered the emulator."""
