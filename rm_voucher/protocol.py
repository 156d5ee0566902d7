"""The API's operations without I/O: ``build_…`` gives a request, ``parse_…`` reads its answer.

Facts about the API stand here and in `converters`, each with the page it comes from. Nothing here
knows a clock, a token or a socket; `sign_request` is given all of them.
"""

from __future__ import annotations

import base64
import math
import unicodedata
from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote

import attrs
import orjson
from yarl import URL

from rm_voucher.converters import format_time, structure
from rm_voucher.error_codes import CODE_PATTERN, ERROR_CODES
from rm_voucher.exceptions import (
    APIError,
    AuthenticationError,
    DecodeError,
    InvalidRequestError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
)
from rm_voucher.models import (
    ErrorBody,
    IssuedVoucher,
    Page,
    Token,
    Voucher,
    VoucherBatch,
    VoucherStatus,
)
from rm_voucher.settings import Credentials, Environment
from rm_voucher.signing import Signer, canonical_json, format_signature, string_to_sign
from rm_voucher.transport.base import Request, Response

__all__ = [
    "build_batches",
    "build_get",
    "build_issue",
    "build_refresh",
    "build_token",
    "build_void",
    "build_vouchers",
    "is_wrong_method",
    "parse_batches",
    "parse_get",
    "parse_issue",
    "parse_token",
    "parse_void",
    "parse_vouchers",
    "sign_request",
]

T = TypeVar("T")

_JSON = "application/json"
_MAX_SEGMENT_CHARS = 512
_WRONG_METHOD_CODES = frozenset(
    {"INVALID_HTTP_METHOD", "METHOD_NOT_ALLOWED", "NO_METHOD", "API_ENDPOINT_NOT_FOUND"}
)


def sign_request(
    request: Request, *, signer: Signer, token: str, nonce: str, timestamp: int
) -> Request:
    """Return the request with the headers of one attempt (RM's page "Signature Algorithm").

    Each attempt needs a nonce and timestamp (unix seconds) of its own.
    """
    text = string_to_sign(
        method=request.method,
        url=str(request.url),
        nonce=nonce,
        timestamp=str(timestamp),
        body=request.body,
    )
    return attrs.evolve(
        request,
        headers={
            **request.headers,
            "Authorization": f"Bearer {token}",
            "X-Nonce-Str": nonce,
            "X-Signature": format_signature(signer.sign(text.encode())),
            "X-Timestamp": str(timestamp),
        },
    )


def build_issue(environment: Environment, batch_key: str) -> Request:
    """Build *Issue Voucher*."""
    path = f"/v3/voucher-batch/{_segment('batch_key', batch_key)}/issue"
    return _build(environment, "issue", "POST", path, json={})


def build_get(environment: Environment, code: str, *, method: str = "POST") -> Request:
    """Build *Get Voucher By Code*.

    The page says POST with ``{}``, every SDK of RM's sends GET without a body.
    """
    path = f"/v3/voucher/{_segment('code', code)}"
    return _build(environment, "get", method, path, json=None if method == "GET" else {})


def build_void(
    environment: Environment,
    code: str,
    *,
    store_id: str | None = None,
    used_at: datetime | None = None,
) -> Request:
    """Build *Void Voucher*. ``usedAt`` is on no page; RM's Go SDK sends it."""
    path = f"/v3/voucher/{_segment('code', code)}/void"
    body: dict[str, str] = {}
    if store_id is not None:
        if not isinstance(store_id, str) or not store_id:
            raise InvalidRequestError.refused("store_id must be text, and not empty.")
        body["storeId"] = store_id
    if used_at is not None:
        if not isinstance(used_at, datetime) or used_at.tzinfo is None:
            raise InvalidRequestError.refused("used_at must be a datetime with a time zone.")
        try:
            body["usedAt"] = format_time(used_at)
        except OverflowError:
            raise InvalidRequestError.refused("used_at is in no year of UTC.") from None
    return _build(environment, "void", "POST", path, json=body)


def build_vouchers(
    environment: Environment, batch_key: str, *, cursor: str | None = None
) -> Request:
    """Build *Get Voucher Batch By Key*: the vouchers of a batch, a page."""
    path = f"/v3/voucher-batch/{_segment('batch_key', batch_key)}/vouchers"
    return _build(environment, "vouchers", "GET", path, query={"cursor": cursor})


