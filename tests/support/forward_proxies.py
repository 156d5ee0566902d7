"""A forward proxy that refuses or tunnels as a script says, and TLS in front of a plain server."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
from support.http_servers import Conversation, Received, read_request

TUNNEL = b"HTTP/1.1 200 Connection established\r\n\r\n"


@attrs.define
class ForwardProxy:
    """What came to it: each request that it was sent, none of which is inside a tunnel."""

    address: str = ""
    received: list[Received] = attrs.field(factory=list)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


async def _join(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
    finally:
        far_writer.close()


@asynccontextmanager
async def _listening(serve: Conversation, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[None]] = set()

    async def kept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(kept, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


@asynccontextmanager
async def forward_proxy(
    *script: bytes | Conversation, port: int = 0
) -> AsyncIterator[ForwardProxy]:
    """Answer by the script, the last answer again and again; a `TUNNEL` leads to a local port."""
    proxy, left = ForwardProxy(), list(script)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        if request is None:
            return
        proxy.received.append(request)
        answer = left.pop(0) if len(left) > 1 else left[0]
        if not isinstance(answer, bytes):
            await answer(reader, writer)
            return
        writer.write(answer)
        if answer is TUNNEL:
            await _join(port, reader, writer)

    async with _listening(serve) as listening:
        proxy.address = f"127.0.0.1:{listening}"
        yield proxy


@asynccontextmanager
async def tls_front(port: int, tls: ssl.SSLContext) -> AsyncIterator[int]:
    """Listen with TLS in front of a plain server on a local port; give the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _join(port, reader, writer)

    async with _listening(serve, tls) as listening:
        yield listening
