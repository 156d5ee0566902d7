"""The versions of schemas: tables are made once, migrated once, and never used if newer."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, text
from support.command import PATIENCE_S
from support.doubles import FakeTime

from rm_voucher.database.database import Database, Schema
from rm_voucher.database.engine import parse_url
from rm_voucher.exceptions import LedgerError


def made(version: int, migrated: list[int] | None = None, component: str = "thing") -> Schema:
    """Return a schema of some version, whose table has as many more columns."""
    tables = MetaData()
    more = [Column(f"more{number}", Integer) for number in range(2, version + 1)]
    Table(f"{component}s", tables, Column("code", Text, primary_key=True), *more)

    def migration(to: int):
        def migrate(connection: Connection) -> None:
            connection.exec_driver_sql(f"ALTER TABLE {component}s ADD COLUMN more{to} INTEGER")
            if migrated is not None:
                migrated.append(to)

        return migrate

    return Schema(component, tables, [migration(to) for to in range(2, version + 1)])


def database(url: str, schema: Schema, time: FakeTime) -> Database:
    return Database(parse_url(url), schema, error=LedgerError, runtime=time.runtime)


async def versions(url: str, time: FakeTime) -> dict[str, int]:
    opened = database(url, made(1, component="looker"), time)
    rows = await opened.read(
        lambda c: c.execute(text("SELECT component, version FROM rm_schema_versions")).all()
    )
    await opened.close()
    return dict(map(tuple, rows))


async def test_schema_is_made_new(url: str, time: FakeTime) -> None:
    """A new database has the last version at once, without a migration."""
    migrated: list[int] = []
    for _ in range(2):
        opened = database(url, made(3, migrated), time)
        await opened.open()
        await opened.read(lambda c: c.execute(text("SELECT more2, more3 FROM things")).all())
        await opened.close()
    assert migrated == []
    assert await versions(url, time) == {"thing": 3}


async def test_schema_is_migrated_once(url: str, time: FakeTime) -> None:
    """What is missing is done in order; who opens it again does nothing, and data stays."""
    migrated: list[int] = []
    first = database(url, made(1), time)
    await first.open()
    await first.write(lambda c: c.execute(text("INSERT INTO things VALUES ('A')")) and None)
    await first.close()
    for version in (2, 4, 4):
        opened = database(url, made(version, migrated), time)
        await opened.open()
        rows = await opened.read(lambda c: c.execute(text("SELECT * FROM things")).all())
        assert [tuple(row) for row in rows] == [("A", *[None] * (version - 1))]
        await opened.close()
    assert migrated == [2, 3, 4]
    assert await versions(url, time) == {"thing": 4}


async def test_failed_migration_is_undone(url: str, time: FakeTime) -> None:
    """The version and all migrations are one transaction."""
    first = database(url, made(1), time)
    await first.open()
    await first.close()
    good = made(3)

    def fail(connection: Connection) -> None:
        connection.exec_driver_sql("no")

    bad = Schema("thing", good.tables, [good.migrations[0], fail])
    opened = database(url, bad, time)
    with pytest.raises(LedgerError):
        await opened.open()
    await opened.close()
    assert await versions(url, time) == {"thing": 1}
    opened = database(url, good, time)
    await opened.open()
    await opened.close()


async def test_newer_schema_is_refused(url: str, time: FakeTime) -> None:
    """By who writes and who reads, with what is to be done."""
    newer = database(url, made(3), time)
    await newer.open()
    await newer.close()
    older = database(url, made(2), time)
    for opening in (older.open, older.open_read_only):
        with pytest.raises(LedgerError) as raised:
            await opening()
        assert str(raised.value) == (
            "The thing was written by a newer version of rm_voucher "
            "(schema 3; this one knows 2): update rm_voucher."
        )
    await older.close()


async def test_components_share_a_database(url: str, time: FakeTime) -> None:
    """Each has its own version."""
    for schema in (made(1), made(2, component="other")):
        opened = database(url, schema, time)
        await opened.open()
        await opened.close()
    assert await versions(url, time) == {"thing": 1, "other": 2}


async def test_read_only_needs_the_tables(url: str, time: FakeTime) -> None:
    """It makes none: neither in an empty database, nor beside another component, nor migrates."""
    opened = database(url, made(2), time)
    none = r"^There is no thing in this database\.$"
    for other, words in (
        (None, none),
        (made(1, component="other"), none),
        (made(1), r"^The thing was written by an older version of rm_voucher \(schema 1; this one"),
    ):
        if other is not None:
            beside = database(url, other, time)
            await beside.open()
            await beside.close()
        with pytest.raises(LedgerError, match=words):
            await opened.open_read_only()
    await opened.open()
    await opened.open_read_only()
    await opened.close()


async def test_two_processes_make_the_tables_at_once(postgres_url: str, tmp_path: Path) -> None:
    """In PostgreSQL the second waits for the first, and finds them."""
    script = tmp_path / "opens.py"
    script.write_text(
        "import asyncio, sys\n"
        "from rm_voucher.ledger import Ledger\n"
        "async def main():\n"
        "    sys.stdin.readline()\n"
        "    async with Ledger.open(sys.argv[1]):\n"
        "        print('open')\n"
        "asyncio.run(main())\n"
    )
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, str(script), postgres_url, stdin=pipe, stdout=pipe, stderr=pipe
        )
        for _ in range(2)
    ]
    ended = await asyncio.wait_for(
        asyncio.gather(*(process.communicate(b"\n") for process in processes)), PATIENCE_S
    )
    assert ended == [(b"open\n", b"")] * 2
