"""The end of a bulk issue that is left early, cancelled or shut down: nothing is lost."""

import asyncio

import pytest
from support.answers import ok
from support.bulk_runs import Gate, Issuer, arrivals, code_of
from support.scripted_server import ScriptedServer

from rm_voucher import (
    BulkStatus,
    BulkSummary,
    ClosedError,
    ConnectError,
    Response,
    StaticToken,
    VoucherClient,
    bulk_issue,
)
from rm_voucher.runtime import Runtime
from rm_voucher.transport.memory import MemoryTransport


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
    codes = [code_of(first)] + [code_of(result) for result in run.undelivered]
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
    assert sorted(code_of(r) for r in run.undelivered) == sorted(gate.issued)
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


async def test_bulk_client_closed_fails_the_rest_at_once(credentials, time):
    """A closed client sends nothing: the rest end failed, without a wait."""
    runtime = Runtime(sleep=time.sleep)
    client = VoucherClient(credentials, token_source=StaticToken("t"), runtime=runtime)
    await client.aclose()
    async with bulk_issue(client, "KEY", range(50)) as run:
        results = [result async for result in run]
    assert {(r.status, type(r.error)) for r in results} == {(BulkStatus.FAILED, ClosedError)}
    assert time.slept == []


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
