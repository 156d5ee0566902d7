"""What the tests of the emulator share."""

import functools
import logging
from datetime import UTC, datetime

import aiohttp
import pytest
from support.customer_pages import Browser
from support.doubles import FakeTime
from support.raw_connection import ME, Line
from support.raw_requests import known
from support.sdk_processes import SDKProcess

from rm_voucher import VoucherType
from rm_voucher.emulator import Emulator
from rm_voucher.emulator.keys import new_private_key
from rm_voucher.emulator.server import serve

make_key_once = functools.cache(new_private_key)


@pytest.fixture
def one_key(monkeypatch):
    """The keys that sign callbacks are one: to make one takes a tenth of a second."""
    monkeypatch.setattr("rm_voucher.emulator.site.new_private_key", make_key_once)


@pytest.fixture
async def line(caplog):
    """A line to a server. At the end it must still be good, and have logged no trouble."""
    caplog.set_level(logging.INFO)
    emulator = Emulator(seed=1, credentials=ME, batches={"K": 1000})
    emulator.add_member("60", "1")
    async with serve(emulator) as server:
        line = Line(emulator, server.url)
        assert await line.is_good()
        yield line
        assert await line.is_good()
    troubles = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert troubles == []
    assert "Traceback" not in caplog.text


@pytest.fixture
def clock():
    return FakeTime()


@pytest.fixture
def make(clock):
    """Make an emulator that knows the client of `rawcalls`."""

    def make(**options):
        return known(clock=clock.clock, **options)

    return make


@pytest.fixture
def emulator(make):
    return make()


@pytest.fixture
def connected(emulated, tmp_path, sdk_command):
    """Run the command, and start an SDK with the credentials that the command wrote."""
    started = []

    def connect(*options):
        emulator, key = emulated(*options), tmp_path / "key.pem"
        key.write_text(emulator.variables["RM_PRIVATE_KEY"].replace("\\n", "\n"))
        settings = {
            "clientID": emulator.variables["RM_CLIENT_ID"],
            "clientSecret": emulator.variables["RM_CLIENT_SECRET"],
            "privateKey": str(key),
            "environment": "sandbox",
        }
        sdk = SDKProcess([*sdk_command, emulator.url], settings)
        started.append(sdk)
        return emulator, sdk

    yield connect
    for sdk in started:
        sdk.end()


NOON = datetime(2026, 11, 30, 4, 0, tzinfo=UTC)
"""In Malaysia."""


@pytest.fixture
async def visit(one_key):
    """Serve an emulator, at noon in Malaysia, to a browser."""
    async with aiohttp.ClientSession() as session:
        left = []

        async def visit(emulator=None, **options):
            emulator = emulator or Emulator(
                seed=1, clock=FakeTime(NOON.timestamp()).clock, **options
            )
            serving = serve(emulator)
            server = await serving.__aenter__()
            left.append(serving)
            return Browser(emulator, server.url, session)

        yield visit
        for serving in left:
            await serving.__aexit__(None, None, None)


@pytest.fixture
async def shop(visit):
    """A browser of an emulator with a batch for cash, whose vouchers live for 30 days."""
    browser = await visit()
    browser.emulator.add_batch(
        "Breakfast",
        key="B",
        quantity=5,
        type=VoucherType.CASH,
        amount_sen=500,
        minimum_spend_sen=2000,
    )
    return browser
