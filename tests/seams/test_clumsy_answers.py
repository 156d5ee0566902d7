"""An answer whose bytes are whole is an answer, however clumsily a server or a gateway framed it.

Headers longer or more than most, a body that is compressed although nothing compressed was asked
for, a byte order mark, a length that is wrong: the code in it is kept. What it costs is bounded:
the headers, what a body may be inflated to, and one object's answer to less than holds the event
loop up. What can't be read leaves the outcome to the status, and else unknown.
"""

import asyncio
import codecs
import gzip
import os
import re
import tracemalloc
import zlib
from contextlib import asynccontextmanager
from importlib.metadata import version

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.answers import ok, payload
from support.http_servers import http, raw_server
from yarl import URL

from rm_voucher import (
    Environment,
    Limits,
    OutcomeUnknownError,
    OutOfStockError,
    RateLimitError,
    Request,
    ResponseLostError,
    RetryPolicy,
    ServerError,
    StaticToken,
    Timeout,
    VoucherClient,
    VoucherError,
    bulk_issue,
)
from rm_voucher.emulator import Emulator
from rm_voucher.emulator.server import serve
from rm_voucher.transport.aiohttp import AiohttpTransport
from rm_voucher.transport.coding import decompressed

ISSUED = b'{"item":{"code":"NAklEfbVdV","qrUrl":"https://qr.invalid/1"},"code":"SUCCESS"}'
BOM = codecs.BOM_UTF8
MIB = 1 << 20


def raw_deflate(body):
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


