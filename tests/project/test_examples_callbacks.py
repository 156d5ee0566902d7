"""The example applications that take callbacks: over HTTP, with the emulator as the sender."""

import asyncio
import contextlib
import logging
import signal
import socket
import sqlite3
import sys

import attrs
import pytest
import uvicorn
from aiohttp import web
from support.command import PATIENCE_S
from support.example_modules import load_example
from support.files import EXAMPLES, KEY_FILE

from rm_voucher import Credentials, VoucherClient
from rm_voucher.emulator import Emulator
from rm_voucher.emulator.server import serve
from rm_voucher.transport.aiohttp import AiohttpTransport
from rm_voucher.transport.base import Transport

BATCH = "BREAKFAST"


@contextlib.asynccontextmanager
async def in_aiohttp(module, listening):
    app = module.create_app()
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        yield app[module.POLLER]
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def in_fastapi(module, listening):
    app = module.create_app()
    server = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_config=None))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        await until(lambda: server.started or serving.done())
        yield app.state.poller
    finally:
        server.should_exit = True
        await serving


RUNNERS = {"callbacks_aiohttp": in_aiohttp, "callbacks_fastapi": in_fastapi}


async def until(condition):
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


class Tap(Transport):
    """Carries deliveries over HTTP, and keeps them."""

    def __init__(self):
        self.wire = AiohttpTransport()
        self.requests = []

    async def send(self, request):
        self.requests.append(request)
        return await self.wire.send(request)


class Shop:
    """An emulator, one of the applications that it delivers to, and the application's database."""

    def __init__(self, name, emulator, monkeypatch, path):
        self.name = name
        self.emulator = emulator
        self.database = path / "app.db"
        self.tap = emulator.callbacks.transport = Tap()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}/callbacks/rm"
        emulator.callbacks.url = self.url
        key_file = path / "server.pem"
        key_file.write_bytes(emulator.callbacks.public_key_pem)
        monkeypatch.setenv("RM_CALLBACK_PUBLIC_KEY_FILE", str(key_file))
        monkeypatch.setenv("RM_CALLBACK_URL", self.url)
        monkeypatch.setenv("DATABASE_URL", f"sqlite:///{self.database}")

    @contextlib.asynccontextmanager
    async def running(self):
        """Run the application in this loop; give its poller. At the end nothing of it is left."""
        module = load_example(self.name)
        async with RUNNERS[self.name](module, self.listening.dup()) as poller:
            yield poller
        running = [
            str(getattr(task.get_coro(), "__qualname__", "")) for task in asyncio.all_tasks()
        ]
        assert not [name for name in running if name.startswith(("CallbackPoller", "Webhook"))]

    async def use(self, *codes):
        """Redeem and void vouchers as the shop's till does."""
        async with VoucherClient.from_env() as client:
            for code in codes:
                await client.redeem([code])
                await client.void(code)

    def issue(self, count=1):
        return [self.emulator.state.issue(BATCH)[0] for _ in range(count)]

    async def delivered(self, count):
        await until(lambda: self.emulator.callbacks.delivered == count)

    async def send(self, request, **changes):
        """Return the status that answers one more delivery."""
        return (await self.tap.wire.send(attrs.evolve(request, **changes))).status

    def execute(self, statement):
        with contextlib.closing(sqlite3.connect(self.database)) as connection, connection:
            return connection.execute(statement).fetchall()

    def kept(self):
        return sorted(code for (code,) in self.execute("SELECT code FROM redemptions"))


@pytest.fixture(params=RUNNERS)
async def shop(request, monkeypatch, tmp_path, caplog):
    """What an application needs to run, and the emulator over HTTP. No code is ever logged."""
    caplog.set_level(logging.DEBUG)
    credentials = Credentials("id", "hush", KEY_FILE.read_bytes())
    emulator = Emulator(credentials=credentials, batches={BATCH: 100})
    emulator.callbacks.interval_s = 0.01
    async with serve(emulator) as server:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        shop = Shop(request.param, emulator, monkeypatch, tmp_path)
        with shop.listening:
            yield shop
        await shop.tap.wire.aclose()
    write = logging.Formatter().format  # with tracebacks
    logged = "\n".join(write(record) for record in caplog.get_records("call"))
    assert not [code for code in emulator.issued(BATCH) if code in logged]


def troubles(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno > logging.INFO]


