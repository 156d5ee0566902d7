"""A code in hand is never dropped.

Where the ledger can't keep a code that arrived, its error has it, no further call is made, and the
commit is tried again for as long as the process lives. A later process takes it back with `keep`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import shutil
import subprocess
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.cancellation import turn
from support.fault_stage import until
from support.ledger_clients import B, FailingStore, Place, Wait, client_of, place, reported
from support.ledger_rows import runtime_at
from support.postgres import SERVICE, end_connections, run_sql

from rm_voucher import (
    BulkResult,
    BulkStatus,
    IssuedVoucher,
    LedgerError,
    OutcomeUnknownError,
    OutOfStockError,
    Request,
    Response,
    Transport,
    VoucherClient,
    bulk_issue,
)
from rm_voucher.database import engine as sql_engine
from rm_voucher.emulator import Fault
from rm_voucher.ledger import AttemptState, Ledger
from rm_voucher.ledger.rules.transitions import confirm, end

LIMIT = 4  # a bulk run makes so many calls at once, and has begun as many more


@pytest.fixture
def there(time) -> Place:
    return place(time)


@pytest.fixture
def store(there: Place) -> FailingStore:
    return FailingStore(there.tables)


async def refused_confirm(there: Place, ledger: Ledger, name: str = "r") -> OutcomeUnknownError:
    with pytest.raises(OutcomeUnknownError) as caught:
        await ledger.issue(there.client, B, name)
    return caught.value


async def test_error_has_the_code_and_does_not_show_it(there, store) -> None:
    """It is in attributes alone: in no text, repr, pickle or traceback."""
    async with there.ledger(store=store) as ledger:
        store.fails = (confirm,)
        error = await refused_confirm(there, ledger)
        (code,) = there.issued
        assert error.code == code
        assert isinstance(error.voucher, IssuedVoucher)
        assert error.voucher.code == code
        assert error.voucher.qr_url
        assert isinstance(error.__cause__, LedgerError)
        shown = "".join(
            traceback.TracebackException.from_exception(error, capture_locals=True).format()
        )
        for text in (shown, repr(error), str(error), repr(ledger.unkept)):
            assert code not in text
        assert code.encode() not in pickle.dumps(error)
        assert ledger.unkept == {"r": error.voucher}


@pytest.mark.parametrize("outcome", ["a code", "a refusal", "a lost answer"])
async def test_no_further_call_is_made(there, store, caplog, outcome) -> None:
    """However a call ended that can't be kept: nothing new is asked or sent until it is."""
    async with there.ledger(store=store) as ledger:
        store.fails = (confirm, end)
        if outcome == "a refusal":
            there.emulator.fail_next("issue", "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY")
        elif outcome == "a lost answer":
            there.emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
        with pytest.raises((OutcomeUnknownError, OutOfStockError)):
            await ledger.issue(there.client, B, "r")
        for ask in (ledger.issue(there.client, B, "r2"), ledger.submit(B, "r3")):
            with pytest.raises(LedgerError, match=r"Nothing more is issued: .* disk is full"):
                await ask
        assert there.posts == 1
        store.fails = ()
        assert (await ledger.issue(there.client, B, "r2")).code
        assert ledger.unkept == {}
        assert (await ledger.attempts(B, [AttemptState.SENDING])) == []
    for code in there.issued:
        assert code not in caplog.text


async def test_call_that_waits_is_not_sent_any_more(there, store) -> None:
    """Also one whose attempt was kept before: it ends as not sent."""
    waits = Wait()
    gate, client = there.gate()
    async with there.ledger(store=store) as ledger:
        there.emulator.fail_next("issue", "TOO_MANY_REQUEST_PER_SECOND")
        patient = client_of(there.emulator, there.time, sleep=waits.sleep)
        second = asyncio.create_task(ledger.issue(patient, B, "r2"))
        await waits.begun.wait()
        first = asyncio.create_task(ledger.issue(client, B, "r1"))
        await gate.arrived.wait()
        store.fails = (confirm,)
        gate.opened.set()
        with pytest.raises(OutcomeUnknownError):
            await first
        waits.over.set()
        with pytest.raises(LedgerError, match="Nothing more is issued"):
            await second
        assert len(there.issued) == 1
        store.fails = ()
        assert await reported(ledger) == {"r2": "waiting", "r1": "waiting"}
        await ledger.issue(there.client, B, "r2")
        assert (await reported(ledger))["r1"] == there.issued[0]


