"""Answers of RM's API as this emulator gives them, for its description."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from rm_voucher.emulator.guesses import Guesses
from rm_voucher.emulator.routes import Routes
from rm_voucher.emulator.site import IN_MEMORY
from rm_voucher.emulator.state import VoucherState
from rm_voucher.emulator.stock import RefusedError
from rm_voucher.models import VoucherType

_AT = 1_790_000_000.0  # 2026-09-21
_KEY = "BREAKFAST"
_PIN = "123456"
_NUMBER = "countryCode=60&phoneNumber=123456789"


def examples(guesses: Guesses) -> Mapping[str, Any]:
    """Return an answer of each operation but that for a token, where the guesses allow one."""
    state = VoucherState(
        clock=lambda: _AT,
        rng=random.Random(1),  # noqa: S311 - these codes are worth nothing
        qr_base=lambda: f"{IN_MEMORY}/qr/1",
        guesses=guesses,
    )
    state.stock.add_batch("Breakfast", key=_KEY, quantity=10, type=VoucherType.CASH, amount_sen=500)
    member = state.add_member("60", "123456789", name="Mei")
    routes = Routes(state, guesses, (), _PIN)
    first, second, third = (state.issue(_KEY)[0] for _ in range(3))
    state.collect(third, member)
    batch, voucher, theirs = f"voucher-batch/{_KEY}", "voucher", "loyalty/me/voucher"
    found = {}
    for path, query, body in (
        (f"{batch}/issue", "", None),
        (batch, "", None),
        ("voucher-batches", "", None),
        (f"{batch}/vouchers", "", None),
        (f"{voucher}/{first}", "", None),
        ("vouchers/redeem", "", {"codes": [first, second]}),
        (f"{voucher}/{first}/void", "", {"usedAt": "2026-09-21T12:00:00Z"}),
        (f"{voucher}/{first}/reinstate", "", {"reason": "a mistake at the till", "pin": _PIN}),
        ("loyalty/me/vouchers", _NUMBER, None),
        (f"{theirs}/{third}", _NUMBER, None),
        (f"{theirs}/{third}/redeem", _NUMBER, None),
    ):
        try:
            route = routes.find(["v3", *path.split("/")])
            found[route.operation] = route.answer(query, body)
        except RefusedError:  # so it may be, by other guesses
            continue
    return found
