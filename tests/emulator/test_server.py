"""The emulator over HTTP: the same app, on loopback."""

import asyncio
import logging
from types import SimpleNamespace
from typing import cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.http_exceptions import TransferEncodingError
from support.files import KEY_FILE

from rm_voucher import (
    ConnectError,
    Credentials,
    RetryPolicy,
    Runtime,
    SignatureError,
    TransportError,
    VoucherClient,
    bulk_issue,
)
from rm_voucher.emulator import Emulator, Fault, FaultPlan, Window
from rm_voucher.emulator.reply import Ending, Reply
from rm_voucher.emulator.server import _send, serve

ME = Credentials("client-id", "client-secret", KEY_FILE.read_bytes())


async def test_bulk_issue_over_http():
    """200 vouchers over real sockets, signatures verified: distinct, and all of them counted."""
    emulator = Emulator(credentials=ME, batches={"B": 200})
    async with (
        serve(emulator) as server,
        VoucherClient(ME, environment=server.environment) as client,
    ):
        async with bulk_issue(client, "B", range(200), concurrency=32) as run:
            codes = [result.voucher.code async for result in run if result.voucher]
        voucher = await client.void(codes[0])
        listed = [found.code or "" async for found in client.vouchers("B")]
    assert run.summary.issued == 200
    assert sorted(codes) == sorted(emulator.state.issued("B")) == sorted(listed)
    assert voucher.status == "VOID"


async def test_signature_is_verified_over_http(make_client):
    """A request that changes on its way is refused: the signature covers the URL on the wire."""
    emulator = Emulator(credentials=ME)
    emulator.add_batch("x", quantity=1, key="K")

    class Elsewhere:
        def sign(self, text):
            return client_signer.sign(text.replace(b"/K/", b"/L/"))

    async with serve(emulator) as server:
        async with VoucherClient(ME, environment=server.environment) as good:
            client_signer = good.caller.signer
        async with VoucherClient(ME, environment=server.environment, signer=Elsewhere()) as client:
            with pytest.raises(SignatureError):
                await client.issue("K")
    assert emulator.state.issued("K") == ()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_server_says_where_it_is(host):
    """Port 0 takes a free port; the URL is one that a client can be given."""
    async with serve(Emulator(credentials=ME), host=host) as server:
        assert server.url.startswith("http://[::1]:" if ":" in host else "http://127.0.0.1:")
        async with aiohttp.ClientSession() as session, session.get(server.url) as answer:
            assert answer.status == 404


async def test_server_body_is_bounded(line):
    """A body of more than 1 MiB is refused while its rest is still to come."""
    most = 1 << 20
    head = b"POST / HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (line.host, 4 * most)
    got = await line.raw(head, b"x" * (most + 1), ends=False)
    assert got.startswith(b"HTTP/1.1 413 ")


async def test_query_of_the_control_api(line):
    """What is asked is told by the path; a query that it does not take is refused."""
    status, _ = await line.send("GET", "/_emulator/batches?x=/reset")
    assert status == 400


async def test_server_port_taken():
    """A port that is taken is an error at once."""
    async with serve(Emulator(credentials=ME)) as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            await serve(Emulator(credentials=ME), port=port).__aenter__()


@pytest.mark.parametrize(
    "host", ["a b", "[", "x:y:z", "127.0.0.1:99999", "[1.2.3.4]", "127.0.0.1:99999999"]
)
async def test_server_survives_a_bad_host(host):
    """A Host header that is none is refused, and the server answers the next request."""
    async with (
        serve(Emulator(credentials=ME)) as server,
        aiohttp.ClientSession() as session,
    ):
        async with session.get(server.url, headers={"Host": host}) as answer:
            assert answer.status == 400
        async with session.get(server.url) as answer:
            assert answer.status == 404


async def test_reset_opens_a_closed_listener():
    """A reset ends a window in which nothing listens, at once and not when the window would end."""
    emulator = Emulator(credentials=ME, batches={"TEA": 1})
    once, often = RetryPolicy(max_attempts=1), RetryPolicy(max_attempts=10_000)

    async def sleep(seconds):
        await asyncio.sleep(0)

    async with serve(emulator) as server:

        def client(retry):
            return VoucherClient(
                ME, environment=server.environment, retry=retry, runtime=Runtime(sleep=sleep)
            )

        emulator.faults = FaultPlan(
            windows=[Window(fault=Fault.CLOSED, start_s=0, length_s=100_000)]
        )
        async with asyncio.timeout(10):
            is_open = True
            while is_open:  # until the listener has heard of it
                async with client(once) as refused:
                    try:
                        await refused.batches()
                    except TransportError as error:  # one that was let in is reset
                        is_open = not isinstance(error, ConnectError)
            emulator.reset()
            async with client(often) as admitted:
                await admitted.issue("TEA")
    assert len(emulator.issued("TEA")) == 1


@pytest.mark.parametrize("error", [TransferEncodingError("x"), web.RequestPayloadError("x")])
async def test_body_that_can_not_be_read(monkeypatch, error):
    """What aiohttp's parsers find wrong with a body is the client's mistake."""

    async def fail(request):
        raise error

    monkeypatch.setattr(web.BaseRequest, "read", fail)
    async with (
        serve(Emulator(credentials=ME)) as server,
        aiohttp.ClientSession() as session,
        session.post(f"{server.url}/v1/token", data=b"{}") as answer,
    ):
        assert answer.status == 400
        assert "body" in await answer.text()


def test_errors_of_its_own_are_logged(caplog):
    """Only bad requests get a line instead of a traceback; what else goes wrong is shown whole."""
    try:
        raise ValueError("a bug")
    except ValueError:
        logging.getLogger("rm_voucher.emulator.http").exception("Error handling request")
    assert "a bug" in caplog.text


async def test_reset_of_a_connection_that_has_gone():
    """There is nothing to reset where the client was quicker."""
    gone = cast("web.BaseRequest", SimpleNamespace(transport=None))
    await _send(gone, Reply(ending=Ending.RESET))


@pytest.mark.parametrize("error", [ConnectionResetError, asyncio.CancelledError])
async def test_whole_answer_whose_client_has_gone(monkeypatch, error):
    """An answer that can't be written is lost, and that is told for the books."""
    lost = []

    async def prepare(answer, request):
        raise error

    monkeypatch.setattr(web.Response, "prepare", prepare)
    with pytest.raises(error):
        http = cast("web.BaseRequest", None)
        await _send(http, Reply(on_loss=lambda: lost.append("it")))
    assert lost == ["it"]
