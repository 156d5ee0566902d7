"""Forgeries: deliveries that RM signed, changed in their body, their headers or their parts."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import attrs
from support.deliveries import Delivery
from support.mutations import mutate

WHITE = b" \t\r\n"
ENDS = ["", "=", "==", "\n", " ", "A", ",", "&a=b", "&requestUrl=https://other.invalid/", "é", "\0"]
PIECES = [b"\0", b"0", b'"', b",", b"\\", b"\xc3\xa9", b"-", b"."]
NAMES = ["X-Signature", "X-Nonce-Str", "X-Timestamp"]
FIELDS = ["signature", "nonce", "timestamp"]

Pairs = list[tuple[str, str]]


def forge(rng: random.Random, real: Delivery, others: list[Delivery]) -> tuple[Pairs, bytes]:
    """Return headers and body of a delivery that was changed once or a few times."""
    forged = real
    pairs = None
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        match rng.randrange(10):
            case 0 | 1 | 2:
                forged = attrs.evolve(forged, body=_bytes(rng, forged.body))
            case 3:
                forged = attrs.evolve(forged, body=mutate(rng, real.body).body)
            case 4 | 5:
                forged = attrs.evolve(forged, body=_rewritten(rng, real.body))
            case 6:
                field = rng.choice(FIELDS)
                text: Any = _text(rng, getattr(forged, field))
                forged = attrs.evolve(forged, **{field: text})
            case 7:
                forged = attrs.evolve(forged, signature=_bits(rng, real.signature))
            case 8:
                field = rng.choice([*FIELDS, "body"])
                forged = attrs.evolve(forged, **{field: getattr(rng.choice(others), field)})
            case _:
                pairs = _headers(rng, forged)
    return pairs or list(forged.headers.items()), forged.body


def _bytes(rng: random.Random, body: bytes) -> bytes:
    spoilt = bytearray(body)
    for _ in range(rng.choice([1, 1, 2])):
        at, end = sorted((rng.randrange(len(spoilt) + 1), rng.randrange(len(spoilt) + 1)))
        piece = bytes(spoilt[at : min(end, at + 8)])
        match rng.randrange(6):
            case 0 if at < len(spoilt):
                spoilt[at] ^= 1 << rng.randrange(8)
            case 1:
                del spoilt[at : at + rng.choice([1, 1, 9])]
            case 2:
                spoilt[end:end] = piece
            case 3 if at < len(spoilt) and end < len(spoilt):
                spoilt[at], spoilt[end] = spoilt[end], spoilt[at]
            case 4:
                spoilt[at:at] = bytes([rng.choice(WHITE)]) * rng.choice([1, 2, 5000])
            case _:
                spoilt[at:at] = rng.choice(PIECES)
    return bytes(spoilt)


def _rewritten(rng: random.Random, body: bytes) -> bytes:
    """Write the same value in another way; sometimes with a name twice, the true value last."""
    return write(rng, json.loads(body), doubles=rng.random() < 0.3).encode()


def write(rng: random.Random, value: Any, *, doubles: bool = False) -> str:
    """Return JSON text of a value, with the order, white space and escapes that chance gives."""

    def space() -> str:
        return rng.choice(["", "", " ", "\n\t", "\r\n"])

    def text(value: str) -> str:
        plain = rng.choice([json.dumps(value), json.dumps(value, ensure_ascii=False)])
        if rng.random() < 0.1 and value.isalnum() and value.isascii():
            return '"' + "".join(f"\\u{ord(char):04{rng.choice('xX')}}" for char in value) + '"'
        return plain

    def one(value: Any) -> str:
        if isinstance(value, dict):
            items = [(name, one(inner)) for name, inner in value.items()]
            rng.shuffle(items)
            if doubles and items:
                items.insert(0, (rng.choice(items)[0], rng.choice(["null", "1", '"VOID"', "{}"])))
            members = [f"{space()}{text(name)}{space()}:{inner}" for name, inner in items]
            return f"{space()}{{{','.join(members)}{space()}}}{space()}"
        if isinstance(value, list):
            return f"{space()}[{','.join(map(one, value))}{space()}]{space()}"
        written = text(value) if isinstance(value, str) else json.dumps(value)
        return f"{space()}{written}{space()}"

    return one(value)


def _text(rng: random.Random, value: str) -> str:
    at = rng.randrange(len(value) + 1)
    match rng.randrange(5):
        case 0:
            return value[:at] + rng.choice("0aA+/=-_ .&é") + value[at + 1 :]
        case 1:
            return value[:at] + value[at + 1 :]
        case 2:
            return value[:at] + rng.choice(["0", "=", " ", "\n", "&"]) + value[at:]
        case 3:
            return value + rng.choice(ENDS)
        case _:
            return value.swapcase()


def _bits(rng: random.Random, signature: str) -> str:
    word, _, text = signature.partition(" ")
    raw = bytearray(base64.b64decode(text))
    if rng.random() < 0.3:  # the four bits of the last character that say nothing
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        last = alphabet[alphabet.index(text[-3]) ^ rng.randrange(16)]
        return f"{word} {text[:-3]}{last}=="
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return f"{word} {base64.b64encode(raw).decode()}"


def _headers(rng: random.Random, forged: Delivery) -> Pairs:
    pairs = list(forged.headers.items())
    at = rng.randrange(len(pairs))
    name, value = pairs[at]
    match rng.randrange(5):
        case 0:
            del pairs[at]
        case 1:
            pairs.insert(rng.randrange(len(pairs)), (name.lower(), value))
        case 2:
            pairs.append((name.upper(), rng.choice(["", "0", value + "0"])))
        case 3:
            pairs[at] = (rng.choice([name.lower(), name.upper(), name + " ", name[1:]]), value)
        case _:
            pairs[at] = (name, rng.choice(pairs)[1])
    rng.shuffle(pairs)
    return pairs
