r"""Reads RSA keys in whatever form people have them, or says what is wrong with one.

Taken are PEM (PKCS#1, PKCS#8, SubjectPublicKeyInfo), also with ``\n`` for its line breaks, on one
line or in quotes, as variables hold it; its base64 without the lines of dashes, as the merchant
portal shows public keys; and OpenSSH's two formats. No sentence shows anything of a key.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

import attrs

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.redaction import hide_locals

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_OPENSSH = b"OPENSSH PRIVATE KEY"
_PLAIN_OPENSSH = b"openssh-key-v1\0\0\0\0\4none"  # what it is, and the cipher
_ENCRYPTED = b"ENCRYPTED"
_SSH_PUBLIC = b"ssh-rsa "

_ENCRYPTED_KEY = (
    "The private key is encrypted: decrypt it first, for example with 'openssl pkey -in key.pem "
    "-out plain.pem'."
)
_ENCRYPTED_OPENSSH_KEY = (
    'The private key is encrypted: decrypt a copy of it first, with \'ssh-keygen -p -m PEM -N "" '
    "-f copy'."
)
_PUBLIC_FOR_PRIVATE = (
    "This is a public key; signing needs the private key whose public half is in the merchant "
    "portal."
)
_PRIVATE_FOR_PUBLIC = "This is a private key; checking a signature needs the signer's public key."
_NO_PRIVATE_KEY = (
    "The private key is not PEM text. If it is a file name, pass pathlib.Path(name). If it is DER, "
    "make PEM of it: 'openssl pkey -inform DER -in key.der -out key.pem'."
)
_BROKEN_PRIVATE_KEY = "The private key can't be parsed: is it whole?"
_BROKEN_PUBLIC_KEY = (
    "The public key can't be parsed: is it PEM, or the base64 that the merchant portal shows? If "
    "it is a file name, pass pathlib.Path(name)."
)
_CERTIFICATE = (
    "This is a certificate; take the public key out of it: 'openssl x509 -pubkey -noout -in "
    "certificate.pem'."
)


@attrs.frozen
class _Block:
    """What stands between two lines of dashes; ``label`` says what it is."""

    label: bytes
    body: bytes = attrs.field(repr=False)

    @property
    def is_encrypted(self) -> bool:
        if self.label == _OPENSSH:
            return not (_decoded(self.body) or b"").startswith(_PLAIN_OPENSSH)
        return _ENCRYPTED in self.label or _ENCRYPTED in self.body

    @property
    def pem(self) -> bytes:
        """The block as PEM, with line breaks where they belong."""
        text = b"".join(self.body.split())
        lines = [text[begin : begin + 64] for begin in range(0, len(text), 64)]
        begin, end = b"-----BEGIN %b-----" % self.label, b"-----END %b-----\n" % self.label
        return b"\n".join([begin, *lines, end])


@hide_locals
def read_private_key(data: bytes) -> RSAPrivateKey:
    """Return an unencrypted private RSA key. Raises `ConfigurationError`."""
    # cryptography costs a fifth of this package's import time and is needed only from here on.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import (
        load_der_private_key,
        load_pem_private_key,
        load_ssh_private_key,
    )

    data = _plain(data)
    blocks = _blocks(data)
    block, der = _chosen(blocks, b"PRIVATE KEY"), _bare(data)
    if block is None and der is None:
        raise ConfigurationError(_what_is_no_private_key(data, blocks))
    is_openssh = block is not None and block.label == _OPENSSH
    if block is not None and block.is_encrypted:
        raise ConfigurationError(_ENCRYPTED_OPENSSH_KEY if is_openssh else _ENCRYPTED_KEY)
    key: object
    try:
        if block is None:
            key = load_der_private_key(der or b"", password=None)
        elif is_openssh:
            key = load_ssh_private_key(block.pem, password=None)
        else:
            key = load_pem_private_key(block.pem, password=None)
    except TypeError:
        raise ConfigurationError(_ENCRYPTED_KEY) from None
    except (ValueError, UnsupportedAlgorithm):
        is_public = der is not None and _is_public(der)
        raise ConfigurationError(
            _PUBLIC_FOR_PRIVATE if is_public else _BROKEN_PRIVATE_KEY
        ) from None
    if not isinstance(key, RSAPrivateKey):
        raise ConfigurationError("The private key is not an RSA key; Revenue Monster uses RSA.")
    return key


@hide_locals
def read_public_key(data: bytes) -> RSAPublicKey:
    """Return a public RSA key. Raises `ConfigurationError`."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import (
        load_der_public_key,
        load_pem_public_key,
        load_ssh_public_key,
    )

    data = _plain(data)
    blocks = _blocks(data)
    if b"PRIVATE KEY-----" in data:
        raise ConfigurationError(_PRIVATE_FOR_PUBLIC)
    block = _chosen(blocks, b"PUBLIC KEY")
    if block is None and any(other.label == b"CERTIFICATE" for other in blocks):
        raise ConfigurationError(_CERTIFICATE)
    der = None
    key: object
    try:
        if block is not None:
            key = load_pem_public_key(block.pem)
        elif data.startswith(_SSH_PUBLIC):
            key = load_ssh_public_key(data)
        else:
            der = _bare(data)
            key = load_der_public_key(der or b"")
    except (ValueError, UnsupportedAlgorithm):
        is_private = der is not None and _is_private(der)
        raise ConfigurationError(
            _PRIVATE_FOR_PUBLIC if is_private else _BROKEN_PUBLIC_KEY
        ) from None
    if not isinstance(key, RSAPublicKey):
        raise ConfigurationError("The public key is not an RSA key.")
    return key


def _plain(data: bytes) -> bytes:
    r"""Return a key without what a variable or an editor put around it, and ``\n`` as breaks."""
    data = data.removeprefix(b"\xef\xbb\xbf").strip()
    if data[:1] in (b'"', b"'") and data[-1:] == data[:1]:
        data = data[1:-1]
    return data.replace(rb"\r", b"").replace(rb"\n", b"\n").strip()


def _blocks(data: bytes) -> list[_Block]:
    return [_Block(*match) for match in _BLOCK.findall(data)]


def _chosen(blocks: list[_Block], kind: bytes) -> _Block | None:
    """Return the first key of a kind. Parameters or a certificate may stand beside it."""
    return next((block for block in blocks if block.label.endswith(kind)), None)


def _bare(data: bytes) -> bytes | None:
    """Return the DER of a key that is base64 without its lines of dashes, or None."""
    der = _decoded(data)
    return der if der and der.startswith(b"0") else None  # as the sequence that every key is


def _decoded(text: bytes) -> bytes | None:
    text = b"".join(text.split())
    try:
        return base64.b64decode(text[: len(text) // 4 * 4], validate=True)  # it may be cut
    except ValueError:
        return None


def _what_is_no_private_key(data: bytes, blocks: list[_Block]) -> str:
    if b"PUBLIC KEY-----" in data or data.startswith(_SSH_PUBLIC):
        return _PUBLIC_FOR_PRIVATE
    if blocks:
        return f"This is a {blocks[0].label.decode().lower()}, and no private key is beside it."
    return _BROKEN_PRIVATE_KEY if b"-----BEGIN" in data else _NO_PRIVATE_KEY


def _is_public(der: bytes) -> bool:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        load_der_public_key(der)
    except UnsupportedAlgorithm:  # such as a curve that nobody knows
        return True
    except ValueError:
        return False
    return True


def _is_private(der: bytes) -> bool:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    try:
        load_der_private_key(der, password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as exc:
        return not isinstance(exc, ValueError)  # an encrypted one, or a curve that nobody knows
    return True
