"""A ledger whose clock is set, whose process dies, or whose store or server does what it should
not: no voucher is lost, doubled or given to two."""

import asyncio
import traceback

import pytest
from support.fault_stage import until
from support.ledger_clients import (
    SETTLE_S,
    B,
    FailingStore,
    client_of,
    ledger_tasks,
    place,
    reported,
)

from rm_voucher import (
    BatchStoppedError,
    LedgerError,
    OutcomeUnknownError,
    OutOfStockError,
    Transport,
)
from rm_voucher.emulator import Fault
from rm_voucher.ledger import AttemptState, Ledger
from rm_voucher.ledger.memory import MemoryTables
from rm_voucher.ledger.rules.records import Code, CodeOrigin, CodeState
from rm_voucher.ledger.rules.transitions import confirm, end

DONE = Fault.DROP_AFTER_COMMIT
HOURS = [-3600.0, 3600.0]


@pytest.fixture
def there(time):
    return place(time)


@pytest.fixture(params=["exclusive", "shared"])
def mode(request):
    return request.param


async def lose(there, ledger, name):
    there.emulator.fail_next("issue", DONE)
    with pytest.raises(OutcomeUnknownError):
        await ledger.issue(there.client, B, name)


async def dies_in_flight(there, ledger, name):
    """Send, and vanish before the answer: nothing of this ledger runs any more."""
    gate, client = there.gate()
    await ledger.__aenter__()
    task = asyncio.create_task(ledger.issue(client, B, name))
    await gate.arrived.wait()
    for own in (task, *ledger_tasks()):
        own.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("step_s", HOURS)
async def test_clock_set_while_a_process_runs(there, mode, step_s):
    """A process's times go on evenly, so a clock that is set hides no code, and ripens none."""
    async with there.ledger(mode) as ledger:
        await lose(there, ledger, "r")
        there.wall_ahead_s = step_s
        report = await ledger.reconcile(there.client, B)
        assert (report.not_issued, report.held) == (0, ())
        assert report.adopted == (mode == "exclusive")
        report = await ledger.reconcile(there.client, B, wait=True)
        assert (report.not_issued, report.stop_reason) == (0, None)
        assert [list(held.candidates) for held in report.held] == [there.issued] * (
            mode == "shared"
        )


@pytest.mark.parametrize("step_s", HOURS)
@pytest.mark.parametrize("ended", [True, False], ids=["ended", "in-flight"])
async def test_clock_set_between_two_processes(there, mode, step_s, ended):
    """The next process finds the code whichever way the clock was set, and its settle horizon
    begins anew: what was set is no time that passed."""
    if ended:
        async with there.ledger(mode) as ledger:
            await lose(there, ledger, "r")
    else:
        await dies_in_flight(there, there.ledger(mode), "r")
    there.wall_ahead_s = step_s
    async with there.ledger(mode) as ledger:
        report = await ledger.reconcile(there.client, B)
        assert (report.not_issued, report.held) == (0, ())
        report = await ledger.reconcile(there.client, B, wait=True)
        assert (report.not_issued, report.stop_reason) == (0, None)
        assert (await ledger.counts(B)).assigned == (mode == "exclusive")
        assert (await ledger.counts(B)).unresolved == (mode == "shared")


@pytest.mark.parametrize("step_s", HOURS)
async def test_clock_that_was_wrong_from_the_beginning(there, step_s):
    """In an exclusive batch a code out of all times is an alarm, and settles nothing: it may be
    any attempt's. A person has the last word."""
    there.wall_ahead_s = step_s
    async with there.ledger() as ledger:
        await lose(there, ledger, "r")
        report = await ledger.reconcile(there.client, B, wait=True)
        assert (report.not_issued, report.foreign) == (0, 1)
        assert "while the clock was wrong" in report.stop_reason
        await ledger.resolve(report.held[0].attempt_id, adopt=there.issued[0])
        assert await reported(ledger) == {"r": there.issued[0]}


async def test_process_that_died_in_flight(there):
    """The next process adopts what the last one's call had issued, and sends nothing again."""
    await dies_in_flight(there, there.ledger(), "r")
    async with there.ledger() as ledger:
        with pytest.raises(OutcomeUnknownError):
            await ledger.issue(there.client, B, "r")
        counts = await ledger.finish(there.client, B)
        assert counts.assigned == 1
        assert there.time.slept == [SETTLE_S]
    assert there.posts == 1


async def test_settle_time_of_a_dead_process_begins_on_entry(there):
    """The time that passes in the next process counts, from its beginning on."""
    await dies_in_flight(there, there.ledger("shared"), "r")
    async with there.ledger("shared") as ledger:
        there.time.now += SETTLE_S - 1
        assert (await ledger.reconcile(there.client, B)).open == 1
        there.time.now += 1
        assert len((await ledger.reconcile(there.client, B)).held) == 1


async def test_listing_waits_for_calls_in_flight(there):
    """A code that is listed while its answer is on its way is its own call's."""
    gate, client = there.gate()
    async with there.ledger() as ledger:
        task = asyncio.create_task(ledger.issue(client, B, "r"))
        await gate.arrived.wait()
        reconciling = asyncio.create_task(ledger.reconcile(there.client, B))
        await until(lambda: 0.1 in there.time.slept)
        assert not reconciling.done()
        gate.opened.set()
        report = await reconciling
        assert (report.listed, report.adopted, report.foreign) == (1, 0, 0)
        assert (await task).code == there.issued[0]


