"""What fails before the first byte of a request is provably not sent, whatever stands in the way.

A proxy that refuses or closes, a server that closes at once, a name that leads elsewhere: the
outcome is a `ConnectError`, which may be repeated, and a `ProxyError` where that can't help. After
the first byte nothing is.
"""

import asyncio
import base64
import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import traceback
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock

import aiohttp
import attrs
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from support.answers import ISSUED
from support.command import COMMAND
from support.forward_proxies import TUNNEL, forward_proxy, tls_front
from support.http_servers import http, raw_server
from support.silent_server import make_certificate
from yarl import URL

from rm_voucher import (
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    Credentials,
    Environment,
    Proxy,
    ProxyError,
    Request,
    ResponseLostError,
    RetryPolicy,
    Timeout,
    TransportError,
    VoucherClient,
)
from rm_voucher.emulator import Check, Emulator
from rm_voucher.emulator.server import serve
from rm_voucher.transport.aiohttp import AiohttpTransport
from rm_voucher.transport.sending import Sending, has_unread, is_here

SECRET = "canary-password"
REQUEST = Request(
    operation="issue", method="POST", url=URL("https://rm.test/v3/x"), body=b"{}", headers={}
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def through(proxy, owner, certificate, user=""):
    """Give a transport whose way leads through a proxy: its own, or a borrowed session's."""
    url = f"http://{user}{proxy.address}"
    if owner == "own":
        transport = AiohttpTransport(proxy=Proxy(url), ssl_context=certificate.client)
        yield transport
        await transport.aclose()
    else:
        async with aiohttp.ClientSession(proxy=url) as session:
            yield AiohttpTransport(session, ssl_context=certificate.client)


def refusal(status):
    return http(status, b"<html>no</html>", "Proxy-Authenticate: Basic", "Connection: close")


async def close(reader, writer):
    writer.close()


async def reset(reader, writer):
    writer.transport.abort()


async def silence(reader, writer):
    await reader.read()


async def tunnel_to_nothing(reader, writer):
    writer.write(TUNNEL)
    await writer.drain()


REFUSALS = {
    "502": (refusal(502), ConnectError, "HTTP 502"),
    "503": (refusal(503), ConnectError, "HTTP 503"),
    "504": (refusal(504), ConnectError, "HTTP 504"),
    "408": (refusal(408), ConnectError, "HTTP 408"),
    "429": (refusal(429), ConnectError, "HTTP 429"),
    "302, of a hotel's": (refusal(302), ConnectError, "HTTP 302"),
    "403": (refusal(403), ProxyError, "HTTP 403"),
    "407": (refusal(407), ProxyError, "HTTP 407"),
    "401": (refusal(401), ProxyError, "HTTP 401"),
    "405": (refusal(405), ProxyError, "HTTP 405"),
    "closes": (close, ConnectError, "the proxy made no connection"),
    "resets": (reset, ConnectError, "the proxy made no connection"),
    "speaks no HTTP": (b"SSH-2.0\r\n\r\n", ConnectError, "the proxy made no connection"),
    "half a head": (b"HTTP/1.1 20", ConnectError, "the proxy made no connection"),
    "says nothing": (silence, ConnectTimeoutError, "no connection in time"),
    "tunnel that ends": (tunnel_to_nothing, ConnectError, "no connection"),
}


@pytest.mark.parametrize("owner", ["own", "borrowed"])
@pytest.mark.parametrize(("answer", "error", "words"), REFUSALS.values(), ids=REFUSALS)
async def test_tunnel_that_a_proxy_refuses_is_not_sent(certificate, owner, answer, error, words):
    """Nothing can have reached the server: it was called unknown."""
    request = attrs.evolve(REQUEST, timeout=Timeout(connect_s=0.2, attempt_s=5))
    async with (
        forward_proxy(answer) as proxy,
        through(proxy, owner, certificate) as transport,
    ):
        with pytest.raises(TransportError) as caught:
            await transport.send(request)
    assert type(caught.value) is error
    assert words in str(caught.value)
    assert [received.method for received in proxy.received] == ["CONNECT"]


async def test_proxy_that_is_not_there_is_not_sent(certificate):
    """As a server that is not there."""
    async with forward_proxy(close) as proxy:
        pass
    async with through(proxy, "own", certificate) as transport:
        with pytest.raises(ConnectError, match="no connection to the proxy"):
            await transport.send(REQUEST)


def client_through(proxy, certificate, make_client, **options):
    return make_client(
        None,
        transport=None,
        proxy=Proxy(f"http://{proxy.address}"),
        ssl_context=certificate.client,
        environment=Environment.at("https://rm.test"),
        **options,
    )


@asynccontextmanager
async def issuing(certificate):
    """Give the port of a server with TLS that issues one voucher, and what came to it."""
    async with (
        raw_server(http(200, ISSUED.body)) as server,
        tls_front(int(server.url.rpartition(":")[2]), certificate.server) as port,
    ):
        yield port, server


async def test_issue_is_sent_again_after_a_refusal_that_may_pass(certificate, make_client, time):
    """A proxy that is overloaded, and one that starts again, cost a wait and no voucher."""
    async with (
        issuing(certificate) as (port, server),
        forward_proxy(refusal(503), close, refusal(502), TUNNEL, port=port) as proxy,
        client_through(proxy, certificate, make_client) as client,
    ):
        assert (await client.issue("KEY")).code == "NAklEfbVdV"
        assert (len(proxy.received), len(server.received)) == (4, 1)
    assert len(time.slept) == 3


@pytest.mark.parametrize("status", [403, 407])
async def test_issue_is_not_sent_again_after_a_refusal_that_stays(
    certificate, make_client, time, status
):
    """Neither a password nor a rule comes by waiting, and nothing is unknown."""
    async with (
        forward_proxy(refusal(status)) as proxy,
        client_through(proxy, certificate, make_client) as client,
    ):
        with pytest.raises(ProxyError, match=f"HTTP {status}"):
            await client.issue("KEY")
        assert len(proxy.received) == 1
    assert time.slept == []


@pytest.mark.parametrize("owner", ["own", "borrowed"])
async def test_password_of_a_proxy_reaches_the_proxy_alone(certificate, owner):
    """It is sent with the tunnel's request, and stands in no repr, error or request of ours."""
    async with (
        issuing(certificate) as (port, server),
        forward_proxy(TUNNEL, refusal(407), port=port) as proxy,
        through(proxy, owner, certificate, user=f"joe:{SECRET}%40@") as transport,
    ):
        answer = await transport.send(REQUEST)
        assert answer.status == 200
        named = proxy.received[0].headers["proxy-authorization"]
        assert base64.b64decode(named.removeprefix("Basic ")) == f"joe:{SECRET}@".encode()
        assert "proxy-authorization" not in server.received[0].headers
        with pytest.raises(ProxyError) as caught:
            await transport.send(attrs.evolve(REQUEST, url=URL("https://127.1/")))
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    shown = Proxy(f"http://joe:{SECRET}@proxy.test:3128")
    assert repr(shown) == "Proxy(url='http://proxy.test:3128', no_proxy='')"


@pytest.mark.parametrize(
    "url",
    [
        "https://joe:canary-password@proxy.test",
        "socks5://joe:canary-password@proxy.test",
        "http://",
        "http://joe:canary-password@proxy.test:port",
        "",
    ],
)
def test_proxy_of_another_kind_is_refused(url):
    """With a sentence that says what is wanted, and not what was given."""
    with pytest.raises(ConfigurationError, match="must be http://host:port") as caught:
        Proxy(url)
    shown = traceback.TracebackException(
        caught.type, caught.value, caught.tb.tb_next, capture_locals=True
    )
    assert SECRET not in "".join(shown.format())


def test_proxy_arguments_are_checked(credentials):
    """By the proxy, the transport and the client."""
    with pytest.raises(ConfigurationError, match="no_proxy must be text"):
        Proxy("http://proxy.test", ["rm.test"])  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="proxy must be a Proxy"):
        AiohttpTransport(proxy="http://proxy.test")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="for the transport that is given"):
        VoucherClient(credentials, transport=AiohttpTransport(), proxy=Proxy("http://proxy.test:1"))


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"HTTPS_PROXY": " "}, None),
        ({"HTTP_PROXY": "http://p.test"}, None),
        ({"HTTPS_PROXY": "http://p.test:3128"}, Proxy("http://p.test:3128")),
        ({"HTTPS_PROXY": "p.test:3128"}, Proxy("http://p.test:3128")),
        ({"HTTPS_PROXY": "p.test", "NO_PROXY": "a, b"}, Proxy("http://p.test", "a, b")),
        ({"HTTPS_PROXY": "http://p.test", "https_proxy": "q.test"}, Proxy("http://q.test")),
        ({"HTTPS_PROXY": "http://p.test", "https_proxy": ""}, None),
    ],
)
def test_proxy_from_env(variables, expected):
    """The variables that other programs read, the small ones first."""
    assert Proxy.from_env(variables) == expected


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_proxy_from_env_of_another_kind(name):
    """Who reads the sentence may not know that the variable is set."""
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY can't be used: A proxy's URL") as got:
        Proxy.from_env({name: f"socks5://joe:{SECRET}@proxy.test"})
    assert SECRET not in str(got.value)