async def test_commit_is_tried_again_by_itself(there, store) -> None:
    """Nobody has to ask: the code is kept as soon as the store is back."""
    async with there.ledger(store=store) as ledger:
        store.fails = None
        with pytest.raises(LedgerError):
            await ledger.prepare(there.client, B)
        store.fails = (confirm,)
        error = await refused_confirm(there, ledger)
        await until(lambda: len(there.time.slept) > 5)
        assert ledger.unkept
        store.fails = ()
        await until(lambda: not ledger.unkept)
        assert await reported(ledger) == {"r": error.code}
        assert await ledger.issue(there.client, B, "r") == error.voucher
    assert there.posts == 1


async def test_closing_tries_once_more(there, store) -> None:
    """What was back by then is kept."""
    async with there.ledger(store=store) as ledger:
        store.fails = (confirm,)
        error = await refused_confirm(there, ledger)
        store.fails = ()
    assert ledger.unkept == {}
    assert there.tables.code_of == {"r": error.code}


async def test_closing_in_vain_leaves_the_code_where_it_can_be_had(there, store, caplog) -> None:
    """Whoever wrote it down gives it back to the next process; the log says that there is one."""
    async with there.ledger(store=store) as ledger:
        store.fails = (confirm,)
        error = await refused_confirm(there, ledger)
    assert ledger.unkept == {"r": error.voucher}
    (line,) = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert "1 of them with a code" in line.getMessage()
    async with there.ledger() as after:
        for name, voucher in ledger.unkept.items():
            await after.keep(B, name, voucher)
        assert await after.issue(there.client, B, "r") == error.voucher
    assert there.posts == 1


async def test_code_that_turns_out_to_be_anothers_is_given_to_nobody(there, store, caplog) -> None:
    """The server gave it twice, which only the ledger can see: it stops the batch, later."""
    async with there.ledger(store=store) as ledger:
        voucher = await ledger.issue(there.client, B, "r1")

        class Repeating(Transport):
            async def send(self, request: Request) -> Response:
                answer: Response = await there.emulator.transport().send(request)
                if request.operation == "issue":
                    code = there.issued[-1].encode()
                    body = answer.body.replace(code, voucher.code.encode())
                    answer = attrs.evolve(answer, body=body)
                return answer

        store.fails = (confirm,)
        client = client_of(there.emulator, there.time, transport=Repeating())
        with pytest.raises(OutcomeUnknownError) as caught:
            await ledger.issue(client, B, "r2")
        assert caught.value.code == voucher.code
        store.fails = ()
        await until(lambda: not ledger.unkept)
        assert await reported(ledger) == {"r1": voucher.code, "r2": "unresolved"}
        with pytest.raises(LedgerError, match="another request's"):
            await ledger.keep(B, "r2", caught.value.voucher)
    assert "the server issued a code that the ledger had already" in caplog.text


async def test_caller_that_was_cancelled_loses_nothing(there, store) -> None:
    """Nobody has the error, so the ledger alone has the code: it is kept later."""
    gate, client = there.gate()
    async with there.ledger(store=store) as ledger:
        task = asyncio.create_task(ledger.issue(client, B, "r"))
        await gate.arrived.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        store.fails = (confirm,)
        gate.opened.set()
        await until(lambda: ledger.unkept != {})
        store.fails = ()
    assert list(there.tables.code_of) == ["r"]


async def test_commit_that_was_cancelled_is_made_again(there) -> None:
    """A bulk run's worker that is cancelled while its code is committed does not lose it."""
    begun = asyncio.Event()

    class Slow(FailingStore):
        async def commit(self, transition: Any, item: Any) -> Any:
            if transition is confirm and not begun.is_set():
                begun.set()
                await asyncio.Event().wait()
            return await super().commit(transition, item)

    async with there.ledger(store=Slow(there.tables)) as ledger:
        await ledger.prepare(there.client, B)
        task = asyncio.create_task(ledger.sender.issue(there.client, B, "", "r"))
        await begun.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: not ledger.unkept)
        assert await reported(ledger) == {"r": there.issued[0]}


async def bulk(
    there: Place, ledger: Ledger, names: Any, client: VoucherClient | None = None
) -> list[BulkResult[str]]:
    run = bulk_issue(client or there.client, B, names, ledger=ledger, concurrency=4)
    async with run as results:
        return [result async for result in results]


