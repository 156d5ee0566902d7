"""Kills its own process at a named point. SIGKILL puts nothing in order, like a loss of power."""

from __future__ import annotations

import os
import signal
from pathlib import Path

ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join(
        filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])
    )
}
"""The variables that a process needs which imports this module."""


class Killer:
    """Counts how often its point is passed: ``POINT:N`` dies at the n-th pass."""

    def __init__(self, spec: str) -> None:
        self.point, _, number = spec.partition(":")
        self._left = int(number or 0)

    def passing(self, point: str) -> None:
        if point == self.point:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)
