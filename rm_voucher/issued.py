"""What all models share, and the one that an error may carry: `IssuedVoucher`. See `models`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import attrs

from rm_voucher.text import printable

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


def extra_field() -> Any:
    """Return the field for what no other has."""
    return attrs.field(factory=dict, repr=False, hash=False)


def masked_field() -> Any:
    """Return a field for a bearer value, which may be None."""
    return attrs.field(default=None, repr=mask)


class Read:
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


@attrs.frozen(kw_only=True)
class IssuedVoucher(Read):
    """The answer to *issue*: the code, and the URL that the customer scans as a QR code.

    ``qr_url`` is empty where the answer has none that can be read; `misfits` has what it has in its
    place. RM's pages always show one, and no code is dropped for the lack of it.
    """

    code: str = attrs.field(repr=mask)
    qr_url: str = attrs.field(default="", repr=mask)
    extra: Mapping[str, Any] = extra_field()