def build_batches(
    environment: Environment,
    *,
    status: str | None = None,
    is_static: bool | None = None,
    cursor: str | None = None,
) -> Request:
    """Build *Get Voucher Batches*. The filter is a JSON object in the query, as RM's SDKs send."""
    wanted = {"status": status, "isStatic": is_static}
    chosen = {name: value for name, value in wanted.items() if value is not None}
    return _build(
        environment,
        "batches",
        "GET",
        "/v3/voucher-batches",
        query={"filter": _json_body(chosen).decode() if chosen else None, "cursor": cursor},
    )


def build_token(environment: Environment, credentials: Credentials) -> Request:
    """Build *Client Credentials*: the first token. It is not signed."""
    return _build_token(environment, credentials, {"grantType": "client_credentials"})


def build_refresh(
    environment: Environment, credentials: Credentials, refresh_token: str
) -> Request:
    """Build *Refresh Token*. The answer has a new refresh token: the old one is spent."""
    body = {"grantType": "refresh_token", "refreshToken": refresh_token}
    return _build_token(environment, credentials, body)


def _build_token(
    environment: Environment, credentials: Credentials, body: Mapping[str, str]
) -> Request:
    identity = f"{credentials.client_id}:{credentials.client_secret}".encode()
    return Request(
        operation="token",
        method="POST",
        url=URL(environment.oauth_url + "/v1/token", encoded=True),
        headers={
            "Authorization": f"Basic {base64.b64encode(identity).decode()}",
            "Content-Type": _JSON,
        },
        body=canonical_json(body),
    )


def _build(
    environment: Environment,
    operation: str,
    method: str,
    path: str,
    *,
    query: Mapping[str, str | None] | None = None,
    json: object | None = None,
) -> Request:
    chosen = {name: value for name, value in (query or {}).items() if value is not None}
    try:
        pairs = [f"{name}={quote(value, safe='')}" for name, value in chosen.items()]
    except (UnicodeEncodeError, TypeError):
        raise InvalidRequestError.refused("A filter or cursor must be text.") from None
    text = "&".join(pairs)
    return Request(
        operation=operation,
        method=method,
        # As it stands: yarl would turn %40 into @, and the signature would be of another URL.
        url=URL(environment.api_url + path + (f"?{text}" if text else ""), encoded=True),
        headers={"Content-Type": _JSON},
        body=b"" if json is None else _json_body(json),
    )


def _json_body(value: object) -> bytes:
    try:
        return canonical_json(value)
    except TypeError as exc:
        # orjson's own errors name types, not values.
        raise InvalidRequestError.refused(f"The request can't be written as JSON: {exc}.") from None


def _segment(name: str, text: str) -> str:
    """Return a code or key as one path segment that no server can read as another path."""

    def refused(reason: str) -> InvalidRequestError:
        return InvalidRequestError.refused(f"{name} {reason}.")

    if not isinstance(text, str):
        raise refused(f"must be text, not {type(text).__name__}")
    if not text:
        raise refused("is empty")
    if len(text) > _MAX_SEGMENT_CHARS:
        raise refused(f"is longer than {_MAX_SEGMENT_CHARS} characters")
    if text != text.strip():
        raise refused("has white space at an end")
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
        raise refused("has a control character or half a surrogate pair")
    # A server may fold look-alikes (U+FF0E is a full stop to some) before it splits the path.
    folded = unicodedata.normalize("NFKC", text)
    if "/" in folded or "\\" in folded:
        raise refused("has a slash")
    if not folded.strip("."):
        raise refused("is only dots")
    return quote(text, safe="")


def parse_issue(response: Response) -> IssuedVoucher:
    """Read the answer to `build_issue`. Raises `APIError` or `DecodeError`, as all parsers do."""
    return structure(_success(response).get("item"), IssuedVoucher, path="$.item")


def parse_get(response: Response) -> Voucher:
    """Read the answer to `build_get`."""
    return structure(_success(response).get("item"), Voucher, path="$.item")


