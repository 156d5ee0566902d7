"""The end of all waiting for a database."""

from __future__ import annotations

import math
from contextvars import ContextVar

import attrs

LATEST: ContextVar[float] = ContextVar("LATEST", default=math.inf)
"""Until when the transaction that this context makes may take, by the monotonic clock."""


@attrs.define
class Bound:
    """What all connections to a database have to keep to.

    Attributes:
        at: until when the threads wait for answers, by the monotonic clock.
        silence_s: after so long a silence a connection is given up, if not sooner.
        shares_sessions: whether a pooler gives each transaction another session: what a connection
            prepares or sets stays behind, for others.
    """

    at: float = math.inf
    silence_s: float = math.inf
    shares_sessions: bool = False
