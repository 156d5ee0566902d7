"""An HTTP server that is nothing but bytes: it records what arrives and sends what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs

Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@attrs.frozen
class Received:
    """One request as it came over the wire."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def url(self) -> str:
        return f"http://{self.headers['host']}{self.target}"


@attrs.define
class RawServer:
    url: str = ""
    forever: bytes | None = None
    received: list[Received] = attrs.field(factory=list)
    connections: int = 0


async def read_request(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, target, headers, body)


def http(status: int = 200, body: bytes = b"", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def raw_server(
    *answers: bytes | Conversation, forever: bytes | None = None
) -> AsyncIterator[RawServer]:
    """Answer requests in order, bytes as they stand; a conversation takes the connection over.

    After an answer that does not announce a length the connection is closed. ``forever`` answers
    whatever is not scripted.
    """
    record = RawServer(forever=forever)
    script = list(answers)
    open_writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        record.connections += 1
        open_writers.add(writer)
        try:
            while (request := await read_request(reader)) is not None:
                record.received.append(request)
                answer = script.pop(0) if script else record.forever
                assert answer is not None, "one request too many"
                if not isinstance(answer, bytes):
                    await answer(reader, writer)
                    return
                writer.write(answer)
                await writer.drain()
                if b"Content-Length" not in answer:
                    return
        except ConnectionError:
            pass
        finally:
            open_writers.discard(writer)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    record.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield record
    finally:
        server.close()
        for writer in list(open_writers):
            writer.close()
        await server.wait_closed()
