"""Revenue Monster's request signature, as pure functions. No clock, no random source, no file.

The rules are RM's ("Signature Algorithm"): RSASSA-PKCS1-v1_5 with SHA-256 over a string that holds
the method, the whole URL, the nonce, the timestamp and the base64 of the body's canonical JSON.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from decimal import Decimal

from rm_voucher.jsontext import with_numbers, write_json, write_strictly

# Such a body has no part in the signature.
_EMPTY_BODIES = frozenset({b"", b"null", b"{}"})
_SCHEME = "sha256 "
_MAX_DEPTH = 32
_CONTAINERS = (dict, list, tuple)
_TIMESTAMP = re.compile(r"[0-9]{10}(\.[0-9]{1,9})?|[0-9]{13}")


def canonical_json(value: object) -> bytes:
    r"""Return a JSON value as the bytes that RM signs, which are also the bytes to send.

    Keys are sorted at every depth, there is no white space, the text is UTF-8, ``<``, ``>``, ``&``,
    U+2028 and U+2029 are written as ``\u…`` escapes, and a float as Go's encoder does: 1.0 as
    ``1``, 1e21 as ``1e+21``. Raises `TypeError` for a value that is not JSON. RM reads every number
    as a float64, so a fraction or an integer beyond 2**53 may be signed as another one: send none.
    """
    return _escaped(write_strictly(value, number=_go_number))


def with_its_numbers(value: object) -> bytes:
    """Return canonical JSON but for its floats, which are as others than Go write them: ``1.0``."""
    return _escaped(write_strictly(value))


def _escaped(text: bytes) -> bytes:
    # These can only stand inside strings, so replacing them in the whole text is safe.
    for raw, escape in _ESCAPES if text.isascii() else (*_ESCAPES, *_SEPARATORS):
        if raw in text:
            text = text.replace(raw, escape)
    return text


_ESCAPES = ((b"<", rb"\u003c"), (b">", rb"\u003e"), (b"&", rb"\u0026"))
_SEPARATORS = (("\u2028".encode(), rb"\u2028"), ("\u2029".encode(), rb"\u2029"))


def go_json(body: bytes) -> bytes:
    r"""Return the canonical JSON that RM's servers, written in Go, make of a body.

    Go reads every number as a float64, and writes it as one. The body is JSON, and not too deep.
    """
    value = with_numbers(json.loads(body, parse_int=float), _go_number)
    return _escaped(write_json(value, sort_keys=True))


def older_go_json(text: bytes) -> bytes:
    r"""Return canonical JSON as older versions of Go write it: ``\u0008`` for ``\b``."""
    return _ESCAPED.sub(lambda escape: _OLDER.get(escape[0], escape[0]), text)


def spellings(value: object, body: bytes) -> Iterator[bytes]:
    """Yield each canonical JSON that RM's servers may sign for a body, the likeliest first.

    ``value`` is the body's, not too deep.
    """
    text = canonical_json(value)
    yield text
    as_go = go_json(body)
    if as_go != text:
        yield as_go
    if has_two_spellings(text):
        yield from map(older_go_json, dict.fromkeys((text, as_go)))


def has_two_spellings(text: bytes) -> bool:
    r"""Return whether canonical JSON has a ``\b`` or ``\f``: Go's versions differ in them."""
    return any(escape in _OLDER for escape in _ESCAPED.findall(text))


_ESCAPED = re.compile(rb"\\.")
_OLDER = {rb"\b": rb"\u0008", rb"\f": rb"\u000c"}


def _go_number(number: float) -> str:
    """Return a number as Go writes a float64: the shortest digits, with an exponent if far off."""
    text = repr(number)
    if number != 0 and not 1e-6 <= abs(number) < 1e21:
        return text.replace("e-0", "e-")
    return f"{Decimal(text):f}".removesuffix(".0")


def is_too_deep(value: object, levels: int = _MAX_DEPTH) -> bool:
    """Return whether a JSON value is nested deeper than so many levels; RM's are four deep.

    A stranger's JSON must not come near the interpreter's own limit.
    """
    level = {id(value): value} if isinstance(value, _CONTAINERS) else {}
    for _ in range(levels):
        if not level:
            return False
        level = {  # each once, or a value that holds itself twice would grow without end
            id(inner): inner
            for outer in level.values()
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, _CONTAINERS)
        }
    return bool(level)


def string_to_sign(
    *, method: str, url: str | None, nonce: str, timestamp: str, body: bytes = b""
) -> str:
    """Return the text whose signature goes into ``X-Signature``.

    ``url`` is the whole URL exactly as it goes on the wire; None leaves it out, as in callbacks.
    ``body`` is the canonical JSON; one that is empty, ``null`` or ``{}`` is left out. Nothing is
    escaped. (RM's page "Signature Algorithm".)
    """
    data = "" if body in _EMPTY_BODIES else f"data={base64.b64encode(body).decode()}&"
    named = "" if url is None else f"&requestUrl={url}"
    return (
        f"{data}method={method.lower()}&nonceStr={nonce}{named}"
        f"&signType=sha256&timestamp={timestamp}"
    )


def format_signature(signature: bytes) -> str:
    """Return the value of ``X-Signature``."""
    return _SCHEME + base64.b64encode(signature).decode()


def parse_signature(text: str) -> bytes | None:
    """Return the signature in a value of ``X-Signature``, or None if there is none."""
    if not text.startswith(_SCHEME):
        return None
    try:
        return base64.b64decode(text.removeprefix(_SCHEME), validate=True)
    except (binascii.Error, ValueError):
        return None


def parse_timestamp(text: str) -> float | None:
    """Return the unix seconds in a value of ``X-Timestamp``, or None if there are none.

    RM documents whole seconds; its SDKs write fractions and milliseconds too.
    """
    if not _TIMESTAMP.fullmatch(text):
        return None
    return float(text) / 1000 if len(text) == 13 and "." not in text else float(text)
