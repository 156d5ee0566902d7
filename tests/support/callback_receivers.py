"""A router behind each adapter, on a real server on loopback, and deliveries that are signed."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from unittest import mock

import orjson
import uvicorn
from aiohttp import web, web_protocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParserPy
from support.answers import voucher_item
from support.command import PATIENCE_S
from support.files import KEY_FILE, PUBLIC_KEY_FILE
from support.raw_connection import Line

from rm_voucher.runtime import Runtime
from rm_voucher.signing import RsaSigner, canonical_json, format_signature, string_to_sign
from rm_voucher.webhooks import CallbackVerifier, MemoryEventStore, WebhookRouter
from rm_voucher.webhooks.aiohttp import webhook_routes
from rm_voucher.webhooks.asgi import WebhookApp

NOW = 1_700_000_000
PATH = "/callbacks/rm"
SIGNER = RsaSigner.from_pem(KEY_FILE.read_bytes())


def body_of(code="X"):
    return orjson.dumps({"item": voucher_item("VOID", code), "code": "SUCCESS"})


def signed(body, nonce="nonce"):
    """Return a delivery's headers, as they stand on the wire."""
    text = string_to_sign(
        method="POST",
        url=None,
        nonce=nonce,
        timestamp=str(NOW),
        body=canonical_json(orjson.loads(body)),
    )
    signature = format_signature(SIGNER.sign(text.encode()))
    headers = {"X-Nonce-Str": nonce, "X-Timestamp": str(NOW), "X-Signature": signature}
    return [f"{name}: {value}".encode() for name, value in headers.items()]


BODY = body_of()
HEADERS = signed(BODY)
LENGTH = b"Content-Length: %d" % len(BODY)
CLOSE = b"Connection: close"


def head(*lines, method="POST", version="1.1", headers=HEADERS, path=PATH):
    """Return a request up to its body; what length that has stands in ``lines``."""
    first = f"{method} {path} HTTP/{version}".encode()
    return b"\r\n".join([first, b"Host: x", *headers, *lines]) + b"\r\n\r\n"


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def statuses(got):
    """Return the statuses of all answers; none has a body that holds a status line."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] ([2-5]\d\d) ", got)]


async def until(condition):
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0)


class Verifier(CallbackVerifier):
    """Keeps the bodies that it was given."""

    def __init__(self):
        super().__init__(PUBLIC_KEY_FILE, runtime=Runtime(clock=lambda: NOW))
        self.bodies = []

    def verify(self, headers, body):
        self.bodies.append(body)
        return super().verify(headers, body)


class Router(WebhookRouter):
    """Keeps what is handled, and counts what began and ended to be received."""

    verifier: Verifier

    def __init__(self, **options):
        super().__init__(Verifier(), **{"store": MemoryEventStore(), **options})
        self.handled = []
        self.begun = self.ended = 0
        self.release = asyncio.Event()
        self.release.set()
        self.on()(self.handle)

    async def handle(self, event):
        await self.release.wait()
        self.handled.append(event.code)

    async def receive(self, headers, body):
        self.begun += 1
        try:
            return await super().receive(headers, body)
        finally:
            self.ended += 1

    async def has_nothing(self):
        """Return whether no handler ran, and nothing was recorded."""
        counts = await self.store.counts()
        return not self.handled and (counts.done, counts.waiting, counts.stale) == (0, 0, 0)


@contextlib.asynccontextmanager
async def in_aiohttp(router, listening):
    async def opened(_):
        async with router:
            yield

    app = web.Application()
    app.cleanup_ctx.append(opened)
    app.add_routes(webhook_routes(router, PATH))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        yield
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def in_uvicorn(app, listening):
    config = uvicorn.Config(app, lifespan="on", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        await until(lambda: server.started or serving.done())
        yield
    finally:
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def in_python(router, listening):
    """Serve in aiohttp with the parser that it has where it was not compiled."""
    with mock.patch.object(web_protocol, "HttpRequestParser", HttpRequestParserPy):
        async with in_aiohttp(router, listening):
            yield


SERVERS = {
    "aiohttp": in_aiohttp,
    "aiohttp in Python": in_python,
    "asgi": lambda router, listening: in_uvicorn(WebhookApp(router), listening),
}


@contextlib.asynccontextmanager
async def serving(kind, router):
    """Serve a router, and give a line to it. At the end no connection has left a task."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with SERVERS[kind](router, listening):
            before = asyncio.all_tasks()
            yield Line(None, f"http://127.0.0.1:{listening.getsockname()[1]}")
            mine = {asyncio.current_task()}  # a fixture ends in another task than it began in
            await until(lambda: asyncio.all_tasks() <= before | mine)


def troubles(records):
    """Return what was logged of failures. aiohttp takes bytes that are no HTTP for one, too."""
    failures = [record for record in records if record.exc_info or record.name == "asyncio"]
    return [
        record.getMessage()
        for record in failures
        if not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
        and not (record.name == "asyncio" and record.levelname == "DEBUG")
    ]
