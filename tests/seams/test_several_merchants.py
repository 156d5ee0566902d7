"""Several merchants in one database: what is one's never comes to another.

The codes, batch keys and request ids may be the same, and so may the events.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.doubles import FakeTime
from support.merchants import B, Merchant, pass_time
from support.postgres import run_sql
from support.scoped_statements import all_scoped

from rm_voucher import (
    ConfigurationError,
    Environment,
    LedgerError,
    Limits,
    VoucherClient,
)
from rm_voucher.database import SqlDatabase
from rm_voucher.emulator import Emulator
from rm_voucher.emulator.server import serve
from rm_voucher.exceptions import EventStoreError
from rm_voucher.ledger import Ledger
from rm_voucher.models import VoucherStatus
from rm_voucher.transport.aiohttp import AiohttpTransport
from rm_voucher.webhooks import (
    EventStore,
    MemoryEventStore,
    VoucherEvent,
    WebhookRouter,
    open_event_store,
)

DATABASES = ("sqlite", "postgresql")


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'all.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def database(url: str) -> AsyncIterator[SqlDatabase]:
    with all_scoped():
        async with SqlDatabase(url) as database:
            yield database


@pytest.fixture
async def two(database: SqlDatabase, time: FakeTime) -> AsyncIterator[list[Merchant]]:
    """Two merchants, whose routers are open on one database."""
    merchants = [Merchant(f"merchant-{number}", time) for number in (1, 2)]
    async with contextlib.AsyncExitStack() as stack:
        for merchant in merchants:
            store = open_event_store(
                database, namespace=merchant.client.account, runtime=time.runtime
            )
            await stack.enter_async_context(merchant.listen(store))
        yield merchants


async def issue_one(merchant: Merchant) -> str:
    return (await merchant.client.issue(B)).code


async def test_newer_void_of_another(two: list[Merchant], time: FakeTime) -> None:
    """One's void, which is newer, does not make the other's callback count as old."""
    one, other = two
    assert await issue_one(one) == await issue_one(other)
    code = one.emulator.issued(B)[0]
    time.now += 100
    await other.client.void(code)
    time.now += 100
    await one.client.void(code)
    await pass_time(time, [one], 10)  # the newer one comes first
    await pass_time(time, [other], 10)
    for merchant in two:
        assert set(merchant.answers) == {200}
        assert merchant.handled[-1].status is VoucherStatus.VOID
    assert one.handled[-1].updated_at != other.handled[-1].updated_at


async def test_event_that_waits_is_its_merchants(two: list[Merchant], time: FakeTime) -> None:
    """What no handler took is run by its own merchant's router, and by no other."""
    one, other = two
    await issue_one(other)
    event = await latest_event(other)
    await other.router.store.record(event)
    time.now += 10_000
    assert await one.router.run_due() == 0
    assert one.handled == []
    assert await other.router.run_due() == 1
    assert other.handled == [event]


async def latest_event(merchant: Merchant) -> VoucherEvent:
    return VoucherEvent.of(await merchant.client.get(merchant.emulator.issued(B)[-1]))


async def test_look_up_asks_the_own_account(two: list[Merchant], time: FakeTime) -> None:
    """A poller asks its merchant's RM for its merchant's vouchers alone."""
    one, other = two
    await other.expect(await issue_one(other))
    time.now += 10_000
    assert await one.poller.poll() == 0
    assert one.watched.looked_up == []
    assert await other.poller.poll() == 1
    assert len(other.watched.looked_up) == 1


async def test_same_batch_and_request(
    two: list[Merchant], database: SqlDatabase, time: FakeTime
) -> None:
    """Each customer gets a voucher of the own merchant's, and each merchant issues one."""
    async with contextlib.AsyncExitStack() as stack:
        for merchant in two:
            ledger = Ledger.open(database, namespace=merchant.client.account, **merchant.settings)
            await stack.enter_async_context(ledger)
            await merchant.issue(ledger, "order-1")
            assert [row[0].id async for row in ledger.requests()] == ["order-1"]
    for merchant in two:
        assert list(merchant.emulator.issued(B)) == [merchant.received["order-1"]]


