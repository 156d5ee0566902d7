"""The API's things as frozen attrs classes. No I/O, no JSON: see `converters`.

Most fields may be None, because each is missing or null in some documented answer; Go's zero time
counts as missing. ``code`` and ``qr_url`` of an `IssuedVoucher` and ``key`` of a `VoucherBatch` are
text in every one of them: where an answer has none that can be read, the latter two are empty.
Times are aware UTC datetimes. Money is whole sen (``_sen``, RM 1.00 = 100), discounts are
hundredths of a percent (``_bp``, 1 % = 100), both with a Decimal property for people. Fields that
no page documents are kept in ``extra`` and survive a round trip. So does a documented field whose
value does not fit: it reads as not set, and ``extra`` has the value under RM's name of the field,
marked (``{"amount": {"misfit": 5.5}}``); ``misfits`` has them all.

A voucher's code, its QR URL, its key (the code stands in it, base64-encoded) and a batch's static
code are worth money to whoever holds them, and a member's profile is personal: reprs mask or omit
them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, Self, TypeVar

import attrs

from rm_voucher.decode_error import DecodeError
from rm_voucher.issued import (
    ALL_OF_IT,
    MISFIT,
    IssuedVoucher,
    Read,
    extra_field,
    mask,
    masked_field,
    wire_name,
)
from rm_voucher.text import printable

__all__ = [
    "ALL_OF_IT",
    "MISFIT",
    "BatchStatus",
    "ErrorBody",
    "Expiry",
    "ExpiryType",
    "IssuedVoucher",
    "OpenEnum",
    "Origin",
    "Page",
    "Token",
    "Voucher",
    "VoucherBatch",
    "VoucherStatus",
    "VoucherType",
    "mask",
    "wire_name",
]

T_co = TypeVar("T_co", covariant=True)


class OpenEnum(enum.StrEnum):
    """Text with known values. A value that nobody documented stays as it is."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        unknown = str.__new__(cls, value)
        unknown._name_, unknown._value_ = printable(value), value  # a repr shows the name raw
        return unknown

    @property
    def is_known(self) -> bool:
        """Whether a page of RM's names this value."""
        return self.value in type(self).__members__


class VoucherStatus(OpenEnum):
    """Where a voucher stands: VALID → ISSUED → REDEEMED → VOID, or EXPIRED.

    Redeeming is optional before voiding. RM's overview page writes ``ISSUE`` where its other
    pages write ``ISSUED``: both are read as ISSUED.
    """

    VALID = "VALID"
    """In its batch, given to nobody yet."""
    ISSUED = "ISSUED"
    """Given to a customer."""
    REDEEMED = "REDEEMED"
    """In the customer's loyalty account. Not yet used."""
    VOID = "VOID"
    """Used at a shop, or cancelled."""
    EXPIRED = "EXPIRED"
    """Past its expiry."""
    MARKET_PLACE = "MARKET_PLACE"
    """Shared with another merchant."""
    COMPLETE = "COMPLETE"
    """Named by one page without a meaning."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls("ISSUED") if value == "ISSUE" else super()._missing_(value)


class VoucherType(OpenEnum):
    """What a voucher gives: money off, a percentage off, or a thing."""

    CASH = "CASH"
    DISCOUNT = "DISCOUNT"
    GIFT = "GIFT"


class Origin(OpenEnum):
    """The maker of the code: RM's server, the merchant (uploaded), or the marketplace."""

    SYSTEM = "SYSTEM"
    SELF = "SELF"
    MARKETPLACE = "MARKETPLACE"


