"""Bad input to a server, in bytes that are no HTTP: the next good request is always answered."""

import asyncio
import contextlib
import gc
import gzip
import tracemalloc

import pytest

GZIPPED = gzip.compress(b"0" * 50_000_000, 1)
POST = b"POST /v3/voucher-batch/K/issue HTTP/1.1\r\n"
LOCAL = b"Host: 127.0.0.1\r\n"
BATCHES = b"GET /_emulator/batches HTTP/1.1\r\n"
FOREIGN = b"GET http://evil.example/_emulator/batches HTTP/1.1\r\n" + LOCAL + b"\r\n"
GZIP = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
WHOLE = {
    "nothing": [b""],
    "TLS": [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256))],
    "SSH": [b"SSH-2.0-OpenSSH_9.9\r\n"],
    "HTTP/2": [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(64)],
    "HTTP/0.9": [b"GET /\r\n"],
    "HTTP/9.9": [b"GET / HTTP/9.9\r\n\r\n"],
    "zeros": [bytes(100_000)],
    "line feeds": [b"\r\n" * 50_000],
    "every byte": [bytes(range(256)) * 40],
    "no host": [b"GET /_emulator/batches HTTP/1.1\r\n\r\n"],
    "no host in 1.0": [b"GET /_emulator/batches HTTP/1.0\r\n\r\n"],
    "empty host": [b"GET /_emulator/batches HTTP/1.1\r\nHost:\r\n\r\n"],
    "two hosts": [BATCHES + LOCAL + b"Host: evil.example\r\n\r\n"],
    "twice the same host": [BATCHES + LOCAL + LOCAL + b"\r\n"],
    "host not ASCII": ["GET / HTTP/1.1\r\nHost: ⑯.example\r\n\r\n".encode()],
    "absolute": [b"GET http://127.0.0.1/_emulator/batches HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"],
    "absolute, foreign": [FOREIGN],
    "a foreign scheme": [b"GET file:///_emulator/batches HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"],
    "asterisk": [b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"],
    "authority": [b"CONNECT evil.example:443 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"],
    "fragment": [b"GET /v3/voucher-batches#x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"],
    "no method": [b" / HTTP/1.1\r\n\r\n"],
    "line of 1 MB": [b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n"],
    "method of 1 MB": [b"A" * 1_000_000],
}  # fmt: skip
BY_LENGTH = {
    "no number": [b"Content-Length: x\r\n\r\n{}"],
    "negative": [b"Content-Length: -1\r\n\r\n{}"],
    "very large": [b"Content-Length: 99999999999999999999\r\n\r\n{}"],
    "two": [b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}"],
    "length and chunks": [b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    "chunks of garbage": [b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n"],
    "garbage after a chunk": [b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", b"zz\r\nabc\r\n"],
    "chunk with no end": [b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}abcdef\r\n"],
    "a large chunk": [b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n{}"],
    "another encoding": [b"Transfer-Encoding: rot13\r\n\r\n{}"],
    "no gzip": [b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nxxxxx"],
    "no deflate": [b"Content-Encoding: deflate\r\nContent-Length: 5\r\n\r\nxxxxx"],
    "no Brotli": [b"Content-Encoding: br\r\nContent-Length: 5\r\n\r\nxxxxx"],
    "half a gzip": [GZIP % 9 + gzip.compress(b"[1, 2]")[:9]],
    "a gzip bomb": [GZIP % len(GZIPPED) + GZIPPED],
    "half a head": [b"X-A: "],
    "half a body": [b"Content-Length: 100\r\n\r\n{"],
    "half a chunk": [b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"],
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
async def test_what_is_no_request(line, name):
    """What is no request to this server gets a 400 or nothing, and no word of the emulator's."""
    got = await line.raw(*WHOLE[name])
    assert not got or got.split(b" ")[1] == b"400", got[:200]
    assert b'"key"' not in got


@pytest.mark.parametrize("name", BY_LENGTH)
@pytest.mark.parametrize("path", [POST, b"POST /_emulator/reset HTTP/1.1\r\n"])
async def test_body_that_its_headers_do_not_tell(line, name, path):
    """A body of a wrong length, chunk or encoding gets a 400 or 413, or nothing: never a 500."""
    line.emulator.state.issue("K")
    got = await line.raw(path + line.host + BY_LENGTH[name][0], *BY_LENGTH[name][1:])
    assert not got or got.split(b" ")[1] in (b"400", b"413"), got[:200]
    assert len(line.emulator.state.issued("K")) == 1


async def test_gone_in_the_middle(line):
    """A client that is gone before its request ends is forgotten, and nothing is done for it."""
    for parts in ([POST], [POST + line.host + b"Content-Length: 9\r\n\r\n{"]):
        for _ in range(50):
            _, writer = await asyncio.open_connection("127.0.0.1", line.url.port)
            writer.writelines(parts)
            writer.transport.abort()
    assert line.emulator.state.issued("K") == ()


async def test_pipelining(line):
    """Requests that come at once are answered one after the other, up to what is none."""
    one = b"GET /_emulator/batches HTTP/1.1\r\n" + line.host + b"\r\n"
    last = one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    got = await line.raw(one * 99 + last, ends=False)
    assert got.count(b"HTTP/1.1 200 ") == 100
    got = await line.raw(one, b"garbage\r\n\r\n", one * 3, ends=False)
    assert got.count(b"HTTP/1.1 200 ") <= 1
    assert got.count(b" 400 ") == 1


async def test_idle_connections(line):
    """200 connections that say nothing, or half a line, keep nobody else from being answered."""
    async with contextlib.AsyncExitStack() as stack:
        for number in range(200):
            _, writer = await asyncio.open_connection("127.0.0.1", line.url.port)
            stack.callback(writer.close)
            writer.write(b"" if number % 2 else b"GET /v3")
        assert await line.is_good()


async def test_memory_is_bounded(line):
    """Large bodies, bombs and heads leave nothing behind, and are not kept whole meanwhile."""
    bomb = POST + line.host + BY_LENGTH["a gzip bomb"][0]
    tracemalloc.start()
    try:
        for _ in range(3):
            await line.send("POST", "/_emulator/batches", b"x" * 10_000_000)
            await line.raw(bomb)
            await line.raw(*WHOLE["line of 1 MB"])
            gc.collect()
        left, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 5_000_000
    assert most < 40_000_000


async def test_body_that_waits_to_be_asked_for(line):
    """A client that expects 100 Continue is told so before it sends its body, and is answered."""
    head = b"POST /_emulator/clock HTTP/1.1\r\n" + line.host + b"Content-Length: 2\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", line.url.port)
    async with asyncio.timeout(5):
        writer.write(head + b"Expect: 100-continue\r\nConnection: close\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
