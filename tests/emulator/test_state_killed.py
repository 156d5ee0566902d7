"""An emulator that keeps its state in a file, killed under load: a second is lost at most."""

import asyncio
import signal
import subprocess
import time

import pytest
from support.command import COMMAND, Emulating

from rm_voucher import TransportError, VoucherError

pytestmark = pytest.mark.long

LOST_S = 1.0
LOAD_S = 2.5


class Running:
    """An emulator in a process of its own, and the variables of its client."""

    def __init__(self, folder, *options):
        self.variables = folder / "variables.env"
        self.variables.unlink(missing_ok=True)
        state = folder / "state"
        arguments = ("emulator", "--quiet", "--state", state, "--credentials-out", self.variables)
        self.process = subprocess.Popen([*COMMAND, *arguments, *options])

    async def client(self):
        """Return a client, as soon as it serves."""
        async with asyncio.timeout(20):
            while not self.variables.exists():
                await asyncio.sleep(0.02)  # a process starts
        return Emulating.at(self.variables).client()

    def kill(self):
        """Kill it, with no warning."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


async def test_kill_under_load(tmp_path):
    """What was answered a second before the kill is there afterwards, and no code comes twice."""
    first = Running(tmp_path, "--batch", "K=100000", "--seed", "1")
    answered = []

    async def load(client):
        while True:
            try:
                answered.append(((await client.issue("K")).code, time.monotonic()))
            except (TransportError, VoucherError):
                return

    async with await first.client() as client:
        working = [asyncio.create_task(load(client)) for _ in range(8)]
        await asyncio.sleep(LOAD_S)  # of load
        killed_at = time.monotonic()
        first.kill()
        for task in working:
            task.cancel()
        await asyncio.wait(working)
    second = Running(tmp_path)
    try:
        async with await second.client() as client:
            before = {voucher.code async for voucher in client.vouchers("K")}
            old = {code for code, at in answered if at < killed_at - LOST_S}
            assert len(old) > 100
            assert old <= before
            assert len(before) >= len(answered) / 2
            more = [(await client.issue("K")).code for _ in range(50)]
            assert before.isdisjoint(more)
            assert len(set(more)) == 50
    finally:
        second.kill()
