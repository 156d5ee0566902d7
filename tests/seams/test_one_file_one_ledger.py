"""One ledger is one file: from another than the one written last, nobody gets a second voucher.

A file that is older than its ``.lock`` says, that is another one, or that came without a ``.lock``
stops the *whole* ledger, also for batches that it never heard of, until ``baseline``. While it is
open, what was committed to a file that is gone from its place is handed to nobody. What is no file,
or has two names, is refused.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import rm_voucher.ledger.sql.store as sql_store
from rm_voucher import VoucherClient
from rm_voucher.database.database import Database
from rm_voucher.database.engine import parse_url
from rm_voucher.database.group_commit import UnavailableError
from rm_voucher.emulator import Emulator
from rm_voucher.exceptions import (
    BatchStoppedError,
    ConfigurationError,
    EventStoreError,
    LedgerError,
)
from rm_voucher.ledger import Ledger
from rm_voucher.webhooks import open_event_store

OLD, NEW, LATER = "JUNE", "JULY", "AUGUST"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / "led.db"


@pytest.fixture
async def client() -> AsyncIterator[VoucherClient]:
    async with Emulator(batches={OLD: 50, NEW: 50, LATER: 50}).client() as client:
        yield client


def lock_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.lock")


def logs_of(file: Path) -> list[Path]:
    return [file.with_name(f"{file.name}-{end}") for end in ("wal", "shm")]


def at(file: Path) -> Ledger:
    return Ledger.open(f"sqlite:///{file}", mode="exclusive")


async def issue(file: Path, client: VoucherClient, batch: str, *orders: str) -> list[str]:
    """Issue in a process of its own, as it were; return the codes."""
    async with at(file) as ledger:
        return [(await ledger.issue(client, batch, order)).code for order in orders]


async def die(file: Path, client: VoucherClient, batch: str, *orders: str) -> list[str]:
    """Issue, and leave the files as a kill leaves them: the log is not in the file yet."""
    async with at(file) as ledger:
        given = [(await ledger.issue(client, batch, order)).code for order in orders]
        left = {path: path.read_bytes() for path in (file, *logs_of(file), lock_of(file))}
    for path, content in left.items():
        path.write_bytes(content)  # in place: it stays the same file
    return given


async def is_stopped(file: Path, client: VoucherClient) -> bool:
    """Return whether the ledger refuses all batches: one that it knows, and two that it may not."""
    stopped = []
    for batch in (OLD, NEW, LATER):
        async with at(file) as ledger:
            try:
                await ledger.issue(client, batch, secrets.token_hex(6))
            except BatchStoppedError:
                stopped.append(batch)
    assert stopped in ([], [OLD, NEW, LATER])
    return bool(stopped)


def put_back(file: Path) -> None:
    """A batch was begun after the copy: the smallest case."""
    shutil.copyfile(file.with_name("copy"), file)


def move_back(file: Path) -> None:
    file.with_name("copy").replace(file)


def lose_log(file: Path) -> None:
    for log in logs_of(file):
        log.unlink()


def lose_lock(file: Path) -> None:
    lock_of(file).unlink()


def tear_lock(file: Path) -> None:
    lock_of(file).write_bytes(bytes(200))


def spoil_lock(file: Path) -> None:
    lock_of(file).write_text("Dear all, the campaign begins on Monday.\n")


def replace_lock(file: Path) -> None:
    """The right content, in another file: both were copied from somewhere."""
    copy = file.with_name("lock-copy")
    shutil.copyfile(lock_of(file), copy)
    copy.replace(lock_of(file))


def lock_of_another(file: Path) -> None:
    """The lock of another ledger, which counts fewer commits."""
    lock_of(file).write_bytes(file.with_name("copy.lock").read_bytes())


@pytest.mark.parametrize(
    "damage",
    [
        put_back,
        move_back,
        lose_log,
        lose_lock,
        tear_lock,
        spoil_lock,
        replace_lock,
        lock_of_another,
    ],
)
async def test_file_that_is_not_the_one_written_last(
    file: Path, client: VoucherClient, damage: Callable[[Path], None]
) -> None:
    """The whole ledger refuses, time and again, until each batch has had its baseline."""
    other = file.with_name("other.db")
    await issue(other, client, OLD, "other 1")
    shutil.copyfile(lock_of(other), file.with_name("copy.lock"))
    await issue(file, client, OLD, "order 1")
    shutil.copyfile(file, file.with_name("copy"))
    given = await die(file, client, NEW, "order 2")
    if damage is not lose_log:
        assert await issue(file, client, NEW, "order 2") == given  # the log moves into the file
    damage(file)
    for _ in range(2):
        assert await is_stopped(file, client)
        with contextlib.suppress(BatchStoppedError):
            assert await issue(file, client, NEW, "order 2") == given
    async with at(file) as ledger:
        assert "find out who got a code since" in (await ledger.stop_reason() or "")
    async with at(file) as ledger:
        await ledger.baseline(client, NEW)
        assert (await ledger.issue(client, NEW, "order 3")).code
        with pytest.raises(BatchStoppedError, match="find out who got a code since"):
            await ledger.issue(client, LATER, "order 4")
        await ledger.baseline(client, LATER)
    assert await issue(file, client, LATER, "order 4")


async def test_new_file_whose_log_is_lost(file: Path, client: VoucherClient) -> None:
    """Killed before anything came into the file itself: it must not look new."""
    await die(file, client, OLD, *(f"order {number}" for number in range(30)))
    lose_log(file)
    assert await is_stopped(file, client)


async def test_file_that_was_copied_alone(file: Path, client: VoucherClient) -> None:
    """Without log and lock, as a kill left it, to another place."""
    await die(file, client, OLD, "order 1")
    elsewhere = file.parent.with_name("elsewhere")
    elsewhere.mkdir()
    shutil.copyfile(file, elsewhere / file.name)
    assert await is_stopped(elsewhere / file.name, client)


async def test_files_that_were_copied_together(file: Path, client: VoucherClient) -> None:
    """The copy with its lock is another ledger than the one that goes on."""
    await die(file, client, OLD, "order 1")
    elsewhere = file.parent.with_name("elsewhere")
    shutil.copytree(file.parent, elsewhere)
    assert await issue(file, client, OLD, "order 2")
    assert await is_stopped(elsewhere / file.name, client)
    assert await issue(file, client, OLD, "order 3")


@pytest.mark.parametrize("is_there", [True, False])
async def test_empty_file_beside_a_lock_that_counts(
    file: Path, client: VoucherClient, is_there: bool
) -> None:
    """It does not pass for a new one, and is left as it is."""
    await issue(file, client, OLD, "order 1")
    file.unlink()
    if is_there:
        file.touch()
    reason = "is empty" if is_there else "is gone"
    for _ in range(2):
        with pytest.raises(LedgerError, match=rf"{reason}, .* Remove led\.db\.lock to begin anew"):
            await issue(file, client, OLD, "order 1")
    assert file.exists() == is_there
    assert not (is_there and file.stat().st_size)
    lock_of(file).unlink()
    assert await issue(file, client, OLD, "order 1")


async def test_file_that_is_the_same_goes_on(file: Path, client: VoucherClient) -> None:
    """After a kill, after a move with its lock on one disk, and after it was used."""
    (first,) = await die(file, client, OLD, "order 1")
    assert await issue(file, client, OLD, "order 1") == [first]
    moved = file.parent.with_name("moved")
    file.parent.rename(moved)
    assert await issue(moved / file.name, client, OLD, "order 1") == [first]
    assert not await is_stopped(moved / file.name, client)


@pytest.mark.parametrize(
    ("where", "step"), [(Database, "_migrate"), (sql_store, "_check_age"), (Database, "move_log")]
)
async def test_file_that_was_not_made_to_its_end(
    file: Path, client: VoucherClient, monkeypatch: pytest.MonkeyPatch, where: object, step: str
) -> None:
    """Who was killed while making it, before anything was kept, makes it the next time."""

    def end(*_: object) -> None:
        raise LedgerError("killed")

    with monkeypatch.context() as patched, pytest.raises(LedgerError, match="killed"):
        patched.setattr(where, step, end)
        await issue(file, client, OLD, "order 1")
    assert file.exists()
    assert not await is_stopped(file, client)


async def test_ledger_of_the_last_version_goes_on(file: Path, client: VoucherClient) -> None:
    """Its lock has a number alone, its table of one row neither id nor verdict; an older copy of
    it is found out all the same."""
    given = await issue(file, client, OLD, "order 1")

    def downgrade() -> None:
        with contextlib.closing(sqlite3.connect(file)) as database:
            for table, column in (
                ("meta", "id"),
                ("meta", "stop_reason"),
                ("attempts", "seen_code"),
                ("attempts", "seen_qr_url"),
                ("attempts", "unknown_since"),
            ):
                database.execute(f"ALTER TABLE rm_ledger_{table} DROP COLUMN {column}")
            database.execute("DROP TABLE rm_ledger_leases")
            database.execute("UPDATE rm_schema_versions SET version = 1")
            database.commit()
        lock_of(file).write_bytes(lock_of(file).read_bytes()[:20])

    downgrade()
    assert await issue(file, client, OLD, "order 1") == given
    assert not await is_stopped(file, client)
    downgrade()
    shutil.copyfile(file, file.with_name("copy"))
    await issue(file, client, NEW, "order 2")
    shutil.copyfile(file.with_name("copy"), file)
    assert await is_stopped(file, client)


def delete(file: Path) -> None:
    file.unlink()


def replace(file: Path) -> None:
    shutil.copyfile(file, file.with_name("copy"))
    file.with_name("copy").replace(file)


def move(file: Path) -> None:
    file.rename(file.with_name("moved.db"))


def move_folder(file: Path) -> None:
    file.parent.rename(file.parent.with_name("moved"))


def delete_lock(file: Path) -> None:
    lock_of(file).unlink()


@pytest.mark.parametrize("change", [delete, replace, move, move_folder, delete_lock, replace_lock])
async def test_file_that_changes_while_it_is_open(
    file: Path, client: VoucherClient, change: Callable[[Path], None]
) -> None:
    """No code is handed out that is only in a file which nobody will find."""
    async with at(file) as ledger:
        assert (await ledger.issue(client, OLD, "order 1")).code
        change(file)
        for order in ("order 2", "order 3"):
            with pytest.raises(LedgerError, match="the file that was opened") as raised:
                await ledger.issue(client, OLD, order)
            assert isinstance(raised.value.__cause__, UnavailableError)
            assert not raised.value.__cause__.may_pass


async def test_link_that_leads_elsewhere_meanwhile(file: Path, client: VoucherClient) -> None:
    """What is locked is what is written: a link is followed once, as is a process's folder."""
    folders = [file.with_name(name) for name in ("old", "new")]
    link = file.with_name("current")
    ledgers = []
    for folder in folders:
        folder.mkdir()
        link.unlink(missing_ok=True)
        link.symlink_to(folder)
        ledgers.append(at(link / "led.db"))
    first, second = ledgers
    async with first, second:
        code = (await first.issue(client, OLD, "order 1")).code
        assert (await second.issue(client, OLD, "order 1")).code != code
    async with at(folders[0] / "led.db") as again:
        assert (await again.issue(client, OLD, "order 1")).code == code


