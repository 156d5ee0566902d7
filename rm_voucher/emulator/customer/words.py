"""What a voucher is to a customer and to a cashier, in words."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

import attrs

from rm_voucher.converters import structure
from rm_voucher.emulator.merchant import Merchant
from rm_voucher.emulator.records import Record
from rm_voucher.models import ExpiryType, Voucher, VoucherStatus
from rm_voucher.text import counted
from rm_voucher.worth import day, moment, words_of

_DIGITS_SHOWN = 3
_READY = {VoucherStatus.VALID, VoucherStatus.ISSUED}
_STORES = {
    "CLIENT_NOT_AUTHORIZE_STORE": "This merchant may not take vouchers at this store.",
    "STORE_ID_INVALID": "There is no such store.",
    "STORE_NOT_FOUND": "There is no such store.",
    "STORE_NOT_SET": "Say which store this is.",
}


@attrs.frozen
class Shown:
    """A voucher in words. An empty text is not shown."""

    label: str
    worth: str
    terms: str
    expiry: str
    until: str
    """The end, for a cashier."""
    status: str
    mood: str
    """The class of its colours: ``ready``, ``held``, ``used`` or ``gone``."""


def show(record: Record, merchant: Merchant) -> Shown:
    """Return a voucher as it is now, in words."""
    state, now = merchant.state, merchant.virtual_clock.now()
    words = words_of(structure(state.wire(record), Voucher))
    status, mood = _status(record, record.status(now))
    is_open = mood in ("ready", "held")
    return Shown(
        label=words.label or "Voucher",
        worth=words.worth,
        terms=words.terms,
        expiry=_expiry(record) if is_open else "",
        until=_until(record) if is_open else "",
        status=status,
        mood=mood,
    )


def _status(record: Record, status: VoucherStatus) -> tuple[str, str]:
    if status in _READY:
        return "Ready to use", "ready"
    if status is VoucherStatus.REDEEMED:
        return ("In your rewards" if record.member else "Redeemed, not used yet"), "held"
    if status is VoucherStatus.VOID:
        return f"Used on {moment(record.used_at)}" if record.used_at else "Used", "used"
    if status is VoucherStatus.EXPIRED and record.expires_at is not None:
        return f"Expired on {moment(_instant(record.expires_at))}", "gone"
    return "Passed on to another shop", "gone"


def _expiry(record: Record) -> str:
    if record.expires_at is not None:
        return f"Valid until {day(_instant(record.expires_at))}"
    expiry = record.batch.expiry
    if expiry.type is ExpiryType.DYNAMIC:
        return f"Valid for {counted(expiry.days or 0, 'day')} once it is in your rewards"
    return "Does not expire"


def _until(record: Record) -> str:
    if record.expires_at is not None:
        return day(_instant(record.expires_at))
    return "no date yet" if record.batch.expiry.type is ExpiryType.DYNAMIC else "always"


def _instant(at: float) -> datetime:
    last = datetime.max.replace(tzinfo=UTC)
    return datetime.fromtimestamp(min(at, last.timestamp() - 1), UTC)


def owner(record: Record) -> str:
    """Return the member whose voucher it is, by the end of the phone number; or nothing."""
    if record.member is None:
        return ""
    number = record.member.phone_number
    return f"+{record.member.country_code} •••{number[-_DIGITS_SHOWN:]}"


def why_not_added(record: Record, merchant: Merchant, code: str) -> str:
    """Return why a voucher can't be added to one's rewards; ``code`` is RM's of the refusal."""
    if code == "MEMBER_NOT_MERCHANT":
        return "This phone number is a member of another shop."
    match record.status(merchant.virtual_clock.now()):
        case VoucherStatus.REDEEMED:
            return "Somebody has added this voucher to their rewards already."
        case VoucherStatus.VOID:
            return "This voucher has been used."
        case VoucherStatus.EXPIRED:
            return "This voucher has expired."
        case VoucherStatus.MARKET_PLACE:
            return "This voucher was passed on to another shop."
        case _:
            return "There is none left to add."


def why_not_used(record: Record, merchant: Merchant, code: str) -> str:
    """Return why a voucher can't be used at a till; ``code`` is RM's of the refusal."""
    if code in _STORES:
        return _STORES[code]
    if code and code == merchant.guesses.unknown_store_code:
        return _STORES["STORE_NOT_FOUND"]
    match record.status(merchant.virtual_clock.now()):
        case VoucherStatus.VALID:
            return "It was never given to a customer."
        case VoucherStatus.VOID:
            return f"Already used on {moment(record.used_at)}." if record.used_at else "Used."
        case VoucherStatus.EXPIRED if record.expires_at is not None:
            return f"It expired on {moment(_instant(record.expires_at))}."
        case VoucherStatus.MARKET_PLACE:
            return "It was passed on to another shop."
        case _:
            return "The customer must add it to their rewards first."


def spelled(code: str) -> list[str]:
    """Return each character of a code as one reads it out."""
    return [_spelled(char) for char in code]


def _spelled(char: str) -> str:
    if char.isascii() and char.isalpha():
        return f"{'capital' if char.isupper() else 'small'} {char.upper()}"
    return char if char.isdecimal() else unicodedata.name(char, "unknown character").lower()
