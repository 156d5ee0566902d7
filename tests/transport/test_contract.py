"""What every transport keeps to, proved over each of them."""

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import pytest
from support.http_servers import http, raw_server
from yarl import URL

from rm_voucher import (
    Request,
    Response,
    ResponseTimeoutError,
    Timeout,
)
from rm_voucher.transport.aiohttp import AiohttpTransport
from rm_voucher.transport.memory import MemoryTransport


def request_to(base: str, **changes):
    defaults = {
        "operation": "get",
        "method": "POST",
        "url": URL(base + "/v3/voucher/a%40b", encoded=True),
        "headers": {"X-Test": "1"},
        "body": b"{}",
    }
    return Request(**{**defaults, **changes})


@asynccontextmanager
async def over_memory(answer):
    def handler(request):
        seen.append((request.method, str(request.url), request.headers["X-Test"], request.body))
        return Response(status=answer[0], headers={"x-a": "1"}, body=answer[1])

    async def hang(request):
        seen.append((request.method,))
        await asyncio.Event().wait()

    seen: list[tuple[str, ...]] = []
    transport = MemoryTransport(hang if answer is None else handler)
    yield transport, "https://memory.invalid", seen
    await transport.aclose()


@asynccontextmanager
async def over_http(answer, *, borrowed=False):
    async def hang(reader, writer):
        await reader.read()

    script = hang if answer is None else http(*answer, "X-A: 1", "Location: /elsewhere")
    async with raw_server(script) as server:
        session = aiohttp.ClientSession() if borrowed else None
        transport = AiohttpTransport(session)
        seen = SeenOverHttp(server)
        try:
            yield transport, server.url, seen
        finally:
            await transport.aclose()
            if session is not None:
                assert not session.closed
                await session.close()


class SeenOverHttp:
    def __init__(self, server):
        self.server = server

    def __len__(self):
        return len(self.server.received)

    def __getitem__(self, index):
        got = self.server.received[index]
        return got.method, got.url, got.headers["x-test"], got.body


@asynccontextmanager
async def over_borrowed_session(answer):
    async with over_http(answer, borrowed=True) as made:
        yield made


each_transport = pytest.mark.parametrize("over", [over_memory, over_http, over_borrowed_session])


@each_transport
@pytest.mark.parametrize("status", [200, 204, 301, 404, 429, 500, 503])
async def test_send_returns_any_status(over, status):
    """Any status is an answer, a redirect too: it is neither raised nor followed nor repeated."""
    body = b"" if status == 204 else b"<x>"
    async with over((status, body)) as (transport, base, seen):
        response = await transport.send(request_to(base))
        assert (response.status, response.body) == (status, body)
        assert response.headers["x-a"] == "1"
        assert len(seen) == 1


@each_transport
@pytest.mark.parametrize(
    ("method", "body"), [("POST", b"{}"), ("GET", b""), ("PATCH", b'{"a":"\\u003c"}')]
)
async def test_send_moves_the_request_as_it_is(over, method, body):
    """Method, URL, headers and body arrive as they were given."""
    async with over((200, b"x")) as (transport, base, seen):
        request = request_to(base, method=method, body=body)
        await transport.send(request)
        assert seen[0] == (method, str(request.url), "1", body)


@each_transport
async def test_send_times_out_as_unknown(over):
    """No answer within ``attempt_s``: the outcome is unknown, and the message has no URL."""
    async with over(None) as (transport, base, seen):
        timeout = Timeout(connect_s=0.25, attempt_s=0.3)
        with pytest.raises(ResponseTimeoutError) as caught:
            await transport.send(request_to(base, timeout=timeout))
        assert len(seen) == 1
        assert "a@b" not in str(caught.value)
        assert "%40" not in str(caught.value)


@each_transport
async def test_send_can_be_cancelled(over):
    """Cancelling ends the call, and the transport works on."""
    async with over(None) as (transport, base, seen):
        task = asyncio.create_task(transport.send(request_to(base)))
        while not len(seen):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@each_transport
async def test_aclose_may_be_repeated(over):
    """Closing twice is closing."""
    async with over((200, b"")) as (transport, base, _):
        await transport.send(request_to(base))
        await transport.aclose()
        await transport.aclose()