class ExpiryType(OpenEnum):
    """How a voucher ends. One page writes ``STATIC`` for FIXED."""

    DYNAMIC = "DYNAMIC"
    """A number of days after its redemption."""
    FIXED = "FIXED"
    """At a date."""
    FIX = "FIX"
    """RM's Kotlin SDK has it, presumably for FIXED."""
    PERMANENT = "PERMANENT"
    """Never: an older page and RM's Kotlin SDK have it."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls("FIXED") if value == "STATIC" else super()._missing_(value)


class BatchStatus(OpenEnum):
    """How far the creation of a batch has come; only COMPLETED is documented."""

    COMPLETED = "COMPLETED"


def _hundredths(value: int | None) -> Decimal | None:
    # Not by arithmetic, which rounds and raises as the application's decimal context says.
    return None if value is None else Decimal(f"{value}E-2")


class _Worth(Read):
    """A voucher's or batch's figures, for people. One that does not fit raises `DecodeError`."""

    __slots__ = ()

    amount_sen: int | None
    discount_rate_bp: int | None
    minimum_spend_sen: int | None

    @property
    def amount_rm(self) -> Decimal | None:
        """The amount in ringgit."""
        return self._hundredths("amount_sen")

    @property
    def discount_percent(self) -> Decimal | None:
        """The discount in percent."""
        return self._hundredths("discount_rate_bp")

    @property
    def minimum_spend_rm(self) -> Decimal | None:
        """The least spend in ringgit."""
        return self._hundredths("minimum_spend_sen")

    def _hundredths(self, field: str) -> Decimal | None:
        if wire_name(field) in self.extra:
            raise DecodeError(f"expected a whole number, not negative @ $.{field}")
        return _hundredths(getattr(self, field))


@attrs.frozen(kw_only=True)
class Expiry(Read):
    """When a voucher ends.

    ``days`` goes with DYNAMIC: in RM's examples a redeemed voucher's ``expires_at`` is its
    ``redeemed_at`` plus that many days. RM does not document its value before redemption. The
    tables spell it ``expiryAt``, the payloads ``expiredAt``: both are read.
    """

    type: ExpiryType | None = None
    days: int | None = None
    expires_at: datetime | None = None
    extra: Mapping[str, Any] = extra_field()


@attrs.frozen(kw_only=True)
class Voucher(_Worth):
    """One voucher, as *get by code*, *void*, the listings and the callbacks show it.

    ``assigned_at``, ``redeemed_at`` and ``used_at`` are when it was issued, redeemed and voided.
    ``used_at`` alone does not prove that it is void: reinstating leaves it in place.
    ``member_profile`` and ``address`` are documented as text and really objects or None.
    """

    code: str | None = masked_field()
    status: VoucherStatus | None = None
    type: VoucherType | None = None
    amount_sen: int | None = None
    discount_rate_bp: int | None = None
    minimum_spend_sen: int | None = None
    expiry: Expiry | None = None
    label: str | None = None
    key: str | None = attrs.field(default=None, repr=False)
    batch_key: str | None = None
    origin: Origin | None = None
    qr_url: str | None = masked_field()
    image_url: str | None = attrs.field(default=None, repr=False)
    is_shipping: bool | None = None
    address: Any = attrs.field(default=None, repr=False, hash=False)
    is_device_redeem: bool | None = None
    member_profile: Any = attrs.field(default=None, repr=False, hash=False)
    redemption_rule_key: str | None = attrs.field(default=None, repr=False)
    redemption_rule: Any = attrs.field(default=None, repr=False, hash=False)
    payload: Any = attrs.field(default=None, repr=False, hash=False)
    assigned_at: datetime | None = None
    redeemed_at: datetime | None = None
    used_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    extra: Mapping[str, Any] = extra_field()


@attrs.frozen(kw_only=True)
class VoucherBatch(_Worth):
    """A batch that vouchers are issued from.

    ``key`` names the batch, and is empty where the answer has none that can be read.

    ``quantity`` counts all vouchers, ``balance_quantity`` the remaining ones, ``used_quantity``
    those assigned, redeemed or used. RM does not document whether an issue moves the balance at
    once. A static batch has one code for everybody, ``static_code``. ``reason`` says why a creation
    failed.
    """

    key: str = ""
    label: str | None = None
    id: str | None = None
    status: BatchStatus | None = None
    type: VoucherType | None = None
    amount_sen: int | None = None
    discount_rate_bp: int | None = None
    minimum_spend_sen: int | None = None
    quantity: int | None = None
    balance_quantity: int | None = None
    used_quantity: int | None = None
    expiry: Expiry | None = None
    origin: Origin | None = None
    image_url: str | None = attrs.field(default=None, repr=False)
    is_shipping: bool | None = None
    is_device_redeem: bool | None = None
    is_static: bool | None = None
    static_code: str | None = masked_field()
    reason: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    extra: Mapping[str, Any] = extra_field()


@attrs.frozen(kw_only=True)
class Page(Generic[T_co]):
    """One page of a listing.

    ``cursor`` asks for the next page and is None on the last one. ``count`` is the server's number;
    RM does not document whether it counts the page or the whole listing.
    """

    items: tuple[T_co, ...]
    cursor: str | None = attrs.field(default=None, repr=False)
    count: int | None = None


@attrs.frozen(kw_only=True)
class Token(Read):
    """An access token, its lifetime in seconds, and the refresh token that buys the next one."""

    access_token: str = attrs.field(repr=False)
    token_type: str | None = None
    expires_in_s: int | None = None
    refresh_token: str | None = attrs.field(default=None, repr=False)
    refresh_expires_in_s: int | None = None
    extra: Mapping[str, Any] = extra_field()


@attrs.frozen(kw_only=True)
class ErrorBody(Read):
    """The object under ``error`` in a failed answer."""

    code: str
    message: str | None = attrs.field(default=None, repr=False)
    extra: Mapping[str, Any] = extra_field()
