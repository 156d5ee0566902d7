"""One client of a module's, as scripts and job runners have it: several event loops in a row."""

import asyncio
import os
import sys

import pytest
from support.files import KEY_FILE

from rm_voucher import Credentials
from rm_voucher.emulator import Emulator
from rm_voucher.emulator.server import serve

SCRIPT = """
import asyncio, gc
from rm_voucher import VoucherClient

CLIENT = VoucherClient.from_env()

async def issue():
    asyncio.get_running_loop().slow_callback_duration = 60  # -X dev would report slowness
    voucher = await CLIENT.issue("BREAKFAST")
    return (await CLIENT.get(voucher.code)).status

async def issue_and_close():
    async with CLIENT:
        return await issue()

print(asyncio.run(issue()), asyncio.run(issue()), asyncio.run({last}()))
asyncio.run(CLIENT.aclose())
del CLIENT
gc.collect()
"""


@pytest.mark.parametrize("last", ["issue", "issue_and_close"])
async def test_module_level_client_over_three_event_loops(last):
    """Three `asyncio.run` in a row issue and read over HTTP, and nothing is left open, whether
    the client is closed in the last one or in another still."""
    emulator = Emulator(credentials=Credentials("id", "hush", KEY_FILE.read_bytes()))
    emulator.add_batch("Breakfast", key="BREAKFAST", quantity=3)
    async with serve(emulator) as server:
        variables = {
            "RM_CLIENT_ID": "id",
            "RM_CLIENT_SECRET": "hush",
            "RM_ENVIRONMENT": server.url,
            "RM_PRIVATE_KEY": KEY_FILE.read_text(),
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "dev", "-W", "error", "-c", SCRIPT.format(last=last)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **variables},
        )
        out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert out == b"ISSUED ISSUED ISSUED\n"
    assert len(emulator.state.issued("BREAKFAST")) == 3
