"""A lease in a ledger: kept by who has it, and missed by who stood still."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.doubles import FakeTime

from rm_voucher import VoucherClient
from rm_voucher.database import SqlDatabase
from rm_voucher.exceptions import ConnectError, LedgerError
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.leases import LASTS_S, Lease
from rm_voucher.ledger.sql.guard import FileGuard
from rm_voucher.service.client import issue_call


async def test_holder_that_stood_still_finds_out(
    ledger: Ledger, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It renews in time, and without a question when it has just done so."""
    lease = Lease(ledger.store, ledger.clock, "listing")
    assert await lease.take()

    async def others(*_: object) -> bool:
        return False

    monkeypatch.setattr(ledger.store, "take_lease", others)
    await lease.keep()
    time.now += LASTS_S
    with pytest.raises(LedgerError, match="stood still"):
        await lease.keep()


async def test_call_that_comes_while_the_ledger_is_closed(
    make_ledger: Callable[..., Ledger], make_client: Callable[..., VoucherClient]
) -> None:
    """It is given up: nobody would wait for it."""
    client = make_client(print)
    async with make_ledger() as ledger:
        pass
    with pytest.raises(ConnectError, match="the ledger is being closed"):
        await ledger.sender._start_single(client, issue_call(client.caller, "B"), "", "r")


async def test_file_whose_opening_failed_can_be_opened(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock is let go, though the connections that it shares stay open."""
    async with SqlDatabase(f"sqlite:///{tmp_path}/ledger.db") as database:
        real = FileGuard.bind
        with monkeypatch.context() as broken:

            def bind(guard: FileGuard, commits: int | None, ledger_id: str) -> None:
                if commits is not None:
                    raise LedgerError("no room")
                real(guard, commits, ledger_id)

            broken.setattr(FileGuard, "bind", bind)
            with pytest.raises(LedgerError, match="no room"):
                await Ledger.open(database, mode="exclusive", namespace="a").__aenter__()
        async with Ledger.open(database, mode="exclusive", namespace="a") as ledger:
            assert await ledger.batches() == []
