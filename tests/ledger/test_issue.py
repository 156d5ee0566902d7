"""`Ledger.issue`, `submit` and `finish` against the emulator."""

import asyncio
import logging

import pytest
from support.ledger_clients import B, client_of, ledger_tasks, place, reported

from rm_voucher import (
    IdempotencyConflictError,
    InvalidRequestError,
    LedgerError,
    NotFoundError,
    OutcomeUnknownError,
    OutOfStockError,
    StaticToken,
    Transport,
    VoucherError,
)
from rm_voucher.emulator import Fault
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.ledger import AttemptState, Ledger, RequestState
from rm_voucher.ledger.rules.commands import Claimed


@pytest.fixture
def there(time):
    return place(time)


async def test_issue_and_again(there):
    """A request has one voucher, whoever asks for it, and however often; also after a restart."""
    async with there.ledger() as ledger:
        voucher = await ledger.issue(there.client, B, "r", content="order 7")
        assert await ledger.issue(there.client, B, "r", content="order 7") == voucher
    async with there.ledger() as ledger:
        assert await ledger.issue(there.client, B, "r", content="order 7") == voucher
        with pytest.raises(IdempotencyConflictError):
            await ledger.issue(there.client, B, "r", content="order 8")
        assert (await ledger.counts()).assigned == 1
    assert there.issued == [voucher.code]


async def test_issue_a_hundred_times_at_once(there, caplog):
    """Who asks at once for one id gets one voucher, from the first call to the batch on."""
    async with there.ledger() as ledger:
        answers = await asyncio.gather(*(ledger.issue(there.client, B, "r") for _ in range(100)))
        again = await asyncio.gather(*(ledger.issue(there.client, B, "r") for _ in range(100)))
    assert len({voucher.code for voucher in (*answers, *again)}) == 1
    assert there.posts == 1
    assert caplog.text == ""


async def test_issue_of_one_id_with_two_contents_at_once(there):
    """Of two contents for one id, one gets the voucher, and the other one is a conflict."""
    async with there.ledger() as ledger:
        calls = [ledger.issue(there.client, B, "r", content=text) for text in "abab"]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert len([one for one in answers if isinstance(one, IdempotencyConflictError)]) == 2
    assert there.posts == 1


async def test_second_content_while_the_first_is_in_flight(there):
    """A conflict is told at once, and does not disturb the call that is running."""
    gate, client = there.gate()
    async with there.ledger() as ledger:
        first = asyncio.create_task(ledger.issue(client, B, "r"))
        await gate.arrived.wait()
        with pytest.raises(IdempotencyConflictError):
            await ledger.issue(client, B, "r", content="x")
        same = asyncio.create_task(ledger.issue(client, B, "r"))
        await asyncio.sleep(0)
        gate.opened.set()
        assert await first == await same
    assert there.posts == 1


async def test_request_in_flight_elsewhere_is_waited_for(there):
    """A call that another one of this process makes for the request is not made twice."""
    gate, client = there.gate()
    async with there.ledger() as ledger:
        first = asyncio.create_task(ledger.issue(client, B, "r"))
        await gate.arrived.wait()
        second = asyncio.create_task(ledger.sender.issue(client, B, "", "r"))
        for _ in range(5):
            await asyncio.sleep(0)
        gate.opened.set()
        assert await first == await second
    assert 0.1 in there.time.slept


async def test_request_in_flight_elsewhere_is_not_waited_for_without_end(there):
    """Who waits for another's call long enough is told that its outcome is unknown."""
    async with there.ledger() as ledger:
        await ledger.prepare(there.client, B)
        assert isinstance(await ledger.sender._ask(B, "", "r", may_start=True), Claimed)
        with pytest.raises(OutcomeUnknownError):
            await ledger.issue(there.client, B, "r")
        assert sum(there.time.slept) == pytest.approx(30)


async def test_cancelling_the_caller_does_not_abort_the_call(there):
    """A POST goes on without its caller, and what it brings is there when asked for again."""
    gate, client = there.gate()
    async with there.ledger() as ledger:
        task = asyncio.create_task(ledger.issue(client, B, "r"))
        await gate.arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.opened.set()
        voucher = await ledger.issue(client, B, "r")
    assert there.issued == [voucher.code]
    assert there.emulator.undelivered == []


async def test_closing_waits_for_calls_in_flight(there):
    """`aclose` returns when what is in flight has been kept; it may be called again."""
    gate, client = there.gate()
    ledger = await there.ledger().__aenter__()
    task = asyncio.create_task(ledger.issue(client, B, "r"))
    await gate.arrived.wait()
    closing = asyncio.create_task(ledger.aclose())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not closing.done()
    gate.opened.set()
    await closing
    await ledger.aclose()
    assert (await task).code == there.issued[0]
    assert there.tables.code_of == {"r": there.issued[0]}


