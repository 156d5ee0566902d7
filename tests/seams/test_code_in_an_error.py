"""A code that comes with an error is evidence.

It proves no success. The ledger keeps it with the attempt, shows it to whoever asks, and takes
exactly it when the listing shows that it was issued, in a shared batch too.
"""

from __future__ import annotations

import pytest
from support.ledger_clients import B, FailingStore, Place, client_of, place, reported

from rm_voucher import (
    BulkStatus,
    IssuedVoucher,
    OutcomeUnknownError,
    Request,
    Response,
    Transport,
    VoucherClient,
    bulk_issue,
)
from rm_voucher.emulator import Fault
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.rules.transitions import end


@pytest.fixture
def there(time) -> Place:
    return place(time)


@pytest.fixture(params=["exclusive", "shared"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Failing(Transport):
    """Answers issues with 500, in whose body is the voucher: one that was issued, or not."""

    def __init__(self, there: Place, code: str | None = None, *, times: int = 1) -> None:
        self.behind = there.emulator.transport()
        self.code = code
        self.times = times

    async def send(self, request: Request) -> Response:
        if request.operation != "issue" or not self.times:
            return await self.behind.send(request)
        self.times -= 1
        body = b'{"item":{"code":"%s","qrUrl":"https://qr.invalid/x"}}' % (self.code or "").encode()
        if self.code is None:
            body = (await self.behind.send(request)).body
        return Response(status=500, body=body)


def client_with(there: Place, transport: Transport) -> VoucherClient:
    return client_of(there.emulator, there.time, transport=transport)


async def unknown(ledger: Ledger, client: VoucherClient, name: str = "r") -> OutcomeUnknownError:
    with pytest.raises(OutcomeUnknownError) as caught:
        await ledger.issue(client, B, name)
    return caught.value


async def test_listed_code_is_taken_for_exactly_its_attempt(there, mode) -> None:
    """Among others that were lost, and that others issued."""
    client = client_with(there, Failing(there))
    async with there.ledger(mode) as ledger:
        there.emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
        await unknown(ledger, there.client, "lost")
        error = await unknown(ledger, client)
        code = there.issued[1]
        assert isinstance(error.voucher, IssuedVoucher)
        assert (error.code, error.voucher.code) == (code, code)
        again = await unknown(ledger, client)  # nothing is sent: it is to be settled
        assert (again.code, again.voucher) == (code, error.voucher)
        assert code not in str(error) + repr(error) + str(again)
        if mode == "shared":
            await there.client.issue(B)  # somebody else's
        report = await ledger.reconcile(there.client, B, wait=True)
        assert (await reported(ledger))["r"] == code
        assert report.adopted == (2 if mode == "exclusive" else 1)
        assert code not in {one for held in report.held for one in held.candidates}


async def test_code_that_was_never_issued_is_nobodys(there, mode) -> None:
    """The error's code is not in the listing: nothing was issued, and the request waits again."""
    client = client_with(there, Failing(there, "NEVERISSUED"))
    async with there.ledger(mode) as ledger:
        assert (await unknown(ledger, client)).code == "NEVERISSUED"
        await ledger.finish(there.client, B)
        assert await reported(ledger) == {"r": there.issued[0]}


async def test_code_that_came_with_two_errors_proves_neither(there) -> None:
    """In a shared batch both are held: nobody can tell whose it is."""
    client = client_with(there, Failing(there))
    async with there.ledger("shared") as ledger:
        await unknown(ledger, client, "r1")
        (code,) = there.issued
        await unknown(ledger, client_with(there, Failing(there, code)), "r2")
        report = await ledger.reconcile(there.client, B, wait=True)
        assert [held.candidates for held in report.held] == [(code,), (code,)]


async def test_held_attempt_whose_code_shows_up_later_has_it(time) -> None:
    """What a person has not decided yet decides itself."""
    there = place(time, listing_delay_s=30.0)
    begun = time.now
    async with there.ledger("shared", settle_s=10.0) as ledger:
        await ledger.prepare(there.client, B)
        time.now = begun + 20
        await there.client.issue(B)  # somebody else's
        time.now = begun + 25
        await unknown(ledger, client_with(there, Failing(there)))
        time.now = begun + 52
        report = await ledger.reconcile(there.client, B)
        assert [held.candidates for held in report.held] == [(there.issued[0],)]
        time.now = begun + 60
        await ledger.reconcile(there.client, B)
        assert await reported(ledger) == {"r": there.issued[1]}


async def test_bulk_run_shows_it_at_its_end(there, mode) -> None:
    """Settled by itself if the listing has it; else the result has it, and is no success."""
    names = ["a", "b", "c"]
    client = client_with(there, Failing(there))
    async with (
        there.ledger(mode) as ledger,
        bulk_issue(client, B, names, ledger=ledger, concurrency=1) as run,
    ):
        results = [result async for result in run]
    assert {result.status for result in results} == {BulkStatus.ISSUED}
    codes = [result.voucher.code for result in results if result.voucher is not None]
    assert sorted(codes) == sorted(there.issued)


async def test_bulk_run_that_is_left_has_it_in_a_result(there) -> None:
    """When nothing can be settled any more."""
    client = client_with(there, Failing(there))
    store = FailingStore(there.tables)
    async with there.ledger(store=store) as ledger:
        run = bulk_issue(client, B, ["a", "b"], ledger=ledger, concurrency=1)
        results = []
        async with run:
            async for result in run:
                results.append(result)
                store.fails = None
        (left,) = [each for each in results if each.recipient == "a"]
        assert left.status is BulkStatus.UNRESOLVED
        assert left.voucher is not None
        assert left.voucher.code == there.issued[0]
        store.fails = ()


async def test_evidence_that_the_ledger_could_not_keep_is_not_shown(there) -> None:
    """A later process could not tell it from a code that was received."""
    store = FailingStore(there.tables)
    client = client_with(there, Failing(there))
    async with there.ledger(store=store) as ledger:
        await ledger.prepare(client, B)
        store.fails = (end,)
        assert (await unknown(ledger, client)).voucher is None
        store.fails = ()
    (row,) = there.tables.attempts.values()
    assert row.seen_code == there.issued[0]
