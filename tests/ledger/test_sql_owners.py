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
from rm_voucher.ledger.rules.commands import Check, Claimed, End
from rm_voucher.ledger.rules.transitions import check, end
from rm_voucher.ledger.sql import store as store_module
from rm_voucher.models import IssuedVoucher

SENDING = [AttemptState.SENDING]
OPT_IN = "RM_TEST_POSTGRES_RESTART"


@pytest.fixture
def open_ledger(postgres_ledger_url: str, time: FakeTime) -> Callable[[], Ledger]:
    return lambda: Ledger.open(postgres_ledger_url, runtime=runtime_at(time))


async def lease_ends_at(url: str, ledger: Ledger) -> float | None:
    """Return until when others know that a process lives, in seconds from the database's now."""
    rows = await run_sql(
        url,
        "SELECT until - extract(epoch FROM clock_timestamp()) FROM rm_ledger_leases "
        "WHERE name = %s AND holder = %s",
        f"process {ledger.store.owner}",
        ledger.store.owner,
    )
    return float(rows[0][0]) if rows else None


async def run_out(url: str, ledger: Ledger) -> None:
    """Let the lease of a process run out, as while it stands still."""
    await run_sql(
        url, "UPDATE rm_ledger_leases SET until = 0 WHERE holder = %s", ledger.store.owner
    )


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


async def test_attempts_of_a_worker_that_lives_are_its_own(
    open_ledger, postgres_ledger_url: str
) -> None:
    """Nobody recovers them while it lives; when its lease has run out, the next who asks does."""
    dying = open_ledger()
    await dying.__aenter__()
    await begin(dying)
    assert isinstance(await start(dying, "a"), Claimed)
    async with open_ledger() as other:
        assert len(await other.attempts(states=SENDING)) == 1
        await other.recover()
        assert len(await other.attempts(states=SENDING)) == 1
        await dying.store._database.close()  # as at the end of its process
        await run_out(postgres_ledger_url, dying)
        await other.recover()
        assert await other.attempts(states=SENDING) == []
        (ambiguous,) = await other.attempts()
        assert ambiguous.owner == dying.store.owner
    await dying.aclose()


async def test_lease_of_a_process_lasts_as_long_as_it(
    open_ledger, postgres_ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is renewed, whatever becomes of connections, and ends with the ledger."""
    monkeypatch.setattr(store_module, "_LIFE_S", 0.6)
    ledger = open_ledger()
    async with ledger, asyncio.timeout(PATIENCE_S):
        first = await lease_ends_at(postgres_ledger_url, ledger)
        assert first is not None
        await end_connections(postgres_ledger_url)
        await run_out(postgres_ledger_url, ledger)
        while (await lease_ends_at(postgres_ledger_url, ledger) or 0.0) < 0.0:
            pass
    assert await lease_ends_at(postgres_ledger_url, ledger) is None


async def test_process_that_stood_still_finds_out(open_ledger, postgres_ledger_url: str) -> None:
    """Its lease has run out, another took over what it was sending: it sends that no more."""
    async with open_ledger() as still, open_ledger() as other:
        await begin(still)
        claimed = await start(still, "a")
        assert isinstance(claimed, Claimed)
        await other.recover()
        assert await other.attempts() == []
        await run_out(postgres_ledger_url, still)
        await other.recover()
        assert [attempt.id for attempt in await other.attempts()] == [claimed.attempt_id]
        item = Check(batch=BATCH, attempt_id=claimed.attempt_id, owner=still.store.owner)
        assert await still.store.commit(check, item) is False
        # The answer to what it had sent before is kept all the same.
        assert await bring(still, "a", claimed.attempt_id, "CODE") == IssuedVoucher(code="CODE")


async def test_lease_is_one_processes_at_a_time(open_ledger, postgres_ledger_url: str) -> None:
    """Its holder may renew and end it; another gets it when it has run out, or was ended."""
    async with open_ledger() as one, open_ledger() as two:
        assert await one.store.take_lease("listing A", 60)
        assert await one.store.take_lease("listing A", 60)
        assert not await two.store.take_lease("listing A", 60)
        await two.store.end_lease("listing A")
        assert not await two.store.take_lease("listing A", 60)
        await run_out(postgres_ledger_url, one)
        assert await two.store.take_lease("listing A", 60)
        assert not await one.store.take_lease("listing A", 60)
        await two.store.end_lease("listing A")
        assert await one.store.take_lease("listing A", 60)


async def test_time_of_an_unknown_outcome_survives_its_process(
    open_ledger, postgres_ledger_url: str, time: FakeTime
) -> None:
    """How long it has been unknown is known by the database's clock, and by the machine's."""
    async with open_ledger() as first:
        await begin(first)
        claimed = await start(first, "a")
        assert isinstance(claimed, Claimed)
        item = End(
            batch=BATCH,
            attempt_id=claimed.attempt_id,
            state=AttemptState.AMBIGUOUS,
            at=first.clock.latest_now(),
        )
        await first.store.commit(end, item)
    back = "UPDATE rm_ledger_attempts SET unknown_since = unknown_since - 400"
    await run_sql(postgres_ledger_url, back)
    for later_s, age_s in ((100, 100.0), (500, 400.0)):  # the shorter of the two
        time.now = first.clock.latest_now() + later_s - (time.now - FakeTime().now)
        async with open_ledger() as next_one:
            since = next_one._tracker.ambiguous_since(claimed.attempt_id)
            assert next_one.clock.monotonic() - since == pytest.approx(age_s, abs=30)


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
