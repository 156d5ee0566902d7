"""Authentication: tokens, signatures, timestamps and nonces. Each check can be disabled."""

from __future__ import annotations

import base64
import secrets
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import quote, unquote

import attrs
from yarl import URL

from rm_voucher.converters import unstructure
from rm_voucher.emulator.guesses import Check, Guesses, SignedPath
from rm_voucher.emulator.masking import masked, sendable
from rm_voucher.emulator.stock import RefusedError
from rm_voucher.models import Token
from rm_voucher.signing.rsa import RsaVerifier
from rm_voucher.signing.signature import (
    older_go_json,
    parse_signature,
    parse_timestamp,
    string_to_sign,
)
from rm_voucher.transport.base import Request
from rm_voucher.wire.requests import RAW

V = TypeVar("V")

_MAX_NONCE_CHARS = 128
_MAX_TOKENS = 10_000
_SHOWN_TOKENS = 20
_REFRESH_LIFETIME_S = 1_576_799_999  # 50 years, as in RM's example
# RM's page "Signature Algorithm": a timestamp may be so far off, and a nonce is unique for as long.
_WINDOW_S = 120.0
_MAX_NONCES = 250_000  # in the window: at 2,000 requests a second, or while the clock stands still


class SignatureRefusedError(RefusedError):
    """The signature does not match; ``expected`` is the text that should have been signed."""

    def __init__(self, expected: str, reason: str) -> None:
        super().__init__("INVALID_REQUEST_SIGNATURE", reason)
        self.expected = expected


