"""Signs and verifies with an RSA key that is parsed once (RSASSA-PKCS1-v1_5 with SHA-256)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.redaction import hide_locals
from rm_voucher.signing.signature import parse_signature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

_MIN_KEY_BITS = 2048


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
    @hide_locals
    def from_pem(cls, pem: bytes) -> Self:
        r"""Return the signer for an unencrypted RSA key of 2048 bits or more.

        ``pem`` is PKCS#1 or PKCS#8, as PEM (also with ``\n`` for its line breaks) or as its base64
        alone, or OpenSSH's format. Raises `ConfigurationError`, which says what another thing is.
        Parsing takes tens of milliseconds: do it once.
        """
        from rm_voucher.signing.keys import read_private_key

        key = read_private_key(pem)
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
        """Return the key, unencrypted, as a process that signs needs it."""
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        return self._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def public_key_pem(self) -> bytes:
        """Return the public half, as it is uploaded in the merchant portal."""
        return _pem_of(self._key.public_key())


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
    @hide_locals
    def from_pem(cls, pem: bytes, *, min_bits: int = _MIN_KEY_BITS) -> Self:
        """Return the verifier for an RSA public key. Raises `ConfigurationError`.

        ``pem`` is PEM, the bare base64 that the merchant portal shows, or OpenSSH's format.
        """
        from rm_voucher.signing.keys import read_public_key

        key = read_public_key(pem)
        if key.key_size < min_bits:  # a stranger may find its other half
            raise ConfigurationError(
                f"The public key has {key.key_size} bits; {min_bits} are the least."
            )
        return cls(key)

    def public_key_pem(self) -> bytes:
        """Return the key as PEM, in whatever form it was given."""
        return _pem_of(self._key)

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
        """Return whether the key's other half made a signature of any text. Never raises.

        It tells a person whether `verify` refused a signature for its key or for its text.
        """
        return self.signed_digest(signature) is not None

    def signed_digest(self, signature: str) -> bytes | None:
        """Return the SHA-256 of the text that was signed, or None if another key did. Never raises.

        Whoever guesses at the text can compare it with that of many guesses.
        """
        raw = parse_signature(signature)
        if raw is None:
            return None
        try:
            return self._key.recover_data_from_signature(raw, self._padding, self._hash)
        except self._refusals:
            return None


def _pem_of(key: RSAPublicKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
