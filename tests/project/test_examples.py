"""The example applications: each issues against the emulator, and maps every error of an issue."""

import asyncio
import importlib
import json
import logging
import os
import sys
from contextlib import asynccontextmanager
from typing import Any

import attrs
import httpx
import pytest
from aiohttp.test_utils import TestClient, TestServer
from asgiref.sync import async_to_sync
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


@asynccontextmanager
async def in_asgi(app, prefix=""):
    """Run an application as a server for ASGI does: through its lifespan, on one loop."""
    to_app: asyncio.Queue[Any] = asyncio.Queue()
    from_app: asyncio.Queue[Any] = asyncio.Queue()
    state: dict[str, Any] = {}
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}
    living = asyncio.create_task(app(scope, to_app.get, from_app.put))

    async def with_state(scope, receive, send):
        await app({**scope, "state": state.copy()}, receive, send)

    async def next_event(kind):
        to_app.put_nowait({"type": f"lifespan.{kind}"})
        assert (await from_app.get())["type"] == f"lifespan.{kind}.complete"

    await next_event("startup")
    transport = httpx.ASGITransport(with_state)
    async with httpx.AsyncClient(transport=transport, base_url="http://app.invalid") as http:

        async def post(path):
            answer = await http.post(prefix + path)
            return answer.status_code, answer.headers, answer.text

        yield post
    await next_event("shutdown")
    await living


@asynccontextmanager
async def in_wsgi(module, client):
    """Run Django's WSGI application as a server does: in threads, without a loop."""
    module.VOUCHERS = background = load_example("background").Background(lambda: client)
    transport = httpx.WSGITransport(app=module.wsgi)
    with httpx.Client(transport=transport, base_url="http://app.invalid") as http:

        async def post(path):
            answer = await asyncio.to_thread(http.post, f"/wsgi{path}")
            return answer.status_code, answer.headers, answer.text

        yield post
    await asyncio.to_thread(background.close)


RUNNERS = {
    "fastapi_app": in_fastapi,
    "aiohttp_app": in_aiohttp,
    "starlette_app": in_asgi,
    "litestar_app": in_asgi,
}
IN_DJANGO = {
    "django_app, async view": lambda module, client: in_asgi(module.create_app(lambda: client)),
    "django_app, sync view under ASGI": lambda module, client: in_asgi(
        module.create_app(lambda: client), prefix="/sync"
    ),
    "django_app, WSGI": in_wsgi,
}


@pytest.fixture(params=[*RUNNERS, *IN_DJANGO])
def running(request, monkeypatch):
    """Run one of the applications with a client of the test's."""
    monkeypatch.setenv("BATCH_KEY", BATCH)
    if request.param in IN_DJANGO:  # its settings are one process's
        monkeypatch.setenv("DJANGO_SECRET_KEY", "hush")
        monkeypatch.syspath_prepend(EXAMPLES)
        module = importlib.import_module("django_app")
        return lambda client: IN_DJANGO[request.param](module, client)
    module = load_example(request.param)
    monkeypatch.setitem(sys.modules, request.param, module)  # Litestar looks its handlers up there
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
    assert status in (400, 404)
    assert emulator.state.issued(BATCH) == ()


def test_async_to_sync_makes_a_loop_for_each_call():
    """Where no loop runs, as under WSGI: why the example has one in a thread of its own."""

    async def running_loop():
        return asyncio.get_running_loop()

    first, second = async_to_sync(running_loop)(), async_to_sync(running_loop)()
    assert first is not second
    assert first.is_closed()


SERVE_ASGI = """
import asyncio, socket
import httpx, uvicorn
from {} import create_app

async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # -X dev would report slowness
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    config = uvicorn.Config(create_app(), lifespan="on", log_level="warning")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        answer = await http.post(f"http://127.0.0.1:{{port}}/members/42/voucher")
    print(answer.status_code, answer.json()["qr_url"])
    server.should_exit = True
    await serving

asyncio.run(main())
"""
SERVE_WSGI = """
import logging, socketserver, threading
from wsgiref import simple_server
import httpx
from django_app import wsgi

logging.getLogger("asyncio").setLevel(logging.ERROR)  # -X dev would report slowness

class Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    pass

class Handler(simple_server.WSGIRequestHandler):
    def log_message(self, *_):
        pass

with simple_server.make_server("127.0.0.1", 0, wsgi, Server, Handler) as server:
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    with httpx.Client(trust_env=False, timeout=60) as http:
        answer = http.post(f"http://127.0.0.1:{server.server_port}/wsgi/members/42/voucher")
    print(answer.status_code, answer.json()["qr_url"])
    server.shutdown()
    serving.join()
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


SERVE = {
    **{name: SERVE_ASGI.format(name) for name in (*RUNNERS, "django_app")},
    "aiohttp_app": SERVE_AIOHTTP,
    "WSGI": SERVE_WSGI,
}


@pytest.mark.long
@pytest.mark.parametrize("script", SERVE.values(), ids=SERVE)
async def test_app_starts_serves_and_leaves_nothing_open(script, emulator):
    """With the client of the RM_ variables, in a process of its own: no warning of any kind."""
    async with serve(emulator) as server:
        variables = {
            "BATCH_KEY": BATCH,
            "DJANGO_SECRET_KEY": "hush",
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
