"""``rm-voucher probe`` as a real process that is interrupted: it says what was used, writes what it
found, and is gone."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command import PATIENCE_S
from support.command_runs import Served

from rm_voucher import Request
from rm_voucher.emulator import Fault
from rm_voucher.emulator.reply import Ending, Reply
from rm_voucher.text import counted


class Stalling:
    """An emulator that does one operation, and never says so; it counts what comes."""

    def __init__(self, served: Served, operation: str) -> None:
        self.calls = 0
        self.reached = threading.Event()
        self._reply = served.emulator.reply
        served.emulator.reply = self.answer  # type: ignore[method-assign] # so that it is seen
        served.emulator.fail_next(operation, Fault.TIMEOUT_AFTER_COMMIT)

    def answer(self, request: Request) -> Reply:
        self.calls += 1
        reply = self._reply(request)
        if reply.ending is Ending.STALLED:
            self.reached.set()
        return reply


@pytest.mark.parametrize(
    ("operation", "vouchers"),
    [
        ("token", 0),
        pytest.param("issue", 1, marks=pytest.mark.long),
        pytest.param("void", 1, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
def test_interrupted_says_what_was_used(
    served: Served,
    start: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    number: signal.Signals,
    operation: str,
    vouchers: int,
) -> None:
    """In the middle of a request: exit 130 at once, a partial report in both files, what was used
    as the server counts it, and no request after it."""
    served.emulator.add_batch("Tea", key="TEA", quantity=20)
    stalling = Stalling(served, operation)
    files = tmp_path / "probe.json", tmp_path / "probe.md"
    process = start("probe", "TEA", "--yes", "--output", files[0], "--markdown", files[1])
    assert stalling.reached.wait(PATIENCE_S)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "Traceback" not in err
    used = f"{counted(stalling.calls, 'call')} and {counted(vouchers, 'voucher')}"
    assert f"Used: {used}." in out
    report = json.loads(files[0].read_text())
    assert report["cost"]["used"] == {"calls": stalling.calls, "vouchers": vouchers}
    assert "interrupted" in report["stopped"]
    assert "**It ended early:**" in files[1].read_text()
    assert len(served.issued("TEA")) == vouchers
    decided = {one["subject"] for one in report["findings"] if one["verdict"] != "not decided"}
    assert ("unknown_path_code" in decided) == (operation != "token")
    assert ("get_methods" in decided) == (operation == "void")
