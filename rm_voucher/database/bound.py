"""The end of all waiting for a database."""

from __future__ import annotations

import math

import attrs


@attrs.define
class Bound:
    """Until when the threads of a database wait for its answers, by the monotonic clock."""

    at: float = math.inf
