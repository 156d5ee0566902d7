"""Deliveries as they come over a wire: refused ones, pieces, and what the log says of them."""

import asyncio
import base64
import functools
import logging
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from support.webhook_routers import (
    CODE,
    Shop,
    body,
    counts,
    event,
    give_quiet,  # noqa: F401 - a fixture
    hang,
    item,
    make_router,
    said,
    sign,
)

from rm_voucher.emulator.keys import new_private_key
from rm_voucher.signing import RsaSigner
from rm_voucher.webhooks import MemoryEventStore

BODY = body()


@pytest.fixture
def store(time):
    return MemoryEventStore(runtime=time.runtime)


@pytest.fixture
async def shop():
    return Shop()


@pytest.fixture
async def router(store, shop):
    router = make_router(store)
    router.on()(shop.handle)
    async with router:
        yield router


def another_key():
    return sign(BODY, signer=RsaSigner.from_pem(new_private_key()))


def changed(name, change):
    """Return the headers of a good delivery, with one of them changed."""
    headers = sign(BODY)
    return {**headers, name: change(headers[name])}


def without(name):
    return {key: value for key, value in sign(BODY).items() if key != name}


def doubled(name):
    headers = list(sign(BODY).items())
    return [*headers, (name.upper(), dict(headers)[name])]


def url_safe(signature):
    raw = base64.b64decode(signature.removeprefix("sha256 "))
    assert {*"+/"} & {*signature}
    return f"sha256 {base64.urlsafe_b64encode(raw).decode()}"


def url_safe_headers():
    """Return headers whose signature has a sign that the two alphabets write differently."""
    while True:
        headers = sign(BODY)
        if {*"+/"} & {*headers["X-Signature"]}:
            return {**headers, "X-Signature": url_safe(headers["X-Signature"])}


NOT_VOUCHERS = [
    {"item": {}, "code": "SUCCESS"},
    {"item": None, "code": "SUCCESS"},
    {"item": {**item(), "status": ""}, "code": "SUCCESS"},
    {"item": {**item(), "code": CODE + "\0"}, "code": "SUCCESS"},
    {"item": {**item(), "updatedAt": CODE}, "code": "SUCCESS"},
    {"item": item(), "code": CODE},
]
REFUSED: dict[str, tuple[Callable[[], Any], bytes, str, str]] = {
    "no header": (dict, BODY, "headers", "X-Signature is missing"),
    "no signature": (lambda: without("X-Signature"), BODY, "headers", "X-Signature is missing"),
    "no nonce": (lambda: without("X-Nonce-Str"), BODY, "headers", "X-Nonce-Str is missing"),
    "no timestamp": (lambda: without("X-Timestamp"), BODY, "headers", "X-Timestamp is missing"),
    "two signatures": (lambda: doubled("X-Signature"), BODY, "headers", "X-Signature came twice"),
    "two nonces": (lambda: doubled("X-Nonce-Str"), BODY, "headers", "X-Nonce-Str came twice"),
    "two timestamps": (lambda: doubled("X-Timestamp"), BODY, "headers", "X-Timestamp came twice"),
    "empty nonce": (lambda: changed("X-Nonce-Str", lambda _: ""), BODY, "headers", "X-Nonce-Str"),
    "no time": (lambda: changed("X-Timestamp", lambda _: CODE), BODY, "timestamp", "X-Timestamp"),
    "another time": (
        lambda: changed("X-Timestamp", lambda at: str(int(at) + 1)),
        BODY,
        "signature",
        "of something else",
    ),
    "another nonce": (
        lambda: changed("X-Nonce-Str", lambda nonce: f"{nonce}0"),
        BODY,
        "signature",
        "of something else",
    ),
    "garbage": (
        lambda: changed("X-Signature", lambda _: f"sha256 {CODE}"),
        BODY,
        "signature",
        "base64",
    ),
    "no algorithm": (
        lambda: changed("X-Signature", lambda s: s.removeprefix("sha256 ")),
        BODY,
        "signature",
        "base64",
    ),
    "URL-safe base64": (url_safe_headers, BODY, "signature", "base64"),
    "another key": (another_key, BODY, "signature", "none of the public keys"),
    "another body": (lambda: sign(BODY), body(status="REDEEMED"), "signature", "another body"),
    "too old": (lambda: sign(BODY, late_s=601), BODY, "clock", "601 s behind"),
    "of the future": (lambda: sign(BODY, late_s=-301), BODY, "clock", "301 s ahead of"),
    "not JSON": (lambda: sign(BODY), BODY[1:], "body", "not JSON"),
    "a list": (lambda: sign(b"[]"), b"[]", "body", "not a JSON object"),
    "empty": (lambda: sign(BODY), b"", "body", "not JSON"),
    **{
        f"no voucher {number}": (
            functools.partial(sign, orjson.dumps(content)),
            orjson.dumps(content),
            "event",
            "the body",
        )
        for number, content in enumerate(NOT_VOUCHERS)
    },
}


