"""Vouchers and batches as the command shows them: one name for one thing, in every form."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

from rm_voucher import Voucher, VoucherBatch
from rm_voucher.converters import format_time


def fields_of(found: Voucher | VoucherBatch) -> Mapping[str, Any]:
    """Return what is known of it, by our names, in the order of its fields; None is left out.

    Its expiry is ``expires_at`` and ``expires_days``. What RM sent under names that nobody
    documented, or with values that don't fit, is in ``extra``, as it came.
    """
    shown: dict[str, Any] = {}
    for field in attrs.fields(type(found)):
        value = getattr(found, field.name)
        if field.name == "expiry" and value is not None:
            shown |= {
                "expires_at": value.expires_at and format_time(value.expires_at),
                "expires_days": value.days,
                "expiry_type": value.type,
            }
        elif field.name == "extra":
            shown[field.name] = dict(value) or None
        else:
            shown[field.name] = format_time(value) if isinstance(value, datetime) else value
    return {name: value for name, value in shown.items() if value is not None}
