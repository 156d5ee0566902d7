"""A hundred merchants and their clients at the same time: nobody meets another's vouchers."""

import asyncio
import contextlib
from collections import defaultdict
from typing import Any

import orjson
import pytest
from aiohttp import web
from support.files import KEY_FILE

from rm_voucher import Credentials
from rm_voucher.emulator import Emulator
from rm_voucher.emulator.server import serve
from rm_voucher.signing.rsa import RsaSigner

MANY = 100
CODES = ["SAME-1", "SAME-2", "SAME-3", "SAME-4"]
SIGNER = RsaSigner.from_pem(KEY_FILE.read_bytes())


@pytest.fixture
def emulator():
    return Emulator(credentials=Credentials("main", "secret", KEY_FILE.read_bytes()))


@contextlib.asynccontextmanager
async def receiving():
    """A server for callbacks: its URL, what came at each path, and whether all came."""
    came, all_came = defaultdict(list), asyncio.Event()

    async def receive(http):
        came[http.path].append(orjson.loads(await http.read())["item"])
        if len(came) == MANY:
            all_came.set()
        return web.Response()

    runner = web.ServerRunner(web.Server(receive), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", came, all_came
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("is_over_http", [False, True])
async def test_no_cross_talk(emulator, is_over_http):
    """All have a batch of one key with the same codes. The n-th merchant issues n % 4 + 1 of them
    and voids the last, of which its own URL is told, with its own number in the QR code."""
    async with receiving() as (receiver, came, all_came), contextlib.AsyncExitStack() as stack:
        merchants = [emulator.merchant(f"m{number}") for number in range(MANY)]
        for one in merchants:
            one.add_batch("K", key="K", codes=CODES)
            one.callbacks.url = f"{receiver}/{one.name}"
        way: dict[str, Any] = {}
        if is_over_http:
            server = await stack.enter_async_context(serve(emulator))
            way = {"environment": server.environment, "transport": None}
        clients = [
            await stack.enter_async_context(one.client(signer=SIGNER, **way)) for one in merchants
        ]

        async def work(number):
            client, count = clients[number], number % len(CODES) + 1
            issued = [(await client.issue("K")) for _ in range(count)]
            await client.void(issued[-1].code)
            listed = {each.code: each.status async for each in client.vouchers("K")}
            return [each.code for each in issued], listed, [each.qr_url for each in issued]

        ended = await asyncio.gather(*map(work, range(MANY)))
        if not is_over_http:  # a server delivers by itself
            await asyncio.gather(*(one.callbacks.deliver() for one in merchants))
        async with asyncio.timeout(30):
            await all_came.wait()
        for one in merchants:
            await one.callbacks.aclose()

    for number, (codes, listed, urls) in enumerate(ended):
        one, expected = merchants[number], CODES[: number % len(CODES) + 1]
        statuses = dict.fromkeys(CODES, "VALID") | dict.fromkeys(expected, "ISSUED")
        assert codes == expected == list(one.issued("K"))
        assert listed == statuses | {expected[-1]: "VOID"}
        assert {url.split("/")[-3] for url in urls} == {str(one.number)}
        assert one.requests["issue"] == len(expected)
        (told,) = came[f"/{one.name}"]
        assert told["code"] == expected[-1]
        assert told["qrUrl"].split("/")[-3] == str(one.number)
    assert not emulator.requests
    assert len({one.number for one in merchants}) == MANY
