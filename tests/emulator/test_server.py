"""The emulator over HTTP: the same app, on loopback."""

import io

import aiohttp
import pytest
from conftest import KEY_FILE

from rm_voucher import Credentials, SignatureError, VoucherClient, bulk_issue
from rm_voucher.emulator import Emulator

ME = Credentials("client-id", "client-secret", KEY_FILE.read_bytes())


async def test_bulk_issue_over_http():
    """200 vouchers over real sockets, signatures verified: distinct, and all of them counted."""
    emulator = Emulator(credentials=ME)
    batch = emulator.add_batch("x", quantity=200)
    async with (
        emulator.serve() as server,
        VoucherClient(ME, environment=server.environment) as client,
    ):
        async with bulk_issue(client, batch.key, range(200), concurrency=32) as run:
            codes = [result.voucher.code async for result in run]
        voucher = await client.void(codes[0])
        listed = [found.code async for found in client.vouchers(batch.key)]
    assert run.summary.issued == 200
    assert sorted(codes) == sorted(emulator.state.issued(batch.key)) == sorted(listed)
    assert voucher.status == "VOID"


async def test_signature_is_verified_over_http(make_client):
    """A request that changes on its way is refused: the signature covers the URL on the wire."""
    emulator = Emulator(credentials=ME)
    emulator.add_batch("x", quantity=1, key="K")

    class Elsewhere:
        def sign(self, text):
            return client_signer.sign(text.replace(b"/K/", b"/L/"))

    async with emulator.serve() as server:
        async with VoucherClient(ME, environment=server.environment) as good:
            client_signer = good._caller.signer
        async with VoucherClient(ME, environment=server.environment, signer=Elsewhere()) as client:
            with pytest.raises(SignatureError):
                await client.issue("K")
    assert emulator.state.issued("K") == ()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_server_says_where_it_is(host):
    """Port 0 takes a free port; the URL is one that a client can be given."""
    async with Emulator(credentials=ME).serve(host=host) as server:
        assert server.url.startswith("http://[::1]:" if ":" in host else "http://127.0.0.1:")
        async with aiohttp.ClientSession() as session, session.get(server.url) as answer:
            assert answer.status == 404


async def test_server_body_is_bounded():
    """A body that nobody needs is not read to its end."""
    async with (
        Emulator(credentials=ME).serve() as server,
        aiohttp.ClientSession() as session,
        session.post(server.url, data=io.BytesIO(b"x" * (1 << 22))) as answer,
    ):
        assert answer.status == 413


async def test_server_port_taken():
    """A port that is taken is an error at once."""
    async with Emulator(credentials=ME).serve() as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            await Emulator(credentials=ME).serve(port=port).__aenter__()


@pytest.mark.parametrize("host", ["a b", "[", "x:y:z", "127.0.0.1:99999999"])
async def test_server_survives_a_bad_host(host):
    """A Host header that is none is refused, and the server answers the next request."""
    async with (
        Emulator(credentials=ME).serve() as server,
        aiohttp.ClientSession() as session,
    ):
        async with session.get(server.url, headers={"Host": host}) as answer:
            assert answer.status in (400, 404)
        async with session.get(server.url) as answer:
            assert answer.status == 404
