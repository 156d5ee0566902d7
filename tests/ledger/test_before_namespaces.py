"""A database from before namespaces: it goes on as it was, in the namespace without a name."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import attrs
import pytest
from sqlalchemy import Connection, inspect, text
from support.doubles import FakeTime
from support.event_stores import ISSUED, REDEEMED, VOID, event, tally
from support.ledger_ops import LedgerOps
from support.ledger_rows import runtime_at
from support.postgres import execute

from rm_voucher.database.database import Database
from rm_voucher.database.engine import make_engine, parse_url
from rm_voucher.exceptions import LedgerError
from rm_voucher.ledger import AttemptState, Ledger
from rm_voucher.ledger.sql import schema as ledger_schema
from rm_voucher.models import VoucherStatus
from rm_voucher.runtime import Runtime
from rm_voucher.webhooks import open_event_store
from rm_voucher.webhooks.records import Disposition
from rm_voucher.webhooks.sql import schema as webhook_schema

DUMPS = Path(__file__).parent.parent / "vectors" / "databases"
LEDGER_ID = "9d6b6699d9b048452454bfe92a2af6c1"
COMMITS = 20
WHO = {
    "r-assigned": "CODE-1",
    "r-rejected": "failed",
    "r-lost": "waiting",
    "r-held": "unresolved",
    "r-cancelled": "cancelled",
    "r-late": "CODE-LATE",
    "r-waiting": "waiting",
}


@pytest.fixture(params=["sqlite", "postgresql"])
def old_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a database as the last version without namespaces left it."""
    dump = (DUMPS / f"{request.param}.sql").read_text()
    if request.param == "postgresql":
        url = str(request.getfixturevalue("postgres_url"))
        execute(url, dump)
        return url
    file, lock = tmp_path / "old.db", tmp_path / "old.db.lock"
    connection = sqlite3.connect(file)
    connection.executescript(dump)
    connection.close()
    lock.touch()
    inodes = f"{file.stat().st_ino}/{lock.stat().st_ino}"
    lock.write_text(f"{COMMITS:020} {LEDGER_ID} {inodes}\n")
    return f"sqlite:///{file}"


def ledger_at(url: str, time: FakeTime, **settings: Any) -> Ledger:
    time.now = 1_800_000_100.0
    return Ledger.open(url, mode="exclusive", runtime=runtime_at(time), **settings)


async def test_ledger_goes_on(old_url: str, time: FakeTime) -> None:
    """Each request is as it was, and gets what it had; an id that is taken stays taken."""
    async with ledger_at(old_url, time) as ledger:
        ops = LedgerOps(ledger, time)
        assert await ops.who() == WHO
        assert await ledger.stop_reason() is None
        assert (await ops.ask("r-assigned")).code == "CODE-1"
        assert await ops.state_of("r-lost") is AttemptState.AMBIGUOUS
        await ops.adopt("r-lost", "CODE-2")
        await ops.start("r-new")
        await ops.confirm("r-new", "CODE-3")
    async with ledger_at(old_url, time) as ledger:  # the file is made once, and is the same
        who = await LedgerOps(ledger, time).who()
        assert who == {**WHO, "r-lost": "CODE-2", "r-new": "CODE-3"}
        assert list(who)[-1] == "r-new"
        assert await ledger.stop_reason() is None


async def test_ledger_from_before_evidence_was_kept(old_url: str, time: FakeTime) -> None:
    """An older one gets the columns for a code that came with an error, too."""
    engine = make_engine(parse_url(old_url))
    with engine.begin() as connection:
        for column in ("seen_code", "seen_qr_url"):
            connection.exec_driver_sql(f"ALTER TABLE rm_ledger_attempts DROP COLUMN {column}")
        connection.exec_driver_sql(
            "UPDATE rm_schema_versions SET version = version - 1 WHERE component = 'ledger'"
        )
    engine.dispose()
    async with ledger_at(old_url, time) as ledger:
        ops = LedgerOps(ledger, time)
        assert await ops.who() == WHO
        await ops.adopt("r-lost", "CODE-2")
        assert (await ops.who())["r-lost"] == "CODE-2"


async def test_one_version_after_the_other(old_url: str, time: FakeTime) -> None:
    """A ledger that stopped at the version of namespaces goes on, too: what it had in doubt is in
    doubt since nobody knows when."""
    schema = ledger_schema.SCHEMA
    until = attrs.evolve(schema, migrations=schema.migrations[:3])
    between = Database(old_url, until, error=LedgerError, runtime=Runtime())
    await between.open()
    await between.close()
    assert versions(old_url) == {"ledger": 4, "store of callbacks": 1}
    async with ledger_at(old_url, time) as ledger:
        ops = LedgerOps(ledger, time)
        assert await ops.who() == WHO
        (lost,) = await ledger.attempts("B", states=[AttemptState.AMBIGUOUS])
        assert lost.unknown_since is None
        await ops.adopt("r-lost", "CODE-2")
    assert versions(old_url) == {"ledger": schema.version, "store of callbacks": 1}
    assert "rm_ledger_leases" in shape(old_url)


def versions(url: str) -> dict[str, int]:
    engine = make_engine(parse_url(url))
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT component, version FROM rm_schema_versions")).all()
    engine.dispose()
    return {row.component: row.version for row in rows}


