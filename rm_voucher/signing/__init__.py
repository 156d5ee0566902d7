"""Revenue Monster's request signature: what is signed, and with which key."""

from rm_voucher.signing.rsa import RsaSigner, RsaVerifier, Signer
from rm_voucher.signing.signature import (
    canonical_json,
    format_signature,
    is_too_deep,
    parse_signature,
    parse_timestamp,
    string_to_sign,
)

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
