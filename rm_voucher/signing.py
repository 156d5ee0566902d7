"""Revenue Monster's request signature, as pure functions. No clock, no random source, no file.

The rules are RM's ("Signature Algorithm"): RSASSA-PKCS1-v1_5 with SHA-256 over a string that holds
the method, the whole URL, the nonce, the timestamp and the base64 of the body's canonical JSON.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Protocol, Self

import orjson

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.frames import bare

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

__all__ = [
    "RsaSigner",
    "RsaVerifier",
    "Signer",
    "canonical_json",
    "format_signature",
    "is_too_deep",
    "parse_signature",
    "parse_timestamp",
    "string_to_sign",
]

# A body that says nothing is not signed at all.
_EMPTY_BODIES = frozenset({b"", b"null", b"{}"})
_SCHEME = "sha256 "
_MIN_KEY_BITS = 2048
_MAX_DEPTH = 32
_CONTAINERS = (dict, list, tuple)
_TIMESTAMP = re.compile(r"[0-9]{10}(\.[0-9]{1,9})?|[0-9]{13}")


def canonical_json(value: object) -> bytes:
    r"""Return a JSON value as the bytes that RM signs, which are also the bytes to send.

    Keys are sorted at every depth, there is no white space, the text is UTF-8, and ``<``, ``>``,
    ``&``, U+2028 and U+2029 are written as ``\u…`` escapes, as Go's encoder does. Raises
    `TypeError` for what is not JSON. How RM writes fractions and integers beyond 64 bits is not
    documented, so what this gives for them may not verify: send none.
    """
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME)
    # These can only stand inside strings, so replacing them in the whole text is safe.
    for raw, escape in _ESCAPES if text.isascii() else (*_ESCAPES, *_SEPARATORS):
        if raw in text:
            text = text.replace(raw, escape)
    return text


_ESCAPES = ((b"<", rb"\u003c"), (b">", rb"\u003e"), (b"&", rb"\u0026"))
_SEPARATORS = (("\u2028".encode(), rb"\u2028"), ("\u2029".encode(), rb"\u2029"))


def is_too_deep(value: object) -> bool:
    """Return whether a JSON value is nested deeper than 32; RM's are four deep.

    orjson reads 1,024 levels and writes 254, and where it writes more than 200 it overruns its
    buffer (3.13.0): what strangers send must not get there.
    """
    level = {id(value): value} if isinstance(value, _CONTAINERS) else {}
    for _ in range(_MAX_DEPTH):
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

    ``url`` is the whole URL exactly as it goes on the wire, None where it has no part in it, as in
    callbacks; ``body`` is the canonical JSON. A body that is empty, ``null`` or ``{}`` has no part
    in it. Nothing is escaped.
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
    """Return the signature in a value of ``X-Signature``, None where it is not written as one."""
    if not text.startswith(_SCHEME):
        return None
    try:
        return base64.b64decode(text.removeprefix(_SCHEME), validate=True)
    except (binascii.Error, ValueError):
        return None


def parse_timestamp(text: str) -> float | None:
    """Return the unix seconds that an ``X-Timestamp`` says, None where it says none.

    Documented are whole seconds; RM's SDKs write fractions and milliseconds too.
    """
    if not _TIMESTAMP.fullmatch(text):
        return None
    return float(text) / 1000 if len(text) == 13 and "." not in text else float(text)


class Signer(Protocol):
    """Makes signatures. Give the client another one to sign elsewhere, for instance in an HSM."""

    def sign(self, text: bytes) -> bytes:
        """Return the RSASSA-PKCS1-v1_5 SHA-256 signature of ``text``."""


class RsaSigner:
    """Signs with a private key that was parsed once. One signature takes about 0.25 ms."""

    def __init__(self, key: RSAPrivateKey) -> None:
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        self._key = key
        self._padding = PKCS1v15()
        self._hash = SHA256()

    @classmethod
    @bare
    def from_pem(cls, pem: bytes) -> Self:
        """Return the signer for an unencrypted RSA key of 2048 bits or more, PKCS#1 or PKCS#8.

        Raises `ConfigurationError`. Parsing takes tens of milliseconds: do it once.
        """
        # cryptography costs a fifth of this package's import time and is needed only from here on.
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        if b"-----BEGIN" not in pem:
            raise ConfigurationError(
                "The private key is not PEM text. If it is a file name, pass pathlib.Path(name)."
            )
        if b"PUBLIC KEY-----" in pem:
            raise ConfigurationError(
                "This is a public key; signing needs the private key whose public half is in the "
                "merchant portal."
            )
        try:
            key = load_pem_private_key(pem, password=None)
        except TypeError:
            raise ConfigurationError(
                "The private key is encrypted: decrypt it first, for example with "
                "'openssl pkey -in key.pem -out plain.pem'."
            ) from None
        except (ValueError, UnsupportedAlgorithm):
            raise ConfigurationError("The private key can't be parsed: is it whole?") from None
        if not isinstance(key, RSAPrivateKey):
            raise ConfigurationError("The private key is not an RSA key; Revenue Monster uses RSA.")
        if key.key_size < _MIN_KEY_BITS:
            raise ConfigurationError(
                f"The private key has {key.key_size} bits; use {_MIN_KEY_BITS} or more."
            )
        return cls(key)

    def sign(self, text: bytes) -> bytes:
        """Return the signature of ``text``."""
        return self._key.sign(text, self._padding, self._hash)

    @property
    def signature_bytes(self) -> int:
        """How long a signature is."""
        return (self._key.key_size + 7) // 8

    def private_key_der(self) -> bytes:
        """Return the key, unencrypted, for a process that signs."""
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        return self._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def public_key_pem(self) -> bytes:
        """Return the public half, as it is uploaded in the merchant portal."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class RsaVerifier:
    """Checks signatures with a public key that was parsed once."""

    def __init__(self, key: RSAPublicKey) -> None:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        self._key = key
        self._padding = PKCS1v15()
        self._hash = SHA256()
        self._refusals = (ValueError, InvalidSignature)

    @classmethod
    @bare
    def from_pem(cls, pem: bytes, *, min_bits: int = _MIN_KEY_BITS) -> Self:
        """Return the verifier for an RSA public key. Raises `ConfigurationError`."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        if b"PRIVATE KEY-----" in pem:
            raise ConfigurationError(
                "This is a private key; checking a signature needs the public key of whoever signs."
            )
        try:
            key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm):
            raise ConfigurationError(
                "The public key can't be parsed: is it PEM? If it is a file name, pass "
                "pathlib.Path(name)."
            ) from None
        if not isinstance(key, RSAPublicKey):
            raise ConfigurationError("The public key is not an RSA key.")
        if key.key_size < min_bits:  # whose other half a stranger may find
            raise ConfigurationError(
                f"The public key has {key.key_size} bits; {min_bits} are the least."
            )
        return cls(key)

    def verify(self, text: bytes, signature: str) -> bool:
        """Return whether ``signature``, an ``X-Signature`` value, is of ``text``. Never raises."""
        raw = parse_signature(signature)
        if raw is None:
            return False
        try:
            self._key.verify(raw, text, self._padding, self._hash)
        except self._refusals:
            return False
        return True

    def is_by_this_key(self, signature: str) -> bool:
        """Return whether the key's other half made a signature, of whatever text. Never raises.

        It tells a wrong key from a wrong text, which is what a person wants to know of a signature
        that `verify` refuses.
        """
        raw = parse_signature(signature)
        if raw is None:
            return False
        try:
            self._key.recover_data_from_signature(raw, self._padding, self._hash)
        except self._refusals:
            return False
        return True
