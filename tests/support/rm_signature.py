"""RM's signature rules once more, for tests. It shares no code with the package: `json` instead of
orjson, and RSA verification as plain arithmetic instead of `cryptography`."""

import base64
import hashlib
import json
import subprocess
from pathlib import Path

# DER of "SHA-256, no parameters", the prefix of a PKCS#1 v1.5 digest (RFC 8017, section 9.2).
_SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")


def public_numbers(public_pem: Path) -> tuple[int, int]:
    """Read modulus and exponent of a public key with the openssl command."""
    modulus = subprocess.run(
        ["openssl", "rsa", "-pubin", "-in", str(public_pem), "-noout", "-modulus"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return int(modulus.strip().removeprefix("Modulus="), 16), 65537


def canonical(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode()


def expected_text(method: str, url: str, nonce: str, timestamp: str, body: bytes) -> str:
    parts = {
        "method": method.lower(),
        "nonceStr": nonce,
        "requestUrl": url,
        "signType": "sha256",
        "timestamp": timestamp,
    }
    if body and json.loads(body) not in (None, {}):
        parts["data"] = base64.b64encode(canonical(json.loads(body))).decode()
    return "&".join(f"{name}={parts[name]}" for name in sorted(parts))


def verifies(numbers: tuple[int, int], text: str, x_signature: str) -> bool:
    modulus, exponent = numbers
    size = (modulus.bit_length() + 7) // 8
    signature = base64.b64decode(x_signature.removeprefix("sha256 "), validate=True)
    plain = pow(int.from_bytes(signature, "big"), exponent, modulus).to_bytes(size, "big")
    digest = _SHA256_PREFIX + hashlib.sha256(text.encode()).digest()
    return plain == b"\x00\x01" + b"\xff" * (size - len(digest) - 3) + b"\x00" + digest
