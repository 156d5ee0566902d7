"""What Revenue Monster does not document, as options of the emulator; and the rules it keeps."""

from __future__ import annotations

import enum
from collections.abc import Collection
from typing import NoReturn

import attrs

from rm_voucher.models import VoucherStatus


class Rule(enum.StrEnum):
    """A rule of the wire or of the domain that can be relaxed by itself."""

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise ValueError(f"{value!r} is no rule; they are {', '.join(cls)}")

    CLIENT = "client"
    """A token is granted only for the client's id and secret."""
    TOKEN = "token"  # noqa: S105 - the rule's name
    """A request carries a Bearer token that was granted and not revoked; relaxed, none is asked
    for, so that none ends either."""
    TOKEN_LIFETIME = "token-lifetime"  # noqa: S105 - the rule's name
    """A token ends."""
    ROTATION = "rotation"
    """A refresh token works once."""
    SIGNATURE = "signature"
    """``X-Signature`` is of the request as it arrived, by the client's key."""
    TIMESTAMP = "timestamp"
    """``X-Timestamp`` is within the window: seconds, seconds with a fraction, or milliseconds."""
    NONCE = "nonce"
    """``X-Nonce-Str`` is there, and was not used lately."""
    METHOD = "method"
    """A path takes its method only."""
    PATH = "path"
    """A path is exactly as documented; relaxed, slashes at its end are ignored."""
    CURSOR = "cursor"
    """A cursor is one that a page gave; relaxed, another one means the beginning."""
    FILTER = "filter"
    """A filter of batches is a JSON object; relaxed, another one filters nothing."""
    PIN = "pin"
    """Reinstating takes the merchant's PIN."""
    STORE = "store"
    """A void's store is a known one of the application's; relaxed, it is not looked at."""


@attrs.frozen(kw_only=True)
class Guesses:
    """What RM does not document, each with the emulator's default.

    What is documented, and how the emulator keeps to it, is no option; a `Rule` can be relaxed.
    """

    codes_up_front: bool = False
    """Whether a batch's codes exist as VALID vouchers before they are issued. By default they come
    into being when they are issued; those of an origin SELF are uploaded, so they always do."""
    lists_valid: bool = True
    """Whether a batch's listing shows VALID vouchers, where there are any."""
    listing_lag_s: float = 0.0
    """How long a listing does not show what was issued. Tests of reconciliation want more."""
    page_size: int = 100
    """The number of items on a page, where the request sets no smaller limit."""
    used_from: VoucherStatus = attrs.field(default=VoucherStatus.ISSUED, converter=VoucherStatus)
    """From which status on a voucher counts as used: ISSUED, REDEEMED or VOID. RM's page says
    "used/assigned/redeemed", so issued ones are counted; the balance is what is not used."""
    shows_assigned_at: bool = True
    """Whether vouchers show when they were issued; in many of RM's examples they don't."""
    sold_out_code: str = "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY"
    """What a batch with nothing left answers; VOUCHER_INSUFFICIENT and VOUCHER_SOLD_OUT exist."""
    redeems_valid: bool = True
    """Whether a voucher can be redeemed that was not issued, as in RM's examples, where uploaded
    and printed codes are redeemed with no time of issue."""
    void_needs_redeem: bool = False
    """Whether an ISSUED voucher must be redeemed first; the overview page calls that optional."""
    void_needs_store: bool = False
    """Whether a void must name a store; the page shows it without one."""
    redeem_is_atomic: bool = True
    """Whether a bulk redeem that is refused for one code has redeemed none."""
    max_redeem_codes: int = 100
    """How many codes a bulk redeem takes."""
    member_redeem_to: VoucherStatus = attrs.field(
        default=VoucherStatus.VOID, converter=VoucherStatus
    )
    """What a member's redeem turns a voucher into: VOID, as in RM's example, or REDEEMED."""
    get_methods: Collection[str] = ("POST", "GET")
    """The methods of *get by code*: the page says POST, every SDK sends GET."""
    older_batch_path: bool = True
    """Whether ``/v3/voucher-batch/{key}``, which two SDKs read, answers the batch."""
    timestamp_tolerance_s: float = 300.0
    """How far ``X-Timestamp`` may be off, to either side."""
    nonces_kept: int = 100_000
    """How many nonces are remembered; the oldest are forgotten."""
    new_token_ends_earlier: bool = False
    """Whether a new access token ends those granted before."""
    rate_burst_s: float = 0.1
    """How much of a rate limit may be used at once, in seconds of it."""
    callback_statuses: Collection[VoucherStatus] = (VoucherStatus.REDEEMED, VoucherStatus.VOID)
    """The changes that cause a callback."""
    callback_signs_url: bool = True
    """Whether a callback's signature covers its URL."""
    callback_signs_again: bool = False
    """Whether a repeated delivery has a new nonce and timestamp; else it is the same bytes."""
    callback_timeout_s: float = 10.0
    """How long a delivery waits for its answer."""
