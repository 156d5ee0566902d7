"""Bulk issue: bounded, streaming, and nothing lost when it ends early."""

import asyncio
import contextlib
import gc
import tracemalloc
from collections import Counter

import pytest
from support.answers import ISSUED, ok, rm_error
from support.scripted_server import ScriptedServer

from rm_voucher import (
    AuthenticationError,
    BulkStatus,
    BulkSummary,
    ClosedError,
    ConfigurationError,
    ConnectError,
    OutcomeUnknownError,
    OutOfStockError,
    Response,
    ResponseLostError,
    StaticToken,
    Timeout,
    VoucherClient,
    bulk_issue,
)
from rm_voucher.transport.memory import MemoryTransport

LOST = ResponseLostError("issue: lost")
SOLD_OUT = rm_error("VOUCHER_SOLD_OUT", 400)


class Issuer:
    """Issues distinct codes; keeps how many calls were in flight at most."""

    def __init__(self):
        self.issued = []
        self.in_flight = self.most = 0

    async def __call__(self, request):
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        self.issued.append(f"CODE{len(self.issued):06}")
        return ok({"item": {"code": self.issued[-1]}, "code": "SUCCESS"})


class Gate(Issuer):
    """Issues, but only once the gate is open."""

    def __init__(self):
        super().__init__()
        self.open = asyncio.Event()
        self.arrived = asyncio.Semaphore(0)

    async def __call__(self, request):
        self.arrived.release()
        await self.open.wait()
        return await super().__call__(request)


async def arrivals(gate, count):
    for _ in range(count):
        await gate.arrived.acquire()


async def some(iterable):
    for item in iterable:
        await asyncio.sleep(0)
        yield item


@pytest.mark.parametrize(
    "source", [range, lambda n: iter(list(range(n))), lambda n: some(range(n))]
)
@pytest.mark.parametrize("count", [0, 1, 7, 500])
async def test_bulk_each_recipient_gets_one_code(make_client, source, count):
    """From any iterable, plain or async: one result and one code each."""
    issuer = Issuer()
    async with bulk_issue(make_client(issuer), "KEY", source(count), concurrency=8) as run:
        results = [result async for result in run]
    assert sorted(result.recipient for result in results) == list(range(count))
    assert Counter(result.voucher.code for result in results) == Counter(issuer.issued)
    assert {result.status for result in results} <= {BulkStatus.ISSUED}
    assert {result.attempts for result in results} <= {1}
    assert run.summary == BulkSummary(asked=count, issued=count)
    assert run.undelivered == []


@pytest.mark.parametrize("concurrency", [1, 3, 64])
async def test_bulk_concurrency_is_kept(make_client, concurrency):
    """As many calls in flight as allowed, and no more."""
    issuer = Issuer()
    run = bulk_issue(make_client(issuer), "KEY", range(200), concurrency=concurrency)
    async with run:
        assert len([result async for result in run]) == 200
    assert issuer.most == concurrency


async def test_bulk_slow_consumer_slows_the_issuing(make_client):
    """A consumer that takes nothing stops the run at twice the concurrency."""
    issuer, taken = Issuer(), []

    def recipients():
        for number in range(1_000):
            taken.append(number)
            yield number

    async with bulk_issue(make_client(issuer), "KEY", recipients(), concurrency=5) as run:
        for _ in range(500):
            await asyncio.sleep(0)
        assert len(issuer.issued) == 10
        assert len(taken) <= 11
        assert len(asyncio.all_tasks()) < 10 + 5
        assert len([result async for result in run]) == 1_000


