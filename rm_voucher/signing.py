"""Revenue Monster's request signature, as pure functions. No clock, no random source, no file.

The rules are RM's ("Signature Algorithm"): RSASSA-PKCS1-v1_5 with SHA-256 over a string that holds
the method, the whole URL, the nonce, the timestamp and the base64 of the body's canonical JSON.
"""

from __future__ import annotations

import base64
import binascii
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
    "parse_signature",
    "string_to_sign",
]

# A body that says nothing is not signed at all.
_EMPTY_BODIES = frozenset({b"", b"null", b"{}"})
_SCHEME = "sha256 "
_MIN_KEY_BITS = 2048


def canonical_json(value: object) -> bytes:
    r"""Return a JSON value as the bytes that RM signs, which are also the bytes to send.

    Keys are sorted at every depth, there is no white space, the text is UTF-8, and ``<``, ``>``,
    ``&``, U+2028 and U+2029 are written as ``\u…`` escapes, as Go's encoder does. Raises
    `TypeError` for what is not JSON. How RM writes fractions and integers beyond 64 bits is not
    documented, so what this gives for them may not verify: send none.
    """
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME)
    # These can only stand inside strings, so replacing them in the whole text is safe.
    for raw, escape in _ESCAPES:
        if raw in text:
            text = text.replace(raw, escape)
    return text


_ESCAPES = (
    (b"<", rb"\u003c"),
    (b">", rb"\u003e"),
    (b"&", rb"\u0026"),
    ("\u2028".encode(), rb"\u2028"),
    ("\u2029".encode(), rb"\u2029"),
)


def string_to_sign(*, method: str, url: str, nonce: str, timestamp: str, body: bytes = b"") -> str:
    """Return the text whose signature goes into ``X-Signature``.

    ``url`` is the whole URL exactly as it goes on the wire, ``body`` the canonical JSON. A body
    that is empty, ``null`` or ``{}`` has no part in it. Nothing is escaped.
    """
    data = "" if body in _EMPTY_BODIES else f"data={base64.b64encode(body).decode()}&"
    return (
        f"{data}method={method.lower()}&nonceStr={nonce}&requestUrl={url}"
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

    def public_key_pem(self) -> bytes:
        """Return the public half, as it is uploaded in the merchant portal."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class RsaVerifier:
    """Checks signatures with a public key that was parsed once."""

    def __init__(self, key: RSAPublicKey) -> None:
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        self._key = key
        self._padding = PKCS1v15()
        self._hash = SHA256()

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """Return the verifier for an RSA public key. Raises `ConfigurationError`."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        try:
            key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm):
            raise ConfigurationError("The public key can't be parsed: is it PEM?") from None
        if not isinstance(key, RSAPublicKey):
            raise ConfigurationError("The public key is not an RSA key.")
        return cls(key)

    def verify(self, text: bytes, signature: str) -> bool:
        """Return whether ``signature``, an ``X-Signature`` value, is of ``text``. Never raises."""
        from cryptography.exceptions import InvalidSignature

        raw = parse_signature(signature)
        if raw is None:
            return False
        try:
            self._key.verify(raw, text, self._padding, self._hash)
        except (ValueError, InvalidSignature):
            return False
        return True

    def is_by_this_key(self, signature: str) -> bool:
        """Return whether the key's other half made a signature, of whatever text. Never raises.

        It tells a wrong key from a wrong text, which is what a person wants to know of a signature
        that `verify` refuses.
        """
        from cryptography.exceptions import InvalidSignature

        raw = parse_signature(signature)
        if raw is None:
            return False
        try:
            self._key.recover_data_from_signature(raw, self._padding, self._hash)
        except (ValueError, InvalidSignature):
            return False
        return True
