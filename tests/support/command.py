"""The command ``rm-voucher`` as a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request
from typing import Any

import attrs
import orjson

from rm_voucher import Credentials, Environment, FlowPolicy, RetryPolicy, VoucherClient

COMMAND = (sys.executable, "-m", "rm_voucher.cli")
PATIENCE_S = 30  # for what must happen; it is only spent when a test fails


@attrs.frozen
class Emulating:
    """The command ``rm-voucher emulator`` as a process that listens."""

    process: subprocess.Popen[str]
    variables: dict[str, str]

    @property
    def url(self) -> str:
        return self.variables["RM_ENVIRONMENT"]

    def client(self, **options: Any) -> VoucherClient:
        """Make a client that tries once, and therefore never waits."""
        return VoucherClient(
            Credentials.from_env(self.variables),
            environment=Environment.from_env(self.variables),
            **{"retry": RetryPolicy(max_attempts=1), "flow": FlowPolicy(adaptive=False), **options},
        )

    def control(self, path: str) -> Any:
        """Return what the control API shows."""
        with urllib.request.urlopen(f"{self.url}/_emulator/{path}") as answer:
            return orjson.loads(answer.read())

    def end(self, number: signal.Signals = signal.SIGTERM) -> list[str]:
        """End it; return the lines that it wrote since it listened."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE_S)
        assert (out, self.process.returncode) == ("", 130)
        return err.splitlines()
