"""Rule: whatever ends a run, a generator of recipients is closed, and nothing is lost by that.

A generator holds what its ``finally`` gives back: a file, a cursor, a lock.
"""

import asyncio
import io

import pytest
from support.bulk_runs import Issuer

from rm_voucher import BulkResult, BulkStatus, ConfigurationError, bulk_issue


class Source:
    """Recipients from a generator of either kind, and whether its ``finally`` has run."""

    def __init__(self, *, failing: bool = False) -> None:
        self.closed = 0
        self.failing = failing

    def close(self) -> None:
        self.closed += 1
        if self.failing:
            raise ZeroDivisionError

    def sync(self):
        try:
            yield from range(1000)
        finally:
            self.close()

    async def at_once(self):
        try:
            for number in range(1000):
                yield number
        finally:
            await asyncio.sleep(0)
            self.close()

    async def slow(self):
        try:
            yield 0
            await asyncio.Event().wait()
        finally:
            self.close()

    @property
    def wrapped(self):
        source = self

        class Members:
            def __iter__(self):
                return source.sync()

        return Members()


def codes_in(results) -> list[str]:
    return sorted(result.voucher.code for result in results if result.voucher)


async def leave(how, run, seen):
    async for result in run:
        seen.append(result)
        if how == "error":
            raise LookupError
        if how == "cancelled":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        if how == "break":
            return


@pytest.mark.parametrize("how", ["break", "error", "cancelled"])
@pytest.mark.parametrize("kind", ["sync", "at_once", "slow", "wrapped"])
async def test_source_is_closed(make_client, kind, how):
    """However the block is left, the generator's ``finally`` has run by then; each code is kept."""
    source, issuer = Source(), Issuer()
    seen: list[BulkResult[int]] = []
    given = getattr(source, kind)
    run = bulk_issue(
        make_client(issuer), "KEY", given if kind == "wrapped" else given(), concurrency=3
    )

    async def use():
        async with run:
            await leave(how, run, seen)

    ended = await asyncio.gather(asyncio.create_task(use()), return_exceptions=True)
    expected = {"break": None, "error": LookupError(), "cancelled": asyncio.CancelledError()}[how]
    assert type(ended[0]) is type(expected)
    assert source.closed == 1
    assert codes_in(seen + run.undelivered) == issuer.issued


@pytest.mark.parametrize("kind", ["sync", "at_once"])
async def test_source_that_fails_to_close(make_client, kind):
    """What its ``finally`` raises is raised, after every result has its place."""
    source, issuer = Source(failing=True), Issuer()
    run = bulk_issue(make_client(issuer), "KEY", getattr(source, kind)(), concurrency=3)
    seen: list[BulkResult[int]] = []
    with pytest.raises(ZeroDivisionError):
        async with run:
            await leave("break", run, seen)
    assert codes_in(seen + run.undelivered) == issuer.issued


async def test_source_of_others_stays_open(make_client):
    """An open file belongs to whoever opened it."""
    file = io.StringIO("a\nb\nc\n")
    async with bulk_issue(make_client(Issuer()), "KEY", file, concurrency=1) as run:
        async for result in run:
            assert result.status is BulkStatus.ISSUED
            break
    assert not file.closed


@pytest.mark.parametrize("recipients", [None, 7, object(), Source().sync, Source().at_once])
async def test_source_that_is_none(make_client, recipients):
    """What can't be iterated over is refused at the door, with a sentence."""
    with pytest.raises(ConfigurationError, match="recipients must be a list or the like"):
        bulk_issue(make_client(Issuer()), "KEY", recipients)
