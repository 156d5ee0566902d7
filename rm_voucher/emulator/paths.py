"""The table of RM's operations: where each is, what it takes, what it answers. No work is here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import attrs

from rm_voucher.emulator.guesses import Guesses
from rm_voucher.emulator.schema import Field

TOKEN = "token"  # noqa: S105 - the operation's name


@attrs.frozen
class Operation:
    """An operation of RM's API. Its path has one name in braces, or none."""

    name: str
    """The client's name for it."""
    methods: Collection[str]
    path: str
    summary: str
    answer: str
    """The name of its form in `wire_forms.WIRE_FORMS`."""
    query: Mapping[str, Field] = attrs.field(factory=dict, kw_only=True)
    body: Mapping[str, Field] = attrs.field(factory=dict, kw_only=True)
    codes: Sequence[str] = attrs.field(default=(), kw_only=True)
    """RM's codes that may refuse it, beside `ALL_MAY_ANSWER`. One in small letters is the name of a
    guess, which has the code, if there is one."""

    @property
    def parts(self) -> tuple[str | None, ...]:
        """The segments of its path, None for the name."""
        return tuple(None if part[0] == "{" else part for part in self.path.split("/")[1:])


_CURSOR = {"cursor": Field(str, "As the page before gave it; none for the first page.")}
_MEMBER = {
    "countryCode": Field(str, "Digits, such as 60.", is_needed=True),
    "phoneNumber": Field(str, "Digits, without the country code.", is_needed=True),
}
_NO_BATCH = ("VOUCHER_BATCH_NOT_FOUND", "VOUCHER_BATCH_KEY_INVALID")
_NO_VOUCHER = ("VOUCHER_NOT_FOUND", "VOUCHER_NOT_MERCHANT")
_NO_MEMBER = ("VALIDATION_ERROR", "MEMBER_NOT_FOUND", "MEMBER_NOT_MERCHANT")
_NOT_THEIRS = (*_NO_VOUCHER, "VOUCHER_OWNER_INVALID")
_NO_STOCK = ("DOES_NOT_ALLOW_MULTIPLE_BATCH_PROCESSING", "expired_code", "sold_out_code")

ALL_MAY_ANSWER = ("INVALID_REQUEST", "METHOD_NOT_ALLOWED", "unknown_path_code", "INTERNAL_ERROR")
"""The codes that may refuse any request. Those of the rate limit come on top of them."""
SIGNED_MAY_ANSWER = (
    "UNAUTHORIZED",
    "TOKEN_INVALID",
    "TOKEN_EXPIRED",
    "INVALID_REQUEST_SIGNATURE",
    "INVALID_TIMESTAMP",
    "duplicate_code",
    "INVALID_PARAMETER",
)
"""The codes that may refuse any request but that for a token."""