async def test_cancelled_call_itself_leaves_its_attempt_to_recovery(there):
    """When the ledger's own task is cancelled, as by a loop that ends, nothing is forgotten: what
    was in flight becomes ambiguous, and what was not, rejected."""
    gate, client = there.gate()
    async with there.ledger() as ledger:
        task = asyncio.create_task(ledger.issue(client, B, "sent"))
        await gate.arrived.wait()
        for own in ledger_tasks():
            own.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ledger.recover(B)
        (attempt,) = await ledger.attempts(B)
        assert attempt.state is AttemptState.AMBIGUOUS
        gate, client = there.gate("token")
        task = asyncio.create_task(ledger.issue(client, B, "not sent"))
        await gate.arrived.wait()
        for own in ledger_tasks():
            own.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await reported(ledger) == {"sent": "waiting", "not sent": "waiting"}
        assert (await ledger.counts()).waiting == 1


async def test_ledger_that_is_not_open_sends_nothing(there):
    """Before it is entered and after it is closed, a ledger issues nothing."""
    ledger = there.ledger()
    for _ in range(2):
        with pytest.raises(LedgerError, match="not open"):
            await ledger.issue(there.client, B, "r")
        async with ledger:
            pass
    assert there.posts == 0


@pytest.mark.parametrize("request_id", ["", "x" * 1001, "a\nb", None, 7])
async def test_request_id_that_can_not_be(there, request_id):
    """An id is text that can be stored and shown; nothing is kept or sent for another one."""
    async with there.ledger() as ledger:
        with pytest.raises(InvalidRequestError):
            await ledger.issue(there.client, B, request_id)
        with pytest.raises(InvalidRequestError):
            await ledger.submit(B, request_id)
        assert (await ledger.counts()).asked == 0
    assert there.emulator.requests == {}


@pytest.mark.parametrize("settings", [{"mode": "both"}, {"settle_s": -1}, {"skew_s": float("nan")}])
def test_settings_that_can_not_be(settings):
    """A ledger refuses settings that mean nothing."""
    with pytest.raises(ConfigurationError):
        Ledger.in_memory(**settings)


async def test_submit_keeps_a_request_and_finish_issues_to_it(there):
    """What was submitted is durable and sent by `finish`, of another process too."""
    async with there.ledger() as ledger:
        for number in range(3):
            assert await ledger.submit(B, f"r{number}") is RequestState.WAITING
        assert there.emulator.requests == {}
    async with there.ledger() as ledger:
        counts = await ledger.finish(there.client, B, request_ids=["r1", "nobody"])
        assert (counts.assigned, counts.waiting) == (1, 2)
        assert (await ledger.finish(there.client, B, concurrency=1)).assigned == 3
        voucher = await ledger.submit(B, "r0")
        assert await ledger.issue(there.client, B, "r0") == voucher
    assert len(there.issued) == 3


async def test_submit_to_a_batch_that_is_open_still_waits(there):
    """Submitting never starts an attempt."""
    async with there.ledger() as ledger:
        await ledger.prepare(there.client, B)
        assert await ledger.submit(B, "r") is RequestState.WAITING
        assert await ledger.attempts(B, list(AttemptState)) == []


async def test_finish_settles_lost_answers(there):
    """`finish` waits until what got lost can be settled, and issues to who got nothing."""
    faults = [Fault.DROP_BEFORE_COMMIT, Fault.DROP_AFTER_COMMIT, Fault.LATE_COMMIT]
    async with there.ledger() as ledger:
        for number in range(6):
            await ledger.submit(B, f"r{number}")
        for fault in faults:
            there.emulator.fail_next("issue", fault)
        counts = await ledger.finish(there.client, B)
        assert counts.assigned == counts.asked == 6
        assert counts.spare == 0
        assert sorted((await reported(ledger)).values()) == sorted(there.issued)


async def test_finish_in_a_shared_batch_leaves_to_a_person_what_is_in_doubt(there):
    """What may be a lost answer is held; `finish` ends all the same."""
    async with there.ledger("shared") as ledger:
        await ledger.submit(B, "r0")
        await ledger.submit(B, "r1")
        there.emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
        counts = await ledger.finish(there.client, B, concurrency=1)
    assert (counts.assigned, counts.unresolved) == (1, 1)


async def test_finish_stops_when_the_batch_is_sold_out(time):
    """Who was refused has failed, and is issued to when asked again after more was ordered."""
    there = place(time, quantity=2)
    async with there.ledger() as ledger:
        for number in range(5):
            await ledger.submit(B, f"r{number}")
        with pytest.raises(OutOfStockError):
            await ledger.finish(there.client, B, concurrency=1)
        counts = await ledger.counts(B)
        assert (counts.assigned, counts.failed, counts.waiting) == (2, 1, 2)
        there.emulator.state.stock.batch(B).quantity += 3
        failed = [name for name, code in (await reported(ledger)).items() if code == "failed"]
        await ledger.issue(there.client, B, failed[0])
        assert (await ledger.finish(there.client, B)).assigned == 5


