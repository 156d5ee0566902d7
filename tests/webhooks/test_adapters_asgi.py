"""The ASGI adapter: in frameworks, served by itself, and by messages that no server sends."""

import asyncio
import contextlib
import socket

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.routing import Mount, Route
from support.callback_receivers import (
    BODY,
    CLOSE,
    LENGTH,
    PATH,
    Router,
    head,
    in_uvicorn,
    serving,
    signed,
    statuses,
)
from support.command import PATIENCE_S

from rm_voucher import ConfigurationError, EventStoreError
from rm_voucher.webhooks import MemoryEventStore, open_event_store
from rm_voucher.webhooks.asgi import WebhookApp


class Odd(MemoryEventStore):
    """A store of somebody's that fails with errors of its own, when it opens or when it closes."""

    def __init__(self, *, opens, error):
        super().__init__()
        self.opens = opens
        self.error = error

    async def _open(self):
        if not self.opens:
            raise self.error

    async def aclose(self):
        if self.opens:
            raise self.error


@contextlib.asynccontextmanager
async def http_to(app):
    """Serve an ASGI application; give a client that follows no redirect."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with (
            in_uvicorn(app, listening),
            httpx.AsyncClient(trust_env=False, base_url=url) as http,
        ):
            yield http


def headers_of(body):
    return dict(line.decode().split(": ") for line in signed(body))


async def test_in_fastapi():
    """As a route of FastAPI's it has its path alone, any method, and the raw bytes."""
    router = Router()
    app = FastAPI(redirect_slashes=False)
    app.router.routes.append(Route(PATH, WebhookApp(router)))
    app.add_route("/other", WebhookApp(router))  # type: ignore[arg-type] # it takes ASGI apps, too
    spaced = BODY.replace(b",", b" ,\n")
    async with router, http_to(app) as http:
        for path in (PATH, "/other", f"{PATH}?x=1"):
            sent = await http.post(path, content=spaced, headers=headers_of(BODY))
            assert sent.status_code == 200
        assert router.verifier.bodies == [spaced] * 3
        for path in (f"{PATH}/", f"{PATH}/x", "/other/"):
            sent = await http.post(path, content=BODY, headers=headers_of(BODY))
            assert sent.status_code == 404
        sent = await http.get(PATH)
        assert (sent.status_code, sent.headers["allow"]) == (405, "POST")
    assert len(router.verifier.bodies) == 3


async def test_mounted():
    """Mounted under a path it takes all that is below, with or without a path of its own."""
    router = Router()
    app = FastAPI(redirect_slashes=False)
    app.router.routes.append(Mount("/hooks", WebhookApp(router)))
    async with router, http_to(app) as http:
        for path in ("/hooks/", "/hooks/rm", "/hooks/a/b/"):
            sent = await http.post(path, content=BODY, headers=headers_of(BODY))
            assert sent.status_code == 200
    assert router.handled == ["X"]


async def test_served_by_itself_with_a_database(tmp_path):
    """Served by itself it opens the store before it listens, and closes it at the end."""
    router = Router(store=open_event_store(f"sqlite:///{tmp_path}/events.db"))
    async with serving("asgi", router) as line:
        assert statuses(await line.raw(head(LENGTH, CLOSE) + BODY, ends=False)) == [200]
        assert (await router.store.counts()).done == 1
    with pytest.raises(EventStoreError, match="not open"):
        await router.store.counts()


@pytest.mark.parametrize("lifespan", ["on", "auto"])
@pytest.mark.parametrize("is_ours", [True, False])
async def test_store_that_can_not_be_opened(tmp_path, caplog, lifespan, is_ours):
    """A server does not start without the store, and says why."""
    store = open_event_store(f"sqlite:///{tmp_path}/missing/events.db")
    if not is_ours:
        store = Odd(opens=False, error=RuntimeError("secret"))
    app = WebhookApp(Router(store=store))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, lifespan=lifespan, log_config=None))
        with pytest.raises(SystemExit):
            async with asyncio.timeout(PATIENCE_S):
                await server.serve(sockets=[listening])
    assert not server.started
    assert ("can't be used: No such file" if is_ours else "RuntimeError") in caplog.text
    assert "Application startup failed" in caplog.text
    of_server = [r.getMessage() for r in caplog.records if r.name == "uvicorn.error"]
    assert "secret" not in str(of_server)


