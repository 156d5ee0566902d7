"""What a card says of its voucher."""

from datetime import datetime
from typing import Any

import pytest

from rm_voucher import Expiry, ExpiryType, VoucherBatch, VoucherType
from rm_voucher.worth import Words, words_of


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"type": VoucherType.CASH, "amount_sen": 500}, Words(worth="RM 5.00")),
        ({"type": VoucherType.CASH, "amount_sen": 123_456_700}, Words(worth="RM 1,234,567.00")),
        ({"type": VoucherType.DISCOUNT, "discount_rate_bp": 1250}, Words(worth="12.5 % off")),
        ({"type": VoucherType.DISCOUNT, "discount_rate_bp": 10_000}, Words(worth="100 % off")),
        ({"type": VoucherType.GIFT, "amount_sen": 0}, Words(worth="Gift")),
        ({"type": VoucherType("NEW"), "amount_sen": 500}, Words()),
        ({"type": VoucherType.CASH}, Words()),
        ({"amount_sen": 500}, Words()),
        (
            {"type": VoucherType.GIFT, "minimum_spend_sen": 2000},
            Words(worth="Gift", terms="Minimum spend RM 20.00"),
        ),
        ({"label": "Tea\x1b[2J\nTime"}, Words(label="Tea\\x1b[2J\\nTime")),
        (
            {"type": VoucherType.CASH, "extra": {"amount": {"misfit": 5.5}}},
            Words(),
        ),
    ],
)
def test_worth(fields: dict[str, Any], words: Words) -> None:
    """A field that RM does not give, or that does not fit, is left out; no figure is guessed."""
    assert words_of(VoucherBatch(**fields)) == words


@pytest.mark.parametrize(
    ("kind", "days", "at", "text"),
    [
        (ExpiryType.FIXED, None, "2026-12-31T15:59:59Z", "Valid until 31 Dec 2026"),
        (ExpiryType.FIXED, None, "2026-12-31T16:00:00Z", "Valid until 31 Dec 2026"),
        (ExpiryType.FIXED, None, "2026-12-31T10:30:00Z", "Valid until 31 Dec 2026, 18:30"),
        (ExpiryType.FIXED, None, "2026-12-31T20:00:00Z", "Valid until 1 Jan 2027, 04:00"),
        (ExpiryType.FIX, None, "2026-02-28T15:59:00Z", "Valid until 28 Feb 2026"),
        (None, None, "2026-02-28T15:59:00Z", "Valid until 28 Feb 2026"),
        (ExpiryType.FIXED, None, None, ""),
        (ExpiryType.DYNAMIC, 30, None, "Valid for 30 days after it is redeemed"),
        (ExpiryType.DYNAMIC, 1, "2026-12-31T15:59:59Z", "Valid for 1 day after it is redeemed"),
        (ExpiryType.DYNAMIC, None, "2026-12-31T15:59:59Z", ""),
        (ExpiryType.PERMANENT, None, "2026-12-31T15:59:59Z", ""),
    ],
)
def test_expiry(kind: ExpiryType | None, days: int | None, at: str | None, text: str) -> None:
    """In Malaysia's time, and the end of a day is that day."""
    expiry = Expiry(
        type=kind, days=days, expires_at=None if at is None else datetime.fromisoformat(at)
    )
    assert words_of(VoucherBatch(expiry=expiry)) == Words(expiry=text)
