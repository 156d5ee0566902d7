"""Requests to the emulator as any client could send them, well signed unless a test wants not."""

from __future__ import annotations

import base64
import secrets
from typing import Any

import attrs
import orjson
from support.doubles import FakeTime
from support.files import KEY_FILE, PUBLIC_KEY_FILE
from support.signed_attempts import signed_attempt
from yarl import URL

from rm_voucher import Credentials, Request
from rm_voucher.emulator import Emulator
from rm_voucher.signing import RsaSigner, Signer

ME = Credentials("client-id", "client-secret", KEY_FILE.read_bytes())
SIGNER = RsaSigner.from_pem(KEY_FILE.read_bytes())
FIRST_TOKEN = {"grantType": "client_credentials"}
WHO = "?countryCode=60&phoneNumber=1"
# Each operation's request to a `stocked` emulator: the path's methods, the target, the body.
ROUTES = {
    "issue": ({"POST"}, "/v3/voucher-batch/K/issue", b"{}"),
    "get": ({"POST", "GET"}, "/v3/voucher/A", b""),
    "void": ({"POST"}, "/v3/voucher/A/void", b"{}"),
    "vouchers": ({"GET"}, "/v3/voucher-batch/K/vouchers", b""),
    "batch": ({"GET"}, "/v3/voucher-batch/K", b""),
    "batches": ({"GET"}, "/v3/voucher-batches", b""),
    "reinstate": ({"PATCH"}, "/v3/voucher/C/reinstate", b'{"pin":"123456","reason":"r"}'),
    "redeem": ({"POST"}, "/v3/vouchers/redeem", b'{"codes":["A","D"]}'),
    "member vouchers": ({"GET"}, "/v3/loyalty/me/vouchers" + WHO, b""),
    "member get": ({"GET"}, "/v3/loyalty/me/voucher/B" + WHO, b""),
    "member redeem": ({"POST"}, "/v3/loyalty/me/voucher/B/redeem" + WHO, b""),
    "token": ({"POST"}, "/v1/token", b"{}"),
}

# What requests are answered with: status and code.
GOOD = (200, "SUCCESS")
BAD_PARAMETER = (400, "INVALID_PARAMETER")
BAD_REQUEST = (400, "INVALID_REQUEST")
INCOMPLETE = (400, "VALIDATION_ERROR")
UNSIGNED = (401, "INVALID_REQUEST_SIGNATURE")
LATE = (401, "INVALID_TIMESTAMP")
NO_NONCE = (400, "INVALID_REQUEST")
REPLAYED = (400, "DUPLICATE_REQUEST")
UNKNOWN_TOKEN = (401, "TOKEN_INVALID")
# A request that everybody may send.
BATCHES = ("GET", "/v3/voucher-batches")


def known(**options: Any) -> Emulator:
    """Return an emulator that knows this client; to be given its public key takes less time."""
    return Emulator(seed=1, credentials=ME, public_key=PUBLIC_KEY_FILE.read_bytes(), **options)


def send(emulator: Emulator, request: Request) -> tuple[int, str]:
    """Return the answer's status and its code, which a token's answer has none of."""
    answer = emulator.handle(request)
    wire = orjson.loads(answer.body)
    return answer.status, wire.get("error", wire).get("code", "")


def request_to(method: str, target: str, body: bytes = b"", **headers: str) -> Request:
    """Return a request with just these headers; a name's underscores are dashes."""
    return Request(
        operation="raw",
        method=method,
        url=URL("https://emulator.invalid" + target, encoded=True),
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        body=body,
    )


def token_asking(body: object, *, secret: str = "client-secret") -> Request:
    """Return a request for a token."""
    identity = base64.b64encode(f"client-id:{secret}".encode()).decode()
    return request_to("POST", "/v1/token", orjson.dumps(body), Authorization=f"Basic {identity}")


def token_request(emulator: Emulator, body: object) -> Any:
    """Return the JSON of the answer to a request for a token."""
    return orjson.loads(emulator.handle(token_asking(body)).body)


def access_token(emulator: Emulator) -> str:
    """Return a new access token."""
    return str(token_request(emulator, FIRST_TOKEN)["accessToken"])


def prepared(
    emulator: Emulator,
    method: str,
    target: str,
    body: bytes = b"",
    *,
    token: str | None = None,
    nonce: str | None = None,
    timestamp: Any = None,
    signer: Signer = SIGNER,
) -> Request:
    """Return a request that is signed as it stands, with a token of its own unless one is given."""
    return signed_attempt(
        request_to(method, target, body),
        signer=signer,
        token=access_token(emulator) if token is None else token,
        nonce=secrets.token_hex(16) if nonce is None else nonce,
        timestamp=int(emulator.runtime.clock()) if timestamp is None else timestamp,
    )


def signed(
    emulator: Emulator, method: str, target: str, body: bytes = b"", **parts: Any
) -> tuple[int, str]:
    """Send such a request, and return the answer's status and code."""
    return send(emulator, prepared(emulator, method, target, body, **parts))


def with_header(request: Request, name: str, value: str | None) -> Request:
    """Return the request with a header changed after it was signed, or left out."""
    headers = {**request.headers, name: value}
    return attrs.evolve(
        request, headers={name: text for name, text in headers.items() if text is not None}
    )


def stocked(**options: Any) -> Emulator:
    """Return an emulator with a batch K of uploaded codes, at a time that stands still.

    A is issued, B is the member's, C is void, D and E are in stock.
    """
    emulator = known(**{"clock": FakeTime().clock, **options})
    emulator.add_batch("x", key="K", codes=list("ABCDE"))
    member = emulator.add_member("60", "1")
    emulator.state.issue("K")
    emulator.state.issue("K")
    emulator.state.collect("B", member)
    emulator.state.void(emulator.state.issue("K")[0])
    return emulator
