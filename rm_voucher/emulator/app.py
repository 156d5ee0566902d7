"""The emulator's engine: a request in, a response out; tokens, signatures, routes, RM's errors.

The same engine answers behind `MemoryTransport` and behind the HTTP server. The HTTP status that
goes with each error code is not documented by RM: the ones here are a guess, and the client goes
by the code.
"""

from __future__ import annotations

import base64
import binascii
import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

import orjson

from rm_voucher.client import VoucherClient
from rm_voucher.converters import parse_time, unstructure
from rm_voucher.emulator.state import RefusedError, VoucherState
from rm_voucher.error_codes import ERROR_CODES
from rm_voucher.exceptions import (
    AuthenticationError,
    ConfigurationError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    SignatureError,
)
from rm_voucher.models import IssuedVoucher, Token, Voucher, VoucherBatch
from rm_voucher.settings import Credentials, Environment
from rm_voucher.signing import RsaSigner, RsaVerifier, canonical_json, string_to_sign
from rm_voucher.transport.base import Request, Response
from rm_voucher.transport.memory import MemoryTransport

if TYPE_CHECKING:
    from rm_voucher.emulator.server import Server

__all__ = ["Emulator"]

_URL = "https://emulator.invalid"
_ZERO_TIME = "0001-01-01T00:00:00Z"
_TIMES = ("assignedAt", "redeemedAt", "usedAt")
_NULLS = (
    "redemptionRuleKey",
    "redemptionRule",
    "memberProfile",
    "payload",
    "address",
    "voucherComboKey",
)
_STATUS_OF_CODE = {"METHOD_NOT_ALLOWED": 405, "API_ENDPOINT_NOT_FOUND": 404}
_STATUS_OF_ERROR = {
    AuthenticationError: 401,
    SignatureError: 401,
    PermissionDeniedError: 403,
    NotFoundError: 404,
    RateLimitError: 429,
    ServerError: 500,
}


