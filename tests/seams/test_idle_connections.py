"""A connection that lay idle carries a request only if nothing has happened on it.

A server or a load balancer closes it without a word, or says something that nobody asked for, such
as its own 408, and then closes or not. All of that may lie in the kernel while the event loop is
busy, or in aiohttp's buffer. None of it is the answer to the next request, and none of it leaves
the outcome of that request unknown: it goes over another connection.
"""

import asyncio

import aiohttp
import pytest
from support.http_servers import http, raw_server
from support.silent_server import make_certificate, silent_server
from yarl import URL

from rm_voucher import Request
from rm_voucher.transport.aiohttp import AiohttpTransport

STOLEN = http(200, b'{"number":"stolen"}')
LOAD_BALANCERS_408 = http(408, b"<html>Request Time-out</html>", "Connection: close")


def to(server):
    return Request(operation="issue", method="POST", url=URL(server.url + "/"), body=b"{}")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=["own", "borrowed"])
async def transport(request, certificate):
    """Give a transport, over a session of its own and over a borrowed one."""
    session = aiohttp.ClientSession() if request.param == "borrowed" else None
    transport = AiohttpTransport(session, ssl_context=certificate.client)
    yield transport
    await transport.aclose()
    if session is not None:
        await session.close()


async def numbers(transport, server, method, calls, turns):
    """Send one after the other, and let the server do its deed between them; return the answers."""
    answers = []
    for _ in range(calls):
        answer = await transport.send(server.request(method))
        answers.append((answer.status, answer.body))
        server.go_on()
        for _ in range(turns):
            await asyncio.sleep(0)
    return answers


def all_their_own(calls):
    return [(200, b'{"number":%d}' % number) for number in range(1, calls + 1)]


@pytest.mark.parametrize("turns", [0, 1, 2, 8])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("method", ["POST", "PATCH", "GET"])
async def test_connection_that_was_closed_silently_is_not_used(
    transport, certificate, method, scheme, turns
):
    """However few turns the loop had since: of 100 single issues 50 ended unknown."""
    tls = certificate.server if scheme == "https" else None
    with silent_server(tls=tls) as server:
        assert await numbers(transport, server, method, 10, turns) == all_their_own(10)
        assert (server.requests, server.connections) == (10, 10)


@pytest.mark.parametrize("turns", [0, 1, 2, 8])
@pytest.mark.parametrize(
    ("behind", "closes"),
    [
        (STOLEN, True),
        (STOLEN, False),
        (LOAD_BALANCERS_408, True),
        (LOAD_BALANCERS_408, False),
        (b"HTTP/1.1 200 OK\r\nContent-Le", True),
        (b"junk", True),
        (b"junk", False),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_bytes_that_nobody_asked_for_answer_nothing(transport, behind, closes, turns):
    """Another's voucher, and a load balancer's word about the silence, were the next answer."""
    with silent_server(behind=behind, closes=closes) as server:
        assert await numbers(transport, server, "POST", 4, turns) == all_their_own(4)
        assert (server.requests, server.connections) == (4, 4)


async def test_bytes_that_came_with_an_answer_answer_nothing(transport):
    """Another answer right behind the first is not kept for the next request."""
    async with raw_server(http(200, b"1") + STOLEN, forever=http(200, b"2")) as server:
        answers = [(await transport.send(to(server))).body for _ in range(2)]
        assert answers == [b"1", b"2"]


async def test_connection_that_is_quiet_is_used_again(transport):
    """It costs no new connection where nothing happened, or only an empty line came."""
    async with raw_server(http(200, b"x") + b"\r\n", forever=http(200, b"x")) as server:
        for _ in range(5):
            await transport.send(to(server))
        assert (len(server.received), server.connections) == (5, 1)
