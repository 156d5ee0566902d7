"""Deliveries as RM makes them, signed with the throw-away key of tests/vectors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import attrs
from support.answers import payload
from support.files import KEY_FILE, PUBLIC_KEY_FILE

from rm_voucher.runtime import Runtime
from rm_voucher.signing import RsaSigner, canonical_json, format_signature, string_to_sign
from rm_voucher.webhooks import CallbackVerifier

URL = "https://shop.invalid/callback?shop=1%2B1"
NOW = 1_700_000_000
NONCE = "nonce-Canary7x41"
SIGNER = RsaSigner.from_pem(KEY_FILE.read_bytes())
PUBLIC_KEY = PUBLIC_KEY_FILE.read_bytes()


@attrs.frozen
class Delivery:
    """What comes to the merchant's URL: three headers and a body.

    It unpacks into the arguments of `CallbackVerifier.verify`; `attrs.evolve` makes a forgery.
    """

    signature: str
    nonce: str
    timestamp: str
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        return {
            "Content-Type": "application/json",
            "X-Signature": self.signature,
            "X-Nonce-Str": self.nonce,
            "X-Timestamp": self.timestamp,
        }

    def __iter__(self) -> Iterator[Any]:
        return iter((self.headers, self.body))


def told(code: object = "NAklEfbVdV", **changes: Any) -> dict[str, Any]:
    """Return RM's example callback, its voucher with another code and other fields."""
    example: dict[str, Any] = payload("webhook-callback")
    return {**example, "item": {**example["item"], "code": code, **changes}}


def deliver(
    value: object = None,
    *,
    url: str | None = URL,
    nonce: str = NONCE,
    timestamp: object = NOW,
    method: str = "POST",
    body: bytes | None = None,
    signer: RsaSigner = SIGNER,
) -> Delivery:
    """Return a delivery of a JSON value, of RM's example by default; without ``url`` of the form
    that names none. ``body`` is sent in place of the value, and not signed."""
    value = told() if value is None else value
    text = string_to_sign(
        method=method,
        url=url,
        nonce=nonce,
        timestamp=str(timestamp),
        body=canonical_json(value),
    )
    return Delivery(
        signature=format_signature(signer.sign(text.encode("utf-8", "surrogatepass"))),
        nonce=nonce,
        timestamp=str(timestamp),
        body=json.dumps(value).encode() if body is None else body,
    )


def verifier(
    public_keys: Any = PUBLIC_KEY, *, now: float = NOW, url: str | None = URL, **options: Any
) -> CallbackVerifier:
    """Return a verifier that knows the key and the URL, and whose clock stands at ``now``."""
    return CallbackVerifier(public_keys, url=url, runtime=Runtime(clock=lambda: now), **options)
