"""Where nothing can be written to disk, a client and a ledger in PostgreSQL work all the same."""

from __future__ import annotations

import os
import subprocess
import sys

from support.command import PATIENCE_S

PROGRAM = """
import os, sys

opened = []

def look(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and path != "/dev/null":
            opened.append(path)
    elif event in ("os.mkdir", "os.rename", "tempfile.mkstemp", "tempfile.mkdtemp"):
        opened.append(arguments[0])

sys.addaudithook(look)

import asyncio
from rm_voucher import Environment, VoucherClient
from rm_voucher.emulator import Emulator
from rm_voucher.emulator.server import serve
from rm_voucher.ledger import Ledger
from rm_voucher.worker import MemoryBroker, Worker

async def main():
    emulator = Emulator(batches={"TEA": 5})
    async with serve(emulator) as server:
        there = Environment(server.url, server.url)
        async with (
            VoucherClient(emulator.credentials, environment=there) as client,
            Ledger.open(sys.argv[1], sweeps=True) as ledger,
        ):
            broker = MemoryBroker([b'{"request_id": "order 1"}'])
            async with Worker(client, ledger, "TEA").working(broker):
                await broker.wait_idle()
    print(len(broker.vouchers), opened)

asyncio.run(main())
"""


def test_nothing_is_written_to_disk(postgres_ledger_url: str) -> None:
    """No file, no folder, nothing temporary: by the interpreter's own account."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, postgres_ledger_url],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("1 []\n", "")
