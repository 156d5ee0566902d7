"""A ledger in an SQLite file when the file, the disk or the lock is not as it should be."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError
from support.command import PATIENCE_S
from support.doubles import FakeTime
from support.ledger_rows import BATCH, begin, bring, codes, issue, runtime_at, start

from rm_voucher.database import engine as sql_engine
from rm_voucher.exceptions import LedgerError
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.process import AttemptTracker
from rm_voucher.ledger.rules.commands import Claimed

OTHER_PROCESS = """
import asyncio, sys
from support.ledger_rows import begin, codes, issue
from rm_voucher.ledger import Ledger

async def main():
    async with Ledger.open(sys.argv[1]) as ledger:
        await begin(ledger)
        await issue(ledger, "theirs", "THEIRS")
        print("open", flush=True)
        sys.stdin.read()

asyncio.run(main())
"""


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


@pytest.fixture
def other_process(file: Path):
    """Another process that has the file open, until it is killed or told to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER_PROCESS, f"sqlite:///{file}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"open\n"
    yield process
    process.communicate(timeout=PATIENCE_S)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def enter(ledger: Ledger) -> None:
    async with ledger:
        pass


async def test_files_are_their_owners_alone(open_ledger, file: Path) -> None:
    """The file, its log and the lock hold codes or say who issues: nobody else reads them."""
    before = os.umask(0)
    try:
        async with open_ledger() as ledger:
            await begin(ledger)
            await issue(ledger, "a")
            files = {path.name: mode(path) for path in file.parent.iterdir()}
    finally:
        os.umask(before)
    names = ["campaign.db", "campaign.db-shm", "campaign.db-wal", "campaign.db.lock"]
    assert files == dict.fromkeys(names, 0o600)


async def test_second_owner_is_refused(open_ledger, file: Path) -> None:
    """Two in one process too. The first goes on, and its lock is free when it is closed."""
    async with open_ledger() as ledger:
        await begin(ledger)
        with pytest.raises(LedgerError, match=r"is used by another process: .* PostgreSQL allows"):
            await enter(open_ledger())
        await issue(ledger, "a")
    await enter(open_ledger())


async def test_other_process_is_the_owner(open_ledger, other_process: Any) -> None:
    """Refused while it runs, looked at all the same, and free the moment it is killed."""
    with pytest.raises(LedgerError, match="is used by another process"):
        await enter(open_ledger())
    async with open_ledger(read_only=True) as looking:
        assert await codes(looking) == {"theirs": "THEIRS"}
        with pytest.raises(LedgerError, match="is not open for writing"):
            await issue(looking, "mine")
    other_process.send_signal(signal.SIGKILL)
    other_process.wait(PATIENCE_S)
    async with open_ledger() as ledger:
        assert await issue(ledger, "theirs") == "THEIRS"


async def test_read_only_needs_a_file(open_ledger, file: Path) -> None:
    """It makes none."""
    with pytest.raises(LedgerError, match=r"There is no file .*campaign\.db"):
        await enter(open_ledger(read_only=True))
    assert not list(file.parent.iterdir())


async def test_read_only_of_an_empty_file(open_ledger, file: Path) -> None:
    """It makes no tables."""
    sqlite3.connect(file).close()
    with pytest.raises(LedgerError, match="There is no ledger in this database"):
        await enter(open_ledger(read_only=True))


async def test_file_that_is_no_database(open_ledger, file: Path) -> None:
    """It stays as it is, and the lock is let go: with the right file the same path is good."""
    text = b"Dear all, the campaign begins on Monday.\n" * 100
    file.write_bytes(text)
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"can't be used: file is not a database\."):
            await enter(open_ledger())
    assert file.read_bytes() == text
    file.unlink()
    file.with_name("campaign.db.lock").unlink()
    await enter(open_ledger())


async def test_file_that_is_damaged(open_ledger, file: Path) -> None:
    """What SQLite finds out is said."""
    async with open_ledger() as ledger:
        await begin(ledger)
        await asyncio.gather(*(issue(ledger, f"request {number}") for number in range(300)))
    spoilt = bytearray(file.read_bytes())
    spoilt[4096 * 2 :] = b"\xff" * (len(spoilt) - 4096 * 2)
    file.write_bytes(spoilt)
    with pytest.raises(LedgerError, match=r"can't be used: .*(malformed|corrupt|not a database)"):
        await enter(open_ledger())


