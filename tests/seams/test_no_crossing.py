"""Two merchants with the same codes, batch keys and request ids: nothing of one's is the other's.

Random operations, callbacks and look-ups of both on one database, and a checker that knows nothing
of namespaces: only what each RM did, and what each merchant's code was told.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import attrs
import pytest
from sqlalchemy import true
from support.doubles import FakeTime
from support.merchants import B, Merchant

from rm_voucher import OutcomeUnknownError, VoucherError
from rm_voucher.database import SqlDatabase
from rm_voucher.database.scope import Scope
from rm_voucher.emulator import Fault
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.memory import MemoryLedgerStore, MemoryTables
from rm_voucher.ledger.rules.records import Code, IssueAttempt, IssueRequest
from rm_voucher.ledger.sql import unit_of_work
from rm_voucher.ledger.sql.statements import Lookup
from rm_voucher.ledger.sql.store import SqlLedgerStore
from rm_voucher.webhooks import EventStore, MemoryEventStore, VoucherEvent, open_event_store
from rm_voucher.webhooks.sql.store import SqlEventStore

STORES = ("memory", "sqlite", "postgresql")
REQUESTS = 25
_BUSY = 4  # vouchers change again and again, so that both merchants' changes of a code meet
OPERATIONS = 300
MANY = int(os.environ.get("RM_CROSSING_OPERATIONS", "1000"))


@attrs.define(eq=False)
class Party:
    """A merchant with what it holds open, and what was done for it."""

    merchant: Merchant
    make_ledger: Callable[[], Ledger]
    make_store: Callable[[], EventStore]
    ledger: Ledger = attrs.field(init=False)
    acted: list[tuple[float, float]] = attrs.field(factory=list)
    """When it acted, from and until. Nobody else acts then."""

    async def open(self) -> None:
        self.ledger = await self.make_ledger().__aenter__()
        await self.merchant.listen(self.make_store()).__aenter__()

    async def close(self) -> None:
        await self.merchant.router.aclose()
        await self.ledger.aclose()

    @property
    def codes(self) -> list[str]:
        return list(self.merchant.emulator.issued(B))

    async def act(self, chance: random.Random) -> None:
        """Do one thing, whatever comes of it."""
        merchant, name = self.merchant, f"r{chance.randrange(REQUESTS)}"
        begun = merchant.time.now
        match chance.choices(range(10), [20, 5, 40, 4, 10, 6, 6, 4, 1, 2])[0]:
            case 0:
                if chance.random() < 0.1:
                    merchant.emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
                with contextlib.suppress(OutcomeUnknownError):
                    await merchant.issue(self.ledger, name)
            case 1:
                await self.ledger.submit(B, name)
            case 2 if self.codes:
                change = chance.choice([self.void, self.redeem, self.reinstate])
                with contextlib.suppress(VoucherError):
                    await change(chance.choice(self.codes[:_BUSY]))
            case 3 if self.codes:
                await merchant.expect(chance.choice(self.codes))
            case 4:
                await merchant.emulator.callbacks.deliver()
            case 5:
                await merchant.poller.poll()
            case 6:
                await merchant.router.run_due()
            case 7:
                await merchant.router.store.prune(keep_s=86_400)
            case 8:
                await self.close()
                await self.open()
            case 9:
                await self.ledger.finish(merchant.client, B)
            case _:
                pass
        self.acted.append((begun, merchant.time.now))

    async def void(self, code: str) -> None:
        await self.merchant.client.void(code)

    async def redeem(self, code: str) -> None:
        await self.merchant.client.redeem([code])

    async def reinstate(self, code: str) -> None:
        await self.merchant.client.reinstate(code, pin="123456")


def changed_at(event: VoucherEvent) -> float:
    assert event.updated_at is not None
    return event.updated_at.timestamp()


async def crossings(party: Party) -> list[str]:
    """Return what a merchant has, was told or asked that is not its own, and what it misses."""
    merchant, found = party.merchant, []
    issued = set(party.codes)
    found += [
        f"{name} has a code that was not issued"
        for name, code in merchant.received.items()
        if code not in issued
    ]
    shown = {row.id: voucher.code async for row, voucher in party.ledger.requests() if voucher}
    for whose in (merchant.received, shown):
        found += [f"{code} twice" for code, times in Counter(whose.values()).items() if times > 1]
    found += [
        f"{name} has another code"
        for name, code in merchant.received.items()
        if shown.get(name) != code
    ]
    counts = await party.ledger.counts()
    known, open_ = counts.assigned + counts.spare, counts.ambiguous + counts.unresolved
    if not known <= len(issued) <= known + open_:
        found.append(f"{len(issued)} issued, {known} known, {open_} open")
    for event in merchant.handled:
        at = changed_at(event)
        if not any(begun <= at <= ended for begun, ended in party.acted):
            found.append(f"an event of {event.code} that its RM did not have")
    newest = {event.code: 0.0 for event in merchant.accepted}
    for event in merchant.handled:
        newest[event.code] = max(changed_at(event), newest.get(event.code, 0.0))
    found += [
        f"an event of {event.code} was answered 200, and not handled"
        for event in merchant.accepted
        if newest[event.code] < changed_at(event)
    ]
    found += [
        f"{code} was looked up, and is not waited for"
        for code in merchant.watched.looked_up
        if code not in merchant.expected
    ]
    return found


async def play(parties: list[Party], time: FakeTime, operations: int, seed: int) -> list[str]:
    """Let both act by chance; return what crossed, as soon as something did."""
    chance = random.Random(seed)
    for party in parties:
        party.merchant.fails = lambda: chance.random() < 0.3
        await party.open()
    try:
        for number in range(operations):
            time.now += 1 + chance.choice([0, 0, 0, 30, 400])
            party = chance.choice(parties)
            await party.act(chance)
            if number % 25 == 0 or number == operations - 1:
                time.now += 1
                if found := [each for party in parties for each in await crossings(party)]:
                    return found
    finally:
        for party in parties:
            await party.close()
    return []


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def parties(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, time: FakeTime
) -> AsyncIterator[list[Party]]:
    """Two merchants on one database, in a namespace each."""
    merchants = [Merchant(f"merchant-{number}", time) for number in (1, 2)]
    if kind == "memory":
        yield [in_memory(merchant) for merchant in merchants]
        return
    url = f"sqlite:///{tmp_path / 'all.db'}"
    if kind == "postgresql":
        url = str(request.getfixturevalue("postgres_url"))
    async with SqlDatabase(url) as database:
        yield [in_database(merchant, database, merchant.client.account) for merchant in merchants]


def in_memory(merchant: Merchant) -> Party:
    tables, store = MemoryTables(), MemoryEventStore(runtime=merchant.time.runtime)
    return Party(
        merchant, lambda: Ledger(MemoryLedgerStore(tables), **merchant.settings), lambda: store
    )


def in_database(merchant: Merchant, database: SqlDatabase, namespace: str) -> Party:
    return Party(
        merchant,
        lambda: Ledger.open(database, namespace=namespace, **merchant.settings),
        lambda: open_event_store(database, namespace=namespace, runtime=merchant.time.runtime),
    )


async def test_nothing_crosses(parties: list[Party], time: FakeTime) -> None:
    """Neither a voucher, nor an event, nor a look-up; and each does all of its own."""
    assert await play(parties, time, OPERATIONS, 1) == []
    for party in parties:
        assert party.merchant.received
        assert party.merchant.handled
        assert party.merchant.watched.looked_up


@pytest.mark.long
async def test_nothing_crosses_in_many_operations(parties: list[Party], time: FakeTime) -> None:
    """``RM_CROSSING_OPERATIONS`` of them on each store."""
    assert await play(parties, time, MANY, 3) == []


def forget_in(*tables: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Return what makes the queries of some tables forget the namespace."""

    def mutate(patched: pytest.MonkeyPatch) -> None:
        right = Scope.of
        patched.setattr(
            Scope,
            "of",
            lambda scope, table: true() if table.name in tables else right(scope, table),
        )

    return mutate


