"""The emulator's options: its guesses at what RM does not document, and its checks."""

from __future__ import annotations

import enum
from collections.abc import Collection
from typing import NoReturn

import attrs

from rm_voucher.models import VoucherStatus


class Check(enum.StrEnum):
    """A check of the wire or of the domain. Each can be disabled by itself."""

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise ValueError(f"{value!r} is no check; they are {', '.join(cls)}")

    CLIENT = "client"
    """A token is granted only for the client's id and secret."""
    TOKEN = "token"  # noqa: S105 - the check's name
    """A request carries a Bearer token that was granted and not revoked. Without it no token is
    asked for, so that none ends either."""
    TOKEN_LIFETIME = "token-lifetime"  # noqa: S105 - the check's name
    """A token ends."""
    ROTATION = "rotation"
    """A refresh token works once."""
    SIGNATURE = "signature"
    """``X-Signature`` is the client key's signature of the request as it arrived."""
    TIMESTAMP = "timestamp"
    """``X-Timestamp`` is at most 120 s off: seconds, seconds with a fraction, or milliseconds."""
    NONCE = "nonce"
    """``X-Nonce-Str`` is present, has no space, and was not used within 120 s."""
    METHOD = "method"
    """The method is the path's."""
    PATH = "path"
    """A path is exactly as documented. Without it slashes at the end are ignored."""
    CURSOR = "cursor"
    """A cursor is one that a page gave. Without it any other one means the beginning."""
    FILTER = "filter"
    """A filter of batches is a JSON object. Without it anything else filters nothing."""
    PIN = "pin"
    """Reinstating takes the merchant's PIN."""
    STORE = "store"
    """A void's store is known, and open to the application. Without it any store will do."""


@attrs.frozen(kw_only=True)
class Guesses:
    """The emulator's answers to what RM does not document.

    Documented behaviour is no option; a `Check` of it can be disabled.
    """

    codes_up_front: bool = False
    """Whether a batch's codes exist as VALID vouchers before they are issued. By default a code is
    made when it is issued. Codes of origin SELF are uploaded, so they always exist."""
    lists_valid: bool = True
    """Whether a batch's listing shows VALID vouchers, where there are any."""
    listing_delay_s: float = 0.0
    """The time until an issued voucher is listed. Tests of reconciliation want more."""
    page_size: int = 100
    """The number of items on a page, where the request sets no smaller limit."""
    used_from: VoucherStatus = attrs.field(default=VoucherStatus.ISSUED, converter=VoucherStatus)
    """The first status that counts as used: ISSUED, REDEEMED or VOID. RM's page says
    "used/assigned/redeemed", so issued ones are counted. The balance is the rest."""
    shows_assigned_at: bool = True
    """Whether vouchers show when they were issued; in many of RM's examples they don't."""
    sold_out_code: str = "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY"
    """The answer of an empty batch. VOUCHER_INSUFFICIENT and VOUCHER_SOLD_OUT exist, too."""
    redeems_valid: bool = True
    """Whether a voucher that was not issued can be redeemed. In RM's examples uploaded and printed
    codes are redeemed with no time of issue."""
    void_needs_redeem: bool = False
    """Whether an ISSUED voucher must be redeemed first; the overview page calls that optional."""
    void_needs_store: bool = False
    """Whether a void must name a store; the page shows it without one."""
    redeem_is_atomic: bool = True
    """Whether a bulk redeem that is refused for one code redeems none."""
    max_redeem_codes: int = 100
    """The most codes of one bulk redeem."""
    member_redeem_to: VoucherStatus = attrs.field(
        default=VoucherStatus.VOID, converter=VoucherStatus
    )
    """The status after a member's redeem: VOID, as in RM's example, or REDEEMED."""
    get_methods: Collection[str] = ("POST", "GET")
    """The methods of *get by code*: the page says POST, every SDK sends GET."""
    older_batch_path: bool = True
    """Whether ``/v3/voucher-batch/{key}``, which three SDKs read, answers the batch. RM's pages
    have it commented out."""
    unknown_path_code: str = "API_ENDPOINT_NOT_FOUND"
    """The answer to a path that there is not. PAGE_NOT_FOUND exists, too."""
    signature_debug: bool = True
    """Whether the refusal of a signature has ``debug``, as in RM's sandbox: what was expected."""
    duplicate_code: str = "DUPLICATE_REQUEST"
    """The answer to a nonce that was used before. RM calls that a duplicate request, and does not
    publish the code."""
    token_delay_s: float = 0.0
    """The time until a token that was granted is accepted, as where servers tell each other."""
    new_token_ends_earlier: bool = False
    """Whether a new access token ends the earlier ones."""
    rate_burst_s: float = 0.1
    """The burst that a rate limit allows, in seconds of the rate."""
    callback_statuses: Collection[VoucherStatus] = (VoucherStatus.REDEEMED, VoucherStatus.VOID)
    """The new statuses that cause a callback."""
    callback_signs_url: bool = False
    """Whether a callback's signature covers its URL. RM's page says that it may be left out, and a
    draft of it that it is not included."""
    callback_signs_again: bool = False
    """Whether a repeated delivery has a new nonce and timestamp, or is the same bytes."""
    callback_timeout_s: float = 10.0
    """The time that a delivery waits for its answer."""
