"""Checks whether a delivery is Revenue Monster's: a pure function of its headers and raw bytes.

RM signs a callback as a client signs a request (RM's page "Signature Algorithm"): with its server
key, and the body's canonical JSON. Of ``requestUrl`` RM's pages say that it can be left out. No
I/O, and no state: the router sees repeats.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from rm_voucher.arguments import check_type
from rm_voucher.converters import prepare, structure
from rm_voucher.exceptions import CallbackError, ConfigurationError, DecodeError
from rm_voucher.jsontext import read_json
from rm_voucher.models import Voucher
from rm_voucher.redaction import hide_locals
from rm_voucher.runtime import Runtime
from rm_voucher.settings import read_pem
from rm_voucher.signing.rsa import RsaVerifier
from rm_voucher.signing.signature import (
    is_too_deep,
    parse_signature,
    parse_timestamp,
    spellings,
    string_to_sign,
)
from rm_voucher.webhooks.events import VoucherEvent
from rm_voucher.wire.strict_fields import strict_fields

Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
"""A delivery's headers. Pairs, or a multidict, keep one that came twice."""
PublicKey: TypeAlias = str | bytes | Path
"""PEM text or bytes, or the path of a PEM file."""

_SIGNATURE, _NONCE, _TIMESTAMP = "x-signature", "x-nonce-str", "x-timestamp"
_NAMES = {_SIGNATURE: "X-Signature", _NONCE: "X-Nonce-Str", _TIMESTAMP: "X-Timestamp"}
# Printable, and no "&": with one, the nonce of a delivery to another URL could hold that URL, and
# the delivery would pass as one whose signature names none.
_PLAIN_NONCE = re.compile(r"[!-%'-~]{1,128}")
_SCHEMES = ("https://", "http://")
# RM's callbacks have a handful. Tens of thousands, in 64 KiB, would block the event loop for 5 ms.
_MAX_BRACKETS = 1000
_MANY_BRACKETS = 32  # with fewer, nothing can be too deep
_LONG_BODY = 4096


class CallbackStep(enum.StrEnum):
    """The checks, in their order."""

    SIZE = "size"
    """The body is no longer than ``max_body_bytes``."""
    HEADERS = "headers"
    """The three headers are there once each, and the nonce is plain text."""
    TIMESTAMP = "timestamp"
    """``X-Timestamp`` is in unix seconds."""
    BODY = "body"
    """The body is a JSON object, neither too deep nor with too many objects and arrays in it."""
    SIGNATURE = "signature"
    """One of the server's keys made ``X-Signature``, for this delivery."""
    CLOCK = "clock"
    """``X-Timestamp`` is within the tolerance."""
    EVENT = "event"
    """The body shows a voucher with its code and status."""


