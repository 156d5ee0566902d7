"""The answer to *Get Voucher Batch By Key* in msgspec, with as much of the meaning as it can do.

What it can't, and `rm_voucher.models` and `pydantic_peer` do: keep fields that nobody documented;
shift times to UTC, and read the zero time as none; read a second spelling of a name into the same
field (here each has a field of its own).
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from rm_voucher import ExpiryType, Origin, VoucherStatus, VoucherType

Whole = Annotated[int, Meta(ge=0)]
Time = Annotated[datetime, Meta(tz=True)]


class _Wire(Struct, frozen=True, kw_only=True, rename="camel"):
    pass


class Expiry(_Wire):
    type: ExpiryType | None = None
    days: Whole | None = field(default=None, name="day")
    expired_at: Time | None = None
    expiry_at: Time | None = None


class Voucher(_Wire):
    code: str | None = None
    status: VoucherStatus | None = None
    type: VoucherType | None = None
    amount_sen: Whole | None = field(default=None, name="amount")
    discount_rate_bp: Whole | None = field(default=None, name="discountRate")
    minimum_spend_sen: Whole | None = field(default=None, name="minimumSpendAmount")
    expiry: Expiry | None = None
    label: str | None = None
    key: str | None = None
    voucher_batch_key: str | None = None
    voucher_bath_key: str | None = None
    origin: Origin | None = None
    qr_url: str | None = None
    image_url: str | None = None
    is_shipping: bool | None = None
    address: Any = None
    is_device_redeem: bool | None = None
    member_profile: Any = None
    redemption_rule_key: str | None = None
    redemption_rule: Any = None
    payload: Any = None
    assigned_at: Time | None = None
    redeemed_at: Time | None = None
    used_at: Time | None = None
    created_at: Time | None = None
    updated_at: Time | None = None


class PageMeta(_Wire):
    cursor: str | None = None
    count: Any = None


class Answer(_Wire):
    code: Literal["SUCCESS"]
    items: tuple[Voucher, ...]
    meta: PageMeta | None = None