async def test_process_that_goes_elsewhere_meanwhile(
    tmp_path: Path, client: VoucherClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a daemon does."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    ledger, store = Ledger.open("sqlite:///led.db"), open_event_store("sqlite:///events.db")
    monkeypatch.chdir("elsewhere")
    async with ledger, store:
        assert (await ledger.issue(client, OLD, "order 1")).code
    assert list(Path.cwd().iterdir()) == []
    assert (tmp_path / "events.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file::memory:?uri=true",
        "sqlite:///file:mem?mode=memory&uri=true",
        "sqlite:///file:mem?mode=memory&cache=shared&uri=true",
        "sqlite:///file:led.db?uri=true",
        "sqlite:///file:led.db",
        "sqlite:///FILE:led.db?uri=1",
        "sqlite:///led.db?uri=true",
        "sqlite:///led.db?vfs=unix-none",
        "sqlite:///led.db?mode=memory",
        "sqlite:///led.db?timeout=1",
        "sqlite:///led.db?isolation_level=DEFERRED",
        "sqlite:///led\0.db",
        "sqlite://host/led.db",
        "sqlite://user@/led.db",
    ],
)
def test_what_is_no_file_is_refused(url: str) -> None:
    """Neither a ledger nor a store of events is kept in what ends with its process, or has an
    option that changes what a commit is."""
    with pytest.raises(ConfigurationError, match=r"sqlite:///file\.db"):
        parse_url(url)