def parse_void(response: Response, code: str) -> Voucher:
    """Read the answer to `build_void`: the voucher that was asked for, and it is void."""
    voucher = parse_get(response)
    if voucher.status is not VoucherStatus.VOID:
        raise DecodeError("expected VOID @ $.item.status")
    # Whether codes are case-sensitive is not documented.
    if voucher.code is not None and voucher.code.casefold() != code.casefold():
        raise DecodeError("expected the code that was asked for @ $.item.code")
    return voucher


def parse_vouchers(response: Response) -> Page[Voucher]:
    """Read the answer to `build_vouchers`."""
    return _page(response, Voucher)


def parse_batches(response: Response) -> Page[VoucherBatch]:
    """Read the answer to `build_batches`."""
    return _page(response, VoucherBatch)


def parse_token(response: Response) -> Token:
    """Read the answer to `build_token` or `build_refresh`. It carries no ``code``."""
    token = structure(_body(response), Token)
    if not token.access_token.isascii() or not token.access_token.isprintable():
        raise DecodeError("expected a token that fits a header @ $.accessToken")
    return token


def is_wrong_method(error: APIError) -> bool:
    """Return whether *get by code* was sent with the method that this server does not want."""
    if error.code:
        info = ERROR_CODES.get(error.code)
        return info is not None and info.code in _WRONG_METHOD_CODES
    return error.http_status in (404, 405)


def _page(response: Response, cls: type[T]) -> Page[T]:
    body = _success(response)
    items = body.get("items")
    if not isinstance(items, list):
        raise DecodeError("expected a list @ $.items")
    meta = body.get("meta") or {}
    if not isinstance(meta, dict):
        raise DecodeError("expected an object @ $.meta")
    cursor, count = meta.get("cursor"), meta.get("count")
    if not isinstance(cursor, str | None):
        raise DecodeError("expected text @ $.meta.cursor")
    return Page(
        items=tuple(
            structure(item, cls, path=f"$.items[{index}]") for index, item in enumerate(items)
        ),
        cursor=cursor or None,
        count=count if type(count) is int else None,
    )


def _success(response: Response) -> dict[str, Any]:
    body = _body(response)
    if body.get("code") != "SUCCESS":
        raise DecodeError("expected SUCCESS @ $.code")
    return body


def _body(response: Response) -> dict[str, Any]:
    """Return the answer's JSON object, or raise what it says went wrong."""
    try:
        body: dict[str, Any] = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    error = body.get("error")
    # An answer that claims both is not RM's: which of the two to believe is unknown.
    if isinstance(error, dict) and not body.get("item") and body.get("code") != "SUCCESS":
        raise _api_error(response, error)
    if not 200 <= response.status < 300:
        raise _status_error(response)
    if not body or error is not None:
        raise DecodeError("expected a JSON object without an error @ $")
    return body


def _api_error(response: Response, wire: dict[str, Any]) -> APIError | DecodeError:
    try:
        error = structure(wire, ErrorBody, path="$.error")
    except DecodeError as exc:
        return exc if 200 <= response.status < 300 else _status_error(response)
    if not CODE_PATTERN.fullmatch(error.code):
        return _status_error(response)
    info = ERROR_CODES.get(error.code)
    cls = info.error if info else _class_of_status(response.status)
    return cls(
        error.code,
        error.message or "",
        response.status,
        info.hint if info else "RM's list of error codes does not have this one.",
        retry_after_s=_retry_after_s(response.headers),
    )


def _status_error(response: Response) -> APIError:
    return _class_of_status(response.status)(
        http_status=response.status,
        hint="A gateway or another server may have answered in RM's place.",
        retry_after_s=_retry_after_s(response.headers),
    )


def _class_of_status(status: int) -> Callable[..., APIError]:
    if status >= 500:
        return ServerError
    return _STATUS_ERRORS.get(status, APIError)


_STATUS_ERRORS: dict[int, type[APIError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    429: RateLimitError,
}


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the wait that ``Retry-After`` asks for: seconds, or a date by the server's clock."""
    text = headers.get("retry-after")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            until = parsedate_to_datetime(text)
            seconds = (until - parsedate_to_datetime(headers["date"])).total_seconds()
        except (KeyError, ValueError, TypeError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
