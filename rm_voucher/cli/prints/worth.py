"""What a card says of its voucher, beside the code: label, worth, expiry. Pure.

The times of expiry are Malaysia's, where the vouchers are used.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal

import attrs

from rm_voucher import Expiry, ExpiryType, VoucherBatch, VoucherType
from rm_voucher.text import counted, printable

_MALAYSIA = timezone(timedelta(hours=8))  # no summer time
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@attrs.frozen
class Words:
    """What all cards of a sheet say. An empty text is not drawn."""

    label: str = ""
    worth: str = ""
    terms: str = ""
    expiry: str = ""


def words_of(batch: VoucherBatch) -> Words:
    """Return what a batch's vouchers are, in words. What RM does not say is left out."""
    return Words(
        label=printable(batch.label or ""),
        worth=_worth(batch),
        terms=_terms(batch),
        expiry="" if batch.expiry is None else _expiry(batch.expiry),
    )


def _worth(batch: VoucherBatch) -> str:
    if batch.type is VoucherType.CASH and _fits(batch, "amount_sen"):
        return f"RM {batch.amount_rm:,.2f}"
    if batch.type is VoucherType.DISCOUNT and _fits(batch, "discount_rate_bp"):
        return f"{_short(batch.discount_percent)} % off"
    return "Gift" if batch.type is VoucherType.GIFT else ""


def _terms(batch: VoucherBatch) -> str:
    if not _fits(batch, "minimum_spend_sen"):
        return ""
    return f"Minimum spend RM {batch.minimum_spend_rm:,.2f}"


def _fits(batch: VoucherBatch, field: str) -> bool:
    return field not in batch.misfits and bool(getattr(batch, field))


def _short(number: Decimal | None) -> str:
    return f"{number:f}".rstrip("0").rstrip(".")


def _expiry(expiry: Expiry) -> str:
    if expiry.type is ExpiryType.DYNAMIC and expiry.days and expiry.days > 0:
        return f"Valid for {counted(expiry.days, 'day')} after it is redeemed"
    if expiry.type in (ExpiryType.DYNAMIC, ExpiryType.PERMANENT) or expiry.expires_at is None:
        return ""
    return f"Valid until {_day(expiry.expires_at)}"


def _day(instant: datetime) -> str:
    """Return an instant as a day, with its hour if it is not the day's end."""
    here = instant.astimezone(_MALAYSIA)
    if (here.hour, here.minute) == (0, 0):  # the end of the day before
        here -= timedelta(minutes=1)
    day = f"{here.day} {_MONTHS[here.month - 1]} {here.year}"
    return day if (here.hour, here.minute) == (23, 59) else f"{day}, {here:%H:%M}"
