"""The domain model of RM's voucher server: batches, vouchers, and what may happen to them.

Pure: the clock and the random source are passed in, and a refusal is raised as `RefusedError` with
RM's code. What RM does not document, and how it is settled here: codes come into being when they
are issued, so a listing has no VALID ones; an issue lowers the batch's balance at once; a listing
never lags and is in the order of issue.
"""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import attrs

from rm_voucher.models import (
    BatchStatus,
    Expiry,
    ExpiryType,
    Origin,
    Voucher,
    VoucherBatch,
    VoucherStatus,
    VoucherType,
)

__all__ = ["RefusedError", "VoucherState"]

_ALPHABET = string.ascii_letters + string.digits
_CODE_CHARS = 10
# What RM's examples show before a voucher is redeemed.
_DEFAULT_EXPIRY = Expiry(
    type=ExpiryType.DYNAMIC,
    days=30,
    expires_at=datetime(2050, 12, 31, 23, 59, 59, tzinfo=UTC),
)


class RefusedError(Exception):
    """The server refuses, with one of RM's error codes."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@attrs.define
class _Batch:
    fixed: VoucherBatch
    quantity: int
    codes: list[str] = attrs.field(factory=list)

    def model(self) -> VoucherBatch:
        return attrs.evolve(
            self.fixed,
            quantity=self.quantity,
            balance_quantity=self.quantity - len(self.codes),
            used_quantity=len(self.codes),
        )


@attrs.define
class _Voucher:
    batch: _Batch
    status: VoucherStatus
    assigned_at: datetime
    updated_at: datetime
    used_at: datetime | None = None


class VoucherState:
    """All that the server knows of vouchers."""

    def __init__(self, *, clock: Callable[[], float], rng: random.Random, qr_base: str) -> None:
        self._clock = clock
        self._rng = rng
        self._qr_base = qr_base
        self._batches: dict[str, _Batch] = {}
        self._vouchers: dict[str, _Voucher] = {}

    def add_batch(
        self,
        label: str,
        *,
        quantity: int,
        key: str | None = None,
        type: VoucherType = VoucherType.GIFT,
        amount_sen: int = 0,
        discount_rate_bp: int = 0,
        minimum_spend_sen: int = 0,
        expiry: Expiry = _DEFAULT_EXPIRY,
    ) -> VoucherBatch:
        """Make a batch. Raises `ValueError` when the key is taken or the quantity negative."""
        number = len(self._batches) + 1
        if key is None:
            key = (
                base64.urlsafe_b64encode(f"VoucherBatch/{number:06}".encode()).decode().rstrip("=")
            )
        if key in self._batches:
            raise ValueError(f"there is a batch with the key {key!r} already")
        if not 0 <= quantity < 2**63:
            raise ValueError("a quantity can't be negative, nor 2**63 or more")
        now = self._now()
        fixed = VoucherBatch(
            id=str(number),
            key=key,
            label=label,
            status=BatchStatus.COMPLETED,
            type=type,
            amount_sen=amount_sen,
            discount_rate_bp=discount_rate_bp,
            minimum_spend_sen=minimum_spend_sen,
            expiry=expiry,
            origin=Origin.SYSTEM,
            image_url="",
            is_shipping=False,
            is_device_redeem=False,
            is_static=False,
            reason="",
            created_at=now,
            updated_at=now,
        )
        self._batches[key] = _Batch(fixed, quantity)
        return self._batches[key].model()

    def issue(self, batch_key: str) -> tuple[str, str]:
        """Issue a voucher; return its code and QR URL."""
        batch = self._batch(batch_key)
        if len(batch.codes) >= batch.quantity:
            raise RefusedError("VOUCHER_BATCH_NOT_ENOUGH_QUANTITY")
        code = self._new_code()
        now = self._now()
        self._vouchers[code] = _Voucher(batch, VoucherStatus.ISSUED, now, now)
        batch.codes.append(code)
        return code, self._qr_url(code)

    def get(self, code: str) -> Voucher:
        """Return a voucher."""
        voucher = self._voucher(code)
        batch = voucher.batch.fixed
        return Voucher(
            key=base64.urlsafe_b64encode(f"Voucher/{code}".encode()).decode().rstrip("="),
            label=batch.label,
            batch_key=batch.key,
            type=batch.type,
            amount_sen=batch.amount_sen,
            discount_rate_bp=batch.discount_rate_bp,
            minimum_spend_sen=batch.minimum_spend_sen,
            origin=batch.origin,
            image_url=batch.image_url,
            assigned_at=voucher.assigned_at,
            qr_url=self._qr_url(code),
            code=code,
            is_shipping=batch.is_shipping,
            expiry=batch.expiry,
            used_at=voucher.used_at,
            is_device_redeem=batch.is_device_redeem,
            status=voucher.status,
            created_at=batch.created_at,
            updated_at=voucher.updated_at,
        )

    def void(self, code: str, *, used_at: datetime | None = None) -> Voucher:
        """Use a voucher up. Redeeming it first is optional."""
        voucher = self._voucher(code)
        if voucher.status not in (VoucherStatus.ISSUED, VoucherStatus.REDEEMED):
            raise RefusedError("VOUCHER_NOT_ALLOW_VOID")
        voucher.status = VoucherStatus.VOID
        voucher.updated_at = self._now()
        voucher.used_at = used_at or voucher.updated_at
        return self.get(code)

    def vouchers(self, batch_key: str, *, start: int, size: int) -> Sequence[Voucher]:
        """Return ``size`` vouchers of a batch in the order of issue, from number ``start`` on."""
        return [self.get(code) for code in self._batch(batch_key).codes[start : start + size]]

    def batches(
        self, *, status: str | None = None, is_static: bool | None = None
    ) -> Sequence[VoucherBatch]:
        """Return the batches that match."""
        return [
            batch.model()
            for batch in self._batches.values()
            if status in (None, batch.fixed.status) and is_static in (None, batch.fixed.is_static)
        ]

    def issued(self, batch_key: str) -> Sequence[str]:
        """Return the codes that were issued from a batch, in order."""
        return tuple(self._batch(batch_key).codes)

    def _batch(self, key: str) -> _Batch:
        try:
            return self._batches[key]
        except KeyError:
            raise RefusedError("VOUCHER_BATCH_NOT_FOUND") from None

    def _voucher(self, code: str) -> _Voucher:
        try:
            return self._vouchers[code]
        except KeyError:
            raise RefusedError("VOUCHER_NOT_FOUND") from None

    def _new_code(self) -> str:
        while True:
            code = "".join(self._rng.choices(_ALPHABET, k=_CODE_CHARS))
            if code not in self._vouchers:
                return code

    def _qr_url(self, code: str) -> str:
        return f"{self._qr_base}/voucher/{code}"

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)
