"""Batches, vouchers and members as the emulator keeps them, and as RM writes them.

A million vouchers fit into memory, so a record does not repeat its batch's values.
"""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import attrs

from rm_voucher.converters import format_time
from rm_voucher.models import BatchStatus, Expiry, ExpiryType, Origin, VoucherStatus, VoucherType

ZERO_TIME = "0001-01-01T00:00:00Z"
_LAST_TIME = 253_402_300_799.0  # of the year 9999

DATED = frozenset({ExpiryType.FIXED, ExpiryType.FIX})
"""The types of an expiry at a date."""


@attrs.define(eq=False)
class Member:
    """A member of the merchant's loyalty programme, or of another merchant's."""

    country_code: str
    phone_number: str
    name: str
    is_ours: bool
    vouchers: list[Record] = attrs.field(factory=list, repr=False)


@attrs.define(eq=False, kw_only=True)
class Batch:
    """A batch; ``listed`` has its vouchers in the order of its listing."""

    id: str
    key: str
    label: str
    status: BatchStatus
    quantity: int
    type: VoucherType
    amount_sen: int
    discount_rate_bp: int
    minimum_spend_sen: int
    expiry: Expiry
    origin: Origin
    static_code: str | None
    is_ours: bool
    created_at: float
    listed: list[Record] = attrs.field(factory=list, repr=False)
    made: list[Record] = attrs.field(factory=list, repr=False)
    """The vouchers that existed before they were issued, in the order of issue."""
    next_made: int = 0
    """The first of ``made`` that may still be issued."""
    first_open: int = 0
    """The first of ``listed`` that may still be used; only kept for static batches."""
    issued: int = 0
    """The number of vouchers that ever left the stock."""
    counts: Counter[VoucherStatus] = attrs.field(factory=Counter, repr=False)
    """The number of vouchers in each status that came about by a change."""
    updated_at: float = 0.0

    def used(self, since: VoucherStatus) -> int:
        """Return the number of vouchers that reached a status, or went further."""
        if since is VoucherStatus.REDEEMED:
            return self.counts[VoucherStatus.REDEEMED] + self.counts[VoucherStatus.VOID]
        return self.counts[since] if since is VoucherStatus.VOID else self.issued

    def ends_at(self, redeemed_at: float | None) -> float | None:
        """Return the time of expiry of a voucher of this batch, or None if it is not settled."""
        if self.expiry.type in DATED:
            at = self.expiry.expires_at
            return None if at is None else at.timestamp()
        if (
            redeemed_at is None
            or self.expiry.days is None
            or self.expiry.type is ExpiryType.PERMANENT
        ):
            return None
        return redeemed_at + self.expiry.days * 86_400.0


@attrs.define(eq=False)
class Record:
    """A voucher. ``kept`` is its status without expiry, which depends on the time: `status`."""

    batch: Batch
    code: str = attrs.field(repr=False)
    kept: VoucherStatus
    updated_at: float
    assigned_at: float | None = None
    redeemed_at: float | None = None
    used_at: datetime | None = None
    expires_at: float | None = None
    member: Member | None = attrs.field(default=None, repr=False)
    history: tuple[float | VoucherStatus | int, ...] = ()
    """For each change its time, the new status, and the number of the request, 0 for none."""

    def status(self, now: float) -> VoucherStatus:
        """Return the status at a time."""
        if self.expires_at is not None and now >= self.expires_at and self.kept in _EXPIRING:
            return VoucherStatus.EXPIRED
        return self.kept

    def left_stock_at(self) -> float:
        """Return the time at which it was issued, or left the stock in another way."""
        if self.kept is VoucherStatus.VALID:
            return -math.inf
        if self.assigned_at is not None:
            return self.assigned_at
        return self.updated_at if self.redeemed_at is None else self.redeemed_at

    def in_stock(self) -> Record:
        """Return the voucher as it was before it left the stock."""
        batch, ends_at = self.batch, self.batch.ends_at(None)
        return Record(batch, self.code, VoucherStatus.VALID, batch.created_at, expires_at=ends_at)


Saved = list[Any]
"""A voucher as it is saved: what can change of it, and its code."""


def save_record(record: Record) -> Saved:
    """Return a voucher as it is saved."""
    member, used_at = record.member, record.used_at
    return [
        record.code,
        record.kept,
        record.updated_at,
        record.assigned_at,
        record.redeemed_at,
        None if used_at is None else used_at.isoformat(),
        record.expires_at,
        None if member is None else [member.country_code, member.phone_number],
        record.history,
    ]


def load_record(saved: Saved, batch: Batch, members: Mapping[tuple[str, str], Member]) -> Record:
    """Return a voucher that was saved. Raises `ValueError`, `TypeError` or `KeyError`."""
    code, kept, updated_at, assigned_at, redeemed_at, used_at, expires_at, member, history = saved
    steps = iter(history)
    record = Record(
        batch,
        code,
        VoucherStatus(kept),
        updated_at,
        assigned_at,
        redeemed_at,
        None if used_at is None else datetime.fromisoformat(used_at),
        expires_at,
        None if member is None else members[member[0], member[1]],
    )
    for at, status, number in zip(steps, steps, steps, strict=True):
        record.history += (at, VoucherStatus(status), number)
    if record.member is not None:
        record.member.vouchers.append(record)
    return record


