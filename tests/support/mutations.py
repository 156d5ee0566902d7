"""Spoils answers: their bytes, their structure, their status and their headers."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from rm_voucher import Response

# What a field may turn into. Texts in RAW stand in the JSON as they are, without quotes.
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**53 + 1, 2**63, 2**64 - 1, 2**64, 10**30, -(2**63), 10**400),
    *(1.5, -0.0, 1e308, 100.0, "", " ", "0", "-1", "100", "1e3", "9" * 5000, "x" * 1000, "SUCCESS"),
    *("\x00", "\r\nX-Evil: 1", "é\u2028\u202e", "🎫", "VOID", "ISSUE", "NEW_STATUS", "STATIC"),
    *("0001-01-01T00:00:00Z", "2026-02-30T00:00:00Z", "9999-12-31T23:59:59-23:59"),
    *(
        "2026-01-01",
        "2016-12-31T23:59:60Z",
        "2026-01-01T00:00:00+99:99",
        "0001-01-01T00:00:00+14:00",
    ),
    *([], {}, [None], [[]], {"": None}, [{"code": "X"}], {"code": "SUCCESS"}, [0] * 50),
]
RAW = [
    "NaN",
    "-Infinity",
    "1e999",
    "-0",
    "01",
    "+1",
    "0x10",
    "1_000",
    "nul",
    '"\\ud800"',
    '"\\udfff\\ud800"',
    '"\\u0000"',
    '"\xff"',
    "'x'",
    "",
    "[" * 200 + "]" * 200,
    "[" * 2000 + "]" * 2000,
    '{"a":' * 500 + "1" + "}" * 500,
    "[" * 100_000,
    '{"code":"A","code":"B"}',
    '{"amount":1,"amount":-1}',
    "9" * 400,
    "1." + "0" * 400,
]
AMOUNTS = ["amount", "discountRate", "minimumSpendAmount", "quantity", "day", "expiresIn"]
NAMES = ["code", "item", "items", "error", "meta", "cursor", "amount", "status", "message", ""]
STATUSES = [100, 199, 201, 202, 204, 206, 299, 300, 301, 304, 400, 401, 403, 404, 405, 408, 409]
STATUSES += [418, 422, 429, 500, 502, 503, 504, 599]
HEADERS = ["retry-after", "date", "content-type", "content-length"]
HEADER_VALUES = [
    *("", " ", "0", "7", "-1", "0.5", "1e400", "nan", "inf", "-inf", "1_0", "٧", "soon", "9" * 400),
    *("Fri, 20 Nov 2026 10:00:30 GMT", "Fri, 20 Nov 2026 10:00:30 -0000", "Fri, 99 Nov 2026"),
    *("Mon, 01 Jan 99999999999 00:00:00 GMT", "1 Jan 1 0:0:0 +9999", "Thu, 01 Jan 1970", "\x00"),
    *("Fri, 20 Nov 2026 10:00:30 GMT+" + "9" * 30, ",", ", ,", "()", "(", "a,b c:d", "\udc80"),
]
BYTES = [b'"', b"{", b"}", b"[", b",", b"\\", b"\xff", b"0"]
MARK = "@@raw@@"


def mutate(rng: random.Random, payload: bytes) -> Response:
    """Return an answer that is the payload, spoilt once or a few times."""
    body = payload
    if rng.random() < 0.7:
        body = _spoil_structure(rng, body)
    if rng.random() < 0.35:
        body = _spoil_bytes(rng, body)
    status = 200
    if rng.random() < 0.3:
        status = rng.choice([rng.randint(100, 599), rng.choice(STATUSES)])
    headers = {}
    if rng.random() < 0.3:
        chosen = rng.sample(HEADERS, rng.randint(1, 3))
        headers = {name: _header(rng) for name in chosen}
    return Response(status=status, headers=headers, body=body)


def _header(rng: random.Random) -> str:
    value = rng.choice(HEADER_VALUES)
    if rng.random() < 0.3:
        at = rng.randint(0, len(value))
        value = value[:at] + rng.choice(["", "-", ":", " ", "9", "é", ",", "+"]) + value[at + 1 :]
    return value


def _spoil_structure(rng: random.Random, body: bytes) -> bytes:
    value = json.loads(body)
    raws: list[str] = []
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        value = _change(rng, value, raws)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    for raw in raws:
        text = text.replace(f'"{MARK}"', raw, 1)
    return text.encode("utf-8", "surrogatepass")


def _nodes(value: Any, found: list[tuple[Any, Any]]) -> None:
    keys = value if isinstance(value, dict) else range(len(value))
    for key in keys:
        found.append((value, key))
        if isinstance(value[key], dict | list):
            _nodes(value[key], found)


def _change(rng: random.Random, value: Any, raws: list[str]) -> Any:
    """Change one node, or what is around it."""
    nodes: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        _nodes(value, nodes)
    if not nodes or rng.random() < 0.02:
        return rng.choice([[value], {"item": value}, {"items": [value, value]}, None, 5])
    amounts = [node for node in nodes if node[1] in AMOUNTS]
    if amounts and rng.random() < 0.2:  # where a wrong value costs money
        holder, key = rng.choice(amounts)
        holder[key] = rng.choice([-1, -(2**63), 1.5, 1.0, "1", True, 2**53 + 1, [1], None, 7])
        return value
    holder, key = rng.choice(nodes)
    match rng.randrange(7):
        case 0:
            del holder[key]
        case 1:
            holder[key] = MARK
            raws.append(rng.choice(RAW))
        case 2 if isinstance(holder, dict):
            holder[rng.choice([*NAMES, key.upper(), key + "At", key[:-1]])] = holder.pop(key)
        case 3 if isinstance(holder, dict):
            holder[rng.choice(NAMES)] = holder[key]
        case 3:
            holder.append(holder[key])
        case 4 if isinstance(holder, dict):  # the same name twice
            again = json.dumps(rng.choice(VALUES))
            raws.append(f"{json.dumps(holder[key])},{json.dumps(key)}:{again}")
            holder[key] = MARK
        case 5:
            holder[key] = [holder[key]]
        case _:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
    return value


def _spoil_bytes(rng: random.Random, body: bytes) -> bytes:
    spoilt = bytearray(body)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randint(0, len(spoilt))
        size = rng.choice([1, 1, 4, 40])
        match rng.randrange(6):
            case 0 if at < len(spoilt):
                spoilt[at] ^= 1 << rng.randrange(8)
            case 1:
                del spoilt[at : at + size]
            case 2:
                spoilt[at:at] = spoilt[at : at + size]
            case 3:
                del spoilt[at:]
            case 4:
                spoilt[at:at] = rng.randbytes(size)
            case _:
                spoilt[at : at + 1] = rng.choice(BYTES)
    return bytes(spoilt)
