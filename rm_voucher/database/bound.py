"""The end of all waiting for a database."""

from __future__ import annotations

import math
from contextvars import ContextVar

import attrs

LATEST: ContextVar[float] = ContextVar("LATEST", default=math.inf)
"""Until when the transaction that this context makes may take, by the monotonic clock."""


@attrs.define
class Bound:
    """Until when the threads of a database wait for its answers, by the monotonic clock."""

    at: float = math.inf
    silence_s: float = math.inf
    """After so long a silence a connection is given up, if not sooner."""
