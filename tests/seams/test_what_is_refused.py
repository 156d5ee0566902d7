"""What a database refuses for what it is stops its own batch, and nobody else.

What the outcome can do without is left out; a code is told in the error, its attempt is held, and
its batch is stopped, so that no further code of the kind is issued. A database that can't be used
at all is another matter: then nothing more is issued until what is in hand is kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.ledger_clients import B, FailingStore, Place, client_of, place, reported
from support.ledger_rows import runtime_at
from support.postgres import run_sql

from rm_voucher import (
    BatchStoppedError,
    BulkStatus,
    IssuedVoucher,
    LedgerError,
    OutcomeUnknownError,
    Request,
    Response,
    Transport,
    VoucherClient,
    bulk_issue,
)
from rm_voucher.ledger import AttemptState, Ledger
from rm_voucher.ledger.rules.transitions import confirm, end

ODD = "ODD\0CODE"


@pytest.fixture
def there(time) -> Place:
    return place(time)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/l.db"
    return str(request.getfixturevalue("postgres_ledger_url"))


class Gateway(Transport):
    """Changes the answer to the next issue, when it is told how."""

    change: Callable[[dict[str, Any]], int] | None = None

    def __init__(self, behind: Transport) -> None:
        self._behind = behind

    async def send(self, request: Request) -> Response:
        answer = await self._behind.send(request)
        if request.operation != "issue" or self.change is None:
            return answer
        (change, self.change), told = (self.change, None), json.loads(answer.body)
        status = change(told)
        return attrs.evolve(answer, status=status, body=json.dumps(told).encode())


def odd(name: str, value: str = ODD) -> Callable[[dict[str, Any]], int]:
    def change(told: dict[str, Any]) -> int:
        told["item"][name] = value
        return 200

    return change


async def test_code_that_no_database_holds(there, url, time, caplog) -> None:
    """Its error has it, its attempt is held, and its batch is stopped, also for the next process;
    who has a code gets it, and other batches go on."""
    gateway = Gateway(there.emulator.transport())
    client = client_of(there.emulator, time, transport=gateway)
    async with Ledger.open(url, runtime=runtime_at(time)) as ledger:
        first = await ledger.issue(client, B, "r1")
        gateway.change = odd("code")
        with pytest.raises(OutcomeUnknownError, match="held for a person") as caught:
            await ledger.issue(client, B, "r2")
        assert caught.value.code == ODD
        assert isinstance(caught.value.voucher, IssuedVoucher)
        assert list(ledger.unkept) == ["r2"]
        with pytest.raises(BatchStoppedError):
            await ledger.issue(client, B, "r3")
        assert len(there.issued) == 2
        assert await ledger.issue(client, B, "r1") == first
        other = there.emulator.add_batch("other", quantity=10)
        assert (await ledger.issue(client, other.key, "r4")).code
    async with Ledger.open(url, runtime=runtime_at(time)) as ledger:
        with pytest.raises(BatchStoppedError):
            await ledger.issue(client, B, "r3")
        (held,) = await ledger.attempts(B)
        assert held.state is AttemptState.UNRESOLVED
        assert await ledger.issue(client, B, "r1") == first
    assert ODD not in caplog.text
    assert repr(ODD) not in caplog.text


async def test_bulk_run_with_such_a_code(there, url, time) -> None:
    """Its result has it, and those who have a voucher get theirs."""
    gateway = Gateway(there.emulator.transport())
    client = client_of(there.emulator, time, transport=gateway)
    async with Ledger.open(url, runtime=runtime_at(time)) as ledger:
        for number in range(3):
            await ledger.issue(client, B, f"old{number}")
        gateway.change = odd("code")
        names = [*(f"new{number}" for number in range(40)), *(f"old{n}" for n in range(3))]
        async with bulk_issue(client, B, names, ledger=ledger, concurrency=2) as run:
            results = {result.recipient: result async for result in run}
    (unresolved,) = (r for r in results.values() if r.status is BulkStatus.UNRESOLVED)
    assert unresolved.voucher is not None
    assert unresolved.voucher.code == ODD
    assert {results[f"old{number}"].status for number in range(3)} == {BulkStatus.ISSUED}
    failed = [r for r in results.values() if r.status is BulkStatus.FAILED]
    assert failed
    assert {type(result.error) for result in failed} == {BatchStoppedError}


async def test_picture_of_a_code_that_no_database_holds(there, url, time) -> None:
    """The code is kept without it."""
    gateway = Gateway(there.emulator.transport())
    client = client_of(there.emulator, time, transport=gateway)
    async with Ledger.open(url, runtime=runtime_at(time)) as ledger:
        gateway.change = odd("qrUrl", "https://\0")
        voucher = await ledger.issue(client, B, "r1")
        assert voucher == IssuedVoucher(code=there.issued[0])
        assert (await ledger.issue(client, B, "r2")).qr_url


async def test_code_in_an_error_that_no_database_holds(there, url, time) -> None:
    """It is only evidence: the outcome is kept without it, the error has it, and all goes on."""

    def refuse(told: dict[str, Any]) -> int:
        told["item"]["code"] = ODD
        told["error"] = {"code": "INTERNAL_ERROR", "message": "no"}
        return 500

    gateway = Gateway(there.emulator.transport())
    client = client_of(there.emulator, time, transport=gateway)
    async with Ledger.open(url, runtime=runtime_at(time)) as ledger:
        gateway.change = refuse
        with pytest.raises(OutcomeUnknownError) as caught:
            await ledger.issue(client, B, "r1")
        assert caught.value.code == ODD
        assert (await ledger.issue(client, B, "r2")).code
        (lost,) = await ledger.attempts(B)
        assert (lost.state, lost.seen) == (AttemptState.AMBIGUOUS, None)


class RefusingStore(FailingStore):
    """Can keep no code, for what codes are."""

    async def commit(self, transition: Any, item: Any) -> Any:
        if transition is confirm:
            raise LedgerError("a text that this database can't hold")
        return await super().commit(transition, item)


async def test_batch_that_can_not_be_stopped_yet(there) -> None:
    """While the database is away as well, all wait; then its batch is stopped."""
    store = RefusingStore(there.tables)
    store.fails = (end,)
    async with there.ledger(store=store) as ledger:
        with pytest.raises(OutcomeUnknownError) as caught:
            await ledger.issue(there.client, B, "r1")
        assert [caught.value.code] == there.issued
        with pytest.raises(LedgerError, match=r"Nothing more is issued: .* disk is full"):
            await ledger.issue(there.client, B, "r2")
        store.fails = ()
        with pytest.raises(BatchStoppedError):
            await ledger.issue(there.client, B, "r2")
        assert list(ledger.unkept) == ["r1"]
    assert there.posts == 1


class Then(Transport):
    """Lets something happen when the answer to an issue is there."""

    def __init__(self, behind: Transport, happens: Callable[[], Awaitable[None]]) -> None:
        self._behind = behind
        self._happens = happens

    async def send(self, request: Request) -> Response:
        answer = await self._behind.send(request)
        if request.operation == "issue":
            await self._happens()
        return answer


async def assert_all_wait(there: Place, ledger: Ledger, client: VoucherClient) -> None:
    """A code that arrives is told, and nothing more is issued."""
    with pytest.raises(OutcomeUnknownError, match="hand it on only then") as caught:
        await ledger.issue(client, B, "r1")
    assert caught.value.code == there.issued[0]
    with pytest.raises(LedgerError, match="Nothing more is issued"):
        await ledger.issue(there.client, B, "r2")


async def assert_it_goes_on(there: Place, ledger: Ledger) -> None:
    """It is kept, and no batch is stopped."""
    assert (await ledger.issue(there.client, B, "r2")).code
    assert (await reported(ledger))["r1"] == there.issued[0]
    assert [batch.stop_reason for batch in await ledger.batches()] == [None]


async def test_table_that_is_gone_is_nobodys_fault(there, postgres_ledger_url, time) -> None:
    """No batch is stopped for it. Nothing more is issued until the table is back."""
    url = postgres_ledger_url

    async def lose() -> None:
        await run_sql(url, "ALTER TABLE rm_ledger_codes RENAME TO rm_ledger_gone")

    client = client_of(there.emulator, time, transport=Then(there.emulator.transport(), lose))
    async with Ledger.open(url, runtime=runtime_at(time)) as ledger:
        try:
            await assert_all_wait(there, ledger, client)
        finally:
            await run_sql(url, "ALTER TABLE rm_ledger_gone RENAME TO rm_ledger_codes")
        await assert_it_goes_on(there, ledger)


async def test_lock_that_can_not_be_written_is_nobodys_fault(
    there, tmp_path, time, monkeypatch
) -> None:
    """The same for the file beside a ledger's: its disk is full, say."""

    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    async def fill() -> None:
        monkeypatch.setattr(os, "pwrite", refuse)

    client = client_of(there.emulator, time, transport=Then(there.emulator.transport(), fill))
    async with Ledger.open(f"sqlite:///{tmp_path}/l.db", runtime=runtime_at(time)) as ledger:
        await assert_all_wait(there, ledger, client)
        monkeypatch.undo()
        await assert_it_goes_on(there, ledger)
