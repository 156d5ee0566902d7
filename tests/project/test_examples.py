"""The example applications: each issues against the emulator, and maps every error of an issue."""

import asyncio
import json
import logging
import os
import sys
from contextlib import asynccontextmanager

import attrs
import httpx
import pytest
from aiohttp.test_utils import TestClient, TestServer
from support.answers import rm_error
from support.example_modules import load_example
from support.files import EXAMPLES, KEY_FILE

from rm_voucher import (
    ClosedError,
    Credentials,
    ResponseLostError,
    RetryPolicy,
    VoucherClient,
)
from rm_voucher.emulator import Emulator
from rm_voucher.emulator.server import serve
from rm_voucher.transport.memory import MemoryTransport

BATCH = "BREAKFAST"


@asynccontextmanager
async def in_fastapi(app):
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://app.invalid") as http,
    ):

        async def post(path):
            answer = await http.post(path)
            return answer.status_code, answer.headers, answer.text

        yield post


@asynccontextmanager
async def in_aiohttp(app):
    async with TestClient(TestServer(app)) as http:

        async def post(path):
            async with http.post(path) as answer:
                return answer.status, answer.headers, await answer.text()

        yield post


RUNNERS = {"fastapi_app": in_fastapi, "aiohttp_app": in_aiohttp}


@pytest.fixture(params=RUNNERS)
def running(request, monkeypatch):
    """Run one of the applications with a client of the test's."""
    monkeypatch.setenv("BATCH_KEY", BATCH)
    module = load_example(request.param)
    return lambda client: RUNNERS[request.param](module.create_app(lambda: client))


@pytest.fixture
def emulator():
    emulator = Emulator(credentials=Credentials("id", "hush", KEY_FILE.read_bytes()))
    emulator.add_batch("Breakfast", key=BATCH, quantity=1)
    return emulator


@pytest.fixture
def faulty(emulator, time):
    """Make a client of the emulator whose issues another handler answers."""

    def make(answer_issue):
        def handle(request):
            return (answer_issue if request.operation == "issue" else emulator.handle)(request)

        return emulator.client(
            transport=MemoryTransport(handle),
            retry=RetryPolicy(max_attempts=2),
            runtime=attrs.evolve(emulator.runtime, sleep=time.sleep),
        )

    return make


async def test_app_issues_until_none_is_left(running, emulator, caplog):
    """Over HTTP: the QR URL, then 409; the code is in no log, and the client is closed."""
    caplog.set_level(logging.DEBUG)
    async with serve(emulator) as server:
        client = VoucherClient(emulator.credentials, environment=server.environment)
        async with running(client) as post:
            status, headers, body = await post("/members/42/voucher")
            (code,) = emulator.state.issued(BATCH)
            assert (status, headers["Cache-Control"]) == (201, "no-store")
            assert json.loads(body)["qr_url"].endswith(code)
            status, _, _ = await post("/members/42/voucher")
            assert status == 409
        with pytest.raises(ClosedError):
            await client.issue(BATCH)
    assert emulator.state.issued(BATCH) == (code,)
    assert "member 42 has a voucher" in caplog.text
    assert code not in caplog.text


async def test_app_says_that_an_outcome_is_unknown(running, emulator, faulty, caplog):
    """A lost answer: 202 with the reference that the log has, one issue, and no code anywhere."""

    def lose(request):
        emulator.handle(request)
        raise ResponseLostError("issue: the connection broke")

    caplog.set_level(logging.DEBUG)
    async with running(faulty(lose)) as post:
        status, _, body = await post("/members/42/voucher")
    (code,) = emulator.state.issued(BATCH)
    assert status == 202
    assert code not in body
    (error,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert json.loads(body)["reference"] in error
    assert "member 42" in error
    assert code not in caplog.text


@pytest.mark.parametrize(("asked", "said"), [({"retry_after": "7"}, "7"), ({}, "5")])
async def test_app_passes_a_rate_limit_on(running, emulator, faulty, asked, said):
    """A throttle that lasts: 503 and when to come back."""
    throttled = rm_error("TOO_MANY_REQUEST_PER_SECOND", 429, **asked)
    async with running(faulty(lambda request: throttled)) as post:
        status, headers, _ = await post("/members/42/voucher")
    assert (status, headers["Retry-After"]) == (503, said)
    assert emulator.state.issued(BATCH) == ()


async def test_app_fails_without_a_voucher(running, faulty, caplog):
    """Any other error is the application's own: 502, and the log says what to do."""
    async with running(faulty(lambda request: rm_error("INVALID_SCOPE", 403))) as post:
        status, _, body = await post("/members/42/voucher")
    assert (status, json.loads(body)) == (502, {"detail": "no voucher was issued"})
    assert "manage_loyalty_voucher" in caplog.text


@pytest.mark.parametrize("member", ["42%0Aforged", "%0A42", "-1", "me"])
async def test_app_takes_only_the_number_of_a_member(running, emulator, member):
    """What could forge a line of the log is no member."""
    async with running(emulator.client()) as post:
        status, _, _ = await post(f"/members/{member}/voucher")
    assert status == 404
    assert emulator.state.issued(BATCH) == ()


SERVE_FASTAPI = """
import asyncio, socket
import httpx, uvicorn
from fastapi_app import create_app

async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # -X dev would report slowness
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    config = uvicorn.Config(create_app(), lifespan="on", log_level="warning")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        answer = await http.post(f"http://127.0.0.1:{port}/members/42/voucher")
    print(answer.status_code, answer.json()["qr_url"])
    server.should_exit = True
    await serving

asyncio.run(main())
"""
SERVE_AIOHTTP = """
import asyncio
import aiohttp
from aiohttp import web
from aiohttp_app import create_app

async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # -X dev would report slowness
    runner = web.AppRunner(create_app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"http://127.0.0.1:{port}/members/42/voucher") as answer,
    ):
        print(answer.status, (await answer.json())["qr_url"])
    await runner.cleanup()

asyncio.run(main())
"""


@pytest.mark.long
@pytest.mark.parametrize("script", [SERVE_FASTAPI, SERVE_AIOHTTP], ids=RUNNERS)
async def test_app_starts_serves_and_leaves_nothing_open(script, emulator):
    """With the client of the RM_ variables, in a process of its own: no warning of any kind."""
    async with serve(emulator) as server:
        variables = {
            "BATCH_KEY": BATCH,
            "RM_CLIENT_ID": emulator.client_id,
            "RM_CLIENT_SECRET": emulator.client_secret,
            "RM_ENVIRONMENT": server.url,
            "RM_PRIVATE_KEY_FILE": "",
            "RM_PRIVATE_KEY": KEY_FILE.read_text(),
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "dev", "-W", "error", "-c", script),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=EXAMPLES,
            env={**os.environ, **variables},
        )
        out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    (code,) = emulator.state.issued(BATCH)
    assert out.decode().startswith("201 ")
    assert out.decode().strip().endswith(code)
