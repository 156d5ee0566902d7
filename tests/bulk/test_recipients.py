"""Where a bulk issue's recipients come from, and how a source may fail."""

import asyncio
import contextlib

import pytest
from support.bulk_runs import Issuer, some

from rm_voucher import (
    BulkStatus,
    BulkSummary,
    ConfigurationError,
    bulk_issue,
)


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
