"""Both adapters over raw sockets: what is no whole and plain delivery is refused, and forgotten."""

import asyncio
import contextlib
import gc
import gzip
import logging
import tracemalloc
import zlib

import aiohttp
import pytest
from support.callback_receivers import (
    BODY,
    CLOSE,
    HEADERS,
    LENGTH,
    SERVERS,
    Router,
    body_of,
    chunk,
    head,
    serving,
    signed,
    statuses,
    troubles,
    until,
)

CHUNKED = b"Transfer-Encoding: chunked"
LAST = b"0\r\n\r\n"
GZIPPED = gzip.compress(BODY)
BROKEN = {
    "length no number": head(b"Content-Length: x", CLOSE) + BODY,
    "length negative": head(b"Content-Length: -1", CLOSE) + BODY,
    "length of digits that are not ASCII": head(b"Content-Length: \xd9\xa3", CLOSE) + BODY,
    "two lengths": head(LENGTH, b"Content-Length: 3", CLOSE) + BODY,
    "length too small": head(b"Content-Length: %d" % (len(BODY) - 5), CLOSE) + BODY,
    "no length": head(CLOSE) + BODY,
    "length of nothing": head(b"Content-Length: 0", CLOSE) + BODY,
    "no chunk": head(CHUNKED, CLOSE) + b"zz\r\n" + BODY,
    "chunk with no end": head(CHUNKED, CLOSE) + b"2\r\n" + BODY + b"\r\n" + LAST,
    "another encoding of transfer": head(b"Transfer-Encoding: rot13", CLOSE) + BODY,
    "gzip": head(b"Content-Encoding: gzip", b"Content-Length: %d" % len(GZIPPED), CLOSE) + GZIPPED,
    "gzip behind another": head(
        b"Content-Encoding: identity",
        b"Content-Encoding: gzip",
        b"Content-Length: %d" % len(GZIPPED),
        CLOSE,
    )
    + GZIPPED,
    "half a gzip": head(b"Content-Encoding: gzip", b"Content-Length: 50", CLOSE) + GZIPPED[:50],
    "deflate": head(b"Content-Encoding: Deflate", CHUNKED, CLOSE)
    + chunk(zlib.compress(BODY))
    + LAST,
    "header of 1 MB": head(LENGTH, b"X-A: " + b"a" * 1_000_000, CLOSE) + BODY,
    "signature of 1 MB": head(
        LENGTH, CLOSE, headers=[*HEADERS[:2], b"X-Signature: " + b"a" * 1_000_000]
    )
    + BODY,
    "name that is not ASCII": head(LENGTH, b"X-\xff: a", CLOSE) + BODY,
    "nonce that is not ASCII": head(
        LENGTH, CLOSE, headers=["X-Nonce-Str: é".encode(), *HEADERS[1:]]
    )
    + BODY,
    "timestamp that is not ASCII": head(
        LENGTH, CLOSE, headers=["X-Timestamp: ١٧".encode(), HEADERS[0], HEADERS[2]]
    )
    + BODY,
    "signature that is not UTF-8": head(
        LENGTH, CLOSE, headers=[*HEADERS[:2], b"X-Signature: sha256 \xff\xfe"]
    )
    + BODY,
}
CUT = {
    "in the head": head(LENGTH)[:60],
    "before the body": head(LENGTH),
    "in the body": head(LENGTH) + BODY[:50],
    "a byte before the end": head(LENGTH) + BODY[:-1],
    "in a chunk": head(CHUNKED) + chunk(BODY)[:50],
    "after a chunk": head(CHUNKED) + chunk(BODY),
}
TOO_LARGE = head(b"Content-Length: 10000000") + b" " * 100_000


@pytest.fixture
def router():
    return Router()


@pytest.fixture(params=SERVERS)
async def line(request, router, caplog):
    """A line to an adapter. In the end it still takes deliveries, and has logged no failure."""
    caplog.set_level(logging.DEBUG)
    async with serving(request.param, router) as line:
        yield line
        good = body_of("GOOD")
        length = b"Content-Length: %d" % len(good)
        got = await line.raw(head(length, CLOSE, headers=signed(good)) + good, ends=False)
        assert statuses(got) == [200]
    assert troubles(caplog.get_records("call")) == []
    assert router.begun == router.ended


AIOHTTP = tuple(int(part) for part in aiohttp.__version__.split(".")[:3])


@pytest.mark.parametrize("name", BROKEN)
async def test_broken_delivery_is_refused(line, router, name, request):
    """A body or header that is not as it should be gets a 400, and nothing is recorded."""
    if AIOHTTP < (3, 13, 5) and "aiohttp in Python-chunk" in request.node.callspec.id:
        pytest.skip("this aiohttp, without its C, waits for the end of a chunk")
    got = await line.raw(BROKEN[name], ends=False)
    assert set(statuses(got)) == {400}, got
    assert await router.has_nothing()