@pytest.mark.parametrize("case", REFUSED)
async def test_refused(router, shop, store, caplog, case):
    """A delivery that is not provably RM's is a 400; only the log says which check failed."""
    headers, content, step, reason = REFUSED[case]
    assert await router.receive(headers(), content) == 400
    (line,) = said(caplog, logging.DEBUG)
    assert line.startswith(f"a delivery was refused at the step '{step}': ")
    assert reason in line
    assert (shop.got, await counts(store)) == ([], (0, 0, 0))


async def test_too_large(router, shop, store, caplog):
    """A body beyond the limit is a 413, however well it is signed, and one at the limit is read."""
    huge = BODY + b" " * 10_000_000
    assert await router.receive(sign(BODY), huge) == 413
    (line,) = said(caplog)
    assert line.startswith("a delivery was refused at the step 'size': ")
    assert (shop.got, await counts(store)) == ([], (0, 0, 0))
    assert await router.receive(sign(BODY), BODY.ljust(router.verifier.max_body_bytes)) == 200


@pytest.mark.parametrize(
    "rewritten",
    [
        orjson.dumps(orjson.loads(BODY), option=orjson.OPT_INDENT_2),
        orjson.dumps(orjson.loads(BODY), option=orjson.OPT_SORT_KEYS),
        orjson.dumps(dict(reversed(orjson.loads(BODY).items()))),
        BODY.replace(b"VOID", rb"\u0056OID"),
    ],
    ids=["indented", "sorted", "reversed", "escaped"],
)
async def test_same_meaning_in_other_bytes(router, shop, rewritten):
    """What is signed is the body's meaning: a proxy may write it anew."""
    assert rewritten != BODY
    assert await router.receive(sign(BODY), rewritten) == 200
    assert [got.id for got in shop.got] == [event().id]


@pytest.mark.parametrize("late_s", [600, -300])
async def test_timestamp_within_tolerance(router, shop, late_s):
    """A re-delivery may carry its first timestamp, and RM's clock may be ahead of ours."""
    assert await router.receive(sign(BODY, late_s=late_s), BODY) == 200
    assert len(shop.got) == 1


async def test_event_knows_when_it_was_signed(router, shop):
    """The handler is told when its delivery was signed."""
    headers = sign(BODY, late_s=60)
    await router.receive(headers, BODY)
    assert shop.got[0].sent_at.timestamp() == int(headers["X-Timestamp"])


class Pieces:
    """A body in pieces, which counts those that were taken; an error among them is raised."""

    def __init__(self, *pieces):
        self.pieces = pieces
        self.taken = 0

    async def __aiter__(self):
        for piece in self.pieces:
            self.taken += 1
            if isinstance(piece, Exception):
                raise piece
            yield piece


@pytest.mark.parametrize("size", [1, 100, len(BODY), len(BODY) + 1])
async def test_pieces(router, shop, size):
    """A body in pieces is put together, whatever their size."""
    pieces = Pieces(*(BODY[at : at + size] for at in range(0, len(BODY), size)), b"")
    assert await router.receive(sign(BODY), pieces) == 200
    assert [got.id for got in shop.got] == [event().id]


async def test_too_large_in_pieces(router, shop, caplog):
    """Reading stops at the limit: what comes behind it is not even taken."""
    most = router.verifier.max_body_bytes
    exact = Pieces(BODY, b" " * (most - len(BODY)), b"")
    assert await router.receive(sign(BODY), exact) == 200
    beyond = Pieces(BODY, *[b" " * (most // 4)] * 100)
    assert await router.receive(sign(BODY), beyond) == 413
    assert beyond.taken == 5
    one_more = Pieces(BODY, b" " * (most - len(BODY)), b" ")
    assert await router.receive(sign(BODY), one_more) == 413
    assert len(shop.got) == 1
    assert "at the step 'size'" in said(caplog)[-1]


async def test_too_slow(router, shop, store, caplog):
    """A body that does not arrive whole in its time is a 408, and nothing of it is looked at."""

    async def stop_midway():
        yield BODY[:-1]
        await hang()

    assert await router.receive(sign(BODY), stop_midway()) == 408
    assert said(caplog) == ["a delivery did not arrive whole in 10 s"]
    assert (shop.got, await counts(store)) == ([], (0, 0, 0))


async def test_error_while_reading(router, store):
    """What reading raises is the adapter's own, and comes back to it."""
    with pytest.raises(ConnectionResetError):
        await router.receive(sign(BODY), Pieces(BODY[:9], ConnectionResetError()))
    assert await counts(store) == (0, 0, 0)


async def test_cancelled_while_reading(router, store):
    """A sender that goes away while its body is read is no slow one."""
    reading = asyncio.Event()

    async def hang():
        reading.set()
        await asyncio.Event().wait()
        yield b""

    caller = asyncio.create_task(router.receive(sign(BODY), hang()))
    await reading.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
