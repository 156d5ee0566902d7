"""What docs/api.md says of outcomes, as tables: each operation, each way in which an attempt can
end, what that proves, and what follows from it. Nothing here is computed by the package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from support.answers import ok, rm_error, voucher, voucher_item

from rm_voucher import (
    APIError,
    AuthenticationError,
    ClosedError,
    ConnectError,
    ConnectTimeoutError,
    DecodeError,
    DuplicateRequestError,
    ExpiredError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ProxyError,
    RateLimitError,
    Response,
    ResponseLostError,
    ResponseTimeoutError,
    ServerError,
    SignatureError,
    VoucherClient,
    VoucherError,
    VoucherStateError,
)
from rm_voucher.calls.outcomes import Safety


@attrs.frozen
class Operation:
    safety: str
    call: Callable[[VoucherClient], Any]
    path: str
    done: Response
    # Of a change: where it is read back, and what that shows.
    look: str = ""
    unchanged: Response | None = None
    changed: Response | None = None


def of_member(client):
    return client.member("60", "1")


LISTING = ok({"items": [], "code": "SUCCESS"})
ALL_REDEEMED = ok({"item": [voucher_item("REDEEMED")], "code": "SUCCESS"})
GET = "POST /v3/voucher/X"
USED_AT = "2026-11-20T10:00:00Z"
MEMBER = "/v3/loyalty/me/voucher/X"
OPERATIONS = {
    "get": Operation("read", lambda c: c.get("X"), GET, voucher("VOID")),
    "vouchers": Operation(
        "read", lambda c: c.vouchers("K"), "GET /v3/voucher-batch/K/vouchers", LISTING
    ),
    "batch": Operation(
        "read",
        lambda c: c.batch("K"),
        "GET /v3/voucher-batch/K",
        ok({"item": {"key": "K"}, "code": "SUCCESS"}),
    ),
    "batches": Operation("read", lambda c: c.batches(), "GET /v3/voucher-batches", LISTING),
    "member get": Operation(
        "read", lambda c: of_member(c).get("X"), f"GET {MEMBER}", voucher("REDEEMED")
    ),
    "member vouchers": Operation(
        "read", lambda c: of_member(c).vouchers(), "GET /v3/loyalty/me/vouchers", LISTING
    ),
    "request, a read": Operation(
        "read", lambda c: c.request("GET", "/v3/x", safety=Safety.READ), "GET /v3/x", ok({})
    ),
    "issue": Operation(
        "once",
        lambda c: c.issue("K"),
        "POST /v3/voucher-batch/K/issue",
        ok({"item": {"code": "X"}, "code": "SUCCESS"}),
    ),
    "request": Operation("once", lambda c: c.request("PUT", "/v3/x"), "PUT /v3/x", ok({})),
    "void": Operation(
        "change",
        lambda c: c.void("X"),
        "POST /v3/voucher/X/void",
        voucher("VOID"),
        *(GET, voucher("ISSUED"), voucher("VOID", USED_AT)),
    ),
    "reinstate": Operation(
        "change",
        lambda c: c.reinstate("X", pin="1"),
        "PATCH /v3/voucher/X/reinstate",
        voucher("REDEEMED"),
        *(GET, voucher("VOID", USED_AT), voucher("REDEEMED", USED_AT)),
    ),
    "redeem": Operation(
        "change",
        lambda c: c.redeem(["X"]),
        "POST /v3/vouchers/redeem",
        ALL_REDEEMED,
        *(GET, voucher("ISSUED"), voucher("REDEEMED")),
    ),
    "member redeem": Operation(
        "change",
        lambda c: of_member(c).redeem("X"),
        f"POST {MEMBER}/redeem",
        voucher("VOID"),
        *(f"GET {MEMBER}", voucher("REDEEMED"), voucher("VOID", USED_AT)),
    ),
}
CHANGES = [name for name, operation in OPERATIONS.items() if operation.safety == "change"]


@attrs.frozen
class End:
    """How an attempt ends, what that proves, what is raised for it, and what wait it asks for."""

    answer: Response | VoucherError
    outcome: str
    error: type[VoucherError]
    asked_s: float = 0.0
    is_2xx: bool = False


# What follows. again: after a wait; token: with a new one, the first time at once.
FOLLOWS = {
    "NOT_SENT": {"read": "again", "once": "again", "change": "again"},
    "THROTTLED": {"read": "again", "once": "again", "change": "again"},
    "TOKEN_REFUSED": {"read": "token", "once": "token", "change": "token"},
    "REFUSED": {"read": "raised", "once": "raised", "change": "raised"},
    "DUPLICATE": {"read": "again", "once": "unknown", "change": "read back"},
    "LOST": {"read": "again", "once": "unknown", "change": "read back"},
    "SERVER_FAILED": {"read": "again", "once": "unknown", "change": "read back"},
    "UNREADABLE": {"read": "again", "once": "unknown", "change": "read back"},
    "UNAUTHORIZED": {"read": "token", "once": "unknown", "change": "token, read back"},
    "UNEXPECTED": {"read": "raised", "once": "unknown", "change": "read back"},
}
SLOWLY = {"retry-after": "7"}
TOO_MANY = "TOO_MANY_REQUEST_PER_SECOND"


def bare(status: int, body: bytes = b"", **headers: str) -> Response:
    return Response(status=status, body=body, headers=headers)


def unreadable(answer: Response, error: type[VoucherError] = DecodeError) -> End:
    return End(answer, "UNREADABLE", error, is_2xx=True)


def duplicate(code: str, status: int, message: str = "") -> End:
    return End(rm_error(code, status, message), "DUPLICATE", DuplicateRequestError)


ENDS = {
    "no connection": End(ConnectError("x"), "NOT_SENT", ConnectError),
    "no connection in time": End(ConnectTimeoutError("x"), "NOT_SENT", ConnectTimeoutError),
    "closed": End(ClosedError("x"), "REFUSED", ClosedError),
    "proxy refuses": End(ProxyError("x"), "REFUSED", ProxyError),
    "lost": End(ResponseLostError("x"), "LOST", ResponseLostError),
    "timed out": End(ResponseTimeoutError("x"), "LOST", ResponseTimeoutError),
    "retry code 200": End(rm_error(TOO_MANY, 200), "THROTTLED", RateLimitError),
    "retry code 400": End(rm_error("EXCEEDED_LIMIT", 400), "THROTTLED", RateLimitError),
    "retry code 429": End(rm_error(TOO_MANY, 429), "THROTTLED", RateLimitError),
    "retry code 500": End(rm_error("OVERLOAD", 500), "THROTTLED", ServerError),
    "retry code 429, 7 s": End(
        rm_error(TOO_MANY, 429, retry_after="7"), "THROTTLED", RateLimitError, 7.0
    ),
    "retry code 503, PascalCase": End(
        rm_error("TemporaryUnAvailable", 503), "THROTTLED", ServerError
    ),
    "429": End(bare(429), "THROTTLED", RateLimitError),
    "429 html": End(bare(429, b"<html>"), "THROTTLED", RateLimitError),
    "429, 7 s": End(Response(status=429, headers=SLOWLY), "THROTTLED", RateLimitError, 7.0),
    "429, an age": End(
        Response(status=429, headers={"retry-after": "9999"}), "THROTTLED", RateLimitError, 120.0
    ),
    "unlisted 429": End(rm_error("NEW_CODE", 429), "THROTTLED", RateLimitError),
    "auth code 401": End(rm_error("TOKEN_EXPIRED", 401), "TOKEN_REFUSED", AuthenticationError),
    "auth code 200": End(rm_error("UNAUTHORIZED", 200), "TOKEN_REFUSED", AuthenticationError),
    "fix code 401": End(rm_error("INVALID_SIGNATURE", 401), "REFUSED", SignatureError),
    "fix code 500": End(rm_error("INVALID_PARAMETER", 500), "REFUSED", InvalidRequestError),
    "state code 404": End(rm_error("VOUCHER_NOT_FOUND", 404), "REFUSED", NotFoundError),
    "state code 409": End(rm_error("VOUCHER_NOT_ALLOW_VOID", 409), "REFUSED", VoucherStateError),
    "state code 500": End(rm_error("VOUCHER_BATCH_EXPIRED", 500), "REFUSED", ExpiredError),
    "state code 200": End(rm_error("VOUCHER_NOT_MERCHANT", 200), "REFUSED", PermissionDeniedError),
    "unlisted 400": End(rm_error("NEW_CODE", 400), "REFUSED", APIError),
    "unlisted 401": End(rm_error("NEW_CODE", 401), "TOKEN_REFUSED", AuthenticationError),
    "unlisted 403": End(rm_error("NEW_CODE", 403), "TOKEN_REFUSED", PermissionDeniedError),
    "duplicate 400": duplicate("DUPLICATE_REQUEST", 400),
    "duplicate 401": duplicate("DUPLICATE_REQUEST", 401),
    "duplicate 403": duplicate("RequestDuplicated", 403),
    "duplicate 409": duplicate("REQUEST_ALREADY_PROCESSED", 409),
    "duplicate 429": duplicate("REPEATED_REQUEST", 429),
    "duplicate 200": duplicate("NONCE_USED", 200),
    "duplicate, a listed code": duplicate("INVALID_REQUEST", 400, "X-Nonce-Str was used before"),
    "duplicate, a retry code": duplicate("OVERLOAD", 503, "Already been processed"),
    "duplicate, an auth code": duplicate("UNAUTHORIZED", 401, "Repeated request"),
    "unlisted 500": End(rm_error("NEW_CODE", 500), "SERVER_FAILED", ServerError),
    "unlisted 409": End(rm_error("NEW_CODE", 409), "SERVER_FAILED", APIError),
    "unlisted 301": End(rm_error("NEW_CODE", 301), "UNEXPECTED", APIError),
    "unlisted 200": End(rm_error("NEW_CODE", 200), "UNREADABLE", APIError),
    "internal 500": End(rm_error("INTERNAL_ERROR", 500), "SERVER_FAILED", ServerError),
    "internal 400": End(rm_error("SYSTEM_ERROR", 400), "SERVER_FAILED", ServerError),
    "internal 200": End(rm_error("INTERNAL_ERROR", 200), "SERVER_FAILED", ServerError),
    "500": End(bare(500), "SERVER_FAILED", ServerError),
    "502 html": End(bare(502, b"<html>Bad Gateway"), "SERVER_FAILED", ServerError),
    "success on a 500": End(
        ok({"item": voucher_item("VOID"), "code": "SUCCESS"}, 500), "UNREADABLE", DecodeError
    ),
    "an item on a 429": End(
        ok({"item": voucher_item("VOID"), "error": {"code": TOO_MANY}}, 429),
        *("UNREADABLE", DecodeError),
    ),
    "an item on a 400": End(
        ok({"item": voucher_item("VOID"), "error": {"code": "SPAM"}}, 400),
        *("UNREADABLE", DecodeError),
    ),
    "408": End(bare(408), "SERVER_FAILED", APIError),
    "409": End(bare(409), "SERVER_FAILED", APIError),
    "301": End(bare(301, location="/"), "UNEXPECTED", APIError),
    "400 html": End(bare(400, b"<html>"), "UNEXPECTED", APIError),
    "403 html": End(bare(403, b"<html>"), "UNEXPECTED", PermissionDeniedError),
    "404": End(bare(404, b"404 page not found"), "UNEXPECTED", APIError),
    "401": End(bare(401), "UNAUTHORIZED", AuthenticationError),
    "200": unreadable(bare(200)),
    "204": unreadable(bare(204)),
    "200 html": unreadable(bare(200, b"<html>")),
    "no item": unreadable(ok({"code": "SUCCESS"})),
    "a voucher of no status and no code": unreadable(
        ok({"code": "SUCCESS", "item": {"code": ""}, "items": 0})
    ),
    "an item of a wrong type": unreadable(ok({"code": "SUCCESS", "item": 5, "items": 5})),
    "items of a wrong type": unreadable(
        ok({"code": "SUCCESS", "item": {"amount": "1", "code": 5}, "items": {"amount": -1}})
    ),
    "success and an error": End(
        ok({"code": "SUCCESS", "item": {"code": "X"}, "error": {"code": "SPAM"}}),
        *("UNREADABLE", DecodeError),
    ),
}


def concerns(name: str, end: str) -> bool:
    """Return whether the end is an error to the operation."""
    if end == "404":
        return name not in ("get", "batch")  # which go on in another way
    if end == "a voucher of no status and no code":
        return name not in ("get", "member get", "request", "request, a read")
    return not (ENDS[end].is_2xx and name.startswith("request"))


def follows(name: str, end: str) -> str:
    return FOLLOWS[ENDS[end].outcome][OPERATIONS[name].safety]


CASES = [(name, end) for name in OPERATIONS for end in ENDS if concerns(name, end)]
