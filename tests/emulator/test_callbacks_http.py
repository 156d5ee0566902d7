"""Callbacks over HTTP: a server delivers them by itself, to a shop on loopback."""

import asyncio
import contextlib
import logging

import orjson
import pytest
from aiohttp import web
from support.files import KEY_FILE

from rm_voucher import Credentials, Response
from rm_voucher.emulator import Emulator, Guesses
from rm_voucher.emulator.server import serve
from rm_voucher.transport.base import Transport

ME = Credentials("client-id", "client-secret", KEY_FILE.read_bytes())


@contextlib.asynccontextmanager
async def receiver(answer):
    """Serve a shop; ``answer`` is called with each request."""
    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/callback"
    finally:
        await runner.cleanup()


class Shop:
    """Counts its guests; fails as often as it is told to, then answers 200."""

    def __init__(self, *, failures=0, expected=1):
        self.failures = failures
        self.expected = expected
        self.requests = []
        self.at_once = self.most_at_once = 0
        self.is_content = asyncio.Event()

    async def __call__(self, http):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.requests.append((dict(http.headers), await http.read()))
        for _ in range(5):  # long enough for others to come meanwhile
            await asyncio.sleep(0)
        self.at_once -= 1
        if self.failures:
            self.failures -= 1
            return web.Response(status=503)
        if len({body for _, body in self.requests}) >= self.expected:
            self.is_content.set()
        return web.Response()


def emulator_with(quantity, **options):
    emulator = Emulator(seed=1, credentials=ME, batches={"K": quantity}, **options)
    emulator.callbacks.interval_s = 0.01
    return emulator


def redeem_all(emulator, quantity):
    for _ in range(quantity):
        emulator.state.redeem([emulator.state.issue("K")[0]])


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_server_delivers_by_itself():
    """A change is delivered with nobody asking, again after a failure, and no more after a 200."""
    shop = Shop(failures=2)
    emulator = emulator_with(1)
    async with receiver(shop) as url, serve(emulator):
        emulator.callbacks.url = url
        await until(lambda: emulator.virtual_clock.watchers)  # nothing but the change wakes it
        redeem_all(emulator, 1)
        async with asyncio.timeout(10):
            await shop.is_content.wait()
        await until(lambda: emulator.callbacks.delivered)
        assert emulator.callbacks.next_due() is None
    first, *others = shop.requests
    assert len(others) == 2
    for headers, body in others:
        assert body == first[1]
        for name in ("X-Nonce-Str", "X-Timestamp", "X-Signature", "Content-Type"):
            assert headers[name] == first[0][name]
    assert emulator.callbacks.given_up == 0


async def test_server_waits_for_the_minute():
    """A repeat waits for its time on the emulator's clock, and setting that ahead brings it."""
    shop = Shop(failures=1)
    emulator = emulator_with(1)
    emulator.callbacks.interval_s = 60.0
    async with receiver(shop) as url, serve(emulator):
        emulator.callbacks.url = url
        redeem_all(emulator, 1)
        await until(emulator.callbacks.next_due)
        await until(lambda: not shop.at_once and not shop.failures)
        await until(emulator.callbacks.next_due)
        assert len(shop.requests) == 1
        emulator.advance(60)
        async with asyncio.timeout(10):
            await shop.is_content.wait()
        assert len(shop.requests) == 2


async def test_many_changes_at_once():
    """Each of 300 changes is delivered once, and only some at a time."""
    shop = Shop(expected=300)
    emulator = emulator_with(300)
    async with receiver(shop) as url, serve(emulator):
        emulator.callbacks.url = url
        redeem_all(emulator, 300)
        async with asyncio.timeout(30):
            await shop.is_content.wait()
        await until(lambda: emulator.callbacks.delivered == 300)
    codes = [orjson.loads(body)["item"]["code"] for _, body in shop.requests]
    assert sorted(codes) == sorted(emulator.state.issued("K"))
    assert 2 <= shop.most_at_once <= 16


class Hanging(Transport):
    """Never answers; knows how many wait, and whether it was closed."""

    def __init__(self):
        self.waiting = self.most = self.cancelled = 0
        self.is_closed = False

    async def send(self, request):
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def aclose(self):
        self.is_closed = True


async def test_stop_while_deliveries_hang(caplog):
    """A server that stops waits for no shop, leaves no task and logs no error; what somebody
    else's transport is, it does not close."""
    transport = Hanging()
    emulator = emulator_with(40, callback_url="http://shop.invalid/")
    emulator.callbacks.transport = transport
    before = asyncio.all_tasks()
    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(5):
            async with serve(emulator):
                redeem_all(emulator, 40)
                await until(lambda: transport.waiting)
                emulator.advance(1)  # a turn in which no more can begin
                await until(lambda: transport.waiting == 16)
    assert (transport.most, transport.cancelled, transport.is_closed) == (16, 16, False)
    assert asyncio.all_tasks() == before
    assert caplog.records == []