@pytest.mark.parametrize("kind", ["memory", "sql"])
async def test_poller_of_another_account(kind: str, url: str, time: FakeTime) -> None:
    """Where a namespace was forgotten, the second account's client is refused, and asks nothing."""
    one, other = (Merchant(name, time) for name in ("merchant-1", "merchant-2"))
    shared = MemoryEventStore(runtime=time.runtime)
    store = shared if kind == "memory" else open_event_store(url, runtime=time.runtime)
    async with one.listen(store):
        await one.expect(await issue_one(one))
        time.now += 10_000
        assert await one.poller.poll() == 1
        other.router = one.router
        other.poller = type(one.poller)(other.client, one.router, runtime=time.runtime)
        time.now += 100_000
        with pytest.raises(EventStoreError, match="belongs to another account"):
            await other.poller.poll()
        assert other.watched.looked_up == []
        await store.claim(other.client.account, rebind=True)  # by a person's word
        await other.poller.poll()
        assert len(one.watched.looked_up) == 1


@pytest.mark.parametrize("kind", ["memory", "sql"])
async def test_router_that_confirms_for_another_account(
    kind: str, url: str, time: FakeTime
) -> None:
    """It is refused when it opens, and leaves nothing open."""
    one, other = (Merchant(name, time) for name in ("merchant-1", "merchant-2"))
    memory = MemoryEventStore(runtime=time.runtime)

    def store() -> EventStore:
        return memory if kind == "memory" else open_event_store(url, runtime=time.runtime)

    for merchant, is_refused in ((one, False), (other, True), (one, False)):
        verifier = merchant.listen(store()).verifier
        router = WebhookRouter(verifier, store=store(), confirm=merchant.client)
        if not is_refused:
            async with router:
                pass
            continue
        with pytest.raises(EventStoreError, match="belongs to another account"):
            await router.__aenter__()


async def test_namespace_is_not_forgotten(database: SqlDatabase) -> None:
    """Who shares a database says whose part of it each ledger and store is."""
    for opening in (Ledger.open, open_event_store):
        with pytest.raises(ConfigurationError, match=r"give each its namespace, such as client\.a"):
            opening(database)


async def test_fifty_merchants_in_one_process(
    url: str, database: SqlDatabase, time: FakeTime
) -> None:
    """They have few connections together, and each its own vouchers and events."""
    merchants = [Merchant(f"merchant-{number}", time) for number in range(50)]
    async with contextlib.AsyncExitStack() as stack:
        ledgers = []
        for merchant in merchants:
            account = merchant.client.account
            ledger = Ledger.open(database, namespace=account, **merchant.settings)
            ledgers.append(await stack.enter_async_context(ledger))
            store = open_event_store(database, namespace=account, runtime=time.runtime)
            await stack.enter_async_context(merchant.listen(store))
        for merchant, ledger in zip(merchants, ledgers, strict=True):
            await merchant.client.void(await merchant.issue(ledger, "order-1"))
        await pass_time(time, merchants, 10)
        if url.startswith("postgresql"):
            ((connections,),) = await run_sql(
                url,
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid()",
            )
            assert 2 <= connections <= 10
        for merchant, ledger in zip(merchants, ledgers, strict=True):
            assert (await ledger.counts()).assigned == 1
            assert [event.code for event in merchant.handled] == [merchant.received["order-1"]]
            assert set(merchant.answers) == {200}