def codes_of(results: list[BulkResult[str]]) -> dict[str, str]:
    return {each.recipient: each.voucher.code for each in results if each.voucher is not None}


async def fill(there: Place, ledger: Ledger, stop: Callable[[], Awaitable[object]]) -> Any:
    """Issue to many, from some answer on with a ledger that can keep nothing.

    Return how many had been issued then, too.
    """
    sent = issued = 0

    class Stopping(Transport):
        async def send(self, request: Request) -> Response:
            nonlocal sent, issued
            answer = await behind.send(request)
            if request.operation == "issue":
                sent += 1
                if sent == 10:
                    issued = len(there.issued)
                    await stop()
            return answer

    behind = there.emulator.transport()
    names = [f"m{number}" for number in range(60)]
    client = client_of(there.emulator, there.time, transport=Stopping())
    return names, await bulk(there, ledger, names, client), issued


def assert_all_codes_seen(
    there: Place, results: list[BulkResult[str]], issued: int
) -> dict[str, str]:
    """Each code that was issued is in a result, and soon no more are issued."""
    seen = codes_of(results)
    assert sorted(seen.values()) == sorted(there.issued)
    assert len(there.issued) <= issued + 2 * LIMIT
    unresolved = [each for each in results if each.status is BulkStatus.UNRESOLVED]
    assert unresolved
    assert all(each.voucher is not None for each in unresolved)
    return seen


async def test_bulk_run_has_every_code(there, store) -> None:
    """A result has the code that the ledger could not keep, is no success, and the run ends."""

    async def stop() -> None:
        store.fails = (confirm,)

    async with there.ledger(store=store) as ledger:
        names, results, issued = await fill(there, ledger, stop)
        seen = assert_all_codes_seen(there, results, issued)
    async with there.ledger() as ledger:
        for result in results:
            if result.status is BulkStatus.UNRESOLVED:
                await ledger.keep(B, result.recipient, result.voucher)
        again = await bulk(there, ledger, names)
        assert {each.status for each in again} == {BulkStatus.ISSUED}
        assert seen.items() <= codes_of(again).items()
    assert len(there.issued) == len(names)


async def test_full_disk(there, tmp_path, time) -> None:
    """SQLite's file may not grow: then no code is dropped, and with space nobody is held."""
    url = f"sqlite:///{tmp_path}/l.db"
    settings: dict[str, Any] = {"runtime": runtime_at(time), "mode": "exclusive"}
    async with Ledger.open(url, **settings) as ledger:
        store: Any = ledger.store

        async def stop() -> None:
            await store._database.write(
                lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1").scalar()
            )

        names, results, _ = await fill(there, ledger, stop)  # small commits still find room
    seen = codes_of(results)
    assert sorted(seen.values()) == sorted(there.issued)
    async with Ledger.open(url, **settings) as ledger:
        for result in results:
            if result.status is BulkStatus.UNRESOLVED:
                await ledger.keep(B, result.recipient, result.voucher)
        again = await bulk(there, ledger, names)
    assert {each.status for each in again} == {BulkStatus.ISSUED}
    assert seen.items() <= codes_of(again).items()
    assert len(there.issued) == len(names)


READ_ONLY = "ALTER DATABASE {name} SET default_transaction_read_only = on"
WRITABLE = "ALTER DATABASE {name} RESET default_transaction_read_only"


async def test_postgres_that_turned_read_only(there, postgres_ledger_url, time) -> None:
    """As after a failover that does not end: the run ends, and each code is in a result."""
    name = postgres_ledger_url.rpartition("/")[2]
    settings: dict[str, Any] = {"runtime": runtime_at(time), "mode": "exclusive"}

    async def stop() -> None:
        await run_sql(SERVICE, READ_ONLY.format(name=name))
        await end_connections(postgres_ledger_url)

    try:
        async with Ledger.open(postgres_ledger_url, **settings) as ledger:
            names, results, issued = await fill(there, ledger, stop)
            seen = assert_all_codes_seen(there, results, issued)
            await run_sql(SERVICE, WRITABLE.format(name=name))
            await end_connections(postgres_ledger_url)
            await until(lambda: not ledger.unkept)  # in the process that has the codes
            again = await bulk(there, ledger, names)
            assert {each.error for each in again} == {None}
            assert seen.items() <= codes_of(again).items()
    finally:
        await run_sql(SERVICE, WRITABLE.format(name=name))
        await end_connections(postgres_ledger_url)
    assert len(there.issued) == len(names)


