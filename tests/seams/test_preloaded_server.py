"""`gunicorn --preload`, as docs/production.md has it: made once, opened in each worker."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import aiohttp
import pytest
from support.command import PATIENCE_S
from support.files import DOCS
from support.private_services import free_port

from rm_voucher.emulator import Emulator
from rm_voucher.emulator.server import serve

APPLICATION = """
import os
from aiohttp import web
from rm_voucher import VoucherClient
from rm_voucher.ledger import Ledger

client = VoucherClient.from_env()
ledger = Ledger.open(os.environ["LEDGER"])
PARENT = os.getpid()

async def issue(request):
    assert os.getpid() != PARENT
    voucher = await ledger.issue(client, "TEA", request.match_info["order"])
    return web.json_response({"process": os.getpid(), "code": voucher.code})

async def opened(app):
    async with client, ledger:
        yield

def create_app():
    app = web.Application()
    app.cleanup_ctx.append(opened)
    app.router.add_post("/{order}", issue)
    return app
"""


@pytest.mark.long
async def test_gunicorn_that_loads_first_and_forks(
    tmp_path: Path, postgres_ledger_url: str
) -> None:
    """Each order has one code, whoever is asked for it, and all workers end in order."""
    (command,) = re.findall(r"^gunicorn (.*)$", (DOCS / "production.md").read_text(), re.M)
    *arguments, application = shlex.split(command)
    assert "--preload" in arguments
    (tmp_path / application.partition(":")[0]).with_suffix(".py").write_text(APPLICATION)
    at = f"127.0.0.1:{free_port()}"
    emulator = Emulator(batches={"TEA": 100})
    async with serve(emulator) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gunicorn", *arguments, "--bind", at, application),
            cwd=tmp_path,
            env={
                **os.environ,
                **server.variables,
                "LEDGER": postgres_ledger_url,
                "HOME": str(tmp_path),
            },
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            while b"Listening at" not in await process.stderr.readline():
                assert process.returncode is None
        said = asyncio.create_task(process.stderr.read())

        async def ask(order: int) -> tuple[int, str]:
            # A connection of its own each, so that all workers are asked.
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"http://{at}/{order}") as got,
            ):
                answer = await got.json()
                return answer["process"], answer["code"]

        async with asyncio.timeout(PATIENCE_S):
            answers = [await asyncio.gather(*(ask(order) for order in range(20))) for _ in range(3)]
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        log = (await said).decode()
    assert "Traceback" not in log, log
    codes = [[code for _, code in told] for told in answers]
    assert codes[0] == codes[1] == codes[2]
    assert len(set(codes[0])) == len(emulator.issued("TEA")) == 20
    assert len({worker for told in answers for worker, _ in told}) > 1