_OPERATIONS = (
    Operation(
        "issue",
        ("POST",),
        "/v3/voucher-batch/{key}/issue",
        "Issue a voucher of a batch. Each call issues another one.",
        "Issued",
        codes=(*_NO_BATCH, *_NO_STOCK, "static_issue_code"),
    ),
    Operation(
        "get",
        ("POST", "GET"),
        "/v3/voucher/{code}",
        "Look a voucher up.",
        "OneVoucher",
        codes=_NO_VOUCHER,
    ),
    Operation(
        "void",
        ("POST",),
        "/v3/voucher/{code}/void",
        "Use a voucher up.",
        "OneVoucher",
        body={
            "storeId": Field(str, "The store where it is used."),
            "usedAt": Field(str, "RFC 3339; by default now.", shape={"format": "date-time"}),
        },
        codes=(
            *_NO_VOUCHER,
            "STORE_NOT_SET",
            "STORE_ID_INVALID",
            "STORE_NOT_FOUND",
            "unknown_store_code",
            "CLIENT_NOT_AUTHORIZE_STORE",
            "VOUCHER_NOT_REDEEMED",
            "VOUCHER_NOT_ALLOW_VOID",
            "void_again_code",
        ),
    ),
    Operation(
        "vouchers",
        ("GET",),
        "/v3/voucher-batch/{key}/vouchers",
        "List a batch's vouchers, a page at a time.",
        "VoucherPage",
        query=_CURSOR,
        codes=_NO_BATCH,
    ),
    Operation(
        "batch",
        ("GET",),
        "/v3/voucher-batch/{key}",
        "Show a batch.",
        "OneBatch",
        codes=_NO_BATCH,
    ),
    Operation(
        "batches",
        ("GET",),
        "/v3/voucher-batches",
        "List the batches, a page at a time.",
        "BatchPage",
        query={
            **_CURSOR,
            "filter": Field(str, "A JSON object with status or isStatic, or both."),
        },
    ),
    Operation(
        "reinstate",
        ("PATCH",),
        "/v3/voucher/{code}/reinstate",
        "Make a voucher that was used up usable again.",
        "OneVoucher",
        body={
            "reason": Field(str),
            "pin": Field(str, "Of a user of the merchant portal.", is_needed=True),
        },
        codes=(
            *_NO_VOUCHER,
            "VALIDATION_ERROR",
            "wrong_pin_code",
            "VOUCHER_REDEEMED",
            "VOUCHER_NOT_REDEEMED",
        ),
    ),
    Operation(
        "redeem",
        ("POST",),
        "/v3/vouchers/redeem",
        "Redeem vouchers.",
        "Vouchers",
        body={"codes": Field(list, "100 at most.", items=Field(str), is_needed=True)},
        codes=(
            *_NO_VOUCHER,
            *_NO_STOCK,
            "VALIDATION_ERROR",
            "redeem_again_code",
            "VOUCHER_REDEEMED_INVALID",
        ),
    ),
    Operation(
        "member vouchers",
        ("GET",),
        "/v3/loyalty/me/vouchers",
        "List a loyalty member's vouchers, a page at a time.",
        "VoucherPage",
        query={
            **_MEMBER,
            **_CURSOR,
            "limit": Field(int, "The most items on a page.", least=1, most=999_999_999),
        },
        codes=_NO_MEMBER,
    ),
    Operation(
        "member get",
        ("GET",),
        "/v3/loyalty/me/voucher/{code}",
        "Look a member's voucher up.",
        "OneVoucher",
        query=_MEMBER,
        codes=(*_NO_MEMBER, *_NOT_THEIRS),
    ),
    Operation(
        "member redeem",
        ("POST",),
        "/v3/loyalty/me/voucher/{code}/redeem",
        "Let a member use a voucher of theirs.",
        "OneVoucher",
        query=_MEMBER,
        codes=(*_NO_MEMBER, *_NOT_THEIRS, "VOUCHER_REDEEMED_INVALID"),
    ),
    Operation(
        TOKEN,
        ("POST",),
        "/v1/token",
        "Get an access token, for the client's id and secret or for a refresh token.",
        "Token",
        body={
            "grantType": Field(str, words=("client_credentials", "refresh_token"), is_needed=True),
            "refreshToken": Field(str, "For the grant refresh_token."),
        },
        codes=("INVALID_CLIENT", "InvalidGrant", "GRANT_TYPE_INVALID"),
    ),
)
OPERATIONS = tuple(operation.name for operation in _OPERATIONS)
"""The names of the routes, which are the client's too."""
NAME_PLACES = {
    len(operation.parts): operation.parts.index(None)
    for operation in _OPERATIONS
    if None in operation.parts
}
"""Where the name is in a path, by the path's number of segments."""


def operations(guesses: Guesses) -> list[Operation]:
    """Return the operations that there are, as a server's guesses have it."""
    return [
        attrs.evolve(each, methods=guesses.get_methods) if each.name == "get" else each
        for each in _OPERATIONS
        if each.name != "batch" or guesses.older_batch_path
    ]


def codes_of(operation: Operation, guesses: Guesses) -> list[str]:
    """Return RM's codes that may refuse an operation, without those of the rate limit."""
    named = [*ALL_MAY_ANSWER, *operation.codes]
    if operation.name != TOKEN:
        named += SIGNED_MAY_ANSWER
    found = (str(getattr(guesses, name)) if name.islower() else name for name in named)
    return sorted({code for code in found if code})
