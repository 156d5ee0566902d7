"""The HTTP transport: aiohttp's errors mapped, sizes and times bounded, nothing sent twice."""

import asyncio
import functools
import gc
import inspect
import socket
import ssl
import subprocess
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import aiohttp
import aioresponses
import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from support.http_servers import http, raw_server
from yarl import URL

from rm_voucher import (
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    Limits,
    Request,
    ResponseLostError,
    ResponseTimeoutError,
    Timeout,
    TransportError,
)
from rm_voucher.transport.aiohttp import AiohttpTransport

URL_ = "http://127.0.0.1:1/v3/voucher/NAklEfbVdV"
REQUEST = Request(operation="get", method="POST", url=URL(URL_, encoded=True), body=b"{}")


def to(server, method="POST", body=b"{}", **options):
    url = URL(server.url + "/v3/voucher/X", encoded=True)
    return Request(operation="get", method=method, url=url, body=body, **options)


KEY = aiohttp.client_reqrep.ConnectionKey("h", 1, False, True, None, None, None)
INFO = aiohttp.RequestInfo(URL(URL_), "POST", CIMultiDictProxy(CIMultiDict()), URL(URL_))
OS_ERROR = OSError(111, "refused")
TLS_ERROR = ssl.SSLError(1, "x")
# Every exception class of the installed aiohttp, one by one: how it is made, what it becomes.
FOREIGN = {
    "ClientConnectionError": (lambda c: c(), ResponseLostError),
    "ClientConnectionResetError": (lambda c: c(), ResponseLostError),
    "ClientConnectorCertificateError": (
        lambda c: c(KEY, ssl.CertificateError("x")),
        ConnectError,
    ),
    "ClientConnectorDNSError": (lambda c: c(KEY, OS_ERROR), ConnectError),
    "ClientConnectorError": (lambda c: c(KEY, OS_ERROR), ConnectError),
    "ClientConnectorSSLError": (lambda c: c(KEY, TLS_ERROR), ConnectError),
    "ClientError": (lambda c: c(), ResponseLostError),
    "ClientHttpProxyError": (lambda c: c(INFO, (), status=503), ConnectError),
    "ClientOSError": (lambda c: c(104, "reset"), ResponseLostError),
    "ClientPayloadError": (lambda c: c(), ResponseLostError),
    "ClientProxyConnectionError": (lambda c: c(KEY, OS_ERROR), ConnectError),
    "ClientResponseError": (lambda c: c(INFO, ()), ResponseLostError),
    "ClientSSLError": (lambda c: c(KEY, TLS_ERROR), ConnectError),
    "ConnectionTimeoutError": (lambda c: c(), ConnectTimeoutError),
    "ContentTypeError": (lambda c: c(INFO, ()), ResponseLostError),
    "InvalidURL": (lambda c: c("x"), ConnectError),
    "InvalidUrlClientError": (lambda c: c("x"), ConnectError),
    "InvalidUrlRedirectClientError": (lambda c: c("x"), ConnectError),
    "NonHttpUrlClientError": (lambda c: c("x"), ConnectError),
    "NonHttpUrlRedirectClientError": (lambda c: c("x"), ConnectError),
    "RedirectClientError": (lambda c: c(), ResponseLostError),
    "ServerConnectionError": (lambda c: c(), ResponseLostError),
    "ServerDisconnectedError": (lambda c: c(), ResponseLostError),
    "ServerFingerprintMismatch": (lambda c: c(b"a", b"b", "h", 1), ResponseLostError),
    "ServerTimeoutError": (lambda c: c(), ResponseTimeoutError),
    "SocketTimeoutError": (lambda c: c(), ResponseTimeoutError),
    "TooManyRedirects": (lambda c: c(INFO, ()), ResponseLostError),
    "UnixClientConnectorError": (lambda c: c("/s", KEY, OS_ERROR), ConnectError),
    "UploadAbortedError": (lambda c: c(), ResponseLostError),
    "WSServerHandshakeError": (lambda c: c(INFO, ()), ResponseLostError),
}
# Raised for messages over a WebSocket, which is never opened here.
NOT_OF_A_REQUEST = {"WSMessageTypeError"}
NEW = {"UploadAbortedError"}  # aiohttp 3.12 has none


