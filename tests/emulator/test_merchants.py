"""Several merchants in one emulator: credentials, books, faults and callbacks of their own."""

import asyncio

import orjson
import pytest
from support.doubles import FakeTime
from support.files import KEY_FILE
from yarl import URL

from rm_voucher import Credentials, NotFoundError, Request, Response, VoucherClient
from rm_voucher.emulator import Emulator, Fault, FaultPlan
from rm_voucher.emulator.control.dispatch import control
from rm_voucher.emulator.server import serve
from rm_voucher.transport.memory import MemoryTransport

PEM = KEY_FILE.read_bytes()


def credentials(name):
    return Credentials(f"id of {name}", f"secret of {name}", PEM)


@pytest.fixture
def clock():
    return FakeTime()


@pytest.fixture
def emulator(clock):
    return Emulator(seed=1, credentials=credentials("main"), batches={"K": 3}, clock=clock.clock)


@pytest.fixture
def shop(emulator):
    return emulator.merchant("shop", credentials=credentials("shop"), batches={"K": 2}, seed=1)


async def test_books_are_apart(emulator, shop):
    """Equal batch keys and equal codes, and nobody sees another's."""
    async with emulator.client() as ours, shop.client() as theirs:
        code = (await ours.issue("K")).code
        assert (await theirs.issue("K")).code == code
        await ours.void(code)
        assert (await ours.get(code)).status == "VOID"
        assert (await theirs.get(code)).status == "ISSUED"
    assert emulator.requests["issue"] == shop.requests["issue"] == 1
    assert [one.name for one in emulator.merchants] == ["main", "shop"]
    assert {each.merchant for each in emulator.journal} == {"main", "shop"}


async def test_qr_urls_are_apart(emulator, shop):
    async with emulator.client() as ours, shop.client() as theirs:
        assert (await ours.issue("K")).qr_url.startswith("https://emulator.invalid/qr/1/voucher/")
        assert (await theirs.issue("K")).qr_url.startswith("https://emulator.invalid/qr/2/voucher/")


def test_merchant_is_made_once(emulator, shop):
    assert emulator.merchant("shop") is shop is emulator.find_merchant("shop")
    assert emulator.merchant("main") is emulator
    assert emulator.find_merchant("other") is None
    with pytest.raises(ValueError, match="'shop' already"):
        emulator.merchant("shop", seed=2)
    assert emulator.merchant("other", credentials=credentials("other")).guesses is emulator.guesses


async def test_faults_and_limits_are_apart(emulator, shop):
    shop.faults = FaultPlan(rate=1.0, kinds=[Fault.THROTTLE_BARE])
    shop.rate_limit = 5
    async with emulator.client() as ours:
        await ours.issue("K")
    assert emulator.rate_limit is None
    assert not emulator.faults_met


async def test_one_begins_anew(emulator, shop):
    """A merchant's reset leaves the others' books, late work and the clock as they are."""
    emulator.advance(60)
    async with emulator.client() as ours, shop.client() as theirs:
        for one, client in ((emulator, ours), (shop, theirs)):
            one.fail_next("issue", Fault.LATE_COMMIT)
            with pytest.raises(Exception, match="issue"):
                await client.issue("K")
    answer = control(emulator, "POST", "/_emulator/merchants/shop/reset", b"")
    assert answer.status == 200
    emulator.advance(10)
    assert len(emulator.issued("K")) == 1
    assert len(shop.issued("K")) == 0
    assert emulator.virtual_clock.ahead_s == 70
    emulator.reset()
    assert len(emulator.issued("K")) == 0
    assert emulator.virtual_clock.ahead_s == 0


async def test_request_of_nobody_is_the_first_merchants(emulator, shop):
    """A token that nobody granted, and credentials that nobody has, are refused by the first."""
    answer = emulator.transport()
    for header in ("Bearer none", "Basic ????", "Basic /w==", ""):
        request = _request(header)
        assert (await answer.send(request)).status == 401
    assert emulator.requests["issue"] == 4
    assert not shop.requests


def _request(authorization):
    url = URL("https://emulator.invalid/v3/voucher-batch/K/issue")
    headers = {"X-Other": "1", "authorization": authorization}
    return Request(operation="issue", method="POST", url=url, headers=headers)


async def test_callbacks_are_apart():
    """Each merchant's changes go to its own URL, and a server delivers them all by itself."""
    emulator = Emulator(credentials=credentials("main"), batches={"K": 3})
    shop = emulator.merchant("shop", credentials=credentials("shop"), batches={"K": 2})
    came, told = asyncio.Event(), {}
    for one in (emulator, shop):

        def receive(request, name=one.name):
            told.setdefault(name, []).append(orjson.loads(request.body)["item"]["status"])
            if len(told) == 2:
                came.set()
            return Response(status=200)

        one.callbacks.url = f"https://{one.name}.invalid/"
        one.callbacks.transport = MemoryTransport(receive)
    async with serve(emulator) as server, asyncio.timeout(10):
        for one in (emulator, shop):
            async with VoucherClient(one.credentials, environment=server.environment) as client:
                await client.void((await client.issue("K")).code)
        await came.wait()
    assert told == {"main": ["VOID"], "shop": ["VOID"]}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "merchants/shop/batches", 200),
        ("GET", "merchants/nobody/batches", 404),
        ("POST", "merchants/shop/clock", 404),
        ("GET", "merchants/shop", 404),
    ],
)
def test_control_of_one_merchant(emulator, shop, method, path, status):
    """The clock is everybody's: a merchant's part of the control API has none."""
    assert control(emulator, method, f"/_emulator/{path}", b"").status == status


async def test_voucher_of_another_merchant(emulator, shop):
    async with emulator.client() as ours, shop.client() as theirs:
        (code,) = [(await ours.issue("K")).code]
        with pytest.raises(NotFoundError):
            await theirs.get(code)