async def test_directory_that_is_missing(open_ledger, file: Path, monkeypatch) -> None:
    """The system's word is in the sentence."""
    with pytest.raises(LedgerError, match=r"campaign\.db can't be used: No such file or directory"):
        await enter(Ledger.open(f"sqlite:///{file.parent}/none/campaign.db"))


async def test_file_without_a_right_to_write(open_ledger, file: Path, monkeypatch) -> None:
    """root may write anything, so the system's refusal is played."""
    real = os.open

    def refuse(path: object, flags: int, *args: int) -> int:
        if Path(str(path)) == file:
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(LedgerError, match=r"campaign\.db can't be used: Permission denied"):
        await enter(open_ledger())
    monkeypatch.undo()
    await enter(open_ledger())


async def test_database_that_may_not_be_written(open_ledger, file: Path) -> None:
    """A refusal of SQLite's, as on a medium that became read-only, loses nothing before it."""
    async with open_ledger() as ledger:
        await begin(ledger)
        await issue(ledger, "before", "BEFORE")
        started = await start(ledger, "sent")
        assert isinstance(started, Claimed)
        await ledger.store._database.write(
            lambda c: c.exec_driver_sql("PRAGMA query_only = ON") and None
        )
        with pytest.raises(LedgerError, match="attempt to write a readonly database") as raised:
            await bring(ledger, "sent", started.attempt_id, "SECRET")
        assert "SECRET" not in str(raised.value)
        assert await codes(ledger) == {"before": "BEFORE", "sent": None}


async def test_disk_is_full(open_ledger, file: Path) -> None:
    """What was kept stays, what can't be kept is an error, and it goes on when there is room."""
    async with open_ledger() as ledger:
        await begin(ledger)
        await issue(ledger, "before", "BEFORE")

        def allow(pages: int) -> Callable[[Any], int]:
            return lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages}").scalar()

        await ledger.store._database.write(allow(1))  # SQLite makes it as many as there are
        results = await asyncio.gather(
            *(issue(ledger, f"request {number}") for number in range(100)), return_exceptions=True
        )
        errors = [result for result in results if isinstance(result, BaseException)]
        assert errors
        assert {str(error) for error in errors} == {
            "The database can't be used: database or disk is full."
        }
        assert await issue(ledger, "before") == "BEFORE"
        await ledger.store._database.write(allow(1_000_000))
        for number, result in enumerate(results):
            if isinstance(result, str):
                assert await issue(ledger, f"request {number}") == result
        await issue(ledger, "after")