def exceptions_of_aiohttp():
    found = vars(aiohttp.client_exceptions).items()
    return {
        name
        for name, value in found
        if inspect.isclass(value)
        and issubclass(value, Exception)
        and value.__module__ == "aiohttp.client_exceptions"
    }


def test_every_exception_of_aiohttp_is_known():
    """A new aiohttp with a new exception class fails here first."""
    assert exceptions_of_aiohttp() | NEW == set(FOREIGN) | NOT_OF_A_REQUEST


@pytest.fixture
def stub():
    """aioresponses 0.7.9 does not know that aiohttp 3.14 wants a ``stream_writer``."""
    wanted = inspect.signature(aiohttp.ClientResponse).parameters.keys() & {"stream_writer"}

    class Stubbed(aiohttp.ClientResponse):
        def __init__(self, *args, **kwargs):
            kwargs |= {name: mock.Mock(output_size=0) for name in wanted}
            super().__init__(*args, **kwargs)

    with aioresponses.aioresponses() as mocked:
        yield functools.partial(mocked.post, response_class=Stubbed)


async def send(request, transport=None):
    transport = transport or AiohttpTransport()
    try:
        return await transport.send(request)
    finally:
        await transport.aclose()


@pytest.mark.parametrize("name", sorted(FOREIGN.keys() & exceptions_of_aiohttp()))
async def test_foreign_exception_is_mapped(stub, name):
    """Each exception of aiohttp becomes one of ours, alone: its text could hold URL and headers."""
    make, ours = FOREIGN[name]
    foreign = make(getattr(aiohttp.client_exceptions, name))
    stub(URL_, exception=foreign)
    with pytest.raises(TransportError) as caught:
        await send(REQUEST)
    assert type(caught.value) is ours
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert name in str(caught.value)
    assert "NAklEfbVdV" not in str(caught.value)


@pytest.mark.parametrize(
    ("foreign", "ours"),
    [
        (TimeoutError(), ResponseTimeoutError),
        (OSError(5, "x"), ResponseLostError),
        (ConnectionResetError(), ResponseLostError),
        (ssl.SSLError(1, "x"), ResponseLostError),
        (ValueError("x"), ResponseLostError),
        (RuntimeError("x"), ResponseLostError),
    ],
)
async def test_foreign_exception_of_the_system_is_mapped(stub, foreign, ours):
    """What the system raises below aiohttp is mapped, and never as *not sent*."""
    stub(URL_, exception=foreign)
    with pytest.raises(TransportError) as caught:
        await send(REQUEST)
    assert type(caught.value) is ours


async def test_stubbed_status_comes_through(stub):
    """A status is no exception, also where a session would raise for it."""
    stub(URL_, status=503, body=b"busy", headers={"Retry-After": "3"})
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        response = await send(REQUEST, AiohttpTransport(session))
    assert (response.status, response.body) == (503, b"busy")
    assert response.headers["retry-after"] == "3"


