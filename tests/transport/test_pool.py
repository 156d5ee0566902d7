"""What a pool of connections that are all in use says, and what it does not."""

import asyncio
from unittest import mock

import aiohttp
import attrs
import pytest
from support.http_servers import raw_server
from yarl import URL

from rm_voucher import (
    ConnectTimeoutError,
    Limits,
    PoolTimeoutError,
    Request,
    Timeout,
    TransportError,
)
from rm_voucher.transport.aiohttp import AiohttpTransport

REQUEST = Request(operation="get", method="POST", url=URL("http://127.0.0.1:1/"), body=b"{}")


def to(server, **changes):
    return attrs.evolve(REQUEST, url=URL(server.url + "/"), **changes)


@pytest.fixture
async def busy():
    """Give a server, a transport to it, and the call that has its only connection."""
    arrived = asyncio.Event()

    async def hang(reader, writer):
        arrived.set()
        await reader.read()

    async with raw_server(hang) as server:
        transport = AiohttpTransport(limits=Limits(max_connections=1))
        first = asyncio.create_task(transport.send(to(server)))
        await arrived.wait()
        yield server, transport, first
        first.cancel()
        await asyncio.wait([first])
        await transport.aclose()


async def test_connect_pool_exhausted_is_not_sent(busy):
    """No connection free in time: the request that waited was not sent."""
    server, transport, _ = busy
    with pytest.raises(PoolTimeoutError, match=r"^get: no connection became free in time$"):
        await transport.send(to(server, timeout=Timeout(connect_s=0.05, attempt_s=30)))
    assert len(server.received) == 1


async def test_closing_under_a_waiting_call_is_an_error_not_a_cancellation(busy):
    """A call that waits for a connection when the transport closes ends in an error of ours."""
    server, transport, first = busy
    second = asyncio.create_task(transport.send(to(server)))
    await asyncio.sleep(0)
    (out,) = transport._out.values()
    assert len(out) == 2
    await transport.aclose()
    ended = await asyncio.gather(first, second, return_exceptions=True)
    assert [isinstance(error, TransportError) for error in ended] == [True, True]


@pytest.mark.parametrize("limit", [0, 1, 2])
async def test_connect_timeout_with_few_out_is_the_servers(limit):
    """Where a connection was free, or their number has no limit, it says that the server is not
    there; so it does for the oldest of many. Nothing is kept of what was out."""

    async def late(*_, **__):
        await asyncio.sleep(0)
        raise aiohttp.ConnectionTimeoutError

    connector = aiohttp.TCPConnector(limit=limit)
    async with aiohttp.ClientSession(connector=connector) as session:
        transport = AiohttpTransport(session)
        with mock.patch.object(connector, "connect", late):
            sending = (transport.send(attrs.evolve(REQUEST, method=m)) for m in ("POST", "GET"))
            ends = await asyncio.gather(*sending, return_exceptions=True)
        assert [type(end) for end in ends] == [ConnectTimeoutError] * 2
        assert transport._out == {}
