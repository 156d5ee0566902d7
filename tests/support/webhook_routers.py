"""Deliveries as RM signs them, handlers that keep what they get, and stores of every kind."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

import attrs
import orjson
import pytest
from sqlalchemy import Column, Connection, MetaData, Table, Text
from support import canaries as leaks
from support.answers import voucher_item
from support.doubles import FakeTime
from support.emulated_domain import at
from support.files import KEY_FILE, PUBLIC_KEY_FILE

from rm_voucher import (
    ConnectError,
    Credentials,
    EventStoreError,
    Request,
    Response,
    RetryPolicy,
    Voucher,
    VoucherClient,
    VoucherStatus,
)
from rm_voucher.converters import format_time, structure
from rm_voucher.database import Transaction
from rm_voucher.database.engine import make_engine, parse_url
from rm_voucher.emulator import Emulator
from rm_voucher.signing import RsaSigner, canonical_json, format_signature, string_to_sign
from rm_voucher.transport.memory import MemoryTransport
from rm_voucher.webhooks import (
    CallbackPoller,
    CallbackVerifier,
    EventState,
    EventStore,
    MemoryEventStore,
    VoucherEvent,
    WebhookRouter,
    open_event_store,
)
from rm_voucher.webhooks.records import Disposition

CODE = leaks.CODE
NOW = FakeTime().now
URL = "https://shop.invalid/callback"
ENDED = at(NOW) - timedelta(days=1)

acts = Table("acts", MetaData(), Column("event", Text), Column("status", Text))
"""A table of the application's own, in the database of its events."""


def item(code: str = CODE, status: str = "VOID", after_s: float = 0) -> dict[str, Any]:
    """Return a voucher as it stands in a callback; it changed so long after the first one."""
    changed = format_time(ENDED + timedelta(seconds=after_s))
    return {**voucher_item(status, code), "updatedAt": changed}


def event(code: str = CODE, status: str = "VOID", after_s: float = 0) -> VoucherEvent:
    """Return the event of a voucher that came to a status."""
    return VoucherEvent.of(structure(item(code, status, after_s), Voucher))


def body(*args: Any, **kwargs: Any) -> bytes:
    """Return the body of a callback; the arguments are those of `item`."""
    return orjson.dumps({"item": item(*args, **kwargs), "code": "SUCCESS"})


@functools.cache
def server_key() -> RsaSigner:
    return RsaSigner.from_pem(KEY_FILE.read_bytes())


_numbers = itertools.count()


def sign(content: bytes, *, signer: Any = None, late_s: float = 0) -> dict[str, str]:
    """Return the headers of a delivery, with a nonce of its own."""
    nonce, timestamp = f"canary-nonce-{next(_numbers)}", str(int(NOW - late_s))
    text = string_to_sign(
        method="POST",
        url=None,
        nonce=nonce,
        timestamp=timestamp,
        body=canonical_json(orjson.loads(content)),
    )
    signature = (signer or server_key()).sign(text.encode())
    return {
        "X-Nonce-Str": nonce,
        "X-Timestamp": timestamp,
        "X-Signature": format_signature(signature),
    }


async def deliver(router: WebhookRouter, *args: Any, **kwargs: Any) -> int:
    """Deliver a callback, signed anew; the arguments are those of `item`."""
    content = body(*args, **kwargs)
    return await router.receive(sign(content), content)


def make_router(store: EventStore, **settings: Any) -> WebhookRouter:
    """Return a router at whose clock deliveries are signed just now."""
    return WebhookRouter(
        CallbackVerifier(PUBLIC_KEY_FILE, runtime=FakeTime(NOW).runtime), store=store, **settings
    )


async def _nothing(_: object) -> None: ...


class Shop:
    """A handler that keeps the events it gets; each of its troubles is raised, one after another.

    A trouble is an error, a class of errors, or a function that is awaited, with the event.
    """

    def __init__(self, *troubles: Any) -> None:
        self.troubles = list(troubles)
        self.got: list[VoucherEvent] = []

    async def handle(self, event: VoucherEvent) -> str:
        self.got.append(event)
        trouble = self.troubles.pop(0) if self.troubles else _nothing
        if isinstance(trouble, BaseException | type):
            raise trouble
        await trouble(event)
        return "an answer that nobody reads"

    async def act(self, event: VoucherEvent, tx: Transaction) -> None:
        """Handle with the transaction: write first, and then meet the trouble."""
        await tx.execute(acts.insert(), {"event": event.id, "status": event.status})
        await self.handle(event)

    @property
    def statuses(self) -> list[str]:
        return [event.status for event in self.got]


def pass_time(seconds: float) -> None:
    """Let what waits for the time of the event loop wait so much less; nothing sleeps."""
    loop = asyncio.get_running_loop()
    now = loop.time
    loop.time = lambda: now() + seconds  # type: ignore[method-assign]


async def hang(_: object = None) -> None:
    """Wait for ever, and let every time-out that is set be over."""
    pass_time(3600)
    await asyncio.Event().wait()


class BrokenStore(MemoryEventStore):
    """Raises at the next calls of the methods in ``broken``, each once."""

    def __init__(self, *broken: str, time: FakeTime) -> None:
        super().__init__(runtime=time.runtime)
        self.broken = list(broken)

    async def record(self, event: VoucherEvent, **settings: Any) -> Disposition:
        self._break("record")
        return await super().record(event, **settings)

    async def finish(self, event: VoucherEvent, state: EventState) -> None:
        self._break("finish")
        await super().finish(event, state)

    async def due(self, limit: int) -> list[VoucherEvent]:
        self._break("due")
        return await super().due(limit)

    def _break(self, method: str) -> None:
        if method in self.broken:
            self.broken.remove(method)
            raise EventStoreError("The database can't be used: out of order.")


