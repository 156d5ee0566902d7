"""Bulk issue: bounded, streaming, and one result for each recipient."""

import asyncio
import gc
import tracemalloc
from collections import Counter

import pytest
from support.answers import ISSUED, ok, rm_error
from support.bulk_runs import Gate, Issuer, arrivals, code_of, doubt_of, some
from support.scripted_server import ScriptedServer

from rm_voucher import (
    AuthenticationError,
    BulkStatus,
    BulkSummary,
    ConfigurationError,
    ConnectError,
    InvalidRequestError,
    OutcomeUnknownError,
    OutOfStockError,
    Response,
    ResponseLostError,
    bulk_issue,
)

LOST = ResponseLostError("issue: lost")
SOLD_OUT = rm_error("VOUCHER_SOLD_OUT", 400)


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
    assert Counter(code_of(result) for result in results) == Counter(issuer.issued)
    assert {result.status for result in results} <= {BulkStatus.ISSUED}
    assert {result.attempts for result in results} <= {1}
    assert run.summary == BulkSummary(asked=count, issued=count)
    assert run.undelivered == []


@pytest.mark.parametrize("concurrency", [1, 3, 64])
async def test_bulk_concurrency_is_kept(make_client, concurrency):
    """As many calls in flight as allowed, and no more."""
    gate = Gate()
    run = bulk_issue(make_client(gate), "KEY", range(200), concurrency=concurrency)
    async with run:
        await arrivals(gate, concurrency)
        for _ in range(20):
            await asyncio.sleep(0)
        assert gate.arrived.locked()
        gate.open.set()
        assert len([result async for result in run]) == 200
    assert gate.most <= concurrency


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


async def test_bulk_bad_batch_key_is_refused(make_client):
    """A key that can't be sent is refused before anybody is asked for."""
    with pytest.raises(InvalidRequestError, match="batch_key has a slash"):
        bulk_issue(make_client(ScriptedServer([])), "../x", range(3))


async def test_bulk_progress(make_client):
    """The callback sees counts that add up after each result."""
    seen: list[BulkSummary] = []
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


async def test_bulk_iterating_again_ends_at_once(make_client):
    """After the last result there is none, however often it is asked."""
    async with bulk_issue(make_client(Issuer()), "KEY", range(2)) as run:
        assert len([result async for result in run]) == 2
        assert [result async for result in run] == []


async def test_bulk_needs_its_block(make_client):
    """Iterating without ``async with`` says so."""
    with pytest.raises(ConfigurationError, match="async with"):
        await anext(bulk_issue(make_client(Issuer()), "KEY", range(2)))


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


async def test_bulk_memory_does_not_grow_with_the_recipients(make_client):
    """Ten times the recipients, the same memory: nothing is kept of those who have their code."""

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
    few, many = await late_bytes(1_000), await late_bytes(10_000)
    assert (many - few) / 9_000 < 8  # not even a pointer for each


async def test_bulk_unresolved_says_its_batch(make_client):
    """A result in doubt and the hooks both know the batch."""
    batches = set()
    client = make_client(ScriptedServer([LOST]), hooks=[lambda a: batches.add(a.batch_key)])
    async with bulk_issue(client, "KEY", ["one"]) as run:
        (result,) = [result async for result in run]
    assert (doubt_of(result).batch_key, batches) == ("KEY", {"KEY"})
