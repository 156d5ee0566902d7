"""Revenue Monster's error codes: the class, the exception and the remedy of each.

The codes are those of RM's public lists that a voucher call can meet; classes and hints are ours.
`other_codes` has the rest of the lists.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Mapping

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

__all__ = ["CODE_PATTERN", "ERROR_CODES", "CodeClass", "CodeInfo", "fold"]

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

    def __init__(self, infos: Iterable[CodeInfo], misspelt: Mapping[str, str]) -> None:
        self._infos = {fold(info.code): info for info in infos}
        self._misspelt = misspelt

    def __getitem__(self, code: str) -> CodeInfo:
        folded = fold(code)
        return self._infos[self._misspelt.get(folded, folded)]

    def __iter__(self) -> Iterator[str]:
        return (info.code for info in self._infos.values())

    def __len__(self) -> int:
        return len(self._infos)


def fold(code: str) -> str:
    """Return a code without case and underscores."""
    return code.replace("_", "").upper()


# A row may have several codes, and its hint says what to do.
_HINTS: dict[tuple[CodeClass, type[APIError]], dict[str, str]] = {
    (CodeClass.STATE, NotFoundError): {
        "VOUCHER_BATCH_NOT_FOUND": (
            "No such batch for this merchant: check the batch key, and that it belongs to this "
            "environment."
        ),
        "VOUCHER_NOT_FOUND": "No such voucher code: check what was typed or scanned.",
        "VOUCHER_COMBO_NOT_FOUND": "No such combination of vouchers.",
        "MARKET_PLACE_VOUCHER_NOT_FOUND": "No such voucher in the marketplace.",
        "REDEMPTION_RULE_NOT_FOUND": "The voucher's redemption rule does not exist any more.",
        "MEMBER_NOT_FOUND": "No such loyalty member: check the phone number.",
    },
    (CodeClass.STATE, ExpiredError): {
        "VOUCHER_BATCH_EXPIRED": (
            "The batch has expired and can't be issued from: use another batch."
        ),
        "VOUCHER_COMBO_EXPIRED": "The combination of vouchers has expired.",
    },
    (CodeClass.STATE, OutOfStockError): {
        "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY VOUCHER_INSUFFICIENT VOUCHER_SOLD_OUT": (
            "The batch has no voucher left: raise its quantity in the portal or use another batch."
        ),
        "VOUCHER_COMBO_NOT_ENOUGH_QUANTITY": "The combination of vouchers is sold out.",
    },
    (CodeClass.STATE, VoucherStateError): {
        "VOUCHER_NOT_ALLOW_VOID": (
            "The voucher can't be voided, most often because it was used already: look it up."
        ),
        "VOUCHER_NOT_REDEEMED": "The voucher must be redeemed first.",
        "VOUCHER_REDEEMED VOUCHER_REDEEMED_INVALID": (
            "The voucher is redeemed already, or can't be redeemed directly: look it up."
        ),
        "VOUCHER_REDEEM_MAX REDEMPTION_RULE_LIMIT_REACHED": "A redemption limit is reached.",
        "VOUCHER_OWNER_INVALID": "The voucher belongs to another member.",
        "VOUCHER_NOT_MINIMUM_AMOUNT": "The spend is below the voucher's minimum.",
        "MINIMUM_AMOUNT_REQUIRED": "An amount is below the least one, 10 sen.",
        "MARKET_PLACE_VOUCHER_ALREADY_REQUESTED MARKET_PLACE_VOUCHER_EXCEED_QUANTITY": (
            "The marketplace does not allow this share: it was asked for already, or for too many."
        ),
        "REDEMPTION_MERCHANT_INVALID REDEMTION_PARENT_INVALID": (
            "The voucher's redemption rule does not include this merchant."
        ),
        "REDEMPTION_RULE_KEY_FOUND": (
            "The key of the voucher's redemption rule is not accepted: look at the rule in the "
            "portal."
        ),
        "QR_REDEEMED": "The QR code is redeemed already: look the voucher up with get().",
        "MEMBER_NOT_MERCHANT MEMBER_PARENT_INVALID": "The loyalty member is not this merchant's.",
        "RESOURCE_GONE": "The thing asked for is no longer there.",
    },
    (CodeClass.FIX, InvalidRequestError): {
        "VOUCHER_BATCH_KEY_INVALID": (
            "The batch key is malformed: copy it from the merchant portal or from batches()."
        ),
        "EXPIRY_INVALID EXPIRY_MIN": (
            "The batch's type of expiry, or its days, is not accepted: look at the batch in the "
            "portal."
        ),
        "USER_PIN_CODE_INVALID PIN_INVALID": (
            "The PIN is wrong: reinstating needs the PIN of a user of the merchant portal."
        ),
        "QR_INVALID": "The QR code is not one of a voucher: check what was scanned.",
        "STORE_NOT_FOUND STORE_ID_INVALID STORE_KEY_INVALID STORE_INVALID_FORMAT STORE_NOT_SET": (
            "The store is missing or unknown: pass the store id that the portal shows."
        ),
        "ORIGIN_INVALID UNIQUE_CODE_EMPTY UNIQUE_CODE_INVALID": (
            "The origin of the batch's codes, or a code that was uploaded, is not accepted: look at"
            " the batch in the portal."
        ),
        (
            "INVALID_REQUEST VALIDATION_ERROR INVALID_PARAMETER INVALID_PARAMETER_ID INVALID_ID "
            "INVALID_FORMAT INVALID_CHARSET"
        ): "The server finds the request malformed: check the arguments.",
        "INVALID_HTTP_METHOD METHOD_NOT_ALLOWED API_ENDPOINT_NOT_FOUND PAGE_NOT_FOUND": (
            "The server does not know this method or path."
        ),
        "NO_METHOD": "The server misses a method, or does not know this one.",
        "SSL_REQUIRED": "Plain HTTP was used: the API URL must be https.",
    },
    (CodeClass.FIX, PermissionDeniedError): {
        "VOUCHER_NOT_MERCHANT": "The voucher is another merchant's: it can't be used here.",
        "CLIENT_NOT_AUTHORIZE_STORE NOT_AUTHORIZE_USER_STORE NOT_USER_STORE STORE_NOT_USER": (
            "The application or its user may not act for this store: allow it in the portal."
        ),
        (
            "NOT_PERMITTED NO_ACCESS INSUFFICIENT_PERMISSION_LEVEL USER_NO_PERMISSION "
            "CLIENT_NO_PERMISSION INVALID_SCOPE SCOPE_NOT_FOUND AccessDenied"
        ): "The application lacks a permission: vouchers need the scope manage_loyalty_voucher.",
        (
            "CLIENT_PRODUCT_NOT_SETUP SUBSCRIPTION_NOT_ACTIVE SUBSCRIPTION_NOT_FOUND "
            "SUBSCRIPTION_EXPIRED NOT_SUBSCRIBE LOYALTY_NOT_SUBSCRIBED "
            "MASTER_MERCHANT_NOT_SUBSCRIBE MASTER_MERCHANT_SUBSCRIPTION_NOT_ACTIVE "
            "MASTER_MERCHANT_SUBSCRIPTION_EXPIRED"
        ): "The product is not set up or not subscribed: see the merchant portal.",
        (
            "ACCOUNT_SUSPENDED ACCOUNT_INACTIVE ACCOUNT_FROZEN MERCHANT_SUSPENDED "
            "MERCHANT_INACTIVE MERCHANT_NOT_ACTIVE USER_SUSPENDED USER_NOT_ACTIVE USR_NOT_ACTIVE"
        ): "The account, its user or its merchant is disabled: ask Revenue Monster.",
        "API_INACTIVE": "This version of the API is no longer served: look for a newer release.",
        (
            "MERCHANT_ID_INVALID MERCHANT_KEY_INVALID MERCHANT_NOT_FOUND MERCHANT_NOT_SAME "
            "MERCHANT_NOT_SETUP"
        ): "The merchant is unknown, another one or not set up: check the application's account.",
        "SPAM": "The call was flagged as suspicious: ask Revenue Monster.",
    },
    (CodeClass.FIX, AuthenticationError): {
        "TOKEN_SUSPENDED": "The access token was suspended: ask Revenue Monster.",
        "CLIENT_NOT_FOUND CLIENT_INVALID INVALID_CLIENT InActiveClient UnAuthorizedClient": (
            "The client id or secret is wrong, belongs to the other environment (sandbox or "
            "production), or the application is disabled."
        ),
        "GRANT_TYPE_INVALID UnSupportedGrantType": (
            "The grant type is not accepted for this application."
        ),
    },
    (CodeClass.FIX, SignatureError): {
        "CLIENT_NOT_SET_PUBLIC_KEY": (
            "The application has no public key yet: upload it in the portal."
        ),
        "INVALID_PUBLIC_KEY": (
            "The application's public key can't be used: upload it anew in the portal."
        ),
        "INVALID_REQUEST_SIGNATURE INVALID_SIGNATURE SIGNATURE_INVALID": (
            "The signature does not match: the private key is not the pair of the public key in "
            "the portal."
        ),
        "INVALID_TIMESTAMP": "The timestamp is not accepted: check this machine's clock.",
    },
    (CodeClass.AUTH, AuthenticationError): {
        "TOKEN_EXPIRED TOKEN_INVALID UNAUTHORIZED NOT_AUTH": (
            "The access token is not accepted: check that the credentials belong to this "
            "environment."
        ),
        "InvalidGrant InvalidCode": (
            "The refresh token is no longer accepted: a new token is asked for with the client's "
            "credentials."
        ),
    },
    (CodeClass.RETRY, RateLimitError): {
        "TOO_MANY_REQUEST_PER_SECOND EXCEEDED_LIMIT": "Too many requests: send more slowly.",
    },
    (CodeClass.RETRY, ServerError): {
        "OVERLOAD TemporaryUnAvailable": "The server refused for load: try again later.",
        "DOES_NOT_ALLOW_MULTIPLE_BATCH_PROCESSING": (
            "The batch is being processed: try again later."
        ),
    },
    (CodeClass.UNKNOWN, ServerError): {
        "INTERNAL_ERROR": "The server failed inside: try again later, or ask Revenue Monster.",
        "SYSTEM_ERROR": "The server did not finish in time: try again later.",
    },
}

ERROR_CODES: Mapping[str, CodeInfo] = _CodeTable(
    (
        CodeInfo(code, code_class, error, hint)
        for (code_class, error), hints in _HINTS.items()
        for codes, hint in hints.items()
        for code in codes.split()
    ),
    # Older pages. Doubled underscores and PascalCase twins need no row: folding finds them.
    misspelt={"VOUCHERNOTREDEMMED": "VOUCHERNOTREDEEMED"},
)
"""What is known of each error code. Looked up without regard to case and underscores."""