@pytest.mark.parametrize(
    ("url", "no_proxy", "leads"),
    [
        ("https://open.rm.test/v3", "", True),
        ("https://open.rm.test/v3", "other.test,, ", True),
        ("https://open.rm.test/v3", "pen.rm.test", True),
        ("https://open.rm.test/v3", "open.rm.test:8443", True),
        ("https://open.rm.test/v3", "open.rm.test", False),
        ("https://open.rm.test/v3", "other.test, RM.test", False),
        ("https://open.rm.test/v3", ".rm.test", False),
        ("https://open.rm.test/v3", "*", False),
        ("https://open.rm.test/v3", "open.rm.test:443", False),
        ("http://open.rm.test/v3", "", False),
        ("https://127.0.0.1:8000/v3", "", False),
        ("https://shop.localhost/v3", "", False),
    ],
)
def test_proxy_leads_to(url, no_proxy, leads):
    """Not to what `NO_PROXY` names, not to this machine, and never in plain text."""
    assert Proxy("http://proxy.test:3128", no_proxy).leads_to(URL(url)) is leads


async def test_client_from_env_goes_through_the_proxy(monkeypatch, credentials):
    """And past it to the hosts of `NO_PROXY`; a client that is made by hand reads no variables."""
    monkeypatch.setenv("RM_CLIENT_ID", "id")
    monkeypatch.setenv("RM_CLIENT_SECRET", "hush")
    monkeypatch.setenv("RM_PRIVATE_KEY", credentials.private_key_pem().decode())
    monkeypatch.setenv("RM_ENVIRONMENT", "https://rm.test")
    async with forward_proxy(refusal(407)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
        async with VoucherClient.from_env() as client:
            with pytest.raises(ProxyError):
                await client.get("X")
        monkeypatch.setenv("NO_PROXY", "rm.test")
        past: Any = VoucherClient.from_env().caller.transport
        assert not past._proxy.leads_to(URL("https://rm.test"))
        by_hand: Any = VoucherClient(Credentials.from_env()).caller.transport
        assert by_hand._proxy is None
        assert len(proxy.received) == 1


async def new_connection(transport, happens):
    """Let something happen to each new connection before the request is written to it."""
    session, _ = await transport._session()
    connect = session.connector.connect

    async def connect_late(*arguments, **options):
        connection = await connect(*arguments, **options)
        await happens(connection)
        return connection

    return mock.patch.object(session.connector, "connect", connect_late)


@pytest.mark.parametrize("said", [b"", http(503), http(200, ISSUED.body), b"junk"])
async def test_server_that_ends_or_speaks_before_it_was_asked_was_not_asked(said):
    """What came before the request is not its answer, and a close before it loses nothing."""

    async def serve(reader, writer):
        writer.write(said)
        writer.close()

    async def until_it_is_known(connection):
        while connection.transport and not connection.transport.is_closing():
            await asyncio.sleep(0)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    request = attrs.evolve(REQUEST, url=URL(f"http://127.0.0.1:{port}/"))
    transport = AiohttpTransport()
    with (
        await new_connection(transport, until_it_is_known),
        pytest.raises(ConnectError, match="before it was asked"),
    ):
        await transport.send(request)
    await transport.aclose()
    server.close()
    await server.wait_closed()


class HereResolver(AbstractResolver):
    """Knows every name, and all lead here."""

    async def resolve(self, host, port=0, family=socket.AF_INET):
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0
            )
        ]

    async def close(self):
        pass