@pytest.mark.parametrize("name", CUT)
async def test_sender_that_disconnects(line, router, name):
    """A delivery that ends in the middle, politely or not, runs nothing and leaves no task."""
    assert 200 not in statuses(await line.raw(CUT[name]))
    is_received = name != "in the head"
    await until(lambda: router.ended == is_received)
    _, writer = await asyncio.open_connection("127.0.0.1", line.url.port)
    writer.write(CUT[name])
    await until(lambda: router.begun == 2 * is_received)
    writer.transport.abort()
    await until(lambda: router.ended == 2 * is_received)
    assert router.verifier.bodies == []
    assert await router.has_nothing()


async def test_sender_that_disconnects_while_it_is_handled(line, router):
    """A delivery that came whole is handled though nobody waits for the answer any more."""
    router.release.clear()
    _, writer = await asyncio.open_connection("127.0.0.1", line.url.port)
    writer.write(head(LENGTH) + BODY)
    await until(lambda: router.verifier.bodies)
    writer.transport.abort()
    await until(lambda: writer.transport.get_extra_info("socket").fileno() == -1)
    router.release.set()
    await until(lambda: router.handled == ["X"])


@pytest.mark.parametrize("ends", [False, True])
async def test_body_that_is_too_large(line, router, ends):
    """Of 10 MB not much is read: 413 as soon as it is too much, and the connection is closed."""
    got = await line.raw(TOO_LARGE, ends=ends)
    assert statuses(got) == [413] or (ends and not got)
    assert b"\r\nconnection: close\r\n" in got.lower() or not got
    assert [len(body) for body in router.verifier.bodies] in ([65537], [][: not ends])
    assert await router.has_nothing()


@pytest.mark.parametrize(
    "lines", [[b"Content-Length: 10000000"], [b"Content-Encoding: gzip", LENGTH]]
)
async def test_what_was_not_read_is_no_delivery(line, router, lines):
    """What follows in a body that was refused unread is not taken for another request."""
    hidden = head(LENGTH) + BODY
    await line.raw(head(*lines) + b" " * 100_000 + hidden, ends=False)
    assert router.begun <= 1
    assert await router.has_nothing()


# uvicorn waits five seconds before it lets go of what it has not read.
@pytest.mark.parametrize(
    "line",
    [pytest.param(kind, marks=[pytest.mark.long] if kind == "asgi" else []) for kind in SERVERS],
    indirect=True,
)
async def test_bomb(line, router, request):
    """100 MiB in 100 kB are refused, and are not unpacked; but by aiohttp before 3.14."""
    if AIOHTTP < (3, 14) and "aiohttp" in request.node.callspec.id:
        pytest.skip("this aiohttp unpacks a body before anybody reads of it")
    bomb = gzip.compress(bytes(100 << 20))
    assert len(bomb) < 110_000
    lines = b"Content-Encoding: gzip", b"Content-Length: %d" % len(bomb)
    gc.collect()
    tracemalloc.start()
    try:
        got = await line.raw(head(*lines) + bomb, ends=False)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert statuses(got) in ([400], [413])
    assert most < 4_000_000
    assert await router.has_nothing()


async def test_chunked_delivery(line, router):
    """A body in chunks, however small, is the same body."""
    pieces = b"".join(chunk(BODY[i : i + 7]) for i in range(0, len(BODY), 7))
    got = await line.raw(head(CHUNKED, CLOSE) + pieces + LAST, ends=False)
    assert statuses(got) == [200]
    assert router.verifier.bodies == [BODY]


async def test_trailers_are_no_headers(line, router):
    """What stands behind the last chunk neither signs nor doubles a header."""
    trailers = b"0\r\n" + b"\r\n".join(HEADERS) + b"\r\n\r\n"
    got = await line.raw(head(CHUNKED, CLOSE) + chunk(BODY) + trailers, ends=False)
    assert statuses(got) == [200]
    got = await line.raw(head(CHUNKED, CLOSE, headers=[]) + chunk(BODY) + trailers, ends=False)
    assert statuses(got) == [400]


@pytest.mark.parametrize("name", ["X-Signature", "X-Nonce-Str", "X-Timestamp"])
async def test_header_that_came_twice(line, router, caplog, name):
    """Twice the same header, or another one, is refused at the step that says so."""
    (same,) = (header for header in HEADERS if header.startswith(name.encode()))
    for another in (same, name.lower().encode() + b": 1"):
        for headers in ([*HEADERS, another], [another, *HEADERS]):
            caplog.clear()
            got = await line.raw(head(LENGTH, CLOSE, headers=headers) + BODY, ends=False)
            assert statuses(got) == [400]
            assert f"refused at the step 'headers': {name} came twice" in caplog.text
    assert await router.has_nothing()