async def call(app, scope, *messages):
    """Call an application with the messages that it gets; return those that it sends."""
    coming, sent = list(messages), []

    async def receive():
        assert coming, "nothing more is to come"
        return coming.pop(0)

    async def send(message):
        sent.append(message)

    async with asyncio.timeout(10):
        await app(scope, receive, send)
    assert coming == []
    return sent


def scope(method="POST", version="1.1", headers=None):
    lines = signed(BODY) if headers is None else headers
    pairs = [tuple(line.split(b": ", 1)) for line in lines]
    pairs = [(name.lower(), value) for name, value in pairs]
    return {"type": "http", "method": method, "http_version": version, "headers": pairs}


def piece(body, *, more):
    return {"type": "http.request", "body": body, "more_body": more}


async def test_pieces_in_asgi():
    """A body comes in pieces, some of which are empty or say nothing at all."""
    router = Router()
    pieces = [piece(BODY[:9], more=True), piece(b"", more=True), piece(BODY[9:], more=True)]
    async with router:
        start, body = await call(WebhookApp(router), scope(), *pieces, {"type": "http.request"})
    assert start == {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-length", b"0")],
    }
    assert body == {"type": "http.response.body", "body": b""}
    assert router.verifier.bodies == [BODY]


@pytest.mark.parametrize("pieces", [[], [piece(BODY, more=True)]])
async def test_disconnect_in_asgi(pieces):
    """A sender that goes before its body is whole is sent nothing, and nothing is done for it."""
    router = Router()
    async with router:
        gone = {"type": "http.disconnect"}
        assert await call(WebhookApp(router), scope(), *pieces, gone) == []
        assert await router.has_nothing()
    assert router.verifier.bodies == []


@pytest.mark.parametrize(
    ("version", "closes"), [("1.0", True), ("1.1", True), ("2", False), ("3", False)]
)
@pytest.mark.parametrize(("method", "status"), [("POST", 413), ("GET", 405)])
async def test_what_was_not_read_in_asgi(version, closes, method, status):
    """What is left of a body ends the connection, but in HTTP/2, which has no such header."""
    router = Router()
    pieces = [piece(b" " * 70_000, more=True)] if method == "POST" else []
    async with router:
        start, _ = await call(WebhookApp(router), scope(method, version), *pieces)
    assert start["status"] == status
    assert ((b"connection", b"close") in start["headers"]) is closes


async def test_headers_of_any_bytes_in_asgi():
    """Header bytes that no text encoding has are refused as any wrong header is."""
    router = Router()
    headers = [b"x-nonce-str: \xff\xfe", b"x-timestamp: \x80", b"x-signature: \x00", b"\xff: \xff"]
    async with router:
        start, _ = await call(WebhookApp(router), scope(headers=headers), piece(BODY, more=False))
    assert start["status"] == 400


async def test_websocket_in_asgi():
    """A websocket is turned away before it is open."""
    router = Router()
    sent = await call(WebhookApp(router), {"type": "websocket", "path": PATH})
    assert sent == [{"type": "websocket.close"}]


STARTUP, SHUTDOWN = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}


async def test_lifespan_in_asgi():
    """The router is open between startup and shutdown, and closed before shutdown is complete."""
    router = Router()
    states = []

    async def send(message):
        states.append((message["type"], router._is_open))

    coming = [STARTUP, SHUTDOWN]

    async def receive():
        return coming.pop(0)

    await WebhookApp(router)({"type": "lifespan"}, receive, send)
    assert states == [("lifespan.startup.complete", True), ("lifespan.shutdown.complete", False)]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConfigurationError("The table is missing."), "The table is missing."),
        (OSError(), "OSError"),
    ],
)
@pytest.mark.parametrize("opens", [True, False])
async def test_lifespan_that_fails_in_asgi(error, said, opens, caplog):
    """A store that fails at the start or the end is told as that, and never raised."""
    app = WebhookApp(Router(store=Odd(opens=opens, error=error)))
    coming = [STARTUP, SHUTDOWN] if opens else [STARTUP]
    *_, last = await call(app, {"type": "lifespan"}, *coming)
    name = "shutdown" if opens else "startup"
    assert last == {"type": f"lifespan.{name}.failed", "message": said}
    assert (f"the {name} of callbacks failed" in caplog.text) is isinstance(error, OSError)