async def test_system_refuses_to_let_the_file_grow(tmp_path: Path) -> None:
    """A limit of the system's on the size of files ends in errors, not in a lost code."""
    script = (
        "import asyncio, resource, signal, sys\n"
        "from support.ledger_rows import begin, codes, issue\n"
        "from rm_voucher.exceptions import LedgerError\n"
        "from rm_voucher.ledger import Ledger\n"
        "async def main():\n"
        "    async with Ledger.open(sys.argv[1]) as ledger:\n"
        "        await begin(ledger)\n"
        "        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))\n"
        "        kept = {}\n"
        "        try:\n"
        "            for number in range(1000):\n"
        "                kept[str(number)] = await issue(ledger, str(number))\n"
        "        except LedgerError as exc:\n"
        "            print(exc)\n"
        "        there = await codes(ledger)\n"
        "        assert kept and all(there[name] == kept[name] for name in kept)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        f"sqlite:///{tmp_path / 'l.db'}",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert err == b""
    assert b"The database can't be used: " in out


async def test_lock_of_another_program_is_waited_for(open_ledger, file: Path) -> None:
    """SQLite itself waits a while, say for a backup, without blocking the loop."""
    async with open_ledger() as ledger:
        await begin(ledger)
        other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        asked = asyncio.create_task(issue(ledger, "a", "A"))
        while not ledger.store._writer._waiting:
            await asyncio.sleep(0)
        timer = threading.Timer(0.05, other.execute, ["ROLLBACK"])
        timer.start()
        assert await asked == "A"
        timer.join()
        other.close()


async def test_lock_of_another_program_that_stays(
    open_ledger, file: Path, time: FakeTime, monkeypatch
) -> None:
    """After half a minute all that wait fail together; nothing of them is written."""
    monkeypatch.setattr(sql_engine, "_BUSY_S", 0)
    async with open_ledger() as ledger:
        await begin(ledger)
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        began = time.now
        failed = await asyncio.gather(
            *(start(ledger, str(number)) for number in range(20)), return_exceptions=True
        )
        assert {str(error) for error in failed} == {
            "The database can't be used: database is locked."
        }
        assert 20 < time.now - began < 60
        other.execute("ROLLBACK")
        other.close()
        assert await codes(ledger) == {}
        await issue(ledger, "0")


async def test_lost_answers_to_commits(open_ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that was committed, and is run again because nobody heard, changes nothing."""
    lost = [0]
    async with open_ledger() as ledger:
        await begin(ledger)
        dialect = ledger.store._database.engine.dialect
        real = dialect.do_commit

        def commit(connection: object) -> None:
            real(connection)
            lost[0] += 1
            if lost[0] % 3 == 1:  # between come the new connection, and the second try
                raise DBAPIError("COMMIT", {}, OSError("gone"), connection_invalidated=True)

        monkeypatch.setattr(dialect, "do_commit", commit)
        for numbers in (range(25), range(25, 50)):
            given = await asyncio.gather(
                *(issue(ledger, f"request {n}", f"CODE {n}") for n in numbers)
            )
            assert given == [f"CODE {number}" for number in numbers]
        assert lost[0] >= 4
        counts = await ledger.counts(BATCH)
        assert (counts.asked, counts.assigned, counts.spare) == (50, 50, 0)


async def test_closing_twice(open_ledger) -> None:
    """The second does nothing; who writes afterwards is told."""
    ledger = open_ledger()
    async with ledger:
        await ledger.aclose()
    await ledger.aclose()
    with pytest.raises(LedgerError, match=r"^The ledger is not open: use it with"):
        await start(ledger, "a")
    with pytest.raises(LedgerError, match=r"^The ledger is not open: use it with"):
        await ledger.counts()


async def test_no_thread_stays_behind(open_ledger) -> None:
    """Those that write and read end with the ledger, also after a failure to open."""

    def ours() -> set[str]:
        names = (thread.name for thread in threading.enumerate())
        return {name.rpartition("_")[0] for name in names if name.startswith("rm-voucher")}

    async with open_ledger() as ledger:
        await begin(ledger)
        await asyncio.gather(*(ledger.counts() for _ in range(3)))
        assert ours() == {"rm-voucher writer", "rm-voucher reader"}
        with pytest.raises(LedgerError):
            await enter(open_ledger())
    assert ours() == set()


async def test_lock_is_let_go_when_the_writer_was_cancelled(open_ledger) -> None:
    """The end of an event loop cancels all tasks, and the file must be free all the same."""
    ledger = open_ledger()
    await ledger.__aenter__()
    ledger.store._writer._task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ledger.aclose()
    await enter(open_ledger())


async def test_failure_after_opening_lets_go_of_all(open_ledger, monkeypatch) -> None:
    """Whoever could not be entered will not be closed by anybody."""

    async def fail(_: object) -> None:
        raise LedgerError("recovery failed")

    with monkeypatch.context() as patched, pytest.raises(LedgerError, match="recovery failed"):
        patched.setattr(AttemptTracker, "recover", fail)
        await enter(open_ledger())
    await enter(open_ledger())


async def test_count_of_commits_that_can_not_be_noted(open_ledger, monkeypatch) -> None:
    """The transaction is durable; it is told as an error, and to ask again is harmless."""
    async with open_ledger() as ledger:
        await begin(ledger)
        with monkeypatch.context() as patched:

            def full(*_: object) -> int:
                raise OSError(28, "No space left on device")

            patched.setattr(os, "pwrite", full)
            with pytest.raises(LedgerError, match=r"lock can't be written: No space left"):
                await start(ledger, "a")
        assert await codes(ledger) == {"a": None}
        ledger.store._guard.release()
        ledger.store._guard.note(1)


async def test_ledger_that_was_never_entered(tmp_path: Path) -> None:
    """Who forgets ``async with`` is told of it, and no file is made."""
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    with pytest.raises(LedgerError, match=r"^The ledger is not open: use it with"):
        await ledger.counts()
    assert list(tmp_path.iterdir()) == []