@pytest.mark.parametrize("host", ["localhost", "x.localhost"])
@pytest.mark.parametrize(("peer", "sent"), [(("192.0.2.1", 80), 0), (("127.0.0.1", 80), 1)])
async def test_name_that_looks_like_here_must_lead_here(host, peer, sent):
    """Whatever a resolver says, plain http to ``x.localhost`` does not leave this machine."""

    async def lead_elsewhere(connection):
        connection.transport._extra["peername"] = peer

    connector = aiohttp.TCPConnector(resolver=HereResolver())
    async with (
        raw_server(forever=http()) as server,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        transport = AiohttpTransport(session)
        url = URL(server.url).with_host(host)
        with (
            await new_connection(transport, lead_elsewhere),
            contextlib.nullcontext() if sent else pytest.raises(ConnectError, match=host),
        ):
            await transport.send(attrs.evolve(REQUEST, url=url))
        assert len(server.received) == sent


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (("127.0.0.1", 80), True),
        (("127.9.9.9", 80), True),
        (("::1", 80, 0, 0), True),
        (("10.0.0.1", 80), False),
        (("fe80::1%eth0", 80, 0, 2), False),
        ("/run/server.sock", True),
        ("", True),
    ],
)
def test_peer_is_here(peer, expected):
    """A loopback address, or a socket that is a file."""
    assert is_here(mock.Mock(get_extra_info=lambda _: peer)) is expected


