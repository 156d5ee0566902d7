"""Both adapters on real servers: what a router says is what the sender is told, and no more."""

import asyncio
import logging
from unittest import mock

import pytest
from aiohttp import StreamReader, web
from aiohttp.http_exceptions import TransferEncodingError
from aiohttp.test_utils import make_mocked_request
from support.callback_receivers import (
    BODY,
    CLOSE,
    LENGTH,
    PATH,
    SERVERS,
    Router,
    body_of,
    head,
    serving,
    signed,
    statuses,
    troubles,
    until,
)

from rm_voucher import EventStoreError
from rm_voucher.webhooks import MemoryEventStore
from rm_voucher.webhooks.aiohttp import webhook_routes

METHODS = ("GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")
OF_THE_SERVER = {"server", "date", "connection", "content-length"}


class Full(MemoryEventStore):
    """A store that can't be written."""

    async def record(self, event, **options):
        raise EventStoreError("The database can't be used: the disk is full.")


@pytest.fixture(params=SERVERS)
def kind(request, caplog):
    caplog.set_level(logging.DEBUG)
    return request.param


async def answer(line, lines=(LENGTH,), body=BODY, **options):
    """Return the status of a delivery's answer, its headers and its body."""
    got = await line.raw(head(*lines, CLOSE, **options) + body, ends=False)
    top, _, text = got.partition(b"\r\n\r\n")
    headers = [field.partition(b": ")[::2] for field in top.split(b"\r\n")[1:]]
    (status,) = statuses(got)
    return status, {name.decode().lower(): value.decode() for name, value in headers}, text


async def test_handled_delivery_gets_a_200(kind, caplog):
    """A delivery is handled and done before its 200, a repeat of it runs nothing."""
    router = Router()
    async with serving(kind, router) as line:
        for _ in range(2):
            assert (await answer(line))[0] == 200
            assert router.handled == ["X"]
        counts = await router.store.counts()
    assert (counts.done, counts.waiting) == (1, 0)
    assert router.verifier.bodies == [BODY, BODY]
    assert troubles(caplog.records) == []


async def test_failed_handler_gets_a_500(kind, caplog):
    """A handler that raises is a 500 that does not tell why; the event waits, for the next one."""
    router = Router()
    fails = True

    @router.on("VOID")
    async def handle(event):
        if fails:
            raise RuntimeError("the till's database is at 10.0.0.7")

    async with serving(kind, router) as line:
        status, headers, text = await answer(line)
        assert (status, text) == (500, b"")
        assert "10.0.0.7" not in str(headers)
        assert (await router.store.counts()).waiting == 1
        fails = False
        assert (await answer(line))[0] == 200
        assert (await router.store.counts()).waiting == 0


async def test_busy_router_gets_a_503(kind):
    """More deliveries than may be under way are a 503, and are taken later."""
    router = Router(max_in_flight=1)
    router.release.clear()
    other = body_of("Y")
    with_other = {"lines": [b"Content-Length: %d" % len(other)], "body": other}
    with_other["headers"] = signed(other)
    async with serving(kind, router) as line:
        first = asyncio.create_task(answer(line))
        await until(lambda: router.verifier.bodies)
        assert (await answer(line, **with_other))[0] == 503
        router.release.set()
        assert (await first)[0] == 200
        assert (await answer(line, **with_other))[0] == 200
    assert router.handled == ["X", "Y"]


async def test_unusable_store_gets_a_503(kind):
    """A delivery that can't be recorded is not handled, and RM may come again."""
    router = Router(store=Full())
    async with serving(kind, router) as line:
        assert (await answer(line))[0] == 503
    assert router.handled == []


async def test_closed_router_gets_a_503(kind):
    """A delivery that comes when the router is closed already is not lost in a 200."""
    router = Router()
    async with serving(kind, router) as line:
        await router.aclose()
        assert (await answer(line))[0] == 503
    assert router.handled == []


@pytest.mark.parametrize("method", METHODS)
async def test_other_methods(kind, method):
    """Everything but POST gets a 405 that says so, with a good delivery in it or without one."""
    router = Router()
    async with serving(kind, router) as line:
        for lines, body in (((LENGTH,), BODY), ((), b"")):
            status, headers, _ = await answer(line, lines, body, method=method)
            assert (status, headers["allow"]) == (405, "POST")
        assert await router.has_nothing()
    assert router.verifier.bodies == []


async def test_method_is_not_overridden(kind):
    """A header that some frameworks take for the method changes nothing."""
    router = Router()
    async with serving(kind, router) as line:
        lines = [LENGTH, b"X-HTTP-Method-Override: POST"]
        assert (await answer(line, lines, method="GET"))[0] == 405
        assert await router.has_nothing()


@pytest.mark.parametrize(
    ("lines", "body", "status"),
    [
        ((LENGTH,), BODY, 200),
        ((LENGTH,), BODY.replace(b"VOID", b"VOIX"), 400),
        ((b"Content-Length: 2",), b"[]", 400),
        ((LENGTH, b"X-Signature: sha256 AAAA"), BODY, 400),
        ((LENGTH, b"Content-Encoding: gzip"), b"\x1f\x8b" + BODY[2:], 400),
        ((b"Content-Length: 70000",), b" " * 70000, 413),
        ((b"Content-Length: 10000000",), b" " * 70000, 413),
    ],
)
async def test_answer_tells_nothing_but_its_status(kind, lines, body, status):
    """No body and no header of ours says what was wrong, or what runs here."""
    async with serving(kind, Router()) as line:
        found, headers, text = await answer(line, lines, body)
    assert (found, headers["content-length"], text) == (status, "0", b"")
    assert set(headers) <= OF_THE_SERVER
    assert "rm" not in headers["server"].lower()


async def test_handler_outlives_the_server(kind):
    """A server that stops while a delivery is handled waits for it, and then closes the store."""
    router = Router()
    router.release.clear()
    async with serving(kind, router) as line:
        waiting = asyncio.create_task(answer(line))
        await until(lambda: router.verifier.bodies)
        waiting.cancel()
        asyncio.get_running_loop().call_soon(router.release.set)
    assert router.handled == ["X"]
    async with router.store as store:
        assert (await store.counts()).done == 1


@pytest.mark.parametrize("error", [web.RequestPayloadError("X"), TransferEncodingError("X")])
async def test_payload_error_of_aiohttp(error, caplog):
    """Whichever of its errors reading a body raises, it is a 400, and told without its text."""
    router = Router()
    (route,) = webhook_routes(router, PATH)
    payload = StreamReader(mock.Mock(), 1 << 16, loop=asyncio.get_running_loop())
    payload.set_exception(error)
    async with router:
        answer = await route.handler(make_mocked_request("POST", PATH, payload=payload))
        assert await router.has_nothing()
    assert answer.status == 400
    assert caplog.messages == ["a delivery was refused: its body is not as its headers tell"]


class Refused(MemoryEventStore):
    """A store of somebody's that raises what it should not."""

    async def record(self, event, **options):
        raise ConnectionRefusedError("Canary")


async def test_error_of_the_operating_system_is_not_the_senders(kind, caplog):
    """What a store raises is a failure, told to the log as one: the sender has not gone."""
    async with serving(kind, Router(store=Refused())) as line:
        status, _, text = await answer(line)
    assert status == 500
    assert b"Canary" not in text
    assert ConnectionRefusedError in [
        record.exc_info[0] for record in caplog.records if record.exc_info
    ]
    assert "has gone" not in caplog.text
