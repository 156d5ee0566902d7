"""Hides codes, tokens and secrets of a request and its answer, for logs, pages and recordings.

Text of strangers is made harmless as well: it has nothing that a terminal would obey, and no half
of a surrogate pair, which JSON can't hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote

from rm_voucher.jsontext import read_json
from rm_voucher.models import mask
from rm_voucher.signing.signature import is_too_deep

# In a path, a code or one of the words follows one of these.
_CODE_FOLLOWS = frozenset({"voucher", "vouchers"})
_WORDS = frozenset({"", "expire", "issue", "redeem", "reinstate", "void", *_CODE_FOLLOWS})
_SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization", "x-signature"})
# What may be shown of a body: whatever else is in one may be a code, or tell of a person.
_PLAIN_FIELDS = frozenset(
    {
        "amount",
        "assignedAt",
        "balanceQuantity",
        "count",
        "createdAt",
        "cursor",
        "day",
        "discountRate",
        "expiredAt",
        "expiresIn",
        "grantType",
        "isDeviceRedeem",
        "isMarketPlace",
        "isShipping",
        "isStatic",
        "label",
        "limit",
        "message",
        "minimumSpendAmount",
        "origin",
        "quantity",
        "redeemedAt",
        "refreshTokenExpiresIn",
        "status",
        "storeId",
        "tokenType",
        "type",
        "updatedAt",
        "usedAt",
        "usedQuantity",
        "voucherBatchKey",
    }
)
_PLAIN_QUERY = frozenset({"countryCode", "cursor", "limit"})
_MAX_BODY_BYTES = 64 * 1024


def plain(text: str) -> str:
    """Return text in which what a terminal would obey is escaped."""
    return ascii(text)[1:-1]


def sendable(text: str) -> str:
    """Return text that JSON can hold: a header or URL may have half a surrogate pair in it."""
    return text.encode(errors="replace").decode()


def masked(text: str) -> str:
    """Return a code or a secret with all but a hint of it hidden."""
    return mask(text).strip("'") if text else ""


def mask_path(raw_path: str) -> str:
    """Return a path with its codes masked, and without its query."""
    shown = []
    is_code = False
    for part in raw_path.partition("?")[0].split("/"):
        word = unquote(part).lower()
        if "voucher/" in word or "vouchers/" in word or (is_code and word not in _WORDS):
            shown.append(masked(plain(unquote(part))))
        else:
            shown.append(plain(part))
        is_code = is_code or word in _CODE_FOLLOWS
    return "/".join(shown)


def mask_query(query: str) -> Mapping[str, str]:
    """Return the fields of a query, with what tells of a person masked."""
    return {
        sendable(name): sendable(value) if name in _PLAIN_QUERY else masked(sendable(value))
        for name, value in parse_qsl(query, keep_blank_values=True)
    }


def mask_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return headers with the secrets masked; the scheme before a secret stays."""
    return {
        sendable(name): _mask_header(value) if name.lower() in _SECRET_HEADERS else sendable(value)
        for name, value in headers.items()
    }


def _mask_header(value: str) -> str:
    scheme, space, secret = sendable(value).partition(" ")
    return f"{scheme} {masked(secret)}" if space else masked(scheme)


def mask_body(body: bytes, *, is_answer: bool) -> object:
    """Return a JSON body's value with codes and secrets masked; of another one, only its size."""
    try:
        value = read_json(body[:_MAX_BODY_BYTES]) if body else None
    except ValueError:
        return f"({len(body)} bytes)"
    return f"({len(body)} bytes)" if is_too_deep(value) else _mask(value, is_outermost=is_answer)


def _mask(value: object, *, is_plain: bool = False, is_outermost: bool = False) -> object:
    """Return a value with all hidden but what may be shown. RM's own codes are outermost."""
    if isinstance(value, dict):
        return {
            name: "…"
            if name == "debug"  # it has the path and the body
            else _mask(
                inner,
                is_plain=name in _PLAIN_FIELDS or (name == "code" and is_outermost),
                is_outermost=is_outermost and name == "error",
            )
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_mask(inner) for inner in value]
    if is_plain or value is None or isinstance(value, bool):
        return value
    return masked(value) if isinstance(value, str) else "…"