async def test_bulk_statuses(make_client):
    """Issued, definitely failed and unresolved are told apart; attempts are counted."""
    down = ConnectError("issue: no connection")
    server = ScriptedServer([ISSUED, down, ISSUED, LOST, *[down] * 6, ISSUED])
    async with bulk_issue(make_client(server), "KEY", [*"abcde"], concurrency=1) as run:
        results = [result async for result in run]
    shown = [(r.recipient, r.status.value, r.attempts, type(r.error)) for r in results]
    assert shown == [
        ("a", "issued", 1, type(None)),
        ("b", "issued", 2, type(None)),
        ("c", "unresolved", 1, OutcomeUnknownError),
        ("d", "failed", 6, ConnectError),
        ("e", "issued", 1, type(None)),
    ]
    assert run.summary == BulkSummary(asked=5, issued=3, failed=1, unresolved=1)
    assert run.summary.in_flight == 0


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (SOLD_OUT, OutOfStockError),
        (rm_error("TOKEN_INVALID", 401), AuthenticationError),
    ],
)
async def test_bulk_hopeless_run_sends_nothing_more(make_client, refusal, error):
    """What is refused to one is refused to all: the rest end failed, without a request each."""
    server = ScriptedServer([ISSUED, refusal])
    async with bulk_issue(make_client(server), "KEY", range(100), concurrency=1) as run:
        results = [result async for result in run]
    assert [r.status.value for r in results] == ["issued"] + ["failed"] * 99
    assert {type(r.error) for r in results[1:]} == {error}
    assert [r.attempts for r in results] == [1, 1] + [0] * 98
    assert run.summary == BulkSummary(asked=100, issued=1, failed=99)


async def test_bulk_bad_batch_key_sends_nothing(make_client):
    """A key that can't be sent fails all, without a request."""
    server = ScriptedServer([])
    async with bulk_issue(make_client(server), "../x", range(3)) as run:
        results = [result async for result in run]
    assert [(r.status.value, r.attempts) for r in results] == [("failed", 0)] * 3


async def test_bulk_progress(make_client):
    """The callback sees counts that add up after each result."""
    seen = []
    server = ScriptedServer([ISSUED, LOST, SOLD_OUT])
    async with bulk_issue(
        make_client(server), "KEY", range(4), concurrency=1, on_progress=seen.append
    ) as run:
        async for _ in run:
            pass
    assert [(s.issued, s.unresolved, s.failed) for s in seen] == [
        (1, 0, 0),
        (1, 1, 0),
        (1, 1, 1),
        (1, 1, 2),
    ]
    assert seen[-1] == run.summary


async def test_bulk_left_early_keeps_what_was_in_flight(make_client):
    """Leaving the loop takes nobody more, waits for the calls in flight and keeps their codes."""
    gate, taken = Gate(), []

    async def recipients():
        for number in range(100):
            taken.append(number)
            yield number

    async with bulk_issue(make_client(gate), "KEY", recipients(), concurrency=4) as run:
        await arrivals(gate, 4)
        gate.open.set()
        async for result in run:
            first = result
            break
    codes = [first.voucher.code] + [result.voucher.code for result in run.undelivered]
    assert sorted(codes) == sorted(gate.issued)
    assert len(taken) == run.summary.asked == run.summary.issued == len(codes) < 14


@pytest.mark.parametrize("times", [1, 3])
async def test_bulk_cancelled_waits_for_calls_in_flight(make_client, times):
    """Cancelling, even repeatedly, aborts no call that was sent, and then takes effect."""
    gate = Gate()
    runs = []

    async def campaign():
        async with bulk_issue(make_client(gate), "KEY", range(100), concurrency=4) as run:
            runs.append(run)
            async for _ in run:
                pass

    task = asyncio.create_task(campaign())
    await arrivals(gate, 4)
    for _ in range(times):
        task.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
    assert not task.done()
    gate.open.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    (run,) = runs
    assert sorted(r.voucher.code for r in run.undelivered) == sorted(gate.issued)
    assert run.summary == BulkSummary(asked=4, issued=4)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_bulk_cancelled_while_leaving_takes_effect(make_client):
    """A cancellation that comes while the block waits for its calls is not swallowed."""
    gate, after = Gate(), []

    async def campaign():
        async with bulk_issue(make_client(gate), "KEY", range(9), concurrency=2):
            await arrivals(gate, 2)
        after.append("not reached")

    task = asyncio.create_task(campaign())
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    gate.open.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (after, len(gate.issued)) == ([], 2)


