"""The common parts of all requests: one URL, one body, and the headers of one attempt. No I/O."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from urllib.parse import quote, unquote, urlencode

from yarl import URL

from rm_voucher.exceptions import InvalidRequestError
from rm_voucher.settings import Timeout
from rm_voucher.signing.signature import (
    canonical_json,
    format_signature,
    has_two_spellings,
    is_too_deep,
)
from rm_voucher.text import find_unseen
from rm_voucher.transport.base import Request

JSON = "application/json"
MAX_SINGLE_BYTES = 64 * 1024  # of an answer with one object, which is read in one step
_MAX_SEGMENT_CHARS = 512
RAW = "$&+,:=@"  # Go's net/url, but for a slash and a semicolon
_PLAIN_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._~-]{0,511}")


def with_signature(
    request: Request,
    *,
    token: str,
    nonce: str,
    timestamp: str,
    signature: bytes,
    timeout: Timeout,
) -> Request:
    """Return the request with the headers and the time-out of one attempt.

    Each attempt needs a nonce of its own; ``timestamp`` is in unix seconds.
    """
    return Request(  # as `attrs.evolve` would, in a third of the time
        operation=request.operation,
        method=request.method,
        url=request.url,
        body=request.body,
        timeout=timeout,
        max_answer_bytes=request.max_answer_bytes,
        template=request.template,
        headers={
            **request.headers,
            "Authorization": f"Bearer {token}",
            "X-Nonce-Str": nonce,
            "X-Signature": format_signature(signature),
            "X-Timestamp": timestamp,
        },
    )


def build(
    api_url: str,
    operation: str,
    method: str,
    path: str,
    part: str | None = None,
    *,
    query: Mapping[str, str | None] | None = None,
    json: object | None = None,
    is_single: bool = True,
) -> Request:
    """Return the unsigned request to a path of the API. A None in ``query`` is left out.

    ``path`` has ``{code}`` or ``{key}`` where the ``part`` belongs. ``is_single`` is whether one
    object answers it, and not a list of them.
    """
    template = path
    if part is not None:
        path = path.format(code=part, key=part)
    chosen = {name: value for name, value in (query or {}).items() if value is not None}
    if not all(isinstance(text, str) for pair in chosen.items() for text in pair):
        raise InvalidRequestError.refused("Names and values of the query must be text.")
    try:
        text = urlencode(chosen, quote_via=quote, safe="")
    except UnicodeEncodeError:
        raise InvalidRequestError.refused("The query has half a surrogate pair.") from None
    return Request(
        operation=operation,
        method=method,
        # Encoded already: yarl would turn %40 into @, and the signature would be of another URL.
        url=URL(api_url + path + (f"?{text}" if text else ""), encoded=True),
        headers={"Content-Type": JSON},
        body=b"" if json is None else json_body(json),
        max_answer_bytes=MAX_SINGLE_BYTES if is_single else None,
        template=template,
    )


def json_body(value: object) -> bytes:
    """Return the bytes to sign and to send for a JSON value."""
    if is_too_deep(value):
        raise InvalidRequestError.refused("The request is nested too deep for JSON.")
    try:
        text = canonical_json(value)
    except TypeError as exc:
        # orjson's own errors name types, not values.
        raise InvalidRequestError.refused(f"The request can't be written as JSON: {exc}.") from None
    if has_two_spellings(text):
        raise InvalidRequestError.refused(
            "The request has a backspace (U+0008) or form feed (U+000C), which RM's servers may "
            "sign in either of two ways."
        )
    return text


def segment(name: str, text: str, *, is_escaped: bool = False) -> str:
    """Return a code or key as one path segment that no server can read as another path.

    The characters that Go leaves raw in a path are raw, unless ``is_escaped``.
    """

    def refused(reason: str) -> InvalidRequestError:
        return InvalidRequestError.refused(f"{name} {reason}.")

    if not isinstance(text, str):
        raise refused(f"must be text, not {type(text).__name__}")
    if _PLAIN_SEGMENT.fullmatch(text):  # nothing below would find or change anything
        return text
    if not text:
        raise refused("is empty")
    if len(text) > _MAX_SEGMENT_CHARS:
        raise refused(f"is longer than {_MAX_SEGMENT_CHARS} characters")
    if text != text.strip():
        raise refused("has white space at an end")
    if unseen := find_unseen(text):  # where, but not what: it stands in a code
        raise refused(f"has {unseen}, a character that can't be seen")
    # Decoded, because a gateway may decode once more than the server that splits the path.
    decoded = unquote(unquote(text))
    if has_control(decoded):
        raise refused("has a control character once it is decoded")
    folded = fold(decoded)
    if "/" in folded or "\\" in folded:
        raise refused("has a slash")
    if ";" in folded:
        raise refused("has a semicolon, at which some gateways cut a path: it would name another")
    if climbs(folded):
        raise refused("is only dots")
    return quote(text, safe="" if is_escaped else RAW)


def fold(text: str) -> str:
    """Return the text with look-alikes folded, as a server may before it splits the path.

    U+FF0E is a full stop to some.
    """
    return unicodedata.normalize("NFKC", text)


def has_control(text: str) -> bool:
    """Return whether there is a control character or half a surrogate pair."""
    return any(unicodedata.category(char) in ("Cc", "Cs") for char in text)


def climbs(part: str) -> bool:
    """Return whether a server may take a part of a path for empty, ``.`` or ``..``.

    Some servers cut off a semicolon and the text behind it.
    """
    return re.fullmatch(r"\.*(;.*)?", part) is not None
