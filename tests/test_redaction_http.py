"""Over HTTP, too, nothing that is secret leaves in an error, and no frame of aiohttp's with it."""

import asyncio
import contextlib
import socket

import pytest
from support.canaries import CANARIES, ECHO, in_error, in_reprs
from support.http_servers import http, raw_server
from support.troubles import OPERATIONS, CanarySigner, outcome_of

from rm_voucher import (
    Credentials,
    Environment,
    Limits,
    RetryPolicy,
    Runtime,
    StaticToken,
    Timeout,
    VoucherClient,
    VoucherError,
)
from rm_voucher.transport.aiohttp import AiohttpTransport

BODY = f'{{"item": "{ECHO}"'.encode()
SERVERS = {
    "cut short": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n" + BODY,
    "closed": b"",
    "not HTTP": b"SSH-2.0-OpenSSH " + BODY + b"\r\n\r\n",
    "wrong header": b"HTTP/1.1 200 OK\r\nX-\x00: " + BODY + b"\r\n\r\n",
    "redirect": http(302, BODY, f"Location: /v3/{CANARIES['code']}"),
    "refused": http(400, BODY),
    "unreadable": http(200, BODY),
    "too large": http(200, BODY * 9),
}


@contextlib.asynccontextmanager
async def client_of(url, **options):
    time = iter(range(10**6))
    transport = AiohttpTransport(limits=Limits(max_response_bytes=2000))
    credentials = Credentials("client-id", CANARIES["client secret"], b"")

    async def no_wait(seconds):
        await asyncio.sleep(0)

    client = VoucherClient(
        credentials,
        environment=Environment.at(url),
        transport=transport,
        token_source=StaticToken(CANARIES["access token"]),
        signer=CanarySigner(),
        retry=RetryPolicy(max_attempts=2),
        runtime=Runtime(clock=lambda: float(next(time)), sleep=no_wait),
        **options,
    )
    async with client:
        yield client
    await transport.aclose()


def check(client, ended):
    assert isinstance(ended, VoucherError)
    assert in_error(ended) + in_reprs(client, client.caller, ended) == []


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_error_over_http_shows_nothing(operation, server):
    """Whatever a server's bytes are, the error shows no canary."""
    async with raw_server(forever=SERVERS[server]) as raw, client_of(raw.url) as client:
        ended = await outcome_of(OPERATIONS[operation](client))
        if not (operation.startswith("request") and server == "unreadable"):
            check(client, ended)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_error_without_a_connection_shows_nothing(operation):
    """A port where nobody listens: the error shows no canary."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        async with client_of(f"http://127.0.0.1:{closed.getsockname()[1]}") as client:
            check(client, await outcome_of(OPERATIONS[operation](client)))


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_error_of_tls_shows_nothing(operation):
    """A server that speaks no TLS: the error shows no canary."""

    async def refuse(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server, client_of(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}") as c:
        ended = await outcome_of(OPERATIONS[operation](c))
        check(c, ended)
        assert "TLS" in str(ended)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_error_of_a_slow_server_shows_nothing(operation):
    """An answer that does not come in time: the error shows no canary."""

    async def hang(reader, writer):
        await reader.read()

    quick = Timeout(connect_s=0.01, attempt_s=0.02)
    async with raw_server(*[hang] * 20) as raw, client_of(raw.url, timeout=quick) as client:
        check(client, await outcome_of(OPERATIONS[operation](client)))


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_cancellation_over_http_shows_nothing(operation):
    """A call that is cancelled while its answer is awaited shows no canary and no aiohttp."""
    arrived = asyncio.Event()

    async def hang(reader, writer):
        arrived.set()
        await reader.read()

    async with raw_server(hang) as raw, client_of(raw.url) as client:
        task = asyncio.ensure_future(OPERATIONS[operation](client))
        await arrived.wait()
        task.cancel()
        ended = await outcome_of(task)
        assert isinstance(ended, asyncio.CancelledError)
        assert in_error(ended) == []


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
async def test_cause_over_http_keeps_no_frame_of_aiohttp(method):
    """The cause of an unknown outcome has no frame of aiohttp's, by whatever method it was sent."""
    async with raw_server(forever=SERVERS["closed"]) as raw, client_of(raw.url) as client:
        ended = await outcome_of(client.request(method, "/v3/x", json={}))
        assert isinstance(ended.__cause__, VoucherError)
        assert in_error(ended) == []


async def test_cause_over_http_keeps_no_answer():
    """An issue whose answer is too large does not show it: it may hold the code."""
    async with raw_server(forever=SERVERS["too large"]) as raw, client_of(raw.url) as client:
        ended = await outcome_of(client.issue("KEY"))
        assert isinstance(ended.__cause__, VoucherError)
        assert in_error(ended) == []