async def test_other_headers_may_be_anything(line, router):
    """Bytes that are not ASCII in a header that nobody reads do no harm."""
    got = await line.raw(head(LENGTH, CLOSE, b"X-A: \xff\xc3\xa9", b"X-A: ") + BODY, ends=False)
    assert statuses(got) == [200]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (BODY.replace(b",", b" ,\r\n\t"), 200),
        (b"\n\n" + BODY + b"  \r\n", 200),
        (b"\xef\xbb\xbf" + BODY, 400),
        (BODY + b"\0", 400),
        (BODY.replace(b"SUCCESS", b"SUCCE\xffS"), 400),
        (BODY.replace(b"SUCCESS", b"SUCCE\xed\xa0\x80S"), 400),
        (BODY.decode().encode("utf-16"), 400),
        (b"", 400),
    ],
)
async def test_body_is_verified_byte_for_byte(line, router, body, status):
    """The verifier gets the bytes that came, whatever they are; what is no UTF-8 is refused."""
    length = b"Content-Length: %d" % len(body)
    json = b"Content-Type: application/json; charset=utf-16"
    assert statuses(await line.raw(head(length, json, CLOSE) + body, ends=False)) == [status]
    assert router.verifier.bodies == [body]
    assert all(type(body) is bytes for body in router.verifier.bodies)


async def test_old_http(line, router):
    """HTTP/1.0 is answered, and its connection closed."""
    got = await line.raw(head(LENGTH, version="1.0") + BODY, ends=False)
    assert statuses(got) == [200]
    assert router.handled == ["X"]


async def test_connection_is_kept(line, router):
    """Deliveries that follow each other on one connection are each answered."""
    second = body_of("Y")
    forged = head(b"Content-Length: %d" % len(second)) + second
    reader, writer = await asyncio.open_connection("127.0.0.1", line.url.port)
    found = []
    for request in (head(LENGTH) + BODY, forged, head(LENGTH) + BODY):
        writer.write(request)
        found += statuses(await reader.readuntil(b"\r\n\r\n"))
    assert found == [200, 400, 200]
    assert router.handled == ["X"]
    writer.close()


async def test_pipelining(line, router):
    """Deliveries that come at once are answered in their order."""
    bodies = [body_of(f"CODE-{number}") for number in range(20)]
    requests = [
        head(b"Content-Length: %d" % len(body), headers=signed(body)) + body for body in bodies
    ]
    requests[7] = head(b"Content-Length: 2") + b"{}"
    requests[-1] = requests[-1].replace(b"Host: x", b"Host: x\r\n" + CLOSE)
    got = await line.raw(b"".join(requests), ends=False)
    assert statuses(got) == [200] * 7 + [400] + [200] * 12
    assert router.handled == [f"CODE-{number}" for number in range(20) if number != 7]


async def test_body_that_waits_to_be_asked_for(line, router):
    """A sender that expects 100 Continue is told so before it sends its body, and is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", line.url.port)
    async with asyncio.timeout(10):
        writer.write(head(LENGTH, CLOSE, b"Expect: 100-continue"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(BODY)
        assert statuses(await reader.read()) == [200]
    writer.close()


@pytest.mark.parametrize("kind", SERVERS)
async def test_slow_drip(kind, caplog):
    """A body that does not arrive in its time gets a 408, and the connection is closed."""
    router = Router(read_timeout_s=0.05)
    async with serving(kind, router) as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.url.port)
        writer.write(head(b"Content-Length: 60000") + BODY)
        answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        while not answer.done():
            if router.begun > router.ended:
                writer.write(b" ")
            await asyncio.sleep(0)
        assert statuses(await answer) == [408]
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        assert await router.has_nothing()
    assert "did not arrive whole in 0.05 s" in caplog.text
    assert troubles(caplog.records) == []


@pytest.mark.parametrize("kind", SERVERS)
async def test_chunks_that_break_while_they_are_read(kind, caplog):
    """Garbage after a chunk that is read already ends the delivery: at once, or as a slow one."""
    router = Router(read_timeout_s=0.05)
    async with serving(kind, router) as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.url.port)
        writer.write(head(CHUNKED) + chunk(BODY[:50]))
        await until(lambda: router.begun)
        writer.write(b"zz\r\nabc\r\n")
        assert statuses(await reader.readuntil(b"\r\n\r\n")) in ([400], [408])
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        await until(lambda: router.ended)
        assert await router.has_nothing()
    assert troubles(caplog.records) == []