def without_namespace(right: Lookup) -> Lookup:
    """Return a look-up by key that finds the rows of all namespaces."""
    texts = {
        name: text.replace("namespace = ?", "? <> '-'").replace("namespace = %b", "%b::text <> '-'")
        for name, text in attrs.asdict(right).items()
    }
    without = attrs.evolve(right, **texts)
    assert without != right
    return without


def forget_in_look_up(*kinds: type) -> Callable[[pytest.MonkeyPatch], None]:
    """Return what makes the look-up of some rows by their key forget the namespace."""

    def mutate(patched: pytest.MonkeyPatch) -> None:
        for kind in kinds:
            patched.setitem(
                unit_of_work._LOOKUPS, kind, without_namespace(unit_of_work._LOOKUPS[kind])
            )

    return mutate


def forget_in_codes(patched: pytest.MonkeyPatch) -> None:
    """Let every query of codes forget the namespace: spares, whose a code is, which are known."""
    forget_in("rm_ledger_codes")(patched)
    for name in ("_CODES_OF", "_KNOWN"):
        patched.setattr(unit_of_work, name, without_namespace(getattr(unit_of_work, name)))


def one_for_all(patched: pytest.MonkeyPatch) -> None:
    """Let the two have one namespace, which nobody claims."""

    async def claim(*_: object, **__: object) -> None:
        return None

    patched.setattr("rm_voucher.ledger.sql.store.check_namespace", lambda *_, **__: "")
    patched.setattr("rm_voucher.webhooks.sql.store.check_namespace", lambda *_, **__: "")
    patched.setattr(SqlLedgerStore, "claim", claim)
    patched.setattr(SqlEventStore, "claim", claim)


MUTANTS = {
    "one namespace for all": one_for_all,  # the one that the short run tries
    "forgotten: requests that wait, counts": forget_in("rm_ledger_requests"),
    "forgotten: attempts": forget_in("rm_ledger_attempts"),
    "forgotten: codes": forget_in_codes,
    "forgotten: events": forget_in("rm_webhook_events"),
    "forgotten: vouchers": forget_in("rm_webhook_vouchers"),
    "forgotten: expected vouchers": forget_in("rm_webhook_expected"),
    "forgotten: requests by id": forget_in_look_up(IssueRequest),
    "forgotten: attempts by id, and who has which code": forget_in_look_up(IssueAttempt, Code),
}


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(name, marks=[] if make is one_for_all else [pytest.mark.long])
        for name, make in MUTANTS.items()
    ],
)
async def test_checker_sees_what_crosses(
    parties: list[Party], time: FakeTime, mutant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A namespace that is forgotten in one query is seen, by what it does or by an error."""
    with monkeypatch.context() as patched:
        MUTANTS[mutant](patched)
        try:
            found = await play(parties, time, 4 * OPERATIONS, 1)
        except VoucherError as exc:  # rows of two merchants contradict each other
            found = [str(exc)]
    assert found