@pytest.mark.parametrize(
    ("fault", "times"), [("TOKEN_INVALID", 3), ("TOO_MANY_REQUEST_PER_SECOND", 2)]
)
async def test_refusal_of_the_call_and_not_of_the_request_leaves_it_waiting(there, fault, times):
    """What may be otherwise next time does not fail a request."""
    async with there.ledger() as ledger:
        there.emulator.fail_next("issue", fault, times=times)
        with pytest.raises(VoucherError):
            await ledger.issue(there.client, B, "r")
        assert (await ledger.counts(B)).waiting == 1
        await ledger.issue(there.client, B, "r")
    assert len(there.issued) == 1


@pytest.mark.parametrize("code", ["TOKEN_INVALID", "BAD_REQUEST", "VALIDATION_ERROR"])
async def test_token_that_can_not_be_had_leaves_the_request_waiting(there, code):
    """A refusal to give a token is about the client, not about the request."""
    async with there.ledger() as ledger:
        await ledger.prepare(there.client, B)
        there.client.caller.tokens.refuse(await there.client.caller.tokens.token())
        there.emulator.fail_next("token", code, times=4)
        with pytest.raises(VoucherError):
            await ledger.issue(there.client, B, "r")
        assert (await ledger.counts(B)).waiting == 1
    assert there.posts == 0


async def test_batch_that_is_not_there(there):
    """A batch that does not exist is refused before anything is kept."""
    async with there.ledger() as ledger:
        with pytest.raises(NotFoundError):
            await ledger.issue(there.client, "nothing", "r")
        assert (await ledger.counts()).asked == 0


async def test_static_batch_is_refused(there):
    """A batch with one code for everybody is no use to a ledger."""
    key = there.emulator.add_batch("static", quantity=5, static_code="SAME").key
    async with there.ledger() as ledger:
        with pytest.raises(InvalidRequestError, match="static, with one code for everybody"):
            await ledger.issue(there.client, key, "r")
    assert there.posts == 0


async def test_defect_in_a_call_is_an_unknown_outcome(there):
    """An error that nobody foresaw, as of a transport, may have come after the POST."""

    class Broken(Transport):
        async def send(self, request):
            answer = await behind.send(request)
            if request.operation == "issue":
                raise RuntimeError("defect")
            return answer

    behind = there.emulator.transport()
    client = client_of(there.emulator, there.time, transport=Broken())
    async with there.ledger() as ledger:
        with pytest.raises(RuntimeError):
            await ledger.issue(client, B, "r")
        (attempt,) = await ledger.attempts(B)
        assert attempt.state is AttemptState.AMBIGUOUS


async def test_defect_before_the_turn_starts_no_attempt(there):
    """The token and the turn are waited for before anything is noted but the request."""

    class Broken(StaticToken):
        is_ready = False

        async def token(self):
            if there.emulator.requests["vouchers"]:
                raise RuntimeError("defect")
            return await super().token()

    tokens = Broken(await there.client.caller.tokens.token())
    client = client_of(there.emulator, there.time, token_source=tokens)
    async with there.ledger() as ledger:
        with pytest.raises(RuntimeError):
            await ledger.issue(client, B, "r")
        assert await ledger.attempts(B, list(AttemptState)) == []
        assert (await ledger.counts(B)).waiting == 1


async def test_lost_answer_is_told_with_the_ledgers_attempt(there):
    """The error of a lost answer names the attempt to resolve; so does asking again."""
    async with there.ledger() as ledger:
        there.emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
        ids = []
        for _ in range(2):
            with pytest.raises(OutcomeUnknownError) as caught:
                await ledger.issue(there.client, B, "r")
            ids.append(caught.value.attempt_id)
        assert [attempt.id for attempt in await ledger.attempts(B)] == [ids[0]] == [ids[1]]
    assert there.posts == 1


async def test_nothing_shows_a_code(there, caplog):
    """No log, error or representation of a ledger has a code in it."""
    caplog.set_level(logging.DEBUG)
    async with there.ledger("shared") as ledger:
        voucher = await ledger.issue(there.client, B, "r1")
        there.emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
        with pytest.raises(OutcomeUnknownError) as caught:
            await ledger.issue(there.client, B, "r2")
        report = await ledger.reconcile(there.client, B, wait=True)
        (held,) = report.held
        with pytest.raises(LedgerError) as refused:
            await ledger.resolve(held.attempt_id, adopt=voucher.code)
        rows = list(there.tables.codes.values())
        shown = repr((report, ledger, rows, caught.value, refused.value)) + caplog.text
    assert len(there.issued) == 2
    assert not [code for code in there.issued if code in shown]


@pytest.mark.parametrize("concurrency", [0, "8"])
async def test_finish_without_concurrency_is_refused(there, concurrency):
    """It would wait for ever."""
    async with there.ledger() as ledger:
        with pytest.raises(ConfigurationError, match="concurrency must be a number of calls"):
            await ledger.finish(there.client, B, concurrency=concurrency)
