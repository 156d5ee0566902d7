"""What a pool of connections that are all in use says, and what it does not."""

import asyncio
from unittest import mock

import aiohttp
import attrs
import pytest
from support.cancellation import turn
from support.http_servers import http, raw_server
from yarl import URL

from rm_voucher import (
    ClosedError,
    ConnectTimeoutError,
    Limits,
    PoolTimeoutError,
    Request,
    ResponseLostError,
    ResponseTimeoutError,
    Timeout,
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

    async with raw_server(hang, hang) as server:
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


async def test_error_of_a_full_pool_brings_no_frame_with_it(busy):
    """No cause and no context: their frames would have the token and the URL as locals."""
    server, transport, _ = busy
    with pytest.raises(PoolTimeoutError) as caught:
        await transport.send(to(server, timeout=Timeout(connect_s=0.05, attempt_s=30)))
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.parametrize(
    ("waits_s", "error"), [(0.02, ConnectTimeoutError), (0.12, PoolTimeoutError)]
)
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_connect_timeout_after_a_long_wait_is_the_pools(busy, waits_s, error, method):
    """Where the pool took most of the time to connect, what is left of it is no test of the
    server, and all callers would pause for it."""
    server, transport, first = busy
    session, _ = await transport._session()

    async def late(*_, **__):
        raise aiohttp.ConnectionTimeoutError

    asyncio.get_running_loop().call_later(waits_s, first.cancel)
    request = to(server, method=method, timeout=Timeout(connect_s=0.2, attempt_s=30))
    with mock.patch.object(session.connector, "connect", late), pytest.raises(error) as caught:
        await transport.send(request)
    assert type(caught.value) is error
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


async def test_closing_under_a_waiting_call_is_an_error_not_a_cancellation(busy):
    """A call that waits for a connection when the transport closes ends in an error of ours."""
    server, transport, first = busy
    second = asyncio.create_task(transport.send(to(server)))
    await turn(3)
    await transport.aclose()
    ended = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(error) for error in ended] == [ResponseLostError, ClosedError]
    assert len(server.received) == 1


async def test_closing_a_session_under_a_call_in_its_queue_is_an_error():
    """So does a call that waits in a borrowed session's own queue, whose limit is for each host:
    the end of the session is no cancellation of the call, and it was not sent."""
    arrived = asyncio.Event()

    async def hang(reader, writer):
        arrived.set()
        await reader.read()

    async with raw_server(hang, hang) as server:
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit_per_host=1))
        transport = AiohttpTransport(session)
        sending = [asyncio.create_task(transport.send(to(server))) for _ in range(2)]
        await arrived.wait()
        await session.close()
        ended = await asyncio.gather(*sending, return_exceptions=True)
        assert [type(error) for error in ended] == [ResponseLostError, ClosedError]


@pytest.mark.parametrize("limit", [0, 1, 2])
async def test_connect_timeout_with_few_out_is_the_servers(limit):
    """Where a connection was free, or their number has no limit, it says that the server is not
    there; so it does for the oldest of many."""

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


async def test_pool_serves_in_the_order_of_coming():
    """Requests that wait for a connection get it in their order."""
    async with raw_server(forever=http(200, b"x")) as server:
        transport = AiohttpTransport(limits=Limits(max_connections=1))
        requests = [to(server, headers={"X-Number": str(number)}) for number in range(20)]
        answers = await asyncio.gather(*map(transport.send, requests))
        await transport.aclose()
        assert [answer.body for answer in answers] == [b"x"] * 20
        assert [received.headers["x-number"] for received in server.received] == [
            str(number) for number in range(20)
        ]
        assert server.connections == 1


@pytest.mark.parametrize("turns", range(8))
async def test_pool_gives_back_the_place_of_a_wait_that_is_cancelled(turns):
    """A request that is cancelled while it waits, also just when it gets the connection, takes
    nobody's place."""
    arrived = asyncio.Event()

    async def hang(reader, writer):
        arrived.set()
        await reader.read()

    async with raw_server(hang, forever=http(200, b"x")) as server:
        transport = AiohttpTransport(limits=Limits(max_connections=1))
        first, second = (asyncio.create_task(transport.send(to(server))) for _ in range(2))
        await arrived.wait()
        first.cancel()
        await turn(turns)
        second.cancel()
        await asyncio.wait([first, second])
        answer = await asyncio.wait_for(transport.send(to(server)), 30)
        assert answer.body == b"x"
        await transport.aclose()


async def test_wait_for_the_pool_is_part_of_the_attempts_time(busy):
    """What a request waited for its connection, its answer has less time for."""
    server, transport, first = busy
    loop = asyncio.get_running_loop()
    begun = loop.time()
    loop.call_later(0.3, first.cancel)
    with pytest.raises(ResponseTimeoutError):
        await transport.send(to(server, timeout=Timeout(connect_s=0.45, attempt_s=0.5)))
    assert 0.45 < loop.time() - begun < 0.7