async def test_connect_refused_is_not_sent():
    """Nobody listens: provably nothing was sent."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        url = URL(f"http://127.0.0.1:{port}/")
        with pytest.raises(ConnectError):
            await send(Request(operation="get", method="POST", url=url, body=b"{}"))


async def test_connect_tls_to_a_plain_server_is_not_sent():
    """A failed TLS handshake sends nothing of the request."""
    received = []

    async def answer(reader, writer):
        received.append(await reader.read(100))
        writer.write(http(400))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = URL(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    with pytest.raises(ConnectError, match="TLS"):
        await send(Request(operation="get", method="POST", url=url, body=b"{}"))
    server.close()
    await server.wait_closed()
    assert received[0][0] == 0x16  # a TLS handshake record, and no request


async def cut(reader, writer):
    writer.close()


async def reset(reader, writer):
    writer.transport.abort()


def saying(raw):
    async def conversation(reader, writer):
        writer.write(raw)
        await writer.drain()

    return conversation


not_http = saying(b"SSH-2.0-OpenSSH_9\r\n\r\n")
BROKEN = {
    "cut": cut,
    "reset": reset,
    "half a head": saying(b"HTTP/1.1 200 OK\r\nContent-"),
    "wrong length": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
    "bad chunk": saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}"),
    "not http": not_http,
    "huge header": saying(b"HTTP/1.1 200 OK\r\nX-Big: " + b"x" * 1_000_000 + b"\r\n\r\n"),
}


@pytest.mark.parametrize("conversation", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_answer_broken_is_lost_and_sent_once(conversation, method):
    """Every answer that breaks leaves the outcome unknown, and the transport repeats nothing."""
    async with raw_server(conversation, forever=http()) as server:
        with pytest.raises(ResponseLostError):
            await send(to(server, method, b"" if method == "GET" else b"{}"))
        assert len(server.received) == 1


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "PUT", "DELETE"])
@pytest.mark.parametrize("borrowed", [False, True])
async def test_dead_kept_alive_connection_is_not_retried(borrowed, method):
    """aiohttp would re-send a GET, with the same nonce, when a kept connection dies: not here."""
    async with raw_server(http(), cut, forever=http()) as server:
        session = aiohttp.ClientSession() if borrowed else None
        transport = AiohttpTransport(session)
        await transport.send(to(server, method, b""))
        with pytest.raises(ResponseLostError):
            await transport.send(to(server, method, b""))
        assert (len(server.received), server.connections) == (2, 1)
        await transport.aclose()
        if session:
            await session.close()


async def test_redirect_to_another_host_is_not_followed():
    """Signature and token would leave with it."""
    async with (
        raw_server(forever=http()) as other,
        raw_server(http(301, b"", f"Location: {other.url}/")) as server,
    ):
        assert (await send(to(server))).status == 301
        assert other.received == []


async def test_nothing_is_asked_compressed():
    """Some gateways compress all the same: see seams/test_clumsy_answers.py."""
    async with raw_server(http()) as server:
        await send(to(server))
        assert server.received[0].headers["accept-encoding"] == "identity"


async def test_body_without_end_is_cut_off():
    """A body that outgrows the limit is given up, announced or not."""
    closed = asyncio.Event()

    async def endless(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except ConnectionError:
            closed.set()

    async with raw_server(endless) as server:
        transport = AiohttpTransport(limits=Limits(max_response_bytes=1 << 20))
        with pytest.raises(ResponseLostError, match="larger than allowed"):
            await send(to(server), transport)
        await closed.wait()


async def test_body_at_the_limit_is_whole():
    """The limit itself is allowed."""
    async with raw_server(http(200, b"x" * 1000), http(200, b"x" * 1001)) as server:
        transport = AiohttpTransport(limits=Limits(max_response_bytes=1000))
        assert len((await transport.send(to(server))).body) == 1000
        with pytest.raises(ResponseLostError):
            await transport.send(to(server))
        await transport.aclose()


async def test_slow_drip_times_out():
    """An answer that trickles is bounded by the attempt's time, not by the gap between bytes."""

    async def drip(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        try:
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass

    async with raw_server(drip) as server:
        with pytest.raises(ResponseTimeoutError):
            await send(to(server, timeout=Timeout(connect_s=0.25, attempt_s=0.3)))


async def test_cookies_are_not_kept():
    """A client shared by many requests keeps no state that a server sets."""
    async with raw_server(http(200, b"", "Set-Cookie: a=b; Path=/"), http()) as server:
        server.url = server.url.replace("127.0.0.1", "localhost")  # jars take none from addresses
        transport = AiohttpTransport()
        await transport.send(to(server))
        await transport.send(to(server))
        await transport.aclose()
        assert "cookie" not in server.received[1].headers
        assert server.received[0].headers["user-agent"].startswith("rm-voucher/")


async def test_instrumentation_of_aiohttp_sees_nothing(monkeypatch):
    """Sentry's and OpenTelemetry's trace each session that is made, with the code in its URLs."""
    told = []

    async def begun(session, context, parameters):
        told.append(str(parameters.url))
        parameters.headers["sentry-trace"] = "1"

    def trace(session, *args, **kwargs):
        config = aiohttp.TraceConfig()
        config.on_request_start.append(begun)
        make(session, *args, **{**kwargs, "trace_configs": [config]})

    make = aiohttp.ClientSession.__init__
    monkeypatch.setattr(aiohttp.ClientSession, "__init__", trace)
    async with raw_server(http()) as server:
        await send(to(server))
        assert "sentry-trace" not in server.received[0].headers
    assert told == []


async def test_session_closed_by_its_owner_is_not_sent():
    """A borrowed session that is closed sends nothing."""
    session = aiohttp.ClientSession()
    await session.close()
    with pytest.raises(ConnectError, match="closed"):
        await send(REQUEST, AiohttpTransport(session))


async def test_session_with_auth_is_refused():
    """A session that would add another Authorization is refused when it is handed over."""
    with warnings.catch_warnings(action="ignore"):  # aiohttp 3.14 calls it old
        session = aiohttp.ClientSession(auth=aiohttp.BasicAuth("a", "b"))
    async with session:
        with pytest.raises(ConfigurationError, match="auth"):
            AiohttpTransport(session)


async def test_session_middlewares_do_not_run():
    """A borrowed session's middlewares could send again; requests of ours go past them."""

    async def doubling(request, handler):
        await handler(request)
        return await handler(request)

    async with raw_server(http(), forever=http()) as server:
        async with aiohttp.ClientSession(middlewares=[doubling]) as session:
            await send(to(server), AiohttpTransport(session))
        assert len(server.received) == 1


def test_tls_is_always_verified():
    """A context that trusts everybody is refused; the default one verifies."""
    lax = ssl.create_default_context()
    lax.check_hostname = False
    with pytest.raises(ConfigurationError, match="check_hostname"):
        AiohttpTransport(ssl_context=lax)
    lax.verify_mode = ssl.CERT_NONE
    with pytest.raises(ConfigurationError, match="CERT_REQUIRED"):
        AiohttpTransport(ssl_context=lax)
    AiohttpTransport(ssl_context=ssl.create_default_context())


async def test_tls_certificate_of_a_stranger_is_not_sent(tmp_path):
    """A certificate that no authority signed ends the connection, also in a session that would
    take it."""
    subprocess.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -days 2"
        " -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1",
        shell=True,
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")

    async def refuse(reader, writer):
        raise AssertionError("a request arrived")

    server = await asyncio.start_server(refuse, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    url = URL(f"https://127.0.0.1:{port}/")
    request = Request(operation="get", method="POST", url=url, body=b"{}")
    connector = aiohttp.TCPConnector(ssl=False)
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(ConnectError, match="certificate"):
            await send(request, AiohttpTransport(session))
        with pytest.raises(ConnectError, match="certificate"):
            await send(request)
    server.close()
    await server.wait_closed()


async def test_error_of_a_broken_answer_tells_nothing(caplog):
    """An error that is logged with all that hangs on it shows no code, token or signature."""
    async with raw_server(not_http) as server:
        request = Request(
            operation="get",
            method="POST",
            url=URL(server.url + "/v3/voucher/NAklEfbVdV"),
            headers={"Authorization": "Bearer canary-token", "X-Signature": "canary-signature"},
        )
        with pytest.raises(ResponseLostError) as caught:
            await send(request)
    shown = "".join(traceback.format_exception(caught.value))
    assert "the answer is not HTTP" in shown
    assert "NAklEfbVdV" not in shown
    assert "canary" not in shown


async def test_closed_transport_sends_nothing():
    """After `aclose` no new session is made behind the owner's back."""
    transport = AiohttpTransport()
    await transport.aclose()
    with pytest.raises(ConnectError, match="closed"):
        await transport.send(REQUEST)


def test_one_transport_over_several_event_loops():
    """A transport made once serves event loops one after the other."""
    transport = AiohttpTransport()

    async def once():
        async with raw_server(http(200, b"x")) as server:
            return (await transport.send(to(server))).body

    async def last():
        answer = await once()
        await transport.aclose()
        return answer

    assert [asyncio.run(main()) for main in (once, once, last)] == [b"x"] * 3
    gc.collect()  # a session left open would warn, and warnings are errors
    assert transport._owned == {}


def test_one_transport_over_two_event_loops_at_once():
    """Two threads with a loop each share a transport, and neither breaks the other's calls."""
    transport = AiohttpTransport()

    async def calls():
        async with raw_server(forever=http(200, b"x")) as server:
            answers = await asyncio.gather(*(transport.send(to(server)) for _ in range(50)))
        return {answer.body for answer in answers}

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda _: asyncio.run(calls()), range(6))) == [{b"x"}] * 6
    gc.collect()