def zeros(mib):
    """Return zeros as one member of gzip's: their block, which stands alone, many times."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    block = compressor.compress(bytes(MIB)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08" + bytes(7) + block * mib


BOMB = zeros(100)  # of 100 kB


def framed(head, body=ISSUED, *, then="close"):
    """Send an answer byte for byte; then close, reset, or say nothing any more."""

    async def conversation(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body)
        await writer.drain()
        if then == "nothing":
            await reader.read()
        if then == "reset":
            await asyncio.sleep(0.02)  # so that what was written arrives
            writer.transport.abort()

    return conversation


LONG = b"Content-Length: 1000\r\n"
CHUNK = b"%x\r\n%s\r\n" % (len(ISSUED), ISSUED)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
WHOLE = {
    "header of 9,000 bytes": http(200, ISSUED, "X-Policy: " + "x" * 9_000),
    "header of 60,000 bytes": http(200, ISSUED, "X-Policy: " + "x" * 60_000),
    "150 headers": http(200, ISSUED, *(f"X-{number}: 1" for number in range(150))),
    "reason of 9,000 bytes": http(200, ISSUED).replace(b"Status", b"x" * 9_000),
    "gzip": http(200, gzip.compress(ISSUED), "Content-Encoding: gzip"),
    "x-gzip": http(200, gzip.compress(ISSUED), "Content-Encoding:  X-GZIP "),
    "deflate": http(200, zlib.compress(ISSUED), "Content-Encoding: deflate"),
    "deflate without its header": http(200, raw_deflate(ISSUED), "Content-Encoding: deflate"),
    "gzip of a byte order mark": http(200, gzip.compress(BOM + ISSUED), "Content-Encoding: gzip"),
    "gzip and more": http(200, gzip.compress(ISSUED) + b"x", "Content-Encoding: gzip"),
    "gzip and padding": http(200, gzip.compress(ISSUED) + b"\0" * 99, "Content-Encoding: gzip"),
    "gzip in two members": http(
        200, gzip.compress(ISSUED[:20]) + gzip.compress(ISSUED[20:]), "Content-Encoding: gzip"
    ),
    "gzip without its check": http(200, gzip.compress(ISSUED)[:-8], "Content-Encoding: gzip"),
    "gzip without an end": http(200, gzip.compress(ISSUED)[:-9], "Content-Encoding: gzip"),
    "identity": http(200, ISSUED, "Content-Encoding: identity"),
    "gzip in name only": http(200, ISSUED, "Content-Encoding: gzip"),
    "byte order mark": http(200, BOM + ISSUED),
    "length too long, then closed": framed(LONG),
    "length too long, then reset": framed(LONG, then="reset"),
    "length too long, then silence": framed(LONG, then="nothing"),
    "byte order mark, length too long": framed(LONG, BOM + ISSUED),
    "gzip, length too long": framed(LONG + b"Content-Encoding: gzip\r\n", gzip.compress(ISSUED)),
    "chunks without an end, then closed": framed(CHUNKED, CHUNK),
    "chunks without an end, then silence": framed(CHUNKED, CHUNK, then="nothing"),
}
UNREADABLE = {
    "br": http(200, b"\x0b\x02\x80{}\x03", "Content-Encoding: br"),
    "zstd": http(200, b"\x28\xb5\x2f\xfd", "Content-Encoding: zstd"),
    "gzip twice": http(200, gzip.compress(gzip.compress(ISSUED)), "Content-Encoding: gzip, gzip"),
    "gzip cut short": http(200, gzip.compress(ISSUED)[:-20], "Content-Encoding: gzip"),
    "gzip cut short, length too long": framed(
        LONG + b"Content-Encoding: gzip\r\n", gzip.compress(ISSUED)[:-20]
    ),
    "gzip's first half": http(200, gzip.compress(ISSUED[:-20]), "Content-Encoding: gzip"),
    "gzip's second half spoilt": http(
        200, gzip.compress(ISSUED[:20]) + gzip.compress(ISSUED[20:])[:12], "Content-Encoding: gzip"
    ),
    "gzip spoilt": http(200, gzip.compress(ISSUED)[:-6] + b"x" * 6, "Content-Encoding: gzip"),
    "gzip that is no JSON": http(200, gzip.compress(b"<html>"), "Content-Encoding: gzip"),
    "JSON cut short": framed(LONG, ISSUED[:-1]),
    "JSON that ends within": framed(LONG, ISSUED[:-20] + b"}"),
    "no JSON": framed(LONG, b"<html>{}"),
    "a list": framed(LONG, b"[{}"),
    "header of 1 MB": http(200, ISSUED, "X-Policy: " + "x" * 1_000_000),
}
MANY_HEADERS = http(200, ISSUED, *(f"X-{number}: 1" for number in range(300)))
AIOHTTP = tuple(map(int, re.findall(r"[0-9]+", version("aiohttp"))[:3]))


@pytest.fixture
def client_of(credentials):
    """Make a client of a server, which tries once; answers come at once or not at all."""

    def make(server, **options):
        return VoucherClient(
            credentials,
            environment=Environment.at(server.url),
            token_source=StaticToken("token"),
            **{
                "retry": RetryPolicy(max_attempts=1),
                "timeout": Timeout(connect_s=0.4, attempt_s=0.45),
                **options,
            },
        )

    return make


@pytest.mark.parametrize("answer", WHOLE.values(), ids=WHOLE)
async def test_answer_that_is_whole_is_an_answer(client_of, answer):
    """Its code was thrown away, and the outcome called unknown."""
    async with raw_server(answer) as server, client_of(server) as client:
        assert (await client.issue("KEY")).code == "NAklEfbVdV"


@pytest.mark.parametrize(
    "answer",
    [
        *(pytest.param(answer, id=name) for name, answer in UNREADABLE.items()),
        pytest.param(
            MANY_HEADERS,
            id="300 headers",
            marks=pytest.mark.skipif(
                AIOHTTP < (3, 13, 4), reason="aiohttp before 3.13.4 reads however many come"
            ),
        ),
    ],
)
async def test_answer_that_cannot_be_read_leaves_the_outcome_unknown(client_of, answer):
    """Whatever can't be decoded proves nothing, and is not sent again."""
    retry = RetryPolicy(max_attempts=3)
    async with raw_server(answer) as server, client_of(server, retry=retry) as client:
        with pytest.raises(OutcomeUnknownError):
            await client.issue("KEY")
        assert len(server.received) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (http(429, b"<html>" + b"x" * 100_000, "Retry-After: 7"), RateLimitError),
        (http(429, b"\x0b\x02\x80<html>\x03", "Content-Encoding: br"), RateLimitError),
        (http(429, BOMB, "Content-Encoding: gzip"), RateLimitError),
    ],
    ids=["long", "br", "bomb"],
)
async def test_error_that_cannot_be_read_is_its_status(client_of, answer, error):
    """A throttle is one however long a gateway's page about it: nothing was issued."""
    async with raw_server(answer) as server, client_of(server) as client:
        with pytest.raises(error) as caught:
            await client.issue("KEY")
        assert caught.value.http_status == 429


async def test_error_that_is_compressed_is_read(client_of):
    """RM's own error behind a compressing gateway is RM's own word."""
    body = gzip.compress(ok({"error": {"code": "VOUCHER_SOLD_OUT", "message": ""}}).body)
    answer = http(400, body, "Content-Encoding: gzip")
    async with raw_server(answer) as server, client_of(server) as client:
        with pytest.raises(OutOfStockError):
            await client.issue("KEY")


async def test_request_returns_the_plain_body(client_of):
    """What was decompressed does not say that it is compressed."""
    answer = http(200, gzip.compress(b"plain"), "Content-Encoding: gzip", "X-A: 1")
    async with raw_server(answer) as server, client_of(server) as client:
        response = await client.request("POST", "/v3/x")
    assert (response.body, response.headers) == (b"plain", {"x-a": "1"})


