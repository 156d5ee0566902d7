"""A bulk issue that meets an error which is no outcome: it stops, loses nothing, and raises it."""

import asyncio

import pytest
from support.bulk_runs import Issuer, doubt_of

from rm_voucher import (
    BulkStatus,
    Timeout,
    bulk_issue,
)


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


async def test_bulk_crash_takes_no_recipient_more(make_client):
    """The worker that meets it stops the run itself, before anything else has its turn."""
    taken = []

    def recipients():
        for number in range(100):
            taken.append(number)
            yield number

    def broken(request):
        raise ZeroDivisionError

    run = bulk_issue(make_client(broken), "KEY", recipients(), concurrency=1)
    with pytest.raises(ZeroDivisionError):
        async with run:
            async for _ in run:
                pass
    assert taken == [0]


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
    assert all(doubt_of(result).nonce and doubt_of(result).attempt_id for result in sent)
    assert all(doubt_of(result).sent_at for result in sent)
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
    assert (result.attempts, bool(doubt_of(result).nonce)) == (1, True)


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
