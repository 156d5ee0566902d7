"""Bulk runs that sign in processes: whole whatever happens to those, and gone without a trace."""

import asyncio
import gc
import os
import signal

import pytest
from support.cancellation import tasks_left, turn
from support.command import PATIENCE_S
from support.signing_pools import Issuer, is_over, processes_of

from rm_voucher import BulkIssue, BulkStatus, bulk_issue

pytestmark = pytest.mark.usefixtures("at_once")


@pytest.fixture
async def issuing(make_client, signer):
    """Give a function that makes a run, and its server; nothing may be left of any run."""
    runs: list[BulkIssue] = []

    def issue(count=300, **options):
        server = Issuer(signer)
        client = make_client(server, signer=signer)
        server.run = bulk_issue(client, "B", range(count), **{"signers": 2, **options})
        runs.append(server.run)
        return server.run, server

    yield issue
    assert runs
    assert all(is_over(run._pool) for run in runs)
    assert tasks_left() == set()
    gc.collect()  # what was left open warns, and warnings are errors


async def codes_of(run):
    async with asyncio.timeout(2 * PATIENCE_S), run:
        return {result.recipient: result.voucher.code async for result in run}


async def test_each_recipient_has_a_voucher_whoever_signs(issuing):
    """A run that begins on the event loop and goes on with processes issues one to each, and
    uses no nonce twice."""
    run, server = issuing()
    most = []
    server.on_request = lambda _: most.append(run._pool.processes)
    codes = await codes_of(run)
    assert max(most) == 2
    assert len(codes) == len(set(codes.values())) == server.count == len(server.nonces) == 300


@pytest.mark.parametrize("killed", [1, 2])
async def test_killed_processes_cost_a_run_nothing(issuing, caplog, killed):
    """Processes that are killed in the middle of a run, all of them too, cost no recipient a
    voucher and give none two; a warning tells of each."""
    run, server = issuing(1_000)
    dead: list[int] = []

    def kill(count):
        if not dead and run._pool.processes == 2:
            dead.extend(processes_of(run._pool)[:killed])
            for number in dead:
                os.kill(number, signal.SIGKILL)

    server.on_request = kill
    codes = await codes_of(run)
    assert len(codes) == len(set(codes.values())) == server.count == len(server.nonces) == 1_000
    assert len(dead) == killed
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings[:1] == ["signing: a process ended; 1 are left"]
    assert len(warnings) <= killed


async def left_by_break(run):
    async with run:
        async for result in run:
            if result.recipient == 100:
                break


async def left_by_error(run):
    with pytest.raises(ZeroDivisionError):
        async with run:
            async for _ in run:
                1 / 0  # noqa: B018 - raises


async def left_before_the_first(run):
    async with run:
        pass


async def left_by_cancellation(run):
    reached = asyncio.Event()

    async def issue():
        async with run:
            async for _ in run:
                reached.set()

    issuing = asyncio.create_task(issue())
    await reached.wait()
    while not issuing.done():  # also while it ends the processes
        issuing.cancel()
        await asyncio.sleep(0)
    assert issuing.cancelled()


@pytest.mark.parametrize(
    "leave", [left_by_break, left_by_error, left_before_the_first, left_by_cancellation]
)
async def test_nothing_is_left_of_a_run(issuing, leave):
    """However a run is left, also with a cancellation at each step of its end: no process, no
    connection, no task, and no call in doubt."""
    run, server = issuing()
    await leave(run)
    assert {result.status for result in run.undelivered} <= {BulkStatus.ISSUED, BulkStatus.FAILED}
    assert run.summary.issued == server.count


async def test_a_run_that_never_begins_starts_nothing(issuing):
    """Making a run starts no process."""
    run, _ = issuing()
    await turn(5)
    assert run._pool._workers == []


@pytest.mark.parametrize(
    "turns",
    [
        *(1, 5, 60),  # before any process, while they start, when they are there
        *(
            pytest.param(turns, marks=pytest.mark.long)
            for turns in (*range(2, 5), *range(6, 14), 30)
        ),
    ],
)
async def test_a_run_may_end_while_its_processes_start(issuing, turns):
    """A run that is left, and cancelled, at any step of the start leaves no process either."""
    run, _ = issuing()

    async def issue():
        async with run:
            await turn(turns)

    ending = asyncio.create_task(issue())
    await turn(turns)
    ending.cancel()
    await asyncio.wait([ending])
    assert ending.cancelled()


async def test_a_call_that_waits_for_its_signature_is_sent_after_all(issuing, signer):
    """A run that is left while calls wait for their signatures makes these calls, and keeps what
    they got: a signature is no wait worth giving up for."""
    run, server = issuing(20)
    signatures = []

    def sign(text):
        signatures.append((asyncio.get_running_loop().create_future(), text))
        return signatures[-1][0]

    run._pool.sign = sign
    async with run:
        await turn(5)
        assert len(signatures) == 20
        leaving = asyncio.create_task(run.__aexit__(None, None, None))
        await turn(5)
        assert server.count == 0
        for future, text in signatures:
            future.set_result(signer.sign(text))
        await leaving
    assert [result.status for result in run.undelivered] == [BulkStatus.ISSUED] * 20
    assert server.count == 20


async def test_single_calls_are_cancelled_safely_while_they_wait(issuing):
    """Cancelled while it waits for its signature, a call says that nothing of it is in flight, and
    logs no doubt."""
    run, server = issuing(1)
    loop = asyncio.get_running_loop()
    run._pool.sign = lambda text: loop.create_future()
    call = run._new_call()
    calling = asyncio.create_task(run._client.caller.execute(call))
    await turn(3)
    calling.cancel()
    await asyncio.wait([calling])
    assert calling.cancelled()
    assert (call.in_flight, call.attempts, server.count) == (False, 0, 0)


class Odd:
    """A signer of the user's own that does not sign."""

    def __init__(self, answer):
        self.answer = answer

    def sign(self, text):
        if isinstance(self.answer, type):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("answer", [ValueError, StopIteration, None, "text"])
async def test_a_signer_that_fails_ends_the_run_before_anything_is_sent(make_client, answer):
    """A signer that raises, or returns what is no signature, fails each recipient with a
    ConfigurationError: nothing was sent."""
    run = bulk_issue(make_client(None, signer=Odd(answer)), "B", range(5), signers=2)
    async with run:
        results = [result async for result in run]
    assert {result.status for result in results} == {BulkStatus.FAILED}
    assert {result.attempts for result in results} == {0}
    for result in results:
        assert "nothing was sent" in str(result.error)
        assert type(result.error).__name__ == "ConfigurationError"
