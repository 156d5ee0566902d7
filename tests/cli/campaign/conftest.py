"""A shop that a campaign was issued at, and the people who have something of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.answers import ok
from support.command_runs import Ended, Served

from rm_voucher import VoucherType

LOST = ok({}, 500)
REFUSED = ok({"error": {"code": "VALIDATION_ERROR", "message": "no"}}, 400)
NAMES = [f"person{n}@example.com" for n in range(1, 13)]


@attrs.define
class Shop:
    """A batch of 100 vouchers of RM 10, its ledger, a list of twelve people, and the command."""

    served: Served
    rm: Callable[..., Ended]
    folder: Path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder}/ledger.db"

    @property
    def people(self) -> Path:
        return self.folder / "people.csv"

    def codes(self) -> list[str]:
        return self.served.issued()

    def issue(self, *options: object, faults: dict[int, Any] | None = None) -> Ended:
        """Issue to the list; the n-th call may be ``lost`` or ``refused``."""
        calls, played = 0, faults or {}

        def answer(work: Callable[[], Any]) -> Any:
            nonlocal calls
            calls += 1
            fault = played.get(calls)
            if fault == "lost":
                work()
                return LOST
            return REFUSED if fault == "refused" else work()

        self.served.on_issue = answer
        return self.rm(
            *("issue", "B", "--recipients", self.people, "--ledger", self.url),
            *("--concurrency", 1, "--settle", 0, *options),
        )

    def campaign(self, command: str, *options: object) -> Ended:
        return self.rm("campaign", command, "B", "--ledger", self.url, *options)

    def day(self, days: float) -> None:
        self.served.emulator.advance(days * 86_400)


@pytest.fixture
def shop(served: Served, rm: Callable[..., Ended], tmp_path: Path) -> Shop:
    emulator = served.emulator
    emulator.advance(time.time() - emulator.virtual_clock.now())
    emulator.add_batch("Breakfast", key="B", quantity=100, type=VoucherType.CASH, amount_sen=1000)
    shop = Shop(served, rm, tmp_path)
    rows = [f"Ms <b>{n}</b>,{name},=1+{n}" for n, name in enumerate(NAMES, start=1)]
    shop.people.write_text("\n".join(["Name,recipient,Note", *rows, ""]))
    return shop