async def counts(store: EventStore) -> tuple[int, int, int]:
    """Return how many events are done, waiting and stale."""
    found = await store.counts()
    return found.done, found.waiting, found.stale


@contextlib.contextmanager
def connected(url: str) -> Iterator[Connection]:
    """Give a transaction beside whatever is tested."""
    engine = make_engine(parse_url(url))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def acted(url: str) -> list[str]:
    """Return the ids of the events that `Shop.act` acted on."""
    with connected(url) as connection:
        return list(connection.scalars(acts.select().order_by(acts.c.event)))


@pytest.fixture(name="database", params=["sqlite", "postgres"])
def give_database(request: pytest.FixtureRequest) -> str:
    """The URL of a database that has the application's table, and nothing else."""
    return new_database(request)


@pytest.fixture(name="make_store", params=["memory", "sqlite", "postgres"])
def give_make_store(request: pytest.FixtureRequest, time: FakeTime) -> Callable[[], EventStore]:
    """Make stores of one kind, all on one database if it is one."""
    if request.param == "memory":
        return lambda: MemoryEventStore(runtime=time.runtime)
    url = new_database(request)
    return lambda: open_event_store(url, runtime=time.runtime)


def new_database(request: pytest.FixtureRequest) -> str:
    """Make a database of the kind that a fixture's parameter names."""
    if request.param == "postgres":
        url = str(request.getfixturevalue("postgres_url"))
    else:
        url = f"sqlite:///{request.getfixturevalue('tmp_path')}/events.db"
    with connected(url) as connection:
        acts.create(connection)
    return url


@pytest.fixture(name="quiet", autouse=True)
def give_quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No log of any level shows a code, a nonce or a signature, in any test that imports this."""
    watching = leaks.Watching()
    caplog.set_level(logging.DEBUG)
    logging.getLogger().addHandler(watching)
    yield
    logging.getLogger().removeHandler(watching)
    assert watching.leaks == []
    assert "canary-nonce" not in caplog.text
    assert not re.search(r"[A-Za-z0-9+/_-]{48}", caplog.text)  # a signature has 342


def said(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    """Return what the library logged of a level or above, without tracebacks."""
    return [
        record.getMessage().partition("\n")[0]
        for record in caplog.records
        if record.name == "rm_voucher.webhooks" and record.levelno >= level
    ]


ME = Credentials("client-id", "client-secret", KEY_FILE.read_bytes())


@attrs.define
class World:
    """RM, the merchant, and between them a wire that can be cut."""

    time: FakeTime
    emulator: Emulator
    client: VoucherClient
    router: WebhookRouter
    shop: Shop
    poller: CallbackPoller
    is_cut: bool = True
    sent: list[Request] = attrs.field(factory=list)
    answers: list[int] = attrs.field(factory=list)

    @property
    def store(self) -> EventStore:
        return self.router.store

    @property
    def looked_up(self) -> int:
        return self.emulator.requests["get"]

    async def carry(self, request: Request) -> Response:
        self.sent.append(request)
        if self.is_cut:
            raise ConnectError("x: the wire is cut")
        self.answers.append(await self.router.receive(request.headers, request.body))
        return Response(status=self.answers[-1])

    async def issue(self) -> str:
        """Return a code that is waited for."""
        voucher = await self.client.issue("K")
        await self.poller.expect(voucher.code)
        return voucher.code

    async def wait(self, seconds: int) -> None:
        """Let time pass, and RM call, second by second."""
        for _ in range(seconds):
            self.time.now += 1
            await self.emulator.callbacks.deliver()

    async def expected(self) -> int:
        return (await self.store.counts()).expected


@pytest.fixture(name="make_world")
def give_make_world(time: FakeTime) -> Callable[..., World]:
    """Make a world on a store; its handler of VOID and EXPIRED has these troubles."""

    def make(store: EventStore, *troubles: Any, **settings: Any) -> World:
        emulator = Emulator(
            seed=1,
            credentials=ME,
            batches={"K": 200},
            callback_url=URL,
            clock=time.clock,
        )
        client = emulator.client(runtime=time.runtime, retry=RetryPolicy(max_attempts=1))
        verifier = CallbackVerifier(
            emulator.callbacks.public_key_pem, url=URL, runtime=time.runtime
        )
        router, shop = WebhookRouter(verifier, store=store), Shop(*troubles)
        router.on(VoucherStatus.VOID, VoucherStatus.EXPIRED)(shop.handle)
        poller = CallbackPoller(client, router, **{"runtime": time.runtime, **settings})
        world = World(time, emulator, client, router, shop, poller)
        emulator.callbacks.transport = MemoryTransport(world.carry)
        return world

    return make


@pytest.fixture(name="world")
async def give_world(
    make_world: Callable[..., World], make_store: Callable[[], EventStore]
) -> AsyncIterator[World]:
    """A world with each kind of store in turn, its router open."""
    world = make_world(make_store())
    async with world.router, world.client:
        yield world


@pytest.fixture(name="small")
async def give_small(make_world: Callable[..., World], time: FakeTime) -> AsyncIterator[World]:
    """A world with a store in memory, its router open."""
    world = make_world(MemoryEventStore(runtime=time.runtime))
    async with world.router, world.client:
        yield world