async def test_hanging_shop_is_not_waited_for_longer_than_its_time():
    """An attempt ends after ``callback_timeout_s``, and the delivery is given up after five."""

    async def hang(http):
        await asyncio.Event().wait()

    emulator = emulator_with(1, guesses=Guesses(callback_timeout_s=0.02))
    async with receiver(hang) as url, serve(emulator):
        emulator.callbacks.url = url
        redeem_all(emulator, 1)
        await until(lambda: emulator.callbacks.given_up)
    assert emulator.callbacks.delivered == 0


async def test_redirect_is_not_followed():
    """A 302 is no 200, and the place that it names gets nothing of what was signed."""
    asked = []

    async def redirect(http):
        asked.append(http.path)
        raise web.HTTPFound("/elsewhere")

    emulator = emulator_with(1)
    async with receiver(redirect) as url, serve(emulator):
        emulator.callbacks.url = url
        redeem_all(emulator, 1)
        await until(lambda: emulator.callbacks.given_up)
    assert asked == ["/callback"] * 5


async def test_transport_of_its_own_is_made_once_and_closed():
    """Without a transport it makes one, keeps it, and closes it with the server; another server
    makes another one."""
    shop = Shop()
    emulator = emulator_with(2)
    for number in (1, 2):
        async with receiver(shop) as url, serve(emulator):
            emulator.callbacks.url = url
            redeem_all(emulator, 1)
            await until(lambda: emulator.callbacks.delivered == number)  # noqa: B023 - at once
            own = emulator.callbacks._owned
            assert own is not None
            assert not own._closed
        assert own._closed
        assert emulator.callbacks._owned is None


async def test_no_transport_is_made_for_nobody():
    """A delivery that nobody wants any more opens nothing."""
    emulator = emulator_with(1, callback_url="http://shop.invalid/")
    redeem_all(emulator, 1)
    emulator.callbacks.url = None
    assert await emulator.callbacks.deliver() == 1
    assert emulator.callbacks._owned is None
    await emulator.callbacks.aclose()


async def test_reset_while_a_shop_answers():
    """A delivery that a reset forgot does not come back when its attempt fails."""
    transport = Blocked()
    emulator = emulator_with(1, callback_url="http://shop.invalid/")
    emulator.callbacks.transport = transport
    async with serve(emulator):
        redeem_all(emulator, 1)
        await until(lambda: transport.count)
        emulator.reset()
        transport.release.set()
        await until(lambda: transport.ended)
        assert emulator.callbacks.next_due() is None
    assert (transport.count, emulator.callbacks.given_up) == (1, 0)


class Blocked(Transport):
    """Answers 500 when it is released."""

    def __init__(self):
        self.release = asyncio.Event()
        self.count = self.ended = 0

    async def send(self, request):
        self.count += 1
        await self.release.wait()
        self.ended += 1
        return Response(status=500)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_emulator_can_be_served_again(host):
    """The emulator of a server that stopped goes on in memory, and behind another server."""
    emulator = emulator_with(2)
    async with serve(emulator, host=host):
        await until(lambda: emulator.virtual_clock.watchers)
        emulator.state.issue("K")
    assert emulator.virtual_clock.watchers == []
    emulator.advance(1)
    async with serve(emulator, host=host):
        emulator.advance(1)
    assert len(emulator.state.issued("K")) == 1


def test_emulator_outlives_its_loop():
    """Once a server's event loop has ended, its emulator's clock can be set ahead without it."""
    emulator = emulator_with(1)

    async def run():
        async with serve(emulator):
            await until(lambda: emulator.virtual_clock.watchers)  # it keeps time now
            emulator.state.issue("K")

    asyncio.run(run())
    emulator.advance(1)
    assert len(emulator.state.issued("K")) == 1


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/callback",
        "shop.invalid",
        "ftp://shop.invalid/",
        "http://",
        "http:///callback",
        "http://[",
        "http://[x]/",
        "http://shop.invalid:99999/",
        "http://shop.invalid:x/",
        "http://shop.invalid/a b",
        "http://shop.invalid/\r\nX: y",
        "http://shop.invalid/#top",
        "http://käse.invalid/",
    ],
)
def test_url_that_no_request_can_go_to(url):
    """A URL that can't be used is refused when it is given, and the earlier one stays."""
    with pytest.raises(ValueError, match="no http or https URL"):
        Emulator(credentials=ME, callback_url=url)
    emulator = Emulator(credentials=ME, callback_url="http://a.invalid/")
    with pytest.raises(ValueError, match="no http or https URL"):
        emulator.callbacks.url = url
    assert emulator.callbacks.url == "http://a.invalid/"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "https://a.invalid", "http://[::1]:1/x?y"])
def test_url_that_can_be_used(url):
    """Plain HTTP is for development; addresses, ports and queries are parts of a URL."""
    assert Emulator(credentials=ME, callback_url=url).callbacks.url == url
