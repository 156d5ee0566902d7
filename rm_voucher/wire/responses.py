"""The common parts of all answers: success, a page of a listing, RM's error, or neither. No I/O."""

from __future__ import annotations

import asyncio
import codecs
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rm_voucher.converters import structure, structure_all
from rm_voucher.exceptions import (
    APIError,
    AuthenticationError,
    DecodeError,
    DuplicateRequestError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
)
from rm_voucher.jsontext import read_json
from rm_voucher.models import ErrorBody, Page
from rm_voucher.transport.base import Response
from rm_voucher.wire.error_codes import CODE_PATTERN, ERROR_CODES
from rm_voucher.wire.other_codes import area_of
from rm_voucher.wire.strict_fields import strict_fields

T = TypeVar("T")

# RM refuses a repeated nonce as a duplicate request, with a code that it does not publish. So its
# words count beside any code: as a plain refusal, they would let an issue be sent again.
_DUPLICATE = re.compile(
    r"duplicat|repeated|replay|nonce|re-?used|"
    r"already[\s_-]*(been[\s_-]*)?(process|receiv|submit|handl|execut)|"
    r"(process|receiv|submitt|handl|execut)ed[\s_-]*(already|before|twice)|idempoten",
    re.IGNORECASE,
)
_COPY = "An earlier copy of the very same request arrived."
_LOOSE = json.JSONDecoder(strict=False)
_STEP = 100  # vouchers, about 2 ms
_NO_CURSOR = (None, False, 0)


async def read_page(response: Response, cls: type[T]) -> Page[T]:
    """Return one page of a listing, read in steps, between which other tasks have their turns."""
    body = success(response)
    items = body.get("items")
    if not isinstance(items, list):
        raise DecodeError("expected a list @ $.items")
    meta = body.get("meta") or {}
    if not isinstance(meta, dict):
        raise DecodeError("expected an object @ $.meta")
    cursor, count = meta.get("cursor"), meta.get("count")
    if not isinstance(cursor, str) and cursor not in _NO_CURSOR:
        # Not kept: without it the listing would end here, and what it lacks would prove something.
        raise DecodeError("expected text @ $.meta.cursor")
    read: list[T] = []
    for begin in range(0, len(items), _STEP):
        if begin:
            await asyncio.sleep(0)
        part = items[begin : begin + _STEP]
        read += structure_all(part, cls, path="$.items", first=begin)
    return Page(
        items=tuple(read), cursor=cursor or None, count=count if type(count) is int else None
    )


def success(response: Response) -> dict[str, Any]:
    """Return the JSON object of an answer that says SUCCESS."""
    body = read_body(response)
    if body.get("code") != "SUCCESS":
        where = "SUCCESS @ $.code" if body else "a JSON object @ $"
        raise DecodeError(f"expected {where}")
    return body


def read_body(response: Response) -> dict[str, Any]:
    """Return the answer's JSON object, or an empty one. Raises the error in its body or status."""
    body = json_object(response)
    error = body.get("error")
    # An answer with both is not RM's, and either of the two may be true.
    if isinstance(error, dict) and not body.get("item") and body.get("code") != "SUCCESS":
        raise _api_error(response, error)
    if not 200 <= response.status < 300:
        if body.get("item") or body.get("code") == "SUCCESS":
            raise DecodeError(f"expected no success in an HTTP {response.status} @ $")
        raise _status_error(response)
    if error is not None:
        raise DecodeError("expected an answer without an error @ $.error")
    return body


def json_object(response: Response) -> dict[str, Any]:
    """Return the JSON object of an answer, or an empty one."""
    try:
        body = read_json(response.body.removeprefix(codecs.BOM_UTF8))
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def loose_object(response: Response) -> dict[str, Any]:
    """Return the first object in an answer that may be no JSON, or an empty one.

    A byte of another encoding in a label, or what a proxy put behind the object, hides no code.
    Such an answer proves nothing: only `json_object` decides.
    """
    text = response.body.decode(errors="surrogateescape")
    try:
        body, _ = _LOOSE.raw_decode(text, max(text.find("{"), 0))
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _api_error(response: Response, wire: dict[str, Any]) -> APIError | DecodeError:
    try:
        error = structure(wire, ErrorBody, path="$.error", strict=strict_fields("error"))
    except DecodeError as exc:
        return exc if 200 <= response.status < 300 else _status_error(response)
    if not CODE_PATTERN.fullmatch(error.code):
        return _status_error(response)
    info = ERROR_CODES.get(error.code)
    cls = info.error if info else _class_of_status(response.status)
    hint = info.hint if info else _hint_of_other(error.code)
    if _DUPLICATE.search(error.message or ""):
        cls, hint = DuplicateRequestError, _COPY
    elif _DUPLICATE.search(error.code):
        # That of a repeated nonce may be one of these, whatever RM lists it for.
        listed = area_of(error.code) is not None
        cls, hint = DuplicateRequestError, f"{hint} Or else: {_COPY}" if listed else _COPY
    return cls(
        error.code,
        error.message or "",
        response.status,
        hint,
        retry_after_s=_retry_after_s(response.headers),
    )


def _hint_of_other(code: str) -> str:
    area = area_of(code)
    if area is None:
        return "RM's lists of error codes do not have this one."
    return f"RM lists it for {area}: no voucher call is known to answer it."


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
        from email.utils import parsedate_to_datetime  # rarely, and slow to import

        try:
            until = parsedate_to_datetime(text)
            seconds = (until - parsedate_to_datetime(headers["date"])).total_seconds()
        except (KeyError, ValueError, TypeError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