async def test_bulk_body_error_is_raised_after_the_calls(make_client):
    """An error of the caller's comes through, after the calls in flight have ended."""
    issuer = Issuer()
    run = bulk_issue(make_client(issuer), "KEY", range(100), concurrency=4)
    with pytest.raises(ZeroDivisionError):
        async with run:
            async for _ in run:
                raise ZeroDivisionError
    assert len(run.undelivered) + 1 == len(issuer.issued) == run.summary.asked


async def test_bulk_waiting_source_does_not_hold_the_end(make_client):
    """A source that waits for its next recipient is not waited for."""
    forever = asyncio.Event()

    async def recipients():
        yield 1
        await forever.wait()

    async with bulk_issue(make_client(Issuer()), "KEY", recipients()) as run:
        async for result in run:
            assert result.recipient == 1
            break
    assert run.summary.asked == 1


@pytest.mark.parametrize("is_async", [False, True])
async def test_bulk_source_error_is_raised_after_the_results(make_client, is_async):
    """What the recipients raise is raised to the loop, after every result that there is."""

    def recipients():
        yield from range(3)
        raise ZeroDivisionError

    results = []
    source = some(recipients()) if is_async else recipients()
    run = bulk_issue(make_client(Issuer()), "KEY", source)
    with pytest.raises(ZeroDivisionError):
        async with run:
            async for result in run:
                results.append(result)
    assert len(results) == 3
    assert run.summary == BulkSummary(asked=3, issued=3)


async def test_bulk_progress_error_stops_the_run(make_client):
    """What the callback raises stops the run; no result is lost."""

    def broken(summary):
        raise ZeroDivisionError

    issuer, results = Issuer(), []
    run = bulk_issue(make_client(issuer), "KEY", range(100), concurrency=2, on_progress=broken)
    with pytest.raises(ZeroDivisionError):
        async with run:
            async for result in run:
                results.append(result)
    assert len(results) == len(issuer.issued) == run.summary.issued < 100


async def test_bulk_defect_ends_unresolved_and_is_raised(make_client):
    """An error that is no outcome stops the run; its recipient ends unresolved, not forgotten, with
    all that is known of the attempt."""

    def broken(request):
        raise ZeroDivisionError

    results = []
    run = bulk_issue(make_client(broken), "KEY", range(100), concurrency=2)
    with pytest.raises(ZeroDivisionError):
        async with run:
            async for result in run:
                results.append(result)
    sent = [result for result in results if result.attempts]
    assert sent
    assert {result.status for result in sent} == {BulkStatus.UNRESOLVED}
    assert all("ZeroDivisionError" in str(result.error) for result in sent)
    assert all(result.error.nonce and result.error.attempt_id for result in sent)
    assert all(result.error.sent_at for result in sent)
    assert {result.status for result in results if not result.attempts} <= {BulkStatus.FAILED}
    assert len(results) == run.summary.asked


async def test_bulk_defect_left_early_is_raised_on_leaving(make_client):
    """A defect that no loop met is raised when the block is left."""

    def broken(request):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with bulk_issue(make_client(broken), "KEY", range(2)) as run:
            while not run.summary.unresolved:
                await asyncio.sleep(0)
    assert run.summary.asked == len(run.undelivered) > 0


async def test_bulk_iterating_again_ends_at_once(make_client):
    """After the last result there is none, however often it is asked."""
    async with bulk_issue(make_client(Issuer()), "KEY", range(2)) as run:
        assert len([result async for result in run]) == 2
        assert [result async for result in run] == []