@attrs.define(eq=False, repr=False, kw_only=True)
class Authenticator:
    """Grants tokens and checks requests.

    A token begins with the number of its merchant, which `merchant_of` reads.
    ``clock`` is for tokens. ``wire_clock`` is for timestamps: it is never set ahead, because the
    clients' clocks are not either.
    """

    _merchant: int
    _client_id: str
    _client_secret: str
    _verifier: RsaVerifier
    token_lifetime_s: int
    _guesses: Guesses
    _disabled: Collection[Check]
    _clock: Callable[[], float]
    _wire_clock: Callable[[], float]
    # The end of each token in unix seconds, the oldest token first.
    _tokens: OrderedDict[str, float] = attrs.field(factory=OrderedDict, init=False)
    _refresh_tokens: OrderedDict[str, float] = attrs.field(factory=OrderedDict, init=False)
    _revoked: OrderedDict[str, str] = attrs.field(factory=OrderedDict, init=False)
    # When each nonce was used, by the wire's clock, the oldest first.
    _nonces: OrderedDict[str, float] = attrs.field(factory=OrderedDict, init=False)

    def grant(self, headers: Mapping[str, str], body: object) -> dict[str, Any]:
        """Return a new token, for the client's credentials or for a refresh token."""
        given = headers.get("authorization", "").encode(errors="replace")
        identity = base64.b64encode(f"{self._client_id}:{self._client_secret}".encode())
        if not secrets.compare_digest(given, b"Basic " + identity) and self._checks(Check.CLIENT):
            raise RefusedError("INVALID_CLIENT")
        match body:
            case {"grantType": "client_credentials"}:
                pass
            case {"grantType": "refresh_token", "refreshToken": str(spent)}:
                until = self._refresh_tokens.get(spent, 0.0)
                if self._checks(Check.ROTATION):
                    # It is spent whether or not the answer arrives.
                    self._refresh_tokens.pop(spent, None)
                if until <= self._clock():
                    raise RefusedError("InvalidGrant")
            case _:
                raise RefusedError("GRANT_TYPE_INVALID")
        now = self._clock()
        access = f"{self._merchant}.{secrets.token_urlsafe(32)}"
        refresh = secrets.token_urlsafe(32)
        if self._guesses.new_token_ends_earlier:
            self._tokens.clear()
        _keep(self._tokens, access, now + self.token_lifetime_s, _MAX_TOKENS)
        _keep(self._refresh_tokens, refresh, now + _REFRESH_LIFETIME_S, _MAX_TOKENS)
        return unstructure(
            Token(
                access_token=access,
                token_type="Bearer",  # noqa: S106 - the scheme's name
                expires_in_s=self.token_lifetime_s,
                refresh_token=refresh,
                refresh_expires_in_s=_REFRESH_LIFETIME_S,
            )
        )

    def revoke(self, token: str | None = None, *, code: str = "TOKEN_INVALID") -> None:
        """Stop accepting an access token, or all, with an error code. Refresh tokens live on."""
        for each in list(self._tokens) if token is None else [token]:
            if self._tokens.pop(each, None) is not None:
                _keep(self._revoked, each, code, _MAX_TOKENS)

    def dump(self) -> dict[str, Any]:
        """Return the tokens as they are saved; nonces, which live for two minutes, are not."""
        return {
            "tokens": self._tokens,
            "refresh_tokens": self._refresh_tokens,
            "revoked": self._revoked,
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Put back tokens that were saved."""
        self._tokens = OrderedDict(saved["tokens"])
        self._refresh_tokens = OrderedDict(saved["refresh_tokens"])
        self._revoked = OrderedDict(saved["revoked"])
        self._nonces.clear()

    def tokens(self) -> list[dict[str, Any]]:
        """Return the newest access tokens, masked, each with its end and whether it is good."""
        now = self._clock()
        newest = list(islice(reversed(self._tokens.items()), _SHOWN_TOKENS))
        revoked = list(islice(reversed(self._revoked), _SHOWN_TOKENS))
        return [
            {"token": masked(token), "ends_at": until, "is_good": until > now}
            for token, until in newest
        ] + [{"token": masked(token), "ends_at": None, "is_good": False} for token in revoked]

    def check(self, request: Request, headers: Mapping[str, str], canonical: bytes) -> None:
        """Refuse a request that fails a check. The nonce of one that passes is used up."""
        nonce = headers.get("x-nonce-str", "")
        timestamp = headers.get("x-timestamp", "")
        if self._checks(Check.TOKEN):
            self._check_token(headers)
        if self._checks(Check.SIGNATURE):
            texts = [
                string_to_sign(
                    method=request.method,
                    url=_signed_url(request.url, self._guesses.signed_path),
                    nonce=nonce,
                    timestamp=timestamp,
                    body=spelling,
                )
                for spelling in dict.fromkeys((canonical, older_go_json(canonical)))
            ]
            signature = headers.get("x-signature", "")
            if not any(
                self._verifier.verify(text.encode(errors="replace"), signature) for text in texts
            ):
                refused = SignatureRefusedError(texts[0], self._defect(signature))
                if self._guesses.signature_debug:
                    refused.beside = self._debug(texts[0], canonical, headers)
                raise refused
        if self._checks(Check.TIMESTAMP):
            self._check_timestamp(timestamp)
        if self._checks(Check.NONCE):
            self._check_nonce(nonce)

    def signed_digest(self, signature: str) -> bytes | None:
        """Return the SHA-256 of what the client's key signed, None if another key did."""
        return self._verifier.signed_digest(signature)

    def duplicate(self) -> RefusedError:
        """Return the refusal of a nonce that was used before."""
        return RefusedError(self._guesses.duplicate_code, "X-Nonce-Str was used before")

    def _checks(self, check: Check) -> bool:
        return check not in self._disabled

    def _defect(self, signature: str) -> str:
        """Return the defect of a signature that was refused."""
        if not signature:
            return "X-Signature is missing"
        if parse_signature(signature) is None:
            return "X-Signature is not the word sha256, a space, and base64"
        if self._verifier.is_by_this_key(signature):
            return "X-Signature is by the client's key, but of another text"
        return "X-Signature is not by the client's key"

    def _check_token(self, headers: Mapping[str, str]) -> None:
        authorization = headers.get("authorization")
        if authorization is None:
            raise RefusedError("UNAUTHORIZED")
        token = bearer_of(authorization)
        until = self._tokens.get(token)
        if until is None:
            raise RefusedError(self._revoked.get(token, "TOKEN_INVALID"))
        age_s = self._clock() - (until - self.token_lifetime_s)
        if 0 <= age_s < self._guesses.token_delay_s:
            raise RefusedError("TOKEN_INVALID")
        if until <= self._clock() and self._checks(Check.TOKEN_LIFETIME):
            raise RefusedError("TOKEN_EXPIRED")

    def _debug(
        self, expected: str, canonical: bytes, headers: Mapping[str, str]
    ) -> Mapping[str, Any]:
        """Return what RM's sandbox says of a refused signature, in the form of its page."""
        has_data = expected.startswith("data=")
        data = expected.partition("&")[0].removeprefix("data=") if has_data else ""
        steps = {
            "step1": (canonical.decode() if has_data else "", "Sort the keys."),
            "step2": (data, "Encode in base64."),
            "step3": (expected, "Write the plain text. Without a body there is no data."),
            "step4": (expected, "Sign this with the private key."),
        }
        nonce, timestamp = headers.get("x-nonce-str", ""), headers.get("x-timestamp", "")
        shown = {
            "X-Nonce-Str": (
                nonce,
                not (_nonce_defect(nonce) or self._was_used(nonce))
                or not self._checks(Check.NONCE),
                "It has no space, and is unique for 120 seconds.",
            ),
            "X-Signature": (headers.get("x-signature", ""), False, "See preVerifyContent."),
            "X-Timestamp": (
                timestamp,
                self._timestamp_defect(timestamp) is None or not self._checks(Check.TIMESTAMP),
                "It is at most 120 seconds off.",
            ),
        }
        return {
            "debug": {
                "preVerifyContent": {
                    **{
                        step: {"content": sendable(content), "remark": remark}
                        for step, (content, remark) in steps.items()
                    },
                    "step5": {"remark": "Send it as X-Signature, behind the word sha256."},
                },
                "requestHeader": {
                    name: {"currentValue": sendable(value), "isValid": is_valid, "remark": remark}
                    for name, (value, is_valid, remark) in shown.items()
                },
            }
        }

    def _check_timestamp(self, timestamp: str) -> None:
        defect = self._timestamp_defect(timestamp)
        if defect is not None:
            raise RefusedError("INVALID_TIMESTAMP", defect)

    def _timestamp_defect(self, timestamp: str) -> str | None:
        at = parse_timestamp(timestamp)
        if at is None:
            return "X-Timestamp is not in unix seconds"
        off_s = at - self._wire_clock()
        if abs(off_s) <= _WINDOW_S:
            return None
        return f"X-Timestamp is {abs(off_s):.0f} s {'ahead' if off_s > 0 else 'behind'}"

    def _check_nonce(self, nonce: str) -> None:
        defect = _nonce_defect(nonce)
        if defect is not None:
            raise RefusedError("INVALID_REQUEST", defect)
        if self._was_used(nonce):
            raise self.duplicate()
        _keep(self._nonces, nonce, self._wire_clock(), _MAX_NONCES)

    def _was_used(self, nonce: str) -> bool:
        """Return whether a nonce was used lately. Older ones are forgotten."""
        since = self._wire_clock() - _WINDOW_S
        while self._nonces and next(iter(self._nonces.values())) < since:
            self._nonces.popitem(last=False)
        return nonce in self._nonces


def _signed_url(url: URL, spelling: SignedPath) -> str:
    """Return the URL that the signature must be of."""
    text, path = str(url), url.raw_path
    if spelling is SignedPath.AS_SENT:
        return text
    safe = RAW if spelling is SignedPath.RAW else ""
    parts = (quote(unquote(part, errors="replace"), safe=safe) for part in path.split("/"))
    return text.replace(path, "/".join(parts), 1)


def bearer_of(authorization: str) -> str:
    """Return the token of an ``Authorization`` header, or an empty text."""
    scheme, _, token = authorization.partition(" ")
    return token if scheme == "Bearer" else ""


def merchant_of(token: str) -> int:
    """Return the number of the merchant that a token was granted to, or 0 for another text."""
    number = token.partition(".")[0]
    return int(number) if number.isascii() and number.isdecimal() and len(number) < 10 else 0


def _nonce_defect(nonce: str) -> str | None:
    if 0 < len(nonce) <= _MAX_NONCE_CHARS and " " not in nonce:
        return None
    return "X-Nonce-Str is missing, too long, or has a space"


def _keep(kept: OrderedDict[str, V], key: str, value: V, most: int) -> None:
    """Put an entry into a bounded dict; the oldest one is forgotten."""
    kept[key] = value
    if len(kept) > most:
        kept.popitem(last=False)  # a plain dict would look for its first key, further each time
