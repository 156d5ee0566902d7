"""What the tests of the emulator share."""

import functools
import logging

import pytest
from support.doubles import FakeTime
from support.raw_connection import ME, Line
from support.raw_requests import known
from support.sdk_processes import SDKProcess

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