async def test_another_namespace_has_none_of_it(old_url: str, time: FakeTime) -> None:
    """Neither requests nor batches of before, whoever opens it."""
    async with ledger_at(old_url, time, namespace="m2") as ledger:
        assert [*await ledger.batches(), *[row async for row in ledger.requests()]] == []
        ops = LedgerOps(ledger, time)
        await ops.baseline()
        await ops.start("r-assigned")
        await ops.confirm("r-assigned", "CODE-1")
        assert await ops.who() == {"r-assigned": "CODE-1"}
    async with ledger_at(old_url, time) as ledger:
        assert await LedgerOps(ledger, time).who() == WHO


async def test_callbacks_go_on(old_url: str, time: FakeTime) -> None:
    """What was done is done, what waits waits, and who is expected is looked up."""
    time.now = 1_800_000_100.0
    async with open_event_store(old_url, runtime=time.runtime) as store:
        assert await store.counts() == tally(done=2, waiting=1, stale=1, expected=2)
        for one in (event("CODE-1", ISSUED), event("CODE-1", VOID, at=9)):
            assert await store.record(one) is Disposition.DONE
        assert await store.record(event("CODE-1", REDEEMED, at=7)) is Disposition.STALE
        time.now += 1_000
        assert await store.due(9) == [event("CODE-2")]
        assert await store.take_missed(9, final=[VoucherStatus.VOID]) == []
        time.now += 1_000
        assert await store.take_missed(9, final=[VoucherStatus.VOID]) == ["CODE-2"]
    async with open_event_store(old_url, runtime=time.runtime, namespace="m2") as store:
        assert await store.counts() == tally()
        assert await store.record(event("CODE-1", ISSUED)) is Disposition.READY


def shape(url: str) -> dict[str, Any]:
    """Return the tables as the database describes them, whatever the order of columns."""
    engine = make_engine(parse_url(url))
    looks = inspect(engine)

    def sorted_texts(rows: Any) -> list[str]:
        return sorted(str(sorted(row.items())) for row in rows)

    shown = {
        name: {
            "columns": sorted_texts(
                {key: str(value) for key, value in column.items() if key != "primary_key"}
                for column in looks.get_columns(name)
            ),
            "key": looks.get_pk_constraint(name)["constrained_columns"],
            "unique": sorted(each["column_names"] for each in looks.get_unique_constraints(name)),
            "checks": [each["name"] for each in looks.get_check_constraints(name)],
            "indexes": sorted(
                f"{index['name']} {index['column_names']} "
                f"{ {key: str(value) for key, value in index['dialect_options'].items()} }"
                for index in looks.get_indexes(name)
            ),
        }
        for schema in (ledger_schema.SCHEMA, webhook_schema.SCHEMA)
        for name in schema.tables.tables
    }
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT name, sql FROM sqlite_master")).all()
        for name, sql in rows:
            if name in shown:
                shown[name]["has_row_ids"] = "WITHOUT ROWID" not in sql
    engine.dispose()
    return shown


async def test_old_tables_become_the_same_as_new_ones(
    old_url: str, tmp_path: Path, time: FakeTime
) -> None:
    """Keys, constraints, indexes and all."""

    async def opened(url: str) -> dict[str, Any]:
        async with ledger_at(url, time), open_event_store(url, runtime=time.runtime):
            return shape(url)

    before = await opened(old_url)
    if old_url.startswith("sqlite"):
        assert await opened(f"sqlite:///{tmp_path / 'new.db'}") == before
        return
    for statement in (
        "DROP SCHEMA public CASCADE",
        "CREATE SCHEMA public",
        "GRANT USAGE ON SCHEMA public TO PUBLIC",  # as it was, for the tests after this one
    ):
        execute(old_url, statement)
    assert await opened(old_url) == before


async def test_many_rows_take_their_time(
    old_url: str, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the patience with trouble, nor a limit of the server's, ends a change of tables."""
    monkeypatch.setattr("rm_voucher.database.postgres.AnsweringConnection.silence_s", 0.3)
    url = old_url
    if url.startswith("postgresql"):
        url += "?options=-c%20statement_timeout%3D300"
    changes = ledger_schema._BEFORE_NAMESPACES
    entered = []

    def take_long(connection: Connection) -> None:
        entered.append(connection)
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_sleep(0.6)")
        else:  # the loop comes to its deadline meanwhile
            threading.Event().wait(0.5)

    monkeypatch.setattr(ledger_schema, "_BEFORE_NAMESPACES", (take_long, *changes))
    async with ledger_at(url, time, patience_s=0.25) as ledger:
        assert await LedgerOps(ledger, time).who() == WHO
    assert len(entered) == 1


async def test_migration_that_fails_changes_nothing(
    old_url: str, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one transaction: the old version, or the next attempt, finds the old tables."""
    changes = ledger_schema._BEFORE_NAMESPACES

    def fail(_: Connection) -> None:
        raise OSError("the process is killed here")

    with monkeypatch.context() as patched:
        patched.setattr(ledger_schema, "_BEFORE_NAMESPACES", (*changes[:3], fail))
        with pytest.raises(LedgerError):
            await ledger_at(old_url, time).__aenter__()
    engine = make_engine(parse_url(old_url))
    columns = {column["name"] for column in inspect(engine).get_columns("rm_ledger_requests")}
    engine.dispose()
    assert "namespace" not in columns
    async with ledger_at(old_url, time) as ledger:
        assert await LedgerOps(ledger, time).who() == WHO