async def test_statement_timeout(there, postgres_ledger_url, time, monkeypatch) -> None:
    """A table that somebody holds for longer than is waited for: the same."""
    import psycopg

    monkeypatch.setattr(sql_engine, "_BUSY_S", 0.02)
    settings: dict[str, Any] = {"runtime": runtime_at(time), "mode": "exclusive", "patience_s": 3.0}
    async with Ledger.open(postgres_ledger_url, **settings) as ledger:
        with psycopg.connect(postgres_ledger_url) as holder:

            async def stop() -> None:
                holder.execute("LOCK TABLE rm_ledger_codes IN ACCESS EXCLUSIVE MODE")

            names, results, issued = await fill(there, ledger, stop)
            assert_all_codes_seen(there, results, issued)
        await until(lambda: not ledger.unkept)
        again = await bulk(there, ledger, names)
        assert codes_of(results).items() <= codes_of(again).items()
    assert len(there.issued) == len(names)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1.2 MB in memory."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("only root mounts a file system")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=1200k", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.long
async def test_real_disk_that_fills(small_disk: Path, time) -> None:
    """The ledger alone is on it: what arrived is in the results, and kept when there is space."""
    there = place(time, quantity=5000)
    url = f"sqlite:///{small_disk}/l.db"
    settings: dict[str, Any] = {"runtime": runtime_at(time), "mode": "exclusive"}
    (small_disk / "ballast").write_bytes(b"x" * 600_000)
    names = [f"member {number}" for number in range(3000)]
    async with Ledger.open(url, **settings) as ledger:
        results = await bulk(there, ledger, names)
    seen = codes_of(results)
    assert sorted(seen.values()) == sorted(there.issued)
    assert 0 < len(seen) < len(names)
    (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    async with Ledger.open(url, **settings) as ledger:
        for result in results:
            if result.status is BulkStatus.UNRESOLVED:
                assert result.voucher is not None
                await ledger.keep(B, result.recipient, result.voucher)
        again = await bulk(there, ledger, names)
        assert (await ledger.counts(B)).unresolved == 0
    assert {each.status for each in again} == {BulkStatus.ISSUED}
    assert seen.items() <= codes_of(again).items()
    assert len(there.issued) == len(names)


async def test_turns_are_given(there, store) -> None:
    """Trying again keeps nobody from working, and ends with the ledger."""
    async with there.ledger(store=store) as ledger:
        store.fails = (confirm,)
        await refused_confirm(there, ledger)
        await turn()
    names = [task.get_name() for task in asyncio.all_tasks()]
    assert "rm-voucher keeper" not in names


async def test_nothing_is_concluded_while_a_code_is_in_hand(there, store) -> None:
    """The listing has it too, where it would pass for the answer to another attempt."""
    async with there.ledger("exclusive", store=store) as ledger:
        there.emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
        with pytest.raises(OutcomeUnknownError):
            await ledger.issue(there.client, B, "lost")
        store.fails = (confirm,)
        error = await refused_confirm(there, ledger)
        for _ in range(2):
            with pytest.raises(LedgerError, match="could not keep"):
                await ledger.reconcile(there.client, B, wait=True)
            await ledger.recover(B)
        (sending,) = await ledger.attempts(states=[AttemptState.SENDING])
        assert sending.id == error.attempt_id
        store.fails = ()
        assert (await ledger.reconcile(there.client, B, wait=True)).adopted == 1
        assert await reported(ledger) == {"lost": there.issued[0], "r": error.code}


async def test_code_that_comes_while_a_listing_is_read_and_is_not_kept(there, store) -> None:
    """Then nothing is concluded from that listing either."""
    gate, client = there.gate("issue")
    async with there.ledger("exclusive", store=store) as ledger:
        await ledger.prepare(there.client, B)
        issuing = asyncio.create_task(ledger.issue(client, B, "r"))
        await gate.arrived.wait()
        store.fails = (confirm,)
        reconciling = asyncio.create_task(ledger.reconcile(there.client, B))
        await until(lambda: there.emulator.requests["vouchers"] > 1)
        gate.opened.set()
        with pytest.raises(OutcomeUnknownError):
            await issuing
        with pytest.raises(LedgerError, match="could not keep"):
            await reconciling
        store.fails = ()
        assert (await ledger.issue(client, B, "r")).code == there.issued[0]