async def test_link_that_leads_to_no_file(file: Path, client: VoucherClient) -> None:
    """The file is made where it leads; one that leads to itself is refused."""
    link, events = file.with_name("link.db"), file.with_name("events.db")
    link.symlink_to(file)
    assert await issue(link, client, OLD, "order 1")
    assert file.stat().st_size
    link.unlink()
    link.symlink_to(events)
    async with open_event_store(f"sqlite:///{link}"):
        assert events.stat().st_mode & 0o777 == 0o600
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(LedgerError, match="can't be used"):
        await issue(link, client, OLD, "order 1")


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "to_device"])
async def test_what_is_no_regular_file_is_refused(
    file: Path, client: VoucherClient, kind: str
) -> None:
    """At once, and nothing of it is read."""
    match kind:
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case "device":
            file = Path("/dev/null")
        case "to_device":
            file.symlink_to("/dev/null")
    with pytest.raises(LedgerError, match="is no regular file"):
        await issue(file, client, OLD, "order 1")
    with pytest.raises(EventStoreError, match="is no regular file"):
        await open_event_store(f"sqlite:///{file}").__aenter__()


async def test_second_name_of_a_file(file: Path, client: VoucherClient) -> None:
    """By a symbolic link it is the same ledger. A hard link would have a lock of its own, so
    neither name is taken until the other is gone."""
    (given,) = await issue(file, client, OLD, "order 1")
    link = file.with_name("link.db")
    link.symlink_to(file)
    assert await issue(link, client, OLD, "order 1") == [given]
    async with at(link):
        with pytest.raises(LedgerError, match="is used by another process"):
            await issue(file, client, OLD, "order 1")
    link.unlink()
    link.hardlink_to(file)
    for name in (file, link):
        with pytest.raises(LedgerError, match="has another name, a hard link"):
            await issue(name, client, OLD, "order 1")
    link.unlink()
    assert await issue(file, client, OLD, "order 1") == [given]


async def test_files_that_are_there_are_made_private(file: Path, client: VoucherClient) -> None:
    """They hold codes: others may read them no more, whatever they could before."""
    await die(file, client, OLD, "order 1")
    for path in file.parent.iterdir():
        path.chmod(0o666)
    async with at(file) as ledger:
        await ledger.issue(client, OLD, "order 2")
        modes = {path.name: path.stat().st_mode & 0o777 for path in file.parent.iterdir()}
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("kind", ["link", "pipe"])
async def test_lock_that_is_no_file(file: Path, client: VoucherClient, kind: str) -> None:
    """What somebody put in its place is neither written to nor waited for."""
    target = file.with_name("target")
    target.write_text("precious")
    if kind == "link":
        lock_of(file).symlink_to(target)
    else:
        os.mkfifo(lock_of(file))
    with pytest.raises(LedgerError, match=r"led\.db\.lock can't be used"):
        await issue(file, client, OLD, "order 1")
    assert target.read_text() == "precious"
