"""A ledger's SQLite file that was put back, lost, or separated from its lock file."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.doubles import FakeTime
from support.ledger_rows import begin, issue, runtime_at, start

from rm_voucher.exceptions import BatchStoppedError, LedgerError
from rm_voucher.ledger import Ledger


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "campaign.db"


@pytest.fixture
def lock(file: Path) -> Path:
    return file.with_name(file.name + ".lock")


@pytest.fixture
def open_ledger(file: Path, time: FakeTime) -> Callable[..., Ledger]:
    def make(**settings: Any) -> Ledger:
        return Ledger.open(f"sqlite:///{file}", runtime=runtime_at(time), **settings)

    return make


async def enter(ledger: Ledger) -> None:
    async with ledger:
        pass


async def test_older_copy_is_refused(open_ledger, file: Path, tmp_path: Path) -> None:
    """It does not know who was issued to since; only a new baseline, by a person, ends that."""
    async with open_ledger() as ledger:
        await begin(ledger)
        await issue(ledger, "old", "OLD")
    shutil.copy(file, tmp_path / "copy")
    async with open_ledger() as ledger:
        await issue(ledger, "new")
    shutil.copy(tmp_path / "copy", file)
    for _ in range(2):
        async with open_ledger() as ledger:
            refused = await start(ledger, "new")
            assert isinstance(refused, BatchStoppedError)
            assert "older copy of itself" in str(refused)
            assert await issue(ledger, "old") == "OLD"
    async with open_ledger() as ledger:
        await begin(ledger, reset=True)
        await issue(ledger, "new")
    async with open_ledger() as ledger:
        await issue(ledger, "newer")


async def test_file_without_its_lock_file_is_refused(open_ledger, file: Path, lock: Path) -> None:
    """It may be an older copy: nothing says otherwise. The column "alarm" has the reason."""
    async with open_ledger() as ledger:
        await begin(ledger)
        await issue(ledger, "old")
    lock.unlink()
    async with open_ledger() as ledger:
        assert isinstance(await start(ledger, "new"), BatchStoppedError)
        (batch,) = await ledger.batches()
    with contextlib.closing(sqlite3.connect(file)) as database:
        rows = database.execute("SELECT key, alarm FROM rm_ledger_batches").fetchall()
    assert rows == [(batch.key, batch.stop_reason)]


async def test_lock_file_without_its_file_is_refused(open_ledger, file: Path, lock: Path) -> None:
    """Who lost the file is told, and a new one is not made; the lock is let go."""
    async with open_ledger() as ledger:
        await begin(ledger)
    file.unlink()
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"is gone, .* Remove campaign.db.lock to begin anew"):
            await enter(open_ledger())
    assert not file.exists()
    lock.unlink()
    await enter(open_ledger())


async def test_second_owner_by_another_name_is_refused(open_ledger, file: Path) -> None:
    """A link to the file is the same file: it has no lock of its own."""
    link = file.with_name("link.db")
    link.symlink_to(file)
    async with open_ledger():
        with pytest.raises(LedgerError, match=r"is used by another process"):
            await enter(Ledger.open(f"sqlite:///{link}"))


async def test_lock_file_that_was_torn_is_none(open_ledger, lock: Path) -> None:
    """What a power failure left of it says nothing of the file's age."""
    async with open_ledger() as ledger:
        await begin(ledger)
        await issue(ledger, "old")
    lock.write_bytes(bytes(20))
    async with open_ledger() as ledger:
        assert isinstance(await start(ledger, "new"), BatchStoppedError)
