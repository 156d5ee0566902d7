"""What a voucher is in words, beside the code: label, worth, expiry. Pure.

The times of expiry are Malaysia's, where the vouchers are used.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal

import attrs

from rm_voucher.models import Expiry, ExpiryType, Voucher, VoucherBatch, VoucherType
from rm_voucher.text import counted, printable

_MALAYSIA = timezone(timedelta(hours=8))  # no summer time
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@attrs.frozen
class Words:
    """What is said of a voucher. An empty text is not shown."""

    label: str = ""
    worth: str = ""
    terms: str = ""
    expiry: str = ""


def words_of(voucher: VoucherBatch | Voucher) -> Words:
    """Return what a voucher is, or those of a batch. What RM does not say is left out."""
    return Words(
        label=printable(voucher.label or ""),
        worth=_worth(voucher),
        terms=_terms(voucher),
        expiry="" if voucher.expiry is None else _expiry(voucher.expiry),
    )


def _worth(voucher: VoucherBatch | Voucher) -> str:
    if voucher.type is VoucherType.CASH and _fits(voucher, "amount_sen"):
        return f"RM {voucher.amount_rm:,.2f}"
    if voucher.type is VoucherType.DISCOUNT and _fits(voucher, "discount_rate_bp"):
        return f"{_short(voucher.discount_percent)} % off"
    return "Gift" if voucher.type is VoucherType.GIFT else ""


def _terms(voucher: VoucherBatch | Voucher) -> str:
    if not _fits(voucher, "minimum_spend_sen"):
        return ""
    return f"Minimum spend RM {voucher.minimum_spend_rm:,.2f}"


def _fits(voucher: VoucherBatch | Voucher, field: str) -> bool:
    return field not in voucher.misfits and bool(getattr(voucher, field))


def _short(number: Decimal | None) -> str:
    return f"{number:f}".rstrip("0").rstrip(".")


def _expiry(expiry: Expiry) -> str:
    if expiry.type is ExpiryType.DYNAMIC and expiry.days and expiry.days > 0:
        return f"Valid for {counted(expiry.days, 'day')} after it is redeemed"
    if expiry.type in (ExpiryType.DYNAMIC, ExpiryType.PERMANENT) or expiry.expires_at is None:
        return ""
    return f"Valid until {day(expiry.expires_at)}"


def day(instant: datetime) -> str:
    """Return an instant as a day, with its hour if it is not the day's end."""
    here = _here(instant)
    if (here.hour, here.minute) == (0, 0):  # the end of the day before
        here -= timedelta(minutes=1)
    return _date(here) if (here.hour, here.minute) == (23, 59) else moment(instant)


def moment(instant: datetime) -> str:
    """Return an instant as a day and an hour."""
    here = _here(instant)
    return f"{_date(here)}, {here:%H:%M}"


def _date(here: datetime) -> str:
    return f"{here.day} {_MONTHS[here.month - 1]} {here.year}"


def _here(instant: datetime) -> datetime:
    try:
        return instant.astimezone(_MALAYSIA)
    except OverflowError:  # the last hours of the year 9999
        return instant
