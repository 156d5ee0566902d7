"""The fields that each operation decides by, as data. docs/odd-answers.md shows it.

A misfit in one of them makes the whole answer unreadable; in every other field the misfit alone is
kept, in ``extra``. What is sent is no part of this: a misfit is refused in all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from rm_voucher.models import ErrorBody, IssuedVoucher, Token, Voucher, VoucherBatch


class Reading(NamedTuple):
    """What an operation reads, and which fields of it are strict."""

    model: type
    strict: frozenset[str] = frozenset()


_STATUS = Reading(Voucher, frozenset({"code", "status"}))

READINGS: Mapping[str, Reading] = {
    "issue": Reading(IssuedVoucher, frozenset({"code"})),
    "get": _STATUS,
    "void": Reading(Voucher, frozenset({"code", "status", "used_at"})),
    "reinstate": _STATUS,
    "redeem": _STATUS,  # of an item: the others are read all the same
    "member get": _STATUS,
    "member redeem": _STATUS,
    # A listing decides by nothing, and spoils no other voucher: who concludes from it looks at
    # `Voucher.misfits`.
    "vouchers": Reading(Voucher),
    "member vouchers": Reading(Voucher),
    "batches": Reading(VoucherBatch),
    "batch": Reading(VoucherBatch, frozenset({"key"})),
    "callback": Reading(Voucher, frozenset({"code", "status", "updated_at"})),
    "token": Reading(Token, frozenset({"access_token"})),
    # The message, too: it may say that a request came twice.
    "error": Reading(ErrorBody, frozenset({"code", "message"})),
}


def strict_fields(operation: str) -> frozenset[str]:
    """Return the names of the fields that the operation decides by."""
    return READINGS[operation].strict