class CallbackVerifier:
    """Checks deliveries. Making it parses the keys; one delivery takes less than 0.1 ms.

    Args:
        public_keys: RM's server key, from the merchant portal, as text, bytes or a `pathlib.Path`,
            each PEM or the bare base64 that the portal shows. Give several while RM changes keys:
            any of them may have signed.
        url: the public URL that RM calls, exactly as it is entered at RM. A signature that names
            another URL is refused.
        requires_url: refuse signatures that name no URL. By RM's pages its own name none, so this
            may refuse every genuine callback: set it once you have seen that yours name theirs. It
            keeps out deliveries that were meant for others.
        tolerance_s: how far RM's clock and ours may be apart, in seconds. Not documented.
        delivery_s: RM tries five times, a minute apart, and may not sign each attempt anew, which
            is not documented. So a delivery may be older by this many seconds.
        max_body_bytes: RM's callbacks have about 1,000 bytes.
        min_key_bits: the least size of a key. RM does not document the size of its own; a key of
            much fewer bits can be broken.
        runtime: its clock is compared with ``X-Timestamp``.

    Raises `ConfigurationError` for keys and settings that can't be used.
    """

    @hide_locals  # someone may have given the private key
    def __init__(
        self,
        public_keys: PublicKey | Iterable[PublicKey],
        *,
        url: str | None = None,
        requires_url: bool = False,
        tolerance_s: float = 300.0,
        delivery_s: float = 300.0,
        max_body_bytes: int = 64 * 1024,
        min_key_bits: int = 2048,
        runtime: Runtime | None = None,
    ) -> None:
        prepare()
        check_type("requires_url", requires_url, bool)
        check_type("min_key_bits", min_key_bits, int)
        check_type("runtime", runtime, Runtime, optional=True)
        if isinstance(public_keys, str | bytes) or not isinstance(public_keys, Iterable):
            public_keys = [public_keys]
        self._verifiers = [
            RsaVerifier.from_pem(read_pem(key, "public"), min_bits=min_key_bits)
            for key in public_keys
        ]
        if not self._verifiers:
            raise ConfigurationError("A public key of the server's is needed to check signatures.")
        if requires_url and url is None:
            raise ConfigurationError("requires_url needs the url that the signatures name.")
        is_usable = isinstance(url, str) and url.isprintable() and url.startswith(_SCHEMES)
        if url is not None and not is_usable:
            raise ConfigurationError(
                "url is the public URL that RM calls, as text that begins with https://."
            )
        are_numbers = type(max_body_bytes) is int and all(
            type(seconds) in (int, float) for seconds in (tolerance_s, delivery_s)
        )
        if not (are_numbers and tolerance_s >= 0 and delivery_s >= 0 and max_body_bytes > 0):
            raise ConfigurationError(
                "tolerance_s and delivery_s are seconds, 0 or more; max_body_bytes is more than 0, "
                "and whole."
            )
        self._urls = [url] if requires_url or url is None else [url, None]
        self._tolerance_s = tolerance_s
        self._delivery_s = delivery_s
        self.max_body_bytes = max_body_bytes
        self._clock = (runtime or Runtime()).clock

    @hide_locals
    def verify(self, headers: Headers, body: bytes) -> VoucherEvent:
        """Return the event of a delivery, if it is RM's (RM's page "Voucher").

        ``body`` has the bytes as they came, before anything parsed them. Raises `CallbackError`,
        whose ``step`` says which check failed. It may be called again: a repeat is no forgery.
        """
        told, at = self._authenticate(headers, body)
        if told.get("code", "SUCCESS") != "SUCCESS":
            raise CallbackError(CallbackStep.EVENT, "the body does not say SUCCESS")
        try:
            strict = strict_fields("callback")
            voucher = structure(told.get("item"), Voucher, path="$.item", strict=strict)
            return VoucherEvent.of(voucher, sent_at=datetime.fromtimestamp(at, UTC))
        except DecodeError as exc:
            raise CallbackError(CallbackStep.EVENT, f"the body shows no voucher: {exc}") from None

    @hide_locals
    def authenticate(self, headers: Headers, body: bytes) -> dict[str, Any]:
        """Return the JSON object that RM signed, with any content. Raises `CallbackError`."""
        return self._authenticate(headers, body)[0]

    def _authenticate(self, headers: Headers, body: bytes) -> tuple[dict[str, Any], float]:
        if type(body) is not bytes:
            raise CallbackError(CallbackStep.BODY, "the body must be bytes, as it came")
        if len(body) > self.max_body_bytes:
            raise CallbackError(
                CallbackStep.SIZE, f"the body has more than {self.max_body_bytes} bytes"
            )
        found = _signing_headers(headers)
        timestamp, nonce, signature = found[_TIMESTAMP], found[_NONCE], found[_SIGNATURE]
        if not _PLAIN_NONCE.fullmatch(nonce):
            raise CallbackError(
                CallbackStep.HEADERS,
                "X-Nonce-Str is not 1 to 128 printable ASCII characters without '&'",
            )
        at = parse_timestamp(timestamp)
        if at is None:
            raise CallbackError(CallbackStep.TIMESTAMP, "X-Timestamp is not in unix seconds")
        brackets = body.count(b"{") + body.count(b"[")
        if brackets > _MAX_BRACKETS:
            raise CallbackError(
                CallbackStep.BODY, f"the body has more than {_MAX_BRACKETS} brackets"
            )
        try:
            told = read_json(body)
        except ValueError:
            raise CallbackError(CallbackStep.BODY, "the body is not JSON") from None
        if not isinstance(told, dict):
            raise CallbackError(CallbackStep.BODY, "the body is not a JSON object")
        if brackets > _MANY_BRACKETS and is_too_deep(told):
            raise CallbackError(CallbackStep.BODY, "the body is nested too deep")
        # Canonical JSON and hash of a long body take up to 3 ms, the search for a key 0.03 ms.
        if len(body) > _LONG_BODY and not self._is_by_a_key(signature):
            raise CallbackError(CallbackStep.SIGNATURE, self._why(signature))
        self._check_signature(told, body, signature, nonce, timestamp)
        self._check_clock(at)
        return told, at

    def _check_signature(
        self, told: dict[str, Any], body: bytes, signature: str, nonce: str, timestamp: str
    ) -> None:
        for spelling in spellings(told, body):
            for url in self._urls:
                text = string_to_sign(
                    method="POST", url=url, nonce=nonce, timestamp=timestamp, body=spelling
                ).encode()
                if any(verifier.verify(text, signature) for verifier in self._verifiers):
                    return
            if len(body) > _LONG_BODY or not self._is_by_a_key(signature):
                break
        raise CallbackError(CallbackStep.SIGNATURE, self._why(signature))

    def _is_by_a_key(self, signature: str) -> bool:
        return any(verifier.is_by_this_key(signature) for verifier in self._verifiers)

    def _why(self, signature: str) -> str:
        if parse_signature(signature) is None:
            return "X-Signature is not the word sha256, a space, and base64"
        if self._is_by_a_key(signature):
            return (
                "X-Signature is by the server's key, but of something else: another body, nonce or "
                f"timestamp, or {self._other_url()}"
            )
        return "X-Signature is by none of the public keys"

    def _other_url(self) -> str:
        if self._urls == [None]:
            return "it names a URL, and none is set here"
        other = "another URL" if None in self._urls else "no URL or another one"
        return f"it names {other} than is set here"

    def _check_clock(self, at: float) -> None:
        late_s = self._clock() - at
        if -self._tolerance_s <= late_s <= self._tolerance_s + self._delivery_s:
            return
        way = "behind" if late_s > 0 else "ahead of"
        raise CallbackError(
            CallbackStep.CLOCK,
            f"X-Timestamp is {abs(late_s):.0f} s {way} this machine's clock: unless the delivery "
            "is an old one, the clock is wrong",
        )


def _signing_headers(headers: Headers) -> dict[str, str]:
    found: dict[str, str] = {}
    # Not `isinstance(headers, Mapping)`: the headers of http.server have items, and are no mapping.
    pairs = headers.items() if hasattr(headers, "items") else headers
    for name, value in pairs:
        if not isinstance(name, str):
            raise CallbackError(CallbackStep.HEADERS, "the headers' names must be text")
        lower = name.lower()
        if lower in _NAMES:
            if not isinstance(value, str):
                raise CallbackError(CallbackStep.HEADERS, f"{_NAMES[lower]} must be text")
            if lower in found:
                raise CallbackError(CallbackStep.HEADERS, f"{_NAMES[lower]} came twice")
            found[lower] = value
    for lower, name in _NAMES.items():
        if lower not in found:
            raise CallbackError(CallbackStep.HEADERS, f"{name} is missing")
    return found
