"""The event of a callback: a voucher with a status, under an id that repeats share. No I/O."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Self

import attrs

from rm_voucher.converters import format_time, structure, unstructure
from rm_voucher.exceptions import DecodeError
from rm_voucher.jsontext import read_json, write_json
from rm_voucher.models import Voucher, VoucherStatus, mask
from rm_voucher.redaction import hide_locals
from rm_voucher.travel import Travels
from rm_voucher.wire.strict_fields import strict_fields

_MAX_CHARS = 512  # as for a code in a path; databases keep neither longer keys nor NUL


@attrs.frozen(kw_only=True)
class VoucherEvent(Travels):
    """A voucher that came to a status (RM's page "Voucher").

    Attributes:
        id: a digest of the voucher's code, its status and its ``updatedAt``, to the microsecond.
            Each delivery of the event has the same id, and so has a look-up that finds it. Without
            ``updatedAt``, the times of issue, redeeming and use stand in its place.
        code: the voucher's code. Bearer value; masked in the repr.
        status: the status to which the voucher came.
        voucher: the voucher as the callback shows it.
        sent_at: when the delivery was signed, UTC; None for an event of a look-up.
    """

    id: str
    code: str = attrs.field(repr=mask)
    status: VoucherStatus
    voucher: Voucher = attrs.field(repr=False)
    sent_at: datetime | None = attrs.field(default=None, eq=False)

    @classmethod
    def of(cls, voucher: Voucher, *, sent_at: datetime | None = None) -> Self:
        """Return the event that a voucher shows.

        Raises `DecodeError` without code or status, or with one, or an ``updatedAt``, that does
        not fit.
        """
        code, status, misfits = voucher.code, voucher.status, voucher.misfits
        for field in sorted(strict_fields("callback") & misfits.keys()):
            raise DecodeError(f"not as documented @ $.item.{field}", is_final=True)
        if not code:
            raise DecodeError("missing @ $.item.code", is_final=True)
        if not status:
            raise DecodeError("missing @ $.item.status", is_final=True)
        if any("\0" in text or len(text) > _MAX_CHARS for text in (code, status)):
            raise DecodeError(
                f"expected {_MAX_CHARS} characters at most, and no NUL, @ $.item", is_final=True
            )
        names = ["updated_at"]
        if voucher.updated_at is None:
            names = ["assigned_at", "redeemed_at", "used_at"]
        times = [(getattr(voucher, name), misfits.get(name)) for name in names]
        parts = [code, status.value, *((at and format_time(at)) or raw for at, raw in times)]
        digest = hashlib.sha256(write_json(parts)).hexdigest()[:32]
        return cls(id=digest, code=code, status=status, voucher=voucher, sent_at=sent_at)

    @classmethod
    @hide_locals
    def from_record(cls, text: bytes) -> Self:
        """Return the event that `to_record` wrote. Raises `DecodeError`."""
        try:
            wire = read_json(text)
        except ValueError:
            raise DecodeError("expected JSON @ $", is_final=True) from None
        return cls.of(structure(wire, Voucher, strict=strict_fields("callback")))

    def to_record(self) -> bytes:
        """Return what a store keeps: the voucher as RM's JSON. It holds the code."""
        return write_json(unstructure(self.voucher))

    @property
    def updated_at(self) -> datetime | None:
        """When the voucher changed, by RM's clock, UTC."""
        return self.voucher.updated_at
