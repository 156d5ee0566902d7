"""What the programs of test_programs.py run: a bulk issue that signs in two processes, on an
emulator, which checks every signature."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from typing import Any

from support.files import KEY_FILE

from rm_voucher import Credentials, Request, Response, Transport, VoucherClient, bulk_issue
from rm_voucher.emulator import Emulator
from rm_voucher.emulator.server import serve
from rm_voucher.signing import pool as signers

signers._WORTH_S = 0.0
logging.basicConfig(level=logging.WARNING)
KEY = KEY_FILE.read_bytes()


class Waiting(Transport):
    """Sends once the run's processes are ready; says when something was sent."""

    def __init__(self, behind: Transport) -> None:
        self.behind = behind
        self.run: Any = None
        self.most = self.count = 0
        self.pids: list[int] = []
        self.on_request: Callable[[int], object] = lambda count: None

    async def send(self, request: Request) -> Response:
        pool = self.run._pool
        if pool._starting is not None:
            await asyncio.wait([pool._starting])
            self.pids = [worker._process.pid for worker in pool._workers if worker._process]
        self.most = max(self.most, pool.processes)
        self.count += 1
        self.on_request(self.count)
        return await self.behind.send(request)

    async def aclose(self) -> None:
        await self.behind.aclose()


def children() -> str:
    """Say whether there is a process of ours, even a dead one."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return "none left"
    return "one left"


async def issue(count: int = 200, on_request: Callable[[Waiting], Any] | None = None) -> str:
    """Issue over HTTP on loopback; return how many were issued, by how many processes."""
    asyncio.get_running_loop().slow_callback_duration = 60  # -X dev would report slowness
    emulator = Emulator(credentials=Credentials("id", "hush", KEY))
    emulator.add_batch("Breakfast", key="BREAKFAST", quantity=count)
    async with serve(emulator) as server:
        client = VoucherClient(Credentials("id", "hush", KEY), environment=server.environment)
        transport = Waiting(client.caller.transport)
        async with VoucherClient(
            Credentials("id", "hush", KEY), environment=server.environment, transport=transport
        ) as own:
            run = transport.run = bulk_issue(own, "BREAKFAST", range(count), signers=2)
            if on_request is not None:
                transport.on_request = lambda _: on_request(transport)
            async with run:
                async for result in run:
                    assert result.voucher is not None, result.error
        await client.aclose()
    return f"{run.summary.issued} issued, {transport.most} signed, {children()}"


def interrupt(transport: Waiting) -> None:
    """Press Ctrl-C in the middle of the run."""
    if transport.count == 50:
        os.kill(os.getpid(), signal.SIGINT)
