"""The API's things as frozen attrs classes. No I/O, no JSON: see `converters`.

Every field may be None, because each is missing or null in some documented answer; Go's zero time
counts as missing. Times are aware UTC datetimes. Money is whole sen (``_sen``,
RM 1.00 = 100), discounts are hundredths of a percent (``_bp``, 1 % = 100), both with a Decimal
property for people. Fields that no page documents are kept in ``extra`` and survive a round trip.
So does a documented field whose value does not fit: it reads as None, and ``extra`` has the value
under RM's name of the field, marked (``{"amount": {"misfit": 5.5}}``); ``misfits`` has them all.

A voucher's code, its QR URL, its key (the code stands in it, base64-encoded) and a batch's static
code are worth money to whoever holds them, and a member's profile is personal: reprs mask or omit
them.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, Self, TypeVar

import attrs

from rm_voucher.decode_error import DecodeError
from rm_voucher.redaction import hide_locals
from rm_voucher.text import printable
from rm_voucher.travel import Shown, Travels, read

T_co = TypeVar("T_co", covariant=True)
M = TypeVar("M", bound=Travels)

MISFIT = "misfit"
"""Marks, in ``extra``, the value of a documented field that does not fit."""
ALL_OF_IT = "$"
"""Stands for a field where the whole item of a list is no object."""

# Every other name is the field's own in camelCase.
_WIRE_NAMES = {
    "amount_sen": "amount",
    "batch_key": "voucherBatchKey",
    "days": "day",
    "discount_rate_bp": "discountRate",
    "expires_at": "expiredAt",
    "expires_in_s": "expiresIn",
    "minimum_spend_sen": "minimumSpendAmount",
    "refresh_expires_in_s": "refreshTokenExpiresIn",
}


def wire_name(field: str) -> str:
    """Return RM's name of a field."""
    head, *tail = field.split("_")
    return _WIRE_NAMES.get(field) or head + "".join(part.capitalize() for part in tail)


@functools.cache
def _names(model: Any) -> dict[str, str]:
    """Return the names of a model's fields by RM's names of them."""
    names = [field.name for field in attrs.fields(model) if field.name != "extra"]
    return {ALL_OF_IT: ALL_OF_IT, **{wire_name(name): name for name in names}}


def mask(text: str | None) -> str:
    """Return ``text`` with all but a hint of it hidden, for logs and reprs."""
    if not text:
        return repr(text)
    return f"'{printable(text[:2])}…'" if len(text) >= 8 else "'…'"


def without_bearer_values(text: str, voucher: Voucher | IssuedVoucher) -> str:
    """Return a text without what a voucher is worth: its code in any case, its key and QR URL.

    For errors of users' functions, which may quote all of a voucher that they were given.
    """
    for secret in (getattr(voucher, "key", None), voucher.qr_url):
        if secret:
            text = text.replace(secret, "…")
    if not voucher.code:
        return text
    hint = mask(voucher.code)
    return re.sub(re.escape(voucher.code), lambda _: hint, text, flags=re.IGNORECASE)


def _extra() -> Any:
    return attrs.field(factory=dict, repr=False, hash=False)


def _masked() -> Any:
    return attrs.field(default=None, repr=mask)


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


class _Read:
    """What was read off an answer."""

    __slots__ = ()

    extra: Mapping[str, Any]

    @property
    def misfits(self) -> Mapping[str, Any]:
        """The documented fields whose values don't fit, each with the value as it came.

        They read as None, which by itself means *not set*. An item of a listing that is no object
        at all has the one misfit ``$``.
        """
        model: Any = type(self)
        names = _names(model)
        return {
            names[key]: value[MISFIT]
            for key, value in self.extra.items()
            if key in names and isinstance(value, dict) and MISFIT in value
        }


def _hundredths(value: int | None) -> Decimal | None:
    # Not by arithmetic, which rounds and raises as the application's decimal context says.
    return None if value is None else Decimal(f"{value}E-2")


class _Worth(_Read):
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
            words = f"expected a whole number, not negative @ $.{field}"
            raise DecodeError(words, is_final=True)
        return _hundredths(getattr(self, field))


@attrs.frozen(kw_only=True)
class Expiry(_Read, Travels):
    """When a voucher ends.

    ``days`` goes with DYNAMIC: in RM's examples a redeemed voucher's ``expires_at`` is its
    ``redeemed_at`` plus that many days. RM does not document its value before redemption. The
    tables spell it ``expiryAt``, the payloads ``expiredAt``: both are read.
    """

    type: ExpiryType | None = None
    days: int | None = None
    expires_at: datetime | None = None
    extra: Mapping[str, Any] = _extra()


@attrs.frozen(kw_only=True)
class IssuedVoucher(_Read, Travels):
    """The answer to *issue*: the code, and the URL that the customer scans as a QR code.

    ``qr_url`` is empty where the answer has none that can be read; `misfits` has what it has in its
    place. RM's pages always show one, and no code is dropped for the lack of it.
    """

    code: str = attrs.field(repr=mask)
    qr_url: str = attrs.field(default="", repr=mask)
    extra: Mapping[str, Any] = _extra()


@attrs.frozen(kw_only=True)
class Voucher(_Worth, Travels):
    """One voucher, as *get by code*, *void*, the listings and the callbacks show it.

    ``assigned_at``, ``redeemed_at`` and ``used_at`` are when it was issued, redeemed and voided.
    ``used_at`` alone does not prove that it is void: reinstating leaves it in place.
    ``member_profile`` and ``address`` are documented as text and really objects or None.
    """

    code: str | None = _masked()
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
    qr_url: str | None = _masked()
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
    extra: Mapping[str, Any] = _extra()


@attrs.frozen(kw_only=True)
class VoucherBatch(_Worth, Travels):
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
    static_code: str | None = _masked()
    reason: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    extra: Mapping[str, Any] = _extra()


@attrs.frozen(kw_only=True)
class Page(Shown, Generic[T_co]):
    """One page of a listing.

    ``cursor`` asks for the next page and is None on the last one. ``count`` is the server's number;
    RM does not document whether it counts the page or the whole listing.
    """

    items: tuple[T_co, ...]
    cursor: str | None = attrs.field(default=None, repr=False)
    count: int | None = None

    @staticmethod
    @hide_locals
    def from_dict(data: Mapping[str, Any], item: type[M]) -> Page[M]:
        """Return the page that ``to_dict(reveal=True)`` wrote, of items of a class.

        Raises `DecodeError`, as `Voucher.from_dict` does.
        """
        return read(Page, data, item=item)


@attrs.frozen(kw_only=True)
class Token(_Read):
    """An access token, its lifetime in seconds, and the refresh token that buys the next one."""

    access_token: str = attrs.field(repr=False)
    token_type: str | None = None
    expires_in_s: int | None = None
    refresh_token: str | None = attrs.field(default=None, repr=False)
    refresh_expires_in_s: int | None = None
    extra: Mapping[str, Any] = _extra()


@attrs.frozen(kw_only=True)
class ErrorBody(_Read):
    """The object under ``error`` in a failed answer."""

    code: str
    message: str | None = attrs.field(default=None, repr=False)
    extra: Mapping[str, Any] = _extra()