class Emulator:
    """A voucher server with one merchant, for tests and for development without an account.

    Without ``credentials`` and ``public_key`` it makes a pair of its own, in `credentials`. With
    only ``public_key`` (PEM) it verifies a client whose private key it never sees. The same
    ``seed`` gives the same codes; tokens and keys are always random.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        credentials: Credentials | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        public_key: bytes | None = None,
        token_lifetime_s: int = 2_591_999,
        page_size: int = 100,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.environment = Environment.at(_URL)
        """Where a client in this process finds it; over HTTP see `serve`."""
        client_id = client_id or f"emulator-{secrets.token_hex(6)}"
        client_secret = client_secret or secrets.token_urlsafe(24)
        if public_key is None:
            credentials = credentials or Credentials(client_id, client_secret, _new_private_key())
            public_key = RsaSigner.from_pem(credentials.private_key_pem()).public_key_pem()
        if credentials is not None:
            client_id, client_secret = credentials.client_id, credentials.client_secret
        self.credentials = credentials
        """What a client needs, or None when only a public key was given."""
        self.client_id = client_id
        self.client_secret = client_secret
        identity = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
        self._authorization = f"Basic {identity}".encode()
        self._verifier = RsaVerifier.from_pem(public_key)
        self._clock = clock
        self._token_lifetime_s = token_lifetime_s
        self._page_size = page_size
        # Until when each is good, in unix seconds.
        self._tokens: dict[str, float] = {}
        self._refresh_tokens: dict[str, float] = {}
        self.state = VoucherState(clock=clock, rng=random.Random(seed), qr_base=f"{_URL}/qr/1")  # noqa: S311 - these codes are worth nothing

    def add_batch(self, label: str, *, quantity: int, **options: Any) -> VoucherBatch:
        """Make a batch; see `VoucherState.add_batch` for the options."""
        return self.state.add_batch(label, quantity=quantity, **options)

    def client(self, **options: Any) -> VoucherClient:
        """Return a client of this emulator, in this process. ``options`` go to `VoucherClient`."""
        if self.credentials is None:
            raise ConfigurationError("The emulator has only the client's public key.")
        options = {"clock": self._clock, "transport": MemoryTransport(self.handle), **options}
        return VoucherClient(self.credentials, environment=self.environment, **options)

    def serve(
        self, *, host: str = "127.0.0.1", port: int = 0
    ) -> AbstractAsyncContextManager[Server]:
        """Serve it over HTTP: ``async with emulator.serve() as server: server.url``."""
        from rm_voucher.emulator.server import serve

        return serve(self, host=host, port=port)

    def handle(self, request: Request) -> Response:
        """Answer one request, as RM's servers would."""
        try:
            body = self._answer(request)
        except RefusedError as exc:
            default = _STATUS_OF_ERROR.get(ERROR_CODES[exc.code].error, 400)
            message = exc.code.replace("_", " ").capitalize()
            return Response(
                status=_STATUS_OF_CODE.get(exc.code, default),
                headers={"content-type": "application/json"},
                body=orjson.dumps({"error": {"code": exc.code, "message": message}}),
            )
        return Response(
            status=200,
            headers={"content-type": "application/json"},
            body=orjson.dumps(body),
        )

    def _answer(self, request: Request) -> dict[str, Any]:
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            path = [unquote(part, errors="strict") for part in request.url.raw_path.split("/")[1:]]
            body = orjson.loads(request.body) if request.body else None
            canonical = canonical_json(body)
        except (UnicodeDecodeError, orjson.JSONDecodeError, TypeError):
            raise RefusedError("INVALID_REQUEST") from None
        if path == ["v1", "token"]:
            _only(request, "POST")
            return self._grant(headers, body)
        self._check_token(headers)
        self._check_signature(request, headers, canonical)
        return self._route(request, path, body)

    def _grant(self, headers: Mapping[str, str], body: object) -> dict[str, Any]:
        given = headers.get("authorization", "").encode(errors="replace")
        if not secrets.compare_digest(given, self._authorization):
            raise RefusedError("INVALID_CLIENT")
        match body:
            case {"grantType": "client_credentials"}:
                pass
            case {"grantType": "refresh_token", "refreshToken": str(spent)}:
                # A rotation: the old one is used up, whether or not the answer arrives.
                if self._refresh_tokens.pop(spent, 0.0) <= self._clock():
                    raise RefusedError("InvalidGrant")
            case _:
                raise RefusedError("GRANT_TYPE_INVALID")
        now = self._clock()
        access, refresh = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self._tokens[access] = now + self._token_lifetime_s
        self._refresh_tokens[refresh] = now + self._token_lifetime_s * 10
        token = Token(
            access_token=access,
            token_type="Bearer",  # noqa: S106 - the scheme's name
            expires_in_s=self._token_lifetime_s,
            refresh_token=refresh,
            refresh_expires_in_s=self._token_lifetime_s * 10,
        )
        return unstructure(token)

    def revoke_tokens(self) -> None:
        """Stop accepting every access token handed out so far. Refresh tokens live on."""
        self._tokens.clear()

    def _check_token(self, headers: Mapping[str, str]) -> None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        until = self._tokens.get(token)
        if scheme != "Bearer" or until is None:
            raise RefusedError("TOKEN_INVALID")
        if until <= self._clock():
            raise RefusedError("TOKEN_EXPIRED")

    def _check_signature(
        self, request: Request, headers: Mapping[str, str], canonical: bytes
    ) -> None:
        text = string_to_sign(
            method=request.method,
            url=str(request.url),
            nonce=headers.get("x-nonce-str", ""),
            timestamp=headers.get("x-timestamp", ""),
            body=canonical,
        )
        if not self._verifier.verify(text.encode(errors="replace"), headers.get("x-signature", "")):
            raise RefusedError("INVALID_REQUEST_SIGNATURE")

    def _route(self, request: Request, path: list[str], body: object) -> dict[str, Any]:
        query = dict(parse_qsl(request.url.raw_query_string, keep_blank_values=True))
        match path:
            case ["v3", "voucher-batch", key, "issue"]:
                _only(request, "POST")
                code, qr_url = self.state.issue(key)
                return _item(unstructure(IssuedVoucher(code=code, qr_url=qr_url)))
            case ["v3", "voucher", code]:
                _only(request, "POST", "GET")
                return _item(_wire(self.state.get(code)))
            case ["v3", "voucher", code, "void"]:
                _only(request, "POST")
                return _item(_wire(self.state.void(code, used_at=_used_at(body))))
            case ["v3", "voucher-batch", key, "vouchers"]:
                _only(request, "GET")
                start = _start(query)
                found = self.state.vouchers(key, start=start, size=self._page_size + 1)
                return self._page([_wire(voucher) for voucher in found], start)
            case ["v3", "voucher-batches"]:
                _only(request, "GET")
                start = _start(query)
                matching = self.state.batches(**_batch_filter(query))
                found_batches = matching[start : start + self._page_size + 1]
                return self._page([unstructure(batch) for batch in found_batches], start)
            case _:
                raise RefusedError("API_ENDPOINT_NOT_FOUND")

    def _page(self, found: Sequence[Mapping[str, Any]], start: int) -> dict[str, Any]:
        """Return a page. ``found`` has one item more than fits when there is another page."""
        items = found[: self._page_size]
        meta: dict[str, Any] = {"count": len(items)}
        if len(found) > self._page_size:
            meta["cursor"] = _cursor(start + self._page_size)
        return {"items": items, "meta": meta, "code": "SUCCESS"}


def _only(request: Request, *methods: str) -> None:
    if request.method not in methods:
        raise RefusedError("METHOD_NOT_ALLOWED")


def _item(wire: Mapping[str, Any]) -> dict[str, Any]:
    return {"item": wire, "code": "SUCCESS"}


def _wire(voucher: Voucher) -> dict[str, Any]:
    """Return a voucher as RM writes it: nulls and Go's zero time instead of missing fields."""
    return {**dict.fromkeys(_NULLS), **dict.fromkeys(_TIMES, _ZERO_TIME), **unstructure(voucher)}


def _used_at(body: object) -> Any:
    match body:
        case {"usedAt": str(text)}:
            try:
                return parse_time(text)
            except ValueError:
                raise RefusedError("INVALID_PARAMETER") from None
        case {"usedAt": _}:
            raise RefusedError("INVALID_PARAMETER")
        case _:
            return None


def _batch_filter(query: Mapping[str, str]) -> dict[str, Any]:
    try:
        wanted = orjson.loads(query.get("filter", "{}"))
    except orjson.JSONDecodeError:
        raise RefusedError("INVALID_PARAMETER") from None
    if not isinstance(wanted, dict):
        raise RefusedError("INVALID_PARAMETER")
    return {"status": wanted.get("status"), "is_static": wanted.get("isStatic")}


def _cursor(start: int) -> str:
    return base64.urlsafe_b64encode(f"from {start}".encode()).decode()


def _start(query: Mapping[str, str]) -> int:
    cursor = query.get("cursor")
    if not cursor:
        return 0
    try:
        word, number = base64.urlsafe_b64decode(cursor).decode().split(" ")
        start = int(number)
    except (binascii.Error, ValueError):
        raise RefusedError("INVALID_PARAMETER") from None
    if word != "from" or start < 0:
        raise RefusedError("INVALID_PARAMETER")
    return start


def _new_private_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