async def test_bulk_needs_its_block(make_client):
    """Iterating without ``async with`` says so."""
    with pytest.raises(ConfigurationError, match="async with"):
        await anext(bulk_issue(make_client(Issuer()), "KEY", range(2)))


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, ZeroDivisionError])
async def test_bulk_progress_error_of_any_kind_ends_the_run(make_client, error):
    """Whatever the callback raises, also at the last result, the run ends and raises it."""

    def broken(summary):
        raise error

    run = bulk_issue(make_client(Issuer()), "KEY", [1], on_progress=broken)
    with pytest.raises(error):
        async with run:
            async for _ in run:
                pass
    assert run.summary.issued == 1


async def test_bulk_left_early_sends_nothing_for_want_of_a_token(credentials):
    """Calls that wait for a token when the block is left are not sent when it comes."""
    arrived, paths = asyncio.Event(), []

    async def slow(request):
        paths.append(request.url.path)
        arrived.set()
        for _ in range(20):
            await asyncio.sleep(0)
        return ok({"accessToken": "t"})

    client = VoucherClient(credentials, transport=MemoryTransport(slow))
    async with client, bulk_issue(client, "KEY", range(5)) as run:
        await arrived.wait()
    assert paths == ["/v1/token"]
    assert [r.status for r in run.undelivered] == [BulkStatus.FAILED] * run.summary.asked


async def test_bulk_client_closed_fails_the_rest_at_once(credentials, time):
    """A closed client sends nothing: the rest end failed, without a wait."""
    client = VoucherClient(credentials, token_source=StaticToken("t"), runtime=time.runtime)
    await client.aclose()
    async with bulk_issue(client, "KEY", range(50)) as run:
        results = [result async for result in run]
    assert {(r.status, type(r.error)) for r in results} == {(BulkStatus.FAILED, ClosedError)}
    assert time.slept == []


@pytest.mark.parametrize("concurrency", [0, -1, "8", 1.5])
async def test_bulk_concurrency_must_be_a_positive_number(make_client, concurrency):
    """No place at all would wait for ever."""
    with pytest.raises(ConfigurationError, match="concurrency"):
        bulk_issue(make_client(Issuer()), "KEY", [], concurrency=concurrency)


async def test_bulk_repr_hides_codes_and_recipients(make_client):
    """A result in a log names neither the code nor who has it."""
    async with bulk_issue(make_client(Issuer()), "KEY", ["me@example.com"]) as run:
        text = repr([result async for result in run])
    assert "CODE000000" not in text
    assert "me@example.com" not in text


async def test_bulk_throttled_answers_are_retried(make_client, time):
    """A throttle costs an attempt, not a recipient."""
    server = ScriptedServer([Response(status=429), ISSUED])
    async with bulk_issue(make_client(server), "KEY", [1]) as run:
        results = [result async for result in run]
    assert (results[0].status, results[0].attempts) == (BulkStatus.ISSUED, 2)


