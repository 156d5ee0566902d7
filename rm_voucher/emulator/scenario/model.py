"""What a scenario says, as the tables of its file."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import attrs

from rm_voucher.models import ExpiryType, VoucherType

MOST = 1_000_000


def _bounded(least: float, most: float) -> Any:
    return attrs.validators.and_(attrs.validators.ge(least), attrs.validators.le(most))


_COUNT = _bounded(0, MOST)
_SECONDS = _bounded(0, 1_000_000_000)


@attrs.frozen(kw_only=True)
class ExpiryTable:
    """When a batch's vouchers expire: ``days`` after redeeming, at ``expires_at``, or never."""

    type: ExpiryType
    days: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(_bounded(1, 100_000))
    )
    expires_at: datetime | None = None


@attrs.frozen(kw_only=True)
class BatchTable:
    """A batch, and how many of its vouchers were issued, redeemed and used before.

    Those that were redeemed were issued, and those that were used are others than those. With
    ``at_s`` it comes into being so many seconds after the start.
    """

    key: str
    label: str = ""
    quantity: int | None = attrs.field(default=None, validator=attrs.validators.optional(_COUNT))
    type: VoucherType = VoucherType.GIFT
    amount_sen: int = attrs.field(default=0, validator=_COUNT)
    discount_rate_bp: int = attrs.field(default=0, validator=_bounded(0, 10_000))
    minimum_spend_sen: int = attrs.field(default=0, validator=_COUNT)
    expiry: ExpiryTable | None = None
    codes: list[str] | None = None
    static_code: str | None = None
    issued: int = attrs.field(default=0, validator=_COUNT)
    redeemed: int = attrs.field(default=0, validator=_COUNT)
    used: int = attrs.field(default=0, validator=_COUNT)
    at_s: float = attrs.field(default=0.0, validator=_SECONDS)

    def __attrs_post_init__(self) -> None:
        if self.redeemed + self.used > self.issued:
            raise ValueError("redeemed and used are together as many as issued, at most")


@attrs.frozen(kw_only=True)
class MemberTable:
    """A member; ``vouchers`` says how many of which batch they scanned, by its key."""

    country_code: str
    phone_number: str
    name: str = ""
    vouchers: dict[str, int] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class StoreTable:
    """A store of the merchant's."""

    id: str
    is_authorised: bool = True


@attrs.frozen(kw_only=True)
class WindowTable:
    """A time in which every request meets one fault, in seconds after the start."""

    fault: str
    start_s: float
    length_s: float


@attrs.frozen(kw_only=True)
class FaultsTable:
    """The plan of faults. What is left out is as `FaultPlan` has it."""

    rate: float | None = None
    kinds: list[str] | None = None
    seed: int | None = None
    operations: list[str] | None = None
    windows: list[WindowTable] | None = None
    retry_after_s: int | None = None
    late_s: float | None = None
    slow_body_s: float | None = None
    stall_s: float | None = None
    listing_delay_s: float | None = None


@attrs.frozen(kw_only=True)
class RateTable:
    """From ``at_s`` on, ``per_s`` requests a second are not throttled; 0 for any number."""

    per_s: float = attrs.field(validator=_bounded(0, MOST))
    at_s: float = attrs.field(default=0.0, validator=_SECONDS)


@attrs.frozen(kw_only=True)
class CallbacksTable:
    """Where callbacks go, and how often one is repeated."""

    url: str | None = None
    interval_s: float = attrs.field(default=60.0, validator=_bounded(0.001, 1_000_000))
    signs_url: bool = False


@attrs.frozen(kw_only=True)
class MerchantTable:
    """One merchant: its credentials, and what there is and happens."""

    client_id: str | None = None
    client_secret: str | None = None
    merchant_pin: str = "123456"
    batches: list[BatchTable] = attrs.field(factory=list)
    members: list[MemberTable] = attrs.field(factory=list)
    stores: list[StoreTable] = attrs.field(factory=list)
    faults: FaultsTable = attrs.field(factory=FaultsTable)
    rate_limits: list[RateTable] = attrs.field(factory=list)
    callbacks: CallbacksTable = attrs.field(factory=CallbacksTable)


@attrs.frozen(kw_only=True)
class Scenario(MerchantTable):
    """A scenario. What stands at its top is of the first merchant; ``merchants`` has others."""

    title: str = ""
    seed: int | None = None
    token_lifetime_s: int = attrs.field(default=2_591_999, validator=_bounded(1, 1_000_000_000))
    guesses: dict[str, Any] = attrs.field(factory=dict)
    disabled_checks: list[str] = attrs.field(factory=list)
    merchants: dict[str, MerchantTable] = attrs.field(factory=dict)