@pytest.mark.parametrize("done", [True, False])
async def test_answer_to_a_call_that_another_process_gave_up(there, done):
    """A process that was taken for dead still brings its answer: adopted meanwhile it is the same
    voucher; settled as nothing, it is one for whoever waits."""
    gate, client = there.gate()
    if not done:
        there.emulator.fail_next("issue", "TOO_MANY_REQUEST_PER_SECOND")
        gate, client = there.gate()
    ledger = await there.ledger().__aenter__()
    sleeping = asyncio.Event()
    awake = asyncio.Event()

    async def sleep(seconds):
        sleeping.set()
        await awake.wait()

    if not done:
        client = client_of(there.emulator, there.time, sleep=sleep)
    task = asyncio.create_task(ledger.issue(client, B, "r"))
    await (gate.arrived if done else sleeping).wait()
    async with there.ledger() as other:
        report = await other.reconcile(there.client, B, wait=True)
        assert (report.adopted, report.not_issued) == (int(done), int(not done))
    gate.opened.set()
    awake.set()
    assert (await task).code == there.issued[0]
    await ledger.aclose()
    assert there.tables.code_of == {"r": there.issued[0]}


async def test_answer_that_can_not_be_kept_is_an_unknown_outcome(there):
    """A code that is not durable is shown to nobody; it is found in the listing later."""
    store = FailingStore(there.tables)
    async with there.ledger(store=store) as ledger:
        store.fails = (confirm,)
        with pytest.raises(OutcomeUnknownError, match="could not keep it") as caught:
            await ledger.issue(there.client, B, "r")
        assert str(caught.value.__cause__) == "the disk is full"
        store.fails = ()
        await ledger.reconcile(there.client, B)
        assert (await ledger.issue(there.client, B, "r")).code == there.issued[0]
    lines = traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    assert there.issued[0] not in "".join(lines)


async def test_end_that_can_not_be_kept_leaves_the_attempt_to_recovery(there, caplog):
    """When it can't be kept that a call was refused, it counts as unknown in the next process. This
    one knows better, and takes nothing of its own for lost."""
    store = FailingStore(there.tables)
    async with there.ledger(store=store) as ledger:
        store.fails = (end,)
        there.emulator.fail_next("issue", "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY")
        with pytest.raises(OutOfStockError):
            await ledger.issue(there.client, B, "r")
        (attempt,) = await ledger.attempts(B, [AttemptState.SENDING])
        assert f"attempt {attempt.id} ended as rejected, which could not be kept" in caplog.text
        await ledger.recover(B)
        assert await ledger.attempts(B) == []
    async with there.ledger() as ledger:
        assert [one.id for one in await ledger.attempts(B)] == [attempt.id]


async def test_server_that_gives_one_code_twice_stops_the_batch(there):
    """A known code in a fresh answer is an alarm, and given to nobody."""

    class Repeating(Transport):
        first = None

        async def send(self, request):
            answer = await behind.send(request)
            if request.operation == "issue":
                self.first = answer = self.first or answer
            return answer

    behind = there.emulator.transport()
    client = client_of(there.emulator, there.time, transport=Repeating())
    async with there.ledger() as ledger:
        voucher = await ledger.issue(client, B, "r1")
        with pytest.raises(OutcomeUnknownError, match="could not keep it") as caught:
            await ledger.issue(client, B, "r2")
        assert isinstance(caught.value.__cause__, BatchStoppedError)
        assert await reported(ledger) == {"r1": voucher.code, "r2": "unresolved"}
        with pytest.raises(BatchStoppedError, match="static batch"):
            await ledger.issue(client, B, "r3")
        assert await ledger.issue(client, B, "r1") == voucher
    async with there.ledger() as ledger:  # which finds the baseline, and the alarm
        with pytest.raises(BatchStoppedError, match="static batch"):
            await ledger.finish(client, B)


async def test_ledger_in_a_file_is_opened_by_its_url(there, tmp_path):
    """`Ledger.open` gives the same ledger on disk."""
    url = f"sqlite:///{tmp_path}/campaign.db"
    async with Ledger.open(url, mode="exclusive") as ledger:
        voucher = await ledger.issue(there.client, B, "r")
    async with Ledger.open(url, mode="exclusive") as ledger:
        assert await ledger.issue(there.client, B, "r") == voucher
        async with Ledger.open(url, read_only=True) as onlooker:
            assert await reported(onlooker) == {"r": voucher.code}
            assert [(one.key, one.stop_reason) for one in await onlooker.batches()] == [(B, None)]
            with pytest.raises(LedgerError, match="not open for writing"):
                await onlooker.submit(B, "r2")


def test_memory_refuses_a_second_code_for_a_request():
    """As the UNIQUE constraint does in a database."""
    tables = MemoryTables()
    tables.put(Code("c1", B, CodeState.ASSIGNED, CodeOrigin.RESPONSE, 0.0, "r"))
    with pytest.raises(LedgerError, match="second code"):
        tables.put(Code("c2", B, CodeState.ASSIGNED, CodeOrigin.RESPONSE, 0.0, "r"))
    assert "c1" not in repr(tables.codes["c1"])
