"""The emulator's domain without its wire: a state on a clock, and what can be seen of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from support.doubles import FakeTime

from rm_voucher import VoucherStatus
from rm_voucher.emulator import Guesses
from rm_voucher.emulator.records import Batch, Record
from rm_voucher.emulator.state import VoucherState
from rm_voucher.emulator.stock import RefusedError
from rm_voucher.models import Expiry, ExpiryType

DAY_S = 86_400.0
ALL = 1_000
"""More vouchers than any of these batches has."""


def at(unix_s: float) -> datetime:
    """Return an instant as the aware datetime that the models have."""
    return datetime.fromtimestamp(unix_s, UTC)


def fixed(unix_s: float) -> Expiry:
    """Return the expiry of vouchers that all end at a date."""
    return Expiry(type=ExpiryType.FIXED, expires_at=at(unix_s))


def dynamic(days: int) -> Expiry:
    """Return the expiry of vouchers that end some days after their redemption."""
    return Expiry(type=ExpiryType.DYNAMIC, days=days)


@attrs.define
class Domain:
    """A state, its clock, and what it told of changes."""

    guesses: Guesses = attrs.field(factory=Guesses)
    time: FakeTime = attrs.field(factory=FakeTime)
    seed: int = 1
    told: list[tuple[str, VoucherStatus]] = attrs.field(factory=list)
    state: VoucherState = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.state = VoucherState(
            clock=self.time.clock,
            rng=random.Random(self.seed),
            qr_base=lambda: "https://qr.invalid/1",
            guesses=self.guesses,
            on_change=lambda record: self.told.append((record.code, record.kept)),
        )

    def add(self, key: str, quantity: int | None = None, **options: Any) -> Batch:
        """Make a batch that is called as its key."""
        return self.state.stock.add_batch(key, key=key, quantity=quantity, **options)

    def issue(self, key: str) -> str:
        """Issue a voucher, return its code."""
        return self.state.issue(key)[0]

    def wire(self, code: str) -> dict[str, Any]:
        """Return a voucher as *get by code* shows it."""
        return self.state.wire(self.state.get(code))

    def status(self, code: str) -> str:
        """Return a voucher's status."""
        return str(self.wire(code)["status"])

    def listing(self, key: str, *, delay_s: float = 0.0) -> list[dict[str, Any]]:
        """Return all that a batch's listing shows."""
        return self.state.page(key, 0, size=ALL, delay_s=delay_s)

    def statuses(self, key: str, *, delay_s: float = 0.0) -> list[str]:
        """Return the statuses of all vouchers in a batch's listing."""
        return [str(wire["status"]) for wire in self.listing(key, delay_s=delay_s)]

    def batch(self, key: str) -> dict[str, Any]:
        """Return a batch as RM writes it."""
        return self.state.batch_wire(self.state.stock.batch(key))

    def quantities(self, key: str) -> tuple[int, int, int]:
        """Return a batch's quantity, balance and used quantity."""
        wire = self.batch(key)
        return wire["quantity"], wire["balanceQuantity"], wire["usedQuantity"]

    def seen(self, *codes: str) -> list[Any]:
        """Return all that can be seen of this merchant's batches, and of some vouchers."""
        batches = self.state.stock.ours()
        return [
            *([self.batch(batch.key), self.listing(batch.key)] for batch in batches),
            *(self.wire(code) for code in codes),
            list(self.told),
        ]

    def outcome(self, call: Callable[[], Record]) -> str:
        """Return the status that a call left its voucher in, or the code of its refusal."""
        try:
            return str(call().status(self.time.now))
        except RefusedError as exc:
            return exc.code

    def refusal(self, call: Callable[[], object]) -> str:
        """Return the code of a refusal, which must have changed nothing that can be seen."""
        codes = [record["code"] for key in self.batch_keys() for record in self.listing(key)]
        before = self.seen(*codes)
        with pytest.raises(RefusedError) as refused:
            call()
        assert self.seen(*codes) == before
        return refused.value.code

    def batch_keys(self) -> list[str]:
        """Return the keys of this merchant's batches."""
        return [batch.key for batch in self.state.stock.ours()]