async def test_each_redemption_is_kept_once(shop, caplog):
    """Every voucher that is voided has one row when its delivery is answered, the others none."""
    used, other = shop.issue(5), shop.issue(2)
    async with shop.running():
        await shop.use(*used)
        async with VoucherClient.from_env() as client:
            await client.redeem(other[:1])
        await shop.delivered(11)
        assert shop.kept() == sorted(used)
        ((at,),) = shop.execute(f"SELECT used_at FROM redemptions WHERE code = '{used[0]}'")
    assert at.startswith(shop.emulator.voucher(used[0]).used_at.strftime("%Y-%m-%d %H:%M:%S"))
    assert len(shop.tap.requests) == 11
    assert troubles(caplog) == []


async def test_repeat_keeps_no_second_row(shop):
    """The same delivery again gets a 200 and writes nothing: at once, and after a restart."""
    (code,) = shop.issue()
    async with shop.running():
        await shop.use(code)
        await shop.delivered(2)
        void = shop.tap.requests[-1]
        assert set(await asyncio.gather(*(shop.send(void) for _ in range(8)))) == {200}
        assert shop.kept() == [code]
    async with shop.running():
        assert await shop.send(void) == 200
    assert shop.kept() == [code]


async def test_forged_delivery_is_refused(shop):
    """A body that was not signed, or a signature of another key's, is a 400 and leaves no row."""
    first, second = shop.issue(2)
    async with shop.running():
        await shop.use(first)
        await shop.delivered(2)
        void = shop.tap.requests[-1]
        forged = void.body.replace(first.encode(), second.encode())
        assert await shop.send(void, body=forged) == 400
        stranger = Emulator(batches={BATCH: 1}, callback_url=shop.url)
        stranger.callbacks.transport = tap = Tap()
        stranger.state.redeem([stranger.state.issue(BATCH)[0]])
        await stranger.callbacks.deliver()
        assert await shop.send(tap.requests[0]) == 400
        await tap.wire.aclose()
        assert shop.kept() == [first]
        assert shop.execute("SELECT count(*) FROM rm_webhook_events") == [(2,)]


async def test_delivery_to_another_path_is_not_redirected(shop):
    """A slash at the end is another path: 404, for a redirect would be the end of a delivery."""
    async with shop.running():
        await shop.use(*shop.issue())
        await shop.delivered(2)
        url = shop.tap.requests[-1].url
        assert await shop.send(shop.tap.requests[-1], url=url) == 200
        assert await shop.send(shop.tap.requests[-1], url=url.with_path("/callbacks/rm/")) == 404


async def test_row_that_can_not_be_written(shop):
    """Without its table the delivery is a 500 and not done; with it, the next one keeps the row."""
    (code,) = shop.issue()
    async with shop.running():
        ((table,),) = shop.execute("SELECT sql FROM sqlite_master WHERE name = 'redemptions'")
        shop.execute("DROP TABLE redemptions")
        await shop.use(code)
        await until(lambda: shop.emulator.callbacks.given_up == 1)
        void = shop.tap.requests[-1]
        assert await shop.send(void) == 500
        shop.execute(table)
        assert await shop.send(void) == 200
        assert await shop.send(void) == 200
    assert shop.kept() == [code]


async def test_lost_callback_is_found(shop, caplog):
    """A voucher that is expected, used while nothing listens: the poller keeps its row."""
    code, unused = shop.issue(2)
    async with shop.running() as poller:
        await poller.expect(code, unused)
    shop.emulator.callbacks.url = None
    await shop.use(code)
    shop.execute("UPDATE rm_webhook_expected SET due_at = 0")
    async with shop.running():
        await until(shop.kept)
        await until(lambda: shop.execute("SELECT code FROM rm_webhook_expected") == [(unused,)])
    assert shop.kept() == [code]
    assert shop.tap.requests == []
    assert troubles(caplog) == []


SERVE = {
    "callbacks_aiohttp": """
import socket, sys
from aiohttp import web
from callbacks_aiohttp import create_app
web.run_app(create_app(), sock=socket.socket(fileno=int(sys.argv[1])), print=None)
""",
    "callbacks_fastapi": """
import sys, uvicorn
uvicorn.run("callbacks_fastapi:create_app", factory=True, fd=int(sys.argv[1]), log_level="warning")
""",
}


@pytest.mark.long
async def test_process_serves_and_ends(shop):
    """In a process of its own, ended by SIGTERM: the row is there, no warning of any kind."""
    descriptor = shop.listening.fileno()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", SERVE[shop.name], str(descriptor)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=EXAMPLES,
        pass_fds=[descriptor],
    )
    (code,) = shop.issue()
    try:
        await shop.use(code)
        await shop.delivered(2)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, out, err) in [(0, b"", b""), (-signal.SIGTERM, b"", b"")]
    assert shop.kept() == [code]
