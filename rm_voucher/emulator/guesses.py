"""The emulator's options: its guesses at what RM does not document, and its checks."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, NoReturn

import attrs

from rm_voucher.arguments import check_type
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
    """Reinstating takes the PIN of a user."""
    STORE = "store"
    """A void's store is known, and open to the application. Without it any store will do."""


class LastPage(enum.StrEnum):
    """How a listing marks its last page."""

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise ValueError(f"{value!r} is no mark of a last page; they are {', '.join(cls)}")

    NO_CURSOR = "no-cursor"
    """It has no cursor."""
    NULL = "null"
    """Its cursor is null."""
    EMPTY_TEXT = "empty-text"
    """Its cursor is an empty text."""
    EMPTY_PAGE = "empty-page"
    """It is empty, and has no cursor; each page with an item has one."""


class SignedPath(enum.StrEnum):
    """Of which spelling of the path the signature must be, where a code has one of ``$&+,:=@``."""

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise ValueError(f"{value!r} is no spelling of a path; they are {', '.join(cls)}")

    AS_SENT = "as-sent"
    RAW = "raw"
    """These characters stand as they are."""
    ESCAPED = "escaped"
    """These characters are percent-encoded."""


def _digits(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if not 0 <= value <= 6:
        raise ValueError(f"{attribute.name} is a whole number from 0 to 6")


@attrs.frozen(kw_only=True)
class Guesses:
    """The emulator's answers to what RM does not document.

    Documented behaviour is no option; a `Check` of it can be disabled. The text of a refusal is one
    of RM's error codes. `rm_voucher.probe` finds out what RM's own server does.
    """

    # The stock of a batch, and issuing from it.

    codes_up_front: bool = False
    """Whether a batch's codes exist as VALID vouchers before they are issued. By default a code is
    made when it is issued. Codes of origin SELF are uploaded, so they always exist."""
    used_from: VoucherStatus = attrs.field(default=VoucherStatus.ISSUED, converter=VoucherStatus)
    """The first status that counts as used: ISSUED, REDEEMED or VOID. RM's page says
    "used/assigned/redeemed", so issued ones are counted. The balance is the rest."""
    sold_out_code: str = "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY"
    """The answer of an empty batch. VOUCHER_INSUFFICIENT and VOUCHER_SOLD_OUT exist, too."""
    expired_code: str = "VOUCHER_BATCH_EXPIRED"
    """The answer of a batch that has ended."""
    static_issue_code: str = ""
    """The refusal of an issue from a static batch. Empty: its one code is issued."""

    # Listings.

    lists_valid: bool = True
    """Whether a batch's listing shows VALID vouchers, where there are any."""
    listing_delay_s: float = 0.0
    """The time until an issued voucher is listed. Tests of reconciliation want more."""
    lists_assigned_at: bool = True
    """Whether a listing shows when vouchers were issued, where vouchers show it at all."""
    page_size: int = 100
    """The number of items on a page, where the request sets no smaller limit."""
    last_page: LastPage = attrs.field(default=LastPage.NO_CURSOR, converter=LastPage)
    """How a listing marks its last page."""

    # What a voucher shows.

    shows_assigned_at: bool = True
    """Whether vouchers show when they were issued; in many of RM's examples they don't."""
    undated_expiry: str = "2050-12-31T23:59:59Z"
    """What stands for the end of a voucher that has none yet; in RM's examples the year 2050."""
    codes_ignore_case: bool = False
    """Whether a code may be written in capitals or small letters."""

    # Voiding, and reinstating.

    void_needs_redeem: bool = False
    """Whether an ISSUED voucher must be redeemed first; the overview page calls that optional."""
    void_needs_store: bool = False
    """Whether a void must name a store; the page shows it without one."""
    unknown_store_code: str = ""
    """The refusal of a void at a store that there is not. Empty: where no store was made
    (`add_store`), any will do."""
    void_again_code: str = "VOUCHER_NOT_ALLOW_VOID"
    """The answer to the void of a VOID voucher. Empty: the voucher, unchanged."""
    keeps_used_at: bool = True
    """Whether ``usedAt`` of a void is kept. If not, a voucher shows the time of the server."""
    used_at_digits: int = attrs.field(default=6, validator=_digits)
    """How many digits of a second are kept of it; the rest is cut off."""
    wrong_pin_code: str = "USER_PIN_CODE_INVALID"
    """The answer to a wrong PIN, which is that of a user of the portal. PIN_INVALID exists, too."""
    reinstate_to: VoucherStatus = attrs.field(
        default=VoucherStatus.REDEEMED, converter=VoucherStatus
    )
    """The status of a reinstated voucher that was never redeemed: REDEEMED or ISSUED. One that was
    is REDEEMED."""

    # Redeeming.

    redeems_valid: bool = True
    """Whether a voucher that was not issued can be redeemed. In RM's examples uploaded and printed
    codes are redeemed with no time of issue."""
    redeem_again_code: str = "VOUCHER_REDEEMED"
    """The answer to the redeem of a REDEEMED or VOID voucher."""
    redeem_is_atomic: bool = True
    """Whether a bulk redeem that is refused for one code redeems none."""
    max_redeem_codes: int = 100
    """The most codes of one bulk redeem."""
    member_redeem_to: VoucherStatus = attrs.field(
        default=VoucherStatus.VOID, converter=VoucherStatus
    )
    """The status after a member's redeem: VOID, as in RM's example, or REDEEMED."""

    # Paths and methods, signatures and nonces.

    get_methods: Collection[str] = ("POST", "GET")
    """The methods of *get by code*: the page says POST, every SDK sends GET."""
    older_batch_path: bool = True
    """Whether ``/v3/voucher-batch/{key}``, which three SDKs read, answers the batch. RM's pages
    have it commented out."""
    unknown_path_code: str = "API_ENDPOINT_NOT_FOUND"
    """The answer to a path that there is not. PAGE_NOT_FOUND exists, too."""
    signed_path: SignedPath = attrs.field(default=SignedPath.AS_SENT, converter=SignedPath)
    """Of which spelling of the path the signature must be."""
    signature_debug: bool = True
    """Whether the refusal of a signature has ``debug``, as in RM's sandbox: what was expected."""
    duplicate_code: str = "DUPLICATE_REQUEST"
    """The answer to a nonce that was used before. RM calls that a duplicate request, and does not
    publish the code."""

    # Tokens.

    token_delay_s: float = 0.0
    """The time until a token that was granted is accepted, as where servers tell each other."""
    new_token_ends_earlier: bool = False
    """Whether a new access token ends the earlier ones."""

    # The form of all answers, and the rate limit.

    idle_life_s: float = 3630.0
    """The time after which an idle connection is closed; over HTTP only."""
    sends_date: bool = True
    """Whether answers have the header ``Date``."""
    statuses: Mapping[str, int] = attrs.field(factory=dict)
    """The HTTP statuses of error codes, where they are not 400, 401, 403, 404, 405, 429 or 500 by
    the kind of the error."""
    rate_burst_s: float = 0.1
    """The burst that a rate limit allows, in seconds of the rate."""
    throttle_code: str = "TOO_MANY_REQUEST_PER_SECOND"
    """The answer to a request over the rate limit."""
    throttle_status: int = 429
    """The HTTP status of that answer."""
    throttle_retry_after_s: int | None = None
    """Its ``Retry-After``; None for none."""

    # Callbacks.

    callback_statuses: Collection[VoucherStatus] = (VoucherStatus.REDEEMED, VoucherStatus.VOID)
    """The new statuses that cause a callback."""
    callback_signs_url: bool = False
    """Whether a callback's signature covers its URL. RM's page says that it may be left out, and a
    draft of it that it is not included."""
    callback_signs_again: bool = False
    """Whether a repeated delivery has a new nonce and timestamp, or is the same bytes."""
    callback_timeout_s: float = 10.0
    """The time that a delivery waits for its answer."""


def guesses_of(given: Mapping[str, Any]) -> Guesses:
    """Return guesses of a file's values, which may be of any type.

    Raises `ValueError` for a name or a value that there is not.
    """
    fields = {field.name: field for field in attrs.fields(Guesses)}
    for name, value in given.items():
        if name not in fields:
            near = get_close_matches(name, fields, 1)
            raise ValueError(
                f"there is no guess {name}" + "".join(f"; did you mean {each}?" for each in near)
            )
        kind = type(fields[name].default)
        if kind in (bool, float, int, str):
            check_type(name, value, kind)
    guesses = Guesses(**given)
    if guesses.page_size < 1 or guesses.max_redeem_codes < 1:
        raise ValueError("page_size and max_redeem_codes are 1 or more")
    return guesses