@pytest.mark.parametrize("is_first", [True, False])
async def test_ledgers_of_one_file_come_and_go(url: str, time: FakeTime, *, is_first: bool) -> None:
    """One may be closed and opened again while others go on; the file is as one ledger left it."""
    one, other = (Merchant(name, time) for name in ("merchant-1", "merchant-2"))
    async with SqlDatabase(url) as database:

        def ledger_of(merchant: Merchant) -> Ledger:
            return Ledger.open(database, namespace=merchant.client.account, **merchant.settings)

        goes, stays = (one, other) if is_first else (other, one)
        ledgers = {merchant: ledger_of(merchant) for merchant in (one, other)}
        for ledger in ledgers.values():
            await ledger.__aenter__()
        for number in range(3):
            await goes.issue(ledgers[goes], f"r{number}")
            await stays.issue(ledgers[stays], f"r{number}")
            await ledgers[goes].aclose()
            with pytest.raises(LedgerError, match="not open"):
                await ledgers[goes].counts()
            await stays.issue(ledgers[stays], f"again-{number}")
            ledgers[goes] = await ledger_of(goes).__aenter__()
        for ledger in ledgers.values():
            await ledger.aclose()
    async with SqlDatabase(url) as database:
        for merchant, issued in ((goes, 3), (stays, 6)):
            async with ledger_of(merchant) as ledger:
                assert await ledger.stop_reason() is None
                assert (await ledger.counts()).assigned == issued
                await merchant.issue(ledger, "after")
                assert len(merchant.emulator.issued(B)) == issued + 1


async def test_database_that_is_closed(url: str, time: FakeTime) -> None:
    """Who still uses it is told, and waits for nothing."""
    database = SqlDatabase(url)
    one = Merchant("merchant-1", time)
    ledger = Ledger.open(database, namespace="one", **one.settings)
    store = open_event_store(database, namespace="one", runtime=time.runtime)
    async with store, ledger:
        await database.aclose()
        await database.aclose()
        with pytest.raises(LedgerError, match="closed"):
            await ledger.counts()
        with pytest.raises(EventStoreError, match="closed"):
            await store.counts()


async def test_older_copy_stops_all_merchants(tmp_path: Path, time: FakeTime) -> None:
    """It knows of nobody what was issued since: neither of who is in it, nor of who came later."""
    file, kept = tmp_path / "all.db", tmp_path / "kept.db"
    merchants = [Merchant(f"merchant-{number}", time) for number in (1, 2)]

    async def issue(request_id: str, *these: Merchant) -> None:
        async with SqlDatabase(f"sqlite:///{file}") as database:
            for merchant in these:
                account = merchant.client.account
                async with Ledger.open(database, namespace=account, **merchant.settings) as ledger:
                    await merchant.issue(ledger, request_id)

    await issue("r1", merchants[0])
    shutil.copyfile(file, kept)
    await issue("r2", *merchants)
    shutil.copyfile(kept, file)
    for merchant in merchants:
        before = len(merchant.emulator.issued(B))
        with pytest.raises(LedgerError, match="older copy of itself"):
            await issue("r2", merchant)
        assert len(merchant.emulator.issued(B)) == before


async def test_merchants_that_share_a_transport() -> None:
    """Over the same connections each has its own token, signature and vouchers."""
    emulator = Emulator(batches={"TEA": 20})
    # Keys of its own: one merchant's signature by the other's key is refused.
    other = emulator.merchant("other", batches={"TEA": 20}, credentials=Emulator().credentials)
    limits = Limits(max_connections=2)
    async with serve(emulator) as server:
        transport = AiohttpTransport(limits=limits)
        there = Environment(server.url, server.url)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(transport.aclose)
            clients = []
            for credentials in (emulator.credentials, other.credentials):
                assert credentials is not None
                client = VoucherClient(credentials, environment=there, transport=transport)
                clients.append(await stack.enter_async_context(client))
            vouchers = await asyncio.gather(*(client.issue("TEA") for client in clients * 10))
    codes = [voucher.code for voucher in vouchers]
    for number, merchant in enumerate((emulator, other)):
        assert set(merchant.issued("TEA")) == set(codes[number::2])
