"""One rate for real processes: an emulator with a limit, PostgreSQL or Redis between them.

``SHARED_RATE_S=60`` looks for a minute, at all sizes, on a machine that is idle else. Without it,
the smallest for some seconds, and only at what can't depend on how busy the machine is.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest
from support.redis import redis_url  # noqa: F401 - a fixture

WHOLE_S = float(os.environ.get("SHARED_RATE_S", "0"))
LOOK_S = WHOLE_S or 8.0
LEARN_S = 19.0
BURST_S = 0.1  # the emulator's, of the limit, at once
PROGRAM = Path(__file__).with_name("rate_process.py")
SIZES = [(4, 50), (4, 200), (16, 50), (16, 200), (4, 1000)] if WHOLE_S else [(4, 50)]


@attrs.frozen
class Seen:
    """What all processes met in the time that was looked at."""

    used: float
    throttled: float
    fairness: float
    processes: list[int | None]


@pytest.fixture
def account(emulating, tmp_path):
    """Run processes of one account against a limit; return what they met."""

    def run(processes: int, per_s: int, store_url: str) -> Seen:
        emulator = emulating(
            *("--batch", "B=10000000", "--rate-limit", per_s, "--latency", 0.02, "--quiet")
        )
        concurrency = max(4, min(16, 2 * per_s // processes))
        command = [sys.executable, PROGRAM, store_url, concurrency]
        running = [
            subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **emulator.variables},
            )
            for _ in range(processes)
        ]
        for process in running:  # however long a busy machine takes to start them
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        first = int(time.time()) + 1
        window = range(first + int(LEARN_S), first + int(LEARN_S + LOOK_S))
        for process in running:
            assert process.stdin is not None
            process.stdin.write(f"{window.stop}\n")
            process.stdin.flush()
        reports = []
        for process in running:
            with process:
                assert process.stdout is not None
                reports.append(json.loads(process.stdout.readline()))
        emulator.process.kill()

        def had(report: dict, kind: str) -> int:
            return sum(report[kind].get(str(second), 0) for second in window)

        taken = [had(report, "taken") for report in reports]
        throttled = sum(had(report, "throttled") for report in reports)
        return Seen(
            used=sum(taken) / len(window) / per_s,
            throttled=throttled / (throttled + sum(taken)),
            fairness=sum(taken) ** 2 / (len(taken) * sum(each**2 for each in taken)),
            processes=[report["processes"] for report in reports],
        )

    return run


@pytest.mark.long
@pytest.mark.parametrize("kind", ["postgres", "redis"])
@pytest.mark.parametrize(("processes", "per_s"), SIZES)
def test_processes_share_a_rate(kind, processes, per_s, account, request):
    """Real processes use the limit, are hardly throttled, and have equal shares."""
    seen = account(processes, per_s, request.getfixturevalue(f"{kind}_url"))
    sys.stdout.write(f"{kind}, {processes} at {per_s}/s: {seen}\n")  # pytest -rP shows it
    # Holds on the busiest machine, where requests come late and close together.
    assert seen.used <= 1 + BURST_S / LOOK_S
    assert seen.throttled <= 0.05
    assert seen.fairness >= 0.9
    assert all((count or 0) > processes / 2 for count in seen.processes)
    if WHOLE_S:
        assert seen.used >= 0.95
        assert seen.throttled <= 0.015
        assert seen.fairness >= 0.99
