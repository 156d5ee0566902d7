"""Decoding a page of 1,000 vouchers into models, as a ratio to pydantic v2 with the same semantics.

`check` holds both results against each other, field by field. Bare `orjson.loads`, which makes no
models, is held to as well; msgspec, which can't do all of it (see `msgspec_peer`), is shown.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import msgspec
import msgspec_peer
import orjson
import pydantic_peer as peer
from common import Row, at_most, compared, main, say

from rm_voucher import Expiry, Page, Response, Voucher, VoucherStatus
from rm_voucher.wire.operations import parse_vouchers

PYDANTIC = at_most(1.4)
ORJSON = at_most(5.5)
ROUNDS = 41
VOUCHERS = 1000
PAYLOADS = Path(__file__).parent.parent / "tests" / "payloads"
ZERO_TIME = "0001-01-01T00:00:00Z"


def page() -> bytes:
    """Return the answer's body: RM's two examples by turns, their values varied."""
    redeemed = orjson.loads((PAYLOADS / "list-batch-vouchers.json").read_bytes())["items"][0]
    void = orjson.loads((PAYLOADS / "get-voucher.json").read_bytes())["item"]
    items = [varied((redeemed, void)[n % 2], n) for n in range(VOUCHERS)]
    return orjson.dumps({"items": items, "code": "SUCCESS", "meta": {"count": VOUCHERS}})


def varied(example: dict[str, Any], n: int) -> dict[str, Any]:
    """Return a voucher of its own: most as the example is, some with what the API leaves open."""
    item = {
        **example,
        "key": f"{example['key']}{n}",
        "code": f"CODE{n:06}",
        "qrUrl": f"https://qr.invalid/{n}",
        "amount": 100 * n,
        "expiry": {**example["expiry"], "day": n % 60 + 1},
        "createdAt": f"2026-{n % 12 + 1:02}-{n % 28 + 1:02}T{n % 24:02}:{n % 60:02}:07Z",
        "updatedAt": f"2026-{n % 12 + 1:02}-{n % 28 + 1:02}T{n % 24:02}:{n % 60:02}:08.{n:09}Z",
    }
    match n % 20:
        case 0:
            item["status"] = "ISSUE"  # one page's word for ISSUED
        case 1:
            item["status"] = "FROZEN"  # nobody documented it
        case 2:
            item["channel"] = {"name": "counter", "till": n}  # nobody documented it
        case 3:
            item["createdAt"] = f"2026-11-20T18:{n % 60:02}:07.5+08:00"
            item["usedAt"] = "0001-01-01T08:00:00+08:00"  # the zero time, elsewhere
        case 4:
            item["expiry"] = {"type": "FIXED", "expiryAt": f"2027-01-{n % 28 + 1:02}T00:00:00Z"}
        case 5:
            item["voucherBathKey"] = item.pop("voucherBatchKey")
        case 6:
            item["label"] = item["type"] = item["amount"] = item["expiry"] = None
        case 7:
            item["redeemedAt"] = item["expiry"]["expiredAt"] = ZERO_TIME
    return item


def read(response: Response) -> Page[Voucher]:
    """Return the page, without the turns of the event loop in between."""
    reading = parse_vouchers(response)
    while True:
        try:
            reading.send(None)
        except StopIteration as end:
            page: Page[Voucher] = end.value
            return page


def check(body: bytes) -> None:
    """Exit unless both decode the page to equal values, and it has what makes it hard."""
    ours = read(Response(status=200, body=body)).items
    theirs = peer.Answer.model_validate_json(body).items
    if not len(ours) == len(theirs) == VOUCHERS:
        sys.exit("not the whole page")
    for own, other in zip(ours, theirs, strict=True):
        compare(Voucher, own, other)
        if own.expiry is not None:
            compare(Expiry, own.expiry, other.expiry)
    met = {
        "an unknown status": any(v.status and not v.status.is_known for v in ours),
        "a status by its other name": any(v.status is VoucherStatus.ISSUED for v in ours),
        "an unknown field": any("channel" in v.extra for v in ours),
        "a time that is not set": any(v.used_at is None for v in ours),
        "an offset": any(v.created_at and v.created_at.microsecond == 500_000 for v in ours),
    }
    if missing := [name for name, there in met.items() if not there]:
        sys.exit(f"the page lacks {', '.join(missing)}")


def compare(model: Any, own: Any, other: Any) -> None:
    """Exit at a field whose values differ, in type too."""
    names = {field.name for field in attrs.fields(model)} - {"extra"}
    pairs = {name: (getattr(own, name), getattr(other, name)) for name in names - {"expiry"}}
    pairs["extra"] = (own.extra, other.model_extra)
    for name, (mine, theirs) in pairs.items():
        if mine != theirs or traits(mine) != traits(theirs):
            sys.exit(f"{name}: {mine!r} is not {theirs!r}")


def traits(value: Any) -> tuple[Any, ...]:
    """Return what equality of two values leaves open."""
    return type(value), getattr(value, "name", None), getattr(value, "tzinfo", None)


def seconds(decode: Callable[[], object]) -> float:
    begin = time.perf_counter()
    decode()
    return time.perf_counter() - begin


def measure() -> Iterator[Row]:
    body = page()
    check(body)
    response = Response(status=200, body=body)
    decoder = msgspec.json.Decoder(msgspec_peer.Answer)
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: read(response),
        "pydantic v2": lambda: peer.Answer.model_validate_json(body),
        "bare `orjson.loads`": lambda: orjson.loads(body),
        "msgspec, without UTC and unknown fields": lambda: decoder.decode(body),
    }
    taken_ms: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):  # by turns, so that a busy machine troubles all alike
        for name, decode in ways.items():
            taken_ms[name].append(seconds(decode) * 1e3)
    say(f"{VOUCHERS:,} vouchers, {len(body) / 1024:.0f} KiB")
    ours, *peers = taken_ms.items()
    for each, bar in zip(peers, (PYDANTIC, ORJSON, None), strict=True):
        yield compared(f"Decode {VOUCHERS:,} vouchers", ours[1], each, "{:.2f} ms", bar)


if __name__ == "__main__":
    main(measure)