@pytest.mark.parametrize(
    ("call", "limit_mib"),
    [
        (lambda client: client.issue("KEY"), 2),
        (lambda client: client.get("X"), 2),
        (lambda client: client.vouchers("KEY"), 32),
        (lambda client: client.request("POST", "/v3/x"), 32),
    ],
    ids=["issue", "get", "listing", "request"],
)
async def test_bomb_costs_little(client_of, call, limit_mib):
    """100 MiB in 100 kB: no more is inflated than the answer may be long."""
    answer, timeout = http(200, BOMB, "Content-Encoding: gzip"), Timeout()
    async with raw_server(answer) as server, client_of(server, timeout=timeout) as client:
        tracemalloc.start()
        with pytest.raises(VoucherError, match=r"larger|executed"):
            await call(client)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < limit_mib * MIB


async def test_bomb_leaves_the_others_their_turns():
    """A page is inflated in steps, between which other tasks run."""
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    inflated = await decompressed(BOMB, "gzip", limit=16 * MIB)
    assert inflated is not None
    assert len(inflated) > 16 * MIB
    task.cancel()
    assert turns > 200


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 200_000, 1_000_000])
@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate)],
)
@pytest.mark.parametrize("bytes_of", [os.urandom, lambda size: b"a" * size])
async def test_decompressed_is_what_was_compressed(encoding, compress, size, bytes_of):
    """Whatever the length, at whatever ratio, and not a byte over the limit."""
    body = bytes_of(size)
    assert await decompressed(compress(body), encoding, limit=size) == body
    if size:
        longer = await decompressed(compress(body), encoding, limit=size - 1)
        assert longer is not None
        assert len(longer) > size - 1


async def test_members_of_any_length_are_one_body():
    """A member may end where a step of the reading ends."""
    for size in (1, 65_530, 65_536, 200_000):
        parts = [os.urandom(size) for _ in range(3)]
        body = b"".join(map(gzip.compress, parts))
        plain = await decompressed(body, "gzip", limit=MIB)
        assert plain is not None
        assert plain == b"".join(parts)


OBJECT = ok(payload("get-voucher")).body
OVER = OBJECT[:-1] + b" " * (64 * 1024 - len(OBJECT) + 1) + b"}"


async def test_single_object_is_short(client_of):
    """An answer of 16 MiB to an issue held the event loop up for over a second."""
    limit = OVER.replace(b"  ", b" ", 1)
    async with raw_server(http(200, limit), http(200, OVER)) as server, client_of(server) as client:
        assert (await client.get("NAklEfbVdV")).code
        with pytest.raises(ResponseLostError, match="larger than allowed"):
            await client.get("NAklEfbVdV")


@pytest.mark.parametrize("limit", [None, 1000])
async def test_pages_are_as_long_as_the_limits_say(client_of, limit):
    """A listing is longer than one object, and `Limits` bounds both."""
    page = b'{"code":"SUCCESS","items":[]}' + b" " * 100_000
    limits = Limits() if limit is None else Limits(max_response_bytes=limit)
    async with raw_server(http(200, page)) as server, client_of(server, limits=limits) as client:
        if limit is None:
            assert (await client.vouchers("KEY")).items == ()
        else:
            with pytest.raises(ResponseLostError, match="larger than allowed"):
                await client.vouchers("KEY")


async def test_long_page_of_a_failing_server_is_its_status(client_of):
    """As without compression."""
    async with raw_server(http(503, b"x" * 100_000)) as server, client_of(server) as client:
        with pytest.raises(ServerError):
            await client.vouchers("KEY")


PASSED_ON = ("Authorization", "Content-Type", "Host", "X-Nonce-Str", "X-Signature", "X-Timestamp")


@asynccontextmanager
async def compressing_gateway(url):
    """Compress, behind a byte order mark, whatever the server at a URL answers; give the URL."""
    onward = AiohttpTransport()

    async def pass_on(request):
        answer = await onward.send(
            Request(
                operation="any",
                method=request.method,
                url=URL(url + request.raw_path, encoded=True),
                headers={
                    name: request.headers[name] for name in PASSED_ON if name in request.headers
                },
                body=await request.read(),
            )
        )
        body = gzip.compress(BOM + answer.body, compresslevel=1)
        return web.Response(status=answer.status, body=body, headers={"Content-Encoding": "gzip"})

    gateway = TestServer(web.Application())
    gateway.app.router.add_route("*", "/{path:.*}", pass_on)
    async with gateway:
        yield str(gateway.make_url("")).rstrip("/")
    await onward.aclose()


async def test_run_behind_a_gateway_that_compresses_everything(credentials):
    """Of 500 recipients 37 were issued a voucher, and no code was kept."""
    emulator = Emulator(credentials=credentials, batches={"TEA": 500})
    async with (
        serve(emulator) as server,
        compressing_gateway(server.url) as url,
        VoucherClient(credentials, environment=Environment.at(url)) as client,
        bulk_issue(client, "TEA", range(500), concurrency=32) as run,
    ):
        codes = [result.voucher.code async for result in run if result.voucher]
    assert sorted(codes) == sorted(emulator.issued("TEA"))
    assert len(set(codes)) == 500
