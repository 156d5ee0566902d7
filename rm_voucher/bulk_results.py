"""How a bulk issue ended: for one recipient, and in numbers."""

from __future__ import annotations

import enum
from typing import Generic, TypeVar

import attrs

from rm_voucher.exceptions import VoucherError
from rm_voucher.models import IssuedVoucher

__all__ = ["BulkResult", "BulkStatus", "BulkSummary"]

R = TypeVar("R")


class BulkStatus(enum.StrEnum):
    """How it ended for one recipient."""

    ISSUED = "issued"
    FAILED = "failed"
    """Definitely no voucher."""
    UNRESOLVED = "unresolved"
    """A voucher may have been issued whose code is not known. Never simply ask again."""


@attrs.frozen(kw_only=True)
class BulkResult(Generic[R]):
    """The end for one recipient. ``attempts`` is 0 when the run had already become hopeless."""

    recipient: R = attrs.field(repr=False)
    status: BulkStatus
    voucher: IssuedVoucher | None = None
    error: VoucherError | None = None
    attempts: int


@attrs.frozen(kw_only=True)
class BulkSummary:
    """Counts so far. ``asked`` recipients were taken; the rest of it adds up to the ended ones."""

    asked: int = 0
    issued: int = 0
    failed: int = 0
    unresolved: int = 0

    @property
    def in_flight(self) -> int:
        """How many recipients were taken and have not ended."""
        return self.asked - self.issued - self.failed - self.unresolved
