"""Several workers on one PostgreSQL: who lives, who may not be robbed, and lost connections."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.command import PATIENCE_S
from support.doubles import FakeTime
from support.ledger_rows import BATCH, begin, bring, codes, issue, runtime_at, start
from support.postgres import end_connections, run_sql

from rm_voucher.emulator import Emulator
from rm_voucher.exceptions import IdempotencyConflictError, LedgerError
from rm_voucher.ledger import AttemptState, Ledger
from rm_voucher.ledger.rules.commands import Claimed
from rm_voucher.ledger.rules.records import IssueRequest
from rm_voucher.models import IssuedVoucher

SENDING = [AttemptState.SENDING]
OPT_IN = "RM_TEST_POSTGRES_RESTART"


@pytest.fixture
def open_ledger(postgres_ledger_url: str, time: FakeTime) -> Callable[[], Ledger]:
    return lambda: Ledger.open(postgres_ledger_url, runtime=runtime_at(time))


async def owner_session(url: str) -> int:
    """Return the process of the server that holds the one owner's lock."""
    rows = await run_sql(
        url,
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 29293 "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    return int(rows[0][0])


async def test_ids_of_two_workers_get_one_code_each(open_ledger) -> None:
    """Both ask for the same ids at once: one of them sends, the other gets its code."""
    ids = [f"request {number}" for number in range(120)]
    async with open_ledger() as one, open_ledger() as two:
        await begin(one)

        async def get(ledger: Ledger, name: str) -> str:
            for _ in range(1000):
                answer = await start(ledger, name)
                if isinstance(answer, Claimed):
                    code = f"CODE-{secrets.token_hex(6)}"
                    answer = await bring(ledger, name, answer.attempt_id, code)
                if isinstance(answer, IssuedVoucher):
                    return answer.code
            raise AssertionError(answer)

        first, second = await asyncio.gather(
            asyncio.gather(*(get(one, name) for name in ids)),
            asyncio.gather(*(get(two, name) for name in reversed(ids))),
        )
        assert first == second[::-1]
        assert len(set(first)) == len(ids)
        assert await codes(one) == dict(zip(ids, first, strict=True))
        assert (await one.counts()).spare == 0


async def test_workers_do_not_wait_for_each_other_in_a_ring(open_ledger, caplog) -> None:
    """Groups that touch two batches in opposite orders lock them in the same one."""
    async with open_ledger() as one, open_ledger() as two:
        for batch in "AB":
            await begin(one, batch)

        async def both(ledger: Ledger, order: str) -> None:
            for number in range(8):
                ids = [f"{ledger.store.owner} {batch} {number}" for batch in order]
                started = await start(ledger, ids[0], order[0])
                assert isinstance(started, Claimed)
                await asyncio.gather(
                    start(ledger, ids[1], order[1]),
                    bring(ledger, ids[0], started.attempt_id, ids[0], order[0]),
                )

        await asyncio.gather(both(one, "AB"), both(two, "BA"), both(one, "BA"), both(two, "AB"))
    assert "tried again" not in caplog.text


async def test_id_asked_by_two_workers_for_two_batches(open_ledger) -> None:
    """One of them has it; the other is told that it was used."""
    async with open_ledger() as one, open_ledger() as two:
        for batch in "AB":
            await begin(one, batch)
        for number in range(10):
            answers = await asyncio.gather(
                start(one, f"id {number}", "A"),
                start(two, f"id {number}", "B"),
                return_exceptions=True,
            )
            assert sum(isinstance(answer, Claimed) for answer in answers) == 1
            assert sum(isinstance(a, IdempotencyConflictError) for a in answers) == 1


async def test_attempts_of_a_worker_that_lives_are_its_own(open_ledger) -> None:
    """Nobody recovers them while it lives; when its connection is gone, the next who asks does."""
    dying = open_ledger()
    await dying.__aenter__()
    await begin(dying)
    assert isinstance(await start(dying, "a"), Claimed)
    async with open_ledger() as other:
        assert len(await other.attempts(states=SENDING)) == 1
        await other.recover()
        assert len(await other.attempts(states=SENDING)) == 1
        await dying.store._database.close()  # as at the end of its process
        async with asyncio.timeout(PATIENCE_S):  # the server may take a moment to see it
            while await other.attempts(states=SENDING):
                await other.recover()
        (ambiguous,) = await other.attempts()
        assert ambiguous.owner == dying.store.owner
    await dying.aclose()


async def test_owner_lock_survives_a_refused_row_and_a_failed_reading(
    open_ledger,
    postgres_ledger_url: str,
) -> None:
    """Whoever loses it for a moment looks dead, and is robbed of what it is sending."""
    async with open_ledger() as ledger:
        await begin(ledger)
        before = await owner_session(postgres_ledger_url)
        with pytest.raises(LedgerError):
            await start(ledger, "nul \0")
        with pytest.raises(LedgerError):
            await ledger.store.read(lambda unit: unit.load(IssueRequest, ["nul \0"]))
        await issue(ledger, "a")
        assert await owner_session(postgres_ledger_url) == before


async def test_owner_lock_is_taken_again_on_a_new_connection(
    open_ledger,
    postgres_ledger_url: str,
) -> None:
    """After a lost connection it lives on, in another session."""
    async with open_ledger() as ledger:
        await begin(ledger)
        before = await owner_session(postgres_ledger_url)
        await end_connections(postgres_ledger_url)
        await issue(ledger, "a")
        assert await owner_session(postgres_ledger_url) != before


async def test_owner_does_not_wait_for_its_own_last_session(open_ledger) -> None:
    """The server may not know yet that it is lost, and holds its lock; it is nobody else's."""
    async with open_ledger() as ledger, open_ledger() as other:
        await begin(ledger)
        assert isinstance(await start(ledger, "a"), Claimed)
        database = ledger.store._database
        last, database.connections.writer = database.connections.writer, None
        assert isinstance(await start(ledger, "b"), Claimed)
        await asyncio.to_thread(last.close)
        await other.recover()
        assert len(await other.attempts(states=SENDING)) == 2


async def test_connections_that_end_in_a_bulk(open_ledger, postgres_ledger_url: str) -> None:
    """However often the server drops all of them, each request has its one code in the end."""
    async with open_ledger() as ledger:
        await begin(ledger)
        given: list[str] = []
        ended = 0
        for part in range(8):
            names = [f"request {part} {number}" for number in range(40)]
            bulk = asyncio.gather(*(issue(ledger, name, f"C {name}") for name in names))
            while not bulk.done() and ended <= 2 * part:
                ended += await end_connections(postgres_ledger_url)
            given += await bulk
        assert ended > 3
        counts = await ledger.counts(BATCH)
        assert (counts.asked, counts.assigned, counts.spare) == (320, 320, 0)
        assert set((await codes(ledger)).values()) == set(given)


@pytest.fixture
def cluster() -> Iterator[tuple[str, Callable[[str], None]]]:
    """A PostgreSQL of our own: its URL, and how it is started and stopped."""
    if not os.environ.get(OPT_IN):
        pytest.skip(f"{OPT_IN} is not set: this starts a PostgreSQL of its own")
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not homes:
        pytest.skip("no initdb and pg_ctl in /usr/lib/postgresql")
    # Not in tmp_path, which other users can't enter; and PostgreSQL does not run as root.
    home = tempfile.TemporaryDirectory(prefix="rm-test-")
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(home.name, user)
    bin_dir, data = homes[-1].parent, Path(home.name, "data")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(program: str, *args: str) -> None:
        subprocess.run(
            [str(bin_dir / program), "-D", str(data), *args],
            check=True,
            user=user,
            cwd="/",
            stdout=subprocess.DEVNULL,
            timeout=PATIENCE_S,
        )

    run("initdb", "-U", "tester", "-A", "trust", "-N")
    options = f"-p {port} -h 127.0.0.1 -k ''"

    def control(verb: str) -> None:
        run("pg_ctl", verb, "-w", "-m", "fast", "-o", options, "-l", f"{home.name}/log")

    control("start")
    yield f"postgresql://tester@127.0.0.1:{port}/postgres", control
    control("stop")
    home.cleanup()


async def test_server_that_restarts_in_a_bulk(cluster) -> None:
    """While it is away everybody waits; nothing is lost, and nothing done twice."""
    url, control = cluster
    async with Ledger.open(url) as ledger:
        await begin(ledger)
        names = [f"request {number}" for number in range(3000)]
        limit = asyncio.Semaphore(64)

        async def one(name: str) -> str:
            async with limit:
                return await issue(ledger, name, f"C {name}")

        bulk = asyncio.gather(*map(one, names))
        while (await ledger.counts(BATCH)).assigned < 300:
            pass
        await asyncio.to_thread(control, "restart")
        assert not bulk.done()
        assert await bulk == [f"C {name}" for name in names]
        assert set((await codes(ledger)).values()) == {f"C {name}" for name in names}


async def test_call_of_another_process_that_never_ends(open_ledger, time: FakeTime) -> None:
    """A live worker that neither sends nor keeps what it sent must not hold up the others for
    ever: they conclude nothing, and say so."""
    emulator = Emulator(batches={BATCH: 5}, clock=time.clock)
    async with emulator.client() as client, open_ledger() as stuck, open_ledger() as other:
        await begin(stuck)
        assert isinstance(await start(stuck, "r"), Claimed)
        with pytest.raises(LedgerError, match="end that process"):
            await other.reconcile(client, BATCH)
        assert 1200 <= sum(time.slept) < 1300
        (attempt,) = await other.attempts(states=SENDING)
        assert attempt.request_id == "r"


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
async def test_nul_is_refused_and_its_spelling_is_kept(store, make_ledger) -> None:
    """Text with a NUL, which no database keeps whole, is refused; what only looks like one in JSON
    is kept to the letter."""
    async with make_ledger() as ledger:
        await begin(ledger)
        first, second = await start(ledger, "a"), await start(ledger, "b")
        assert isinstance(first, Claimed)
        assert isinstance(second, Claimed)
        with pytest.raises(LedgerError):
            await bring(ledger, "a", first.attempt_id, "CODE\0A")
        await bring(ledger, "b", second.attempt_id, r"CODE\u0000B")
        assert await codes(ledger) == {"a": None, "b": r"CODE\u0000B"}
