"""A process that is killed in the middle of a file: nothing is done twice, and nothing is lost."""

from __future__ import annotations

import csv
import signal
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rm_voucher import Request
from rm_voucher.emulator.reply import Reply

CODES = 60
DONE = {"void": "voided", "redeem": "redeemed"}
AFTER = {"void": "VOID", "redeem": "REDEEMED"}


def run_with_kills(
    start: Any, served: Any, tmp_path: Path, operation: str, kills: list[int], *, seed: int
) -> list[dict[str, str]]:
    """Kill a run at the n-th call that arrives, before or after its work, again and again; then
    let it end. Return the rows of its output."""
    chance = Random(seed)
    emulator = served.emulator
    emulator.add_batch("Tea", key="B", quantity=CODES)
    codes = [str(emulator.state.issue("B")[0]) for _ in range(CODES)]
    (tmp_path / "codes.csv").write_text("".join(f"{code}\n" for code in ("code", *codes)))
    reply = emulator.reply
    running: list[Any] = []
    left = [0]

    def answer(request: Request) -> Reply:
        if not request.url.path.endswith(("/void", "/redeem")) or left[0] == 0:
            return reply(request)  # type: ignore[no-any-return] # the emulator's own
        left[0] -= 1
        if left[0]:
            return reply(request)  # type: ignore[no-any-return]
        if chance.random() < 0.5:
            answered = reply(request)
            running[0].send_signal(signal.SIGKILL)
            return answered  # type: ignore[no-any-return]
        running[0].send_signal(signal.SIGKILL)
        running[0].wait()
        return reply(request)  # type: ignore[no-any-return]

    emulator.reply = answer
    arguments = ("--codes", tmp_path / "codes.csv", "--output", tmp_path / "out.csv")
    for number in (*kills, 0):
        running[:] = [start(operation, *arguments, "--concurrency", 8)]
        left[0] = number  # not before: calls of the killed one may still come, and count for none
        _, err = running[0].communicate()
        assert running[0].returncode in ((-signal.SIGKILL,) if number else (0, 4)), err
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["code"] for row in rows] == codes
    assert not (tmp_path / "out.csv.partial").exists()
    return rows


def check(served: Any, operation: str, rows: list[dict[str, str]], kills: int) -> None:
    outcomes = Counter(row["outcome"] for row in rows)
    assert outcomes.keys() <= {DONE[operation], "unresolved"}
    if operation == "void":
        assert outcomes == {"voided": CODES}
    assert outcomes["unresolved"] <= 8 * kills
    for row in rows:
        voucher = served.emulator.voucher(row["code"])
        assert voucher.status == row["status"] == AFTER[operation]
    if operation == "void":
        instants = {str(served.emulator.voucher(row["code"]).used_at) for row in rows}
        assert len(instants) == CODES


@pytest.mark.parametrize("operation", DONE)
def test_killed_process(start, served, tmp_path: Path, operation: str) -> None:
    """Every void is proved; of a redeem only those in flight stay for a person to decide."""
    kills = [5, 17]
    rows = run_with_kills(start, served, tmp_path, operation, kills, seed=1)
    check(served, operation, rows, len(kills))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("operation", DONE)
def test_killed_again_and_again(start, served, tmp_path: Path, operation: str, seed: int) -> None:
    """Wherever the kills fall."""
    chance = Random(seed)
    kills = [chance.randint(1, 12) for _ in range(4)]
    rows = run_with_kills(start, served, tmp_path, operation, kills, seed=seed)
    check(served, operation, rows, len(kills))