async def cancel_all_but_this():
    """What `asyncio.run` does at its end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("turns", range(12))
async def test_bulk_shut_down_leaves_a_result_for_each(make_client, turns):
    """The event loop ends under a run, at whatever step: everybody who was taken has a result,
    and who may have a voucher is not told that there is none."""
    gate, runs = Gate(), []

    async def campaign():
        async with bulk_issue(make_client(gate), "KEY", range(100), concurrency=4) as run:
            runs.append(run)
            async for _ in run:
                pass

    task = asyncio.create_task(campaign())
    for _ in range(turns):
        await asyncio.sleep(0)
    sent = gate.arrived._value
    await cancel_all_but_this()
    assert task.cancelled()
    for run in runs:
        summary = run.summary
        assert len(run.undelivered) == summary.asked <= 4
        assert summary.unresolved >= sent
        assert summary.in_flight == summary.issued == 0
        assert {result.attempts for result in run.undelivered} <= {0, 1}


async def test_bulk_call_that_never_began_is_definite(make_client):
    """A call that was cancelled before it began sent nothing, and says so."""
    run = bulk_issue(make_client(ScriptedServer([])), "KEY", range(1))
    async with run:
        while not run.summary.asked:
            await asyncio.sleep(0)
        await cancel_all_but_this()
    (result,) = run.undelivered
    assert (result.status, type(result.error)) == (BulkStatus.FAILED, ConnectError)


async def test_bulk_call_ended_by_a_base_exception(make_client):
    """What is not even an `Exception` ends its recipient unresolved and is raised."""

    class AbortError(BaseException):
        pass

    def broken(request):
        raise AbortError

    results = []
    run = bulk_issue(make_client(broken), "KEY", range(9), concurrency=1)
    with pytest.raises(AbortError):
        async with run:
            async for result in run:
                results.append(result)
    (result,) = results
    assert result.status is BulkStatus.UNRESOLVED
    assert (result.attempts, bool(result.error.nonce)) == (1, True)


async def test_bulk_left_early_gives_up_what_waits_to_be_sent_again(make_client, time):
    """A call between two attempts was not done: leaving the block ends it, and sends no more."""
    waiting = asyncio.Event()

    async def sleep(seconds):
        waiting.set()
        await asyncio.Event().wait()

    server = ScriptedServer([Response(status=429)])
    async with bulk_issue(make_client(server, sleep=sleep), "KEY", [1]) as run:
        await waiting.wait()
    (result,) = run.undelivered
    assert (result.status, result.attempts) == (BulkStatus.FAILED, 1)
    assert "given up" in str(result.error)


async def test_bulk_left_early_sends_nothing_again(make_client):
    """A call that is throttled after the block was left is not sent again."""
    gate = Gate()

    async def throttled(request):
        await gate(request)
        return Response(status=429)

    async with bulk_issue(make_client(throttled), "KEY", [1]) as run:
        await arrivals(gate, 1)
        asyncio.get_running_loop().call_later(0, gate.open.set)
    (result,) = run.undelivered
    assert (result.status, result.attempts) == (BulkStatus.FAILED, 1)


async def test_bulk_source_that_swallows_the_end_gets_no_voucher(make_client):
    """A source that goes on after its cancellation: what it still gives is failed, not issued."""

    async def stubborn():
        yield 1
        for number in (2, 3, 4):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            yield number

    issuer = Issuer()
    async with bulk_issue(make_client(issuer), "KEY", stubborn(), concurrency=4) as run:
        async for _ in run:
            break
    assert len(issuer.issued) == 1
    assert [(r.recipient, r.status) for r in run.undelivered] == [(2, BulkStatus.FAILED)]
    assert run.summary == BulkSummary(asked=2, issued=1, failed=1)


async def test_bulk_source_that_ends_in_a_cancellation_is_an_error(make_client):
    """A source that dies of a cancellation has not come to its end, and the run says so."""

    async def dying():
        yield 1
        raise asyncio.CancelledError

    results = []
    run = bulk_issue(make_client(Issuer()), "KEY", dying())
    with pytest.raises(ConfigurationError, match="cancellation"):
        async with run:
            async for result in run:
                results.append(result)
    assert len(results) == run.summary.issued == 1


async def test_bulk_client_closed_meanwhile_leaves_a_result_for_each(credentials):
    """Closing the client under a run neither hangs it nor loses anybody."""
    arrived = asyncio.Event()

    async def hang(request):
        arrived.set()
        await asyncio.Event().wait()

    client = VoucherClient(credentials, transport=MemoryTransport(hang))
    async with bulk_issue(client, "KEY", range(5)) as run:
        await arrived.wait()  # all wait for one token
        await client.aclose()
        results = [result async for result in run]
    assert [(r.status, r.attempts) for r in results] == [(BulkStatus.FAILED, 0)] * 5
    assert {type(r.error) for r in results} == {ClosedError}


async def test_bulk_memory_does_not_grow_with_the_recipients(make_client):
    """Five times the recipients, the same memory: nothing is kept of those who have their code."""

    async def late_bytes(count):
        answer = ok({"item": {"code": "NAklEfbVdV"}, "code": "SUCCESS"})
        held = []
        gc.collect()
        tracemalloc.start()
        client = make_client(lambda _: answer)
        async with bulk_issue(client, "KEY", range(count), signers=0) as run:
            async for result in run:
                if result.recipient % 250 == 0 and result.recipient >= count - 1_000:
                    gc.collect()  # what a call leaves to the collector is not kept
                    held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert run.summary.issued == count
        return min(held)  # more or fewer calls are in the middle of something

    await late_bytes(1_000)  # whatever is made once
    few, many = await late_bytes(1_000), await late_bytes(5_000)
    assert (many - few) / 4_000 < 8  # not even a pointer for each


class Rows:
    """An iterator that goes on after an error, as `csv.reader` does."""

    def __init__(self, count, failing_at, error):
        self.rows = iter(range(count))
        self.failing_at, self.error = failing_at, error
        self.read_after = 0

    def __iter__(self):
        return self

    def __next__(self):
        row = next(self.rows)
        if row == self.failing_at:
            raise self.error
        self.read_after += row > self.failing_at
        return row


@pytest.mark.parametrize("failing_at", [0, 3, 20])
@pytest.mark.parametrize(
    ("error", "raised"),
    [(ValueError(), ValueError), (asyncio.CancelledError(), ConfigurationError)],
)
async def test_bulk_source_is_not_read_after_its_error(make_client, failing_at, error, raised):
    """Nobody after a bad row gets a voucher, whoever met it; all before it have a result, and the
    error is raised at the end."""
    issuer, rows, results = Issuer(), Rows(50, failing_at, error), []
    run = bulk_issue(make_client(issuer), "KEY", rows, concurrency=4)
    with pytest.raises(raised):
        async with run:
            async for result in run:
                results.append(result)
    assert rows.read_after == 0
    assert sorted(result.recipient for result in results) == list(range(failing_at))
    assert len(issuer.issued) == failing_at


async def test_bulk_slow_async_source_and_no_consumer(make_client):
    """Recipients that must be waited for are issued to until the room is full, with no loop yet."""

    async def members():
        for number in range(100):
            await asyncio.sleep(0)
            yield number

    issuer = Issuer()
    async with bulk_issue(make_client(issuer), "KEY", members(), concurrency=3) as run:
        for _ in range(500):
            await asyncio.sleep(0)
        assert len(issuer.issued) == 6
        assert len([result async for result in run]) == 100


async def test_bulk_unresolved_says_its_batch(make_client):
    """A result in doubt and the hooks both know the batch."""
    batches = set()
    client = make_client(ScriptedServer([LOST]), hooks=[lambda a: batches.add(a.batch_key)])
    async with bulk_issue(client, "KEY", ["one"]) as run:
        (result,) = [result async for result in run]
    assert (result.error.batch_key, batches) == ("KEY", {"KEY"})


async def test_bulk_defect_before_anything_is_known_of_the_call(make_client):
    """A clock that fails before a call is made is raised, and the recipient has a result."""

    def broken():
        raise ZeroDivisionError

    client = make_client(Issuer(), monotonic=broken, timeout=Timeout(total_s=60))
    results = []
    with pytest.raises(ZeroDivisionError):
        async with bulk_issue(client, "KEY", ["one"]) as run:
            async for result in run:
                results.append(result)
    assert [(result.status, result.attempts) for result in results] == [(BulkStatus.UNRESOLVED, 0)]


@pytest.mark.parametrize("error", [StopAsyncIteration, StopIteration])
async def test_bulk_error_that_would_pass_for_the_end(make_client, error):
    """What a caller's function raises by mistake is not taken for the end of the results."""

    def broken(summary):
        raise error

    with pytest.raises(RuntimeError, match="on_progress"):
        async with bulk_issue(make_client(Issuer()), "KEY", range(9), on_progress=broken) as run:
            async for _ in run:
                pass
