"""What is known of each of Revenue Monster's error codes: what to do, the exception, a remedy.

The codes are those of RM's public page "Appendix 1: Error Codes"; classes and hints are ours.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping

import attrs

from rm_voucher.exceptions import (
    APIError,
    AuthenticationError,
    ExpiredError,
    InvalidRequestError,
    NotFoundError,
    OutOfStockError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    SignatureError,
    VoucherStateError,
)

__all__ = ["CODE_PATTERN", "ERROR_CODES", "CodeClass", "CodeInfo"]

CODE_PATTERN = re.compile(r"[A-Za-z0-9_]{1,64}")
"""What can be an error code of RM's; anything else in its place is not RM's error body."""


class CodeClass(enum.Enum):
    """What a client should do about an error code."""

    RETRY = "retry"
    """Nothing happened: safe to send again after a wait."""
    AUTH = "auth"
    """Get a new token, sign again, send again, once. Nothing happened."""
    FIX = "fix"
    """The caller or the account must change something. Nothing happened."""
    STATE = "state"
    """The voucher or batch does not allow it now. Nothing happened."""
    UNKNOWN = "unknown-outcome"
    """The server failed in the middle: whether it happened is unknown."""


@attrs.frozen
class CodeInfo:
    """One row of the table of error codes."""

    code: str
    code_class: CodeClass
    error: type[APIError]
    hint: str


class _CodeTable(Mapping[str, CodeInfo]):
    """Error codes, looked up without regard to case and underscores."""

    def __init__(self) -> None:
        self._codes: list[str] = []
        self._by_folded: dict[str, CodeInfo] = {}

    def add(self, code_class: CodeClass, error: type[APIError], codes: str, hint: str) -> None:
        for code in codes.split():
            self._codes.append(code)
            self._by_folded[_fold(code)] = CodeInfo(code, code_class, error, hint)

    def add_misspelt(self, old: str, code: str) -> None:
        self._by_folded[_fold(old)] = self[code]

    def __getitem__(self, code: str) -> CodeInfo:
        return self._by_folded[_fold(code)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._codes)

    def __len__(self) -> int:
        return len(self._codes)


def _fold(code: str) -> str:
    return code.replace("_", "").upper()


_R, _A, _F, _S, _U = CodeClass
_table = _CodeTable()
_add = _table.add

_add(
    _S,
    NotFoundError,
    "VOUCHER_BATCH_NOT_FOUND",
    (
        "No such batch for this merchant: check the batch key, and that it belongs to this "
        "environment."
    ),
)
_add(
    _F,
    InvalidRequestError,
    "VOUCHER_BATCH_KEY_INVALID",
    "The batch key is malformed: copy it from the merchant portal or from batches().",
)
_add(
    _S,
    ExpiredError,
    "VOUCHER_BATCH_EXPIRED",
    "The batch has expired and can't be issued from: use another batch.",
)
_add(
    _S,
    OutOfStockError,
    "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY VOUCHER_INSUFFICIENT VOUCHER_SOLD_OUT",
    "The batch has no voucher left: raise its quantity in the portal or use another batch.",
)
_add(
    _S, NotFoundError, "VOUCHER_NOT_FOUND", "No such voucher code: check what was typed or scanned."
)
_add(
    _F,
    PermissionDeniedError,
    "VOUCHER_NOT_MERCHANT",
    "The voucher is another merchant's: it can't be used here.",
)
_add(
    _S,
    VoucherStateError,
    "VOUCHER_NOT_ALLOW_VOID",
    "The voucher can't be voided, most often because it was used already: look it up with get().",
)
_add(_S, VoucherStateError, "VOUCHER_NOT_REDEEMED", "The voucher must be redeemed first.")
_add(
    _S,
    VoucherStateError,
    "VOUCHER_REDEEMED VOUCHER_REDEEMED_INVALID",
    "The voucher is redeemed already, or can't be redeemed directly: look it up with get().",
)
_add(
    _S,
    VoucherStateError,
    "VOUCHER_REDEEM_MAX REDEMPTION_RULE_LIMIT_REACHED",
    "A redemption limit is reached.",
)
_add(_S, VoucherStateError, "VOUCHER_OWNER_INVALID", "The voucher belongs to another member.")
_add(
    _S,
    VoucherStateError,
    "VOUCHER_NOT_MINIMUM_AMOUNT MINIMUM_AMOUNT_REQUIRED",
    "The spend is below the voucher's minimum.",
)
_add(_S, NotFoundError, "VOUCHER_COMBO_NOT_FOUND", "No such combination of vouchers.")
_add(_S, ExpiredError, "VOUCHER_COMBO_EXPIRED", "The combination of vouchers has expired.")
_add(
    _S,
    OutOfStockError,
    "VOUCHER_COMBO_NOT_ENOUGH_QUANTITY",
    "The combination of vouchers is sold out.",
)
_add(_S, NotFoundError, "MARKET_PLACE_VOUCHER_NOT_FOUND", "No such voucher in the marketplace.")
_add(
    _S,
    VoucherStateError,
    "MARKET_PLACE_VOUCHER_ALREADY_REQUESTED MARKET_PLACE_VOUCHER_EXCEED_QUANTITY",
    "The marketplace does not allow this share: it was asked for already, or for too many.",
)
_add(
    _F,
    InvalidRequestError,
    "EXPIRY_INVALID EXPIRY_MIN",
    "The expiry is not acceptable: send a later or well-formed date.",
)
_add(
    _S,
    NotFoundError,
    "REDEMPTION_RULE_NOT_FOUND",
    "The voucher's redemption rule does not exist any more.",
)
_add(
    _S,
    VoucherStateError,
    "REDEMPTION_MERCHANT_INVALID",
    "The voucher's redemption rule does not include this merchant.",
)
_add(_S, NotFoundError, "MEMBER_NOT_FOUND", "No such loyalty member: check the phone number.")
_add(
    _S,
    VoucherStateError,
    "MEMBER_NOT_MERCHANT MEMBER_PARENT_INVALID",
    "The loyalty member is not this merchant's.",
)
_add(
    _F,
    InvalidRequestError,
    "USER_PIN_CODE_INVALID PIN_INVALID",
    "The PIN is wrong: reinstating needs the merchant's PIN.",
)
_add(
    _F,
    InvalidRequestError,
    "STORE_NOT_FOUND STORE_ID_INVALID STORE_NOT_SET",
    "The store is missing or unknown: pass the store id that the portal shows.",
)
_add(
    _F,
    PermissionDeniedError,
    "CLIENT_NOT_AUTHORIZE_STORE",
    "The application may not act for this store: allow it in the portal.",
)
_add(
    _A,
    AuthenticationError,
    "TOKEN_EXPIRED TOKEN_INVALID UNAUTHORIZED NOT_AUTH",
    "The access token is not accepted: check that the credentials belong to this environment.",
)
_add(
    _F,
    AuthenticationError,
    "TOKEN_SUSPENDED",
    "The access token was suspended: ask Revenue Monster.",
)
_add(
    _F,
    PermissionDeniedError,
    (
        "NOT_PERMITTED NO_ACCESS INSUFFICIENT_PERMISSION_LEVEL USER_NO_PERMISSION "
        "CLIENT_NO_PERMISSION INVALID_SCOPE SCOPE_NOT_FOUND"
    ),
    "The application lacks a permission: vouchers need the scope manage_loyalty_voucher.",
)
_add(
    _F,
    AuthenticationError,
    "CLIENT_NOT_FOUND CLIENT_INVALID INVALID_CLIENT InActiveClient UnAuthorizedClient",
    (
        "The client id or secret is wrong, belongs to the other environment (sandbox or "
        "production), or the application is disabled."
    ),
)
_add(
    _F,
    SignatureError,
    "CLIENT_NOT_SET_PUBLIC_KEY",
    "The application has no public key yet: upload it in the portal.",
)
_add(
    _F,
    PermissionDeniedError,
    "CLIENT_PRODUCT_NOT_SETUP SUBSCRIPTION_NOT_ACTIVE SUBSCRIPTION_EXPIRED LOYALTY_NOT_SUBSCRIBED",
    "The product is not set up or not subscribed: see the merchant portal.",
)
_add(
    _F,
    SignatureError,
    "INVALID_REQUEST_SIGNATURE INVALID_SIGNATURE SIGNATURE_INVALID",
    (
        "The signature does not match: the private key is not the pair of the public key in the "
        "portal."
    ),
)
_add(
    _F,
    SignatureError,
    "INVALID_TIMESTAMP",
    "The timestamp is not accepted: check this machine's clock.",
)
_add(
    _A,
    AuthenticationError,
    "InvalidGrant InvalidCode",
    (
        "The refresh token is no longer accepted: a new token is asked for with the client's "
        "credentials."
    ),
)
_add(
    _F,
    AuthenticationError,
    "GRANT_TYPE_INVALID UnSupportedGrantType",
    "The grant type is not accepted for this application.",
)
_add(
    _F,
    PermissionDeniedError,
    (
        "AccessDenied ACCOUNT_SUSPENDED ACCOUNT_INACTIVE ACCOUNT_FROZEN MERCHANT_SUSPENDED "
        "MERCHANT_INACTIVE MERCHANT_NOT_ACTIVE USER_SUSPENDED API_INACTIVE"
    ),
    "The account, merchant or API access is disabled: ask Revenue Monster.",
)
_add(
    _F,
    InvalidRequestError,
    (
        "INVALID_REQUEST VALIDATION_ERROR INVALID_PARAMETER INVALID_PARAMETER_ID INVALID_ID "
        "INVALID_FORMAT INVALID_CHARSET"
    ),
    "The server finds the request malformed: check the arguments.",
)
_add(
    _F,
    InvalidRequestError,
    "INVALID_HTTP_METHOD METHOD_NOT_ALLOWED NO_METHOD API_ENDPOINT_NOT_FOUND",
    "The server does not know this method or path.",
)
_add(_F, InvalidRequestError, "SSL_REQUIRED", "Plain HTTP was used: the API URL must be https.")
_add(
    _R,
    RateLimitError,
    "TOO_MANY_REQUEST_PER_SECOND EXCEEDED_LIMIT",
    "Too many requests: send more slowly.",
)
_add(
    _R,
    ServerError,
    "OVERLOAD TemporaryUnAvailable",
    "The server refused for load: try again later.",
)
_add(
    _U,
    ServerError,
    "INTERNAL_ERROR SYSTEM_ERROR",
    "The server failed inside: try again later, or ask Revenue Monster.",
)
_add(
    _R,
    ServerError,
    "DOES_NOT_ALLOW_MULTIPLE_BATCH_PROCESSING",
    "The batch is being processed: try again later.",
)
_add(_F, PermissionDeniedError, "SPAM", "The call was flagged as suspicious: ask Revenue Monster.")
_add(_S, VoucherStateError, "RESOURCE_GONE", "The thing asked for is no longer there.")
# Older pages. Doubled underscores and PascalCase twins need no row: folding finds them.
_table.add_misspelt("VOUCHER_NOT_REDEMMED", "VOUCHER_NOT_REDEEMED")

ERROR_CODES: Mapping[str, CodeInfo] = _table
"""What is known of each error code. Looked up without regard to case and underscores."""