def save_batch(batch: Batch) -> dict[str, Any]:
    """Return a batch as it is saved, without its vouchers."""
    expiry = batch.expiry
    return {
        **{name: getattr(batch, name) for name in _SAVED_AS_THEY_ARE},
        "expiry": [
            expiry.type,
            expiry.days,
            None if expiry.expires_at is None else expiry.expires_at.isoformat(),
        ],
        "made": len(batch.made),
        "counts": {str(status): count for status, count in batch.counts.items()},
    }


def load_batch(saved: Mapping[str, Any]) -> Batch:
    """Return a batch that was saved, without its vouchers. Raises as `load_record`."""
    kind, days, expires_at = saved["expiry"]
    ends = None if expires_at is None else datetime.fromisoformat(expires_at)
    batch = Batch(
        **{
            **{name: saved[name] for name in _SAVED_AS_THEY_ARE},
            "status": BatchStatus(saved["status"]),
            "type": VoucherType(saved["type"]),
            "origin": Origin(saved["origin"]),
            "expiry": Expiry(type=ExpiryType(kind), days=days, expires_at=ends),
        }
    )
    batch.counts.update({VoucherStatus(name): count for name, count in saved["counts"].items()})
    return batch


_SAVED_AS_THEY_ARE = (
    "id",
    "key",
    "label",
    "status",
    "quantity",
    "type",
    "amount_sen",
    "discount_rate_bp",
    "minimum_spend_sen",
    "origin",
    "static_code",
    "is_ours",
    "created_at",
    "next_made",
    "first_open",
    "issued",
    "updated_at",
)

_EXPIRING = frozenset({VoucherStatus.VALID, VoucherStatus.ISSUED, VoucherStatus.REDEEMED})


def voucher_wire(
    record: Record, now: float, *, qr_url: str, shows_assigned_at: bool, undated: str
) -> dict[str, Any]:
    """Return a voucher as RM writes it: null and Go's zero time for missing values.

    ``undated`` stands for an end that is not settled.
    """
    batch = record.batch
    status = record.status(now)
    updated_at = record.updated_at
    if status is VoucherStatus.EXPIRED and record.expires_at is not None:
        updated_at = max(updated_at, record.expires_at)
    return {
        "key": _key(f"Voucher/{record.code}"),
        "label": batch.label,
        "redemptionRuleKey": None,
        "voucherBatchKey": batch.key,
        "type": batch.type,
        "amount": batch.amount_sen,
        "discountRate": batch.discount_rate_bp,
        "minimumSpendAmount": batch.minimum_spend_sen,
        "origin": batch.origin,
        "imageUrl": "",
        "memberProfile": None if record.member is None else _member_wire(record.member),
        "redemptionRule": None,
        "assignedAt": _time(record.assigned_at if shows_assigned_at else None),
        "payload": None,
        "qrUrl": qr_url,
        "code": record.code,
        "isShipping": False,
        "address": None,
        "expiry": _expiry_wire(batch.expiry, record.expires_at, undated),
        "usedAt": ZERO_TIME if record.used_at is None else format_time(record.used_at),
        "redeemedAt": _time(record.redeemed_at),
        "isDeviceRedeem": False,
        "status": status,
        "voucherComboKey": None,
        "isMarketPlace": status is VoucherStatus.MARKET_PLACE,
        "createdAt": _time(batch.created_at),
        "updatedAt": _time(updated_at),
    }


def batch_wire(batch: Batch, used_from: VoucherStatus, *, undated: str) -> dict[str, Any]:
    """Return a batch as RM writes it."""
    used, expires_at = batch.used(used_from), batch.expiry.expires_at
    return {
        "id": batch.id,
        "key": batch.key,
        "label": batch.label,
        "type": batch.type,
        "amount": batch.amount_sen,
        "discountRate": batch.discount_rate_bp,
        "minimumSpendAmount": batch.minimum_spend_sen,
        "imageUrl": "",
        "quantity": batch.quantity,
        "balanceQuantity": batch.quantity - used,
        "usedQuantity": used,
        "status": batch.status,
        "expiry": _expiry_wire(
            batch.expiry, None if expires_at is None else expires_at.timestamp(), undated
        ),
        "origin": batch.origin,
        "isShipping": False,
        "reason": "",
        "isStatic": batch.static_code is not None,
        "staticCode": batch.static_code or "",
        "isDeviceRedeem": False,
        "isMarketPlace": False,
        "createdAt": _time(batch.created_at),
        "updatedAt": _time(batch.updated_at),
    }


def _expiry_wire(expiry: Expiry, expires_at: float | None, undated: str) -> dict[str, Any]:
    fields = {"type": expiry.type, "day": expiry.days}
    return {
        **{name: value for name, value in fields.items() if value is not None},
        "expiredAt": undated if expires_at is None else _time(expires_at),
    }


def _member_wire(member: Member) -> dict[str, Any]:
    return {
        "id": _key(f"{member.country_code}{member.phone_number}"),
        "name": member.name,
        "countryCode": member.country_code,
        "phoneNumber": member.phone_number,
        "status": "ACTIVE",
    }


def _key(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _time(at: float | None) -> str:
    if at is None:
        return ZERO_TIME
    return format_time(datetime.fromtimestamp(min(at, _LAST_TIME), UTC))