async def test_connection_without_a_socket_is_believed():
    """A connector of the caller's own may have none; nothing can be seen of it."""
    assert not has_unread(mock.Mock(get_extra_info=lambda _: None))


async def test_aiohttp_that_goes_another_way_proves_nothing():
    """Should a later aiohttp write a request past the look at its connection, no answer counts."""

    async def past(prepared):
        return prepared

    sending = Sending("issue")
    prepared: Any = mock.Mock(proxy=None)
    with pytest.raises(ResponseLostError, match="can't be watched"):
        await sending(prepared, past)
    assert type(sending.error(OSError())) is ResponseLostError


async def test_first_byte_ends_the_proof():
    """What breaks after it is unknown, also where the same error would prove much before it."""

    async def begin(reader, writer):
        writer.transport.abort()

    for broken in (begin, b"junk"):
        async with raw_server(broken) as server:
            transport = AiohttpTransport()
            with pytest.raises(ResponseLostError):
                await transport.send(attrs.evolve(REQUEST, url=URL(server.url + "/")))
            await transport.aclose()
            assert len(server.received) == 1


@asynccontextmanager
async def tinyproxy(folder):
    """Run a real forward proxy, which wants a user and a password."""
    if shutil.which("tinyproxy") is None:
        assert not os.environ.get("CI"), "tinyproxy is missing"
        pytest.skip("tinyproxy is not installed")
    async with forward_proxy(close) as free:
        address = free.address
    port = address.rpartition(":")[2]
    (folder / "tinyproxy.conf").write_text(
        f"Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nMaxClients 100\nTimeout 60\n"
        f"BasicAuth joe {SECRET}\n"
    )
    process = await asyncio.create_subprocess_exec(
        "tinyproxy", "-d", "-c", folder / "tinyproxy.conf", stdout=subprocess.DEVNULL
    )
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(ConnectionError):
                _, writer = await asyncio.open_connection("127.0.0.1", int(port))
                writer.close()
                break
            await asyncio.sleep(0.01)
    yield address
    process.terminate()
    await process.wait()


@pytest.mark.parametrize(
    "real", [False, pytest.param(True, marks=pytest.mark.long)], ids=["scripted", "tinyproxy"]
)
async def test_command_goes_through_a_proxy_and_trusts_an_authority_of_ones_own(
    certificate, tmp_path, credentials, real
):
    """`HTTPS_PROXY` and `SSL_CERT_FILE` are all that it takes."""
    emulator = Emulator(
        credentials=credentials, batches={"TEA": 5}, disabled_checks=[Check.SIGNATURE]
    )
    async with (
        serve(emulator) as server,
        tls_front(int(server.url.rpartition(":")[2]), certificate.server) as port,
        tinyproxy(tmp_path) if real else forward_proxy(TUNNEL, port=port) as proxy,
    ):
        address = proxy if real else proxy.address
        variables = {
            **server.variables,
            # Not loopback by its name, and yet it leads here; a scripted proxy asks no name.
            "RM_ENVIRONMENT": f"https://127.1:{port}",
            "HTTPS_PROXY": f"http://joe:{SECRET}@{address}",
            "SSL_CERT_FILE": str(certificate.path),
        }
        code, out, err = await run(variables, "issue", "TEA", "--count", "5", "--yes")
        assert (code, out.count(b"issued")) == (0, 5), err
        if real:
            wrong = {**variables, "HTTPS_PROXY": f"http://joe:wrong@{address}"}
            code, _, err = await run(wrong, "get", "X")
            assert (code, b"the proxy refused" in err) == (1, True), err
    assert len(emulator.issued("TEA")) == 5


async def run(variables, *arguments):
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out, err


async def test_authority_beside_the_systems(certificate, credentials):
    """As docs/proxies.md has it, and also where the company's certificate needs leniency."""
    context = ssl.create_default_context()
    context.load_verify_locations(certificate.path)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    emulator = Emulator(
        credentials=credentials, batches={"TEA": 5}, disabled_checks=[Check.SIGNATURE]
    )
    async with (
        serve(emulator) as server,
        tls_front(int(server.url.rpartition(":")[2]), certificate.server) as port,
    ):
        url = f"https://127.0.0.1:{port}"
        there = Environment(url, url)
        async with VoucherClient(credentials, environment=there, ssl_context=context) as client:
            assert (await client.batch("TEA")).key == "TEA"
        async with VoucherClient(
            credentials, environment=there, retry=RetryPolicy(max_attempts=1)
        ) as stranger:
            with pytest.raises(ConnectError, match="certificate"):
                await stranger.batch("TEA")
