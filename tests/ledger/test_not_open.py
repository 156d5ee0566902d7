"""A ledger in a database that is not open says so, whatever it is asked."""

import pytest

from rm_voucher import LedgerError
from rm_voucher.ledger import Ledger


async def first(results):
    return await anext(aiter(results), None)


CALLS = {
    "submit": lambda ledger: ledger.submit("TEA", "order 1"),
    "counts": lambda ledger: ledger.counts(),
    "backlog": lambda ledger: ledger.backlog(),
    "attempts": lambda ledger: ledger.attempts(),
    "batches": lambda ledger: ledger.batches(),
    "stop_reason": lambda ledger: ledger.stop_reason(),
    "requests": lambda ledger: first(ledger.requests()),
    "find": lambda ledger: first(ledger.find(["order 1"])),
    "recover": lambda ledger: ledger.recover(),
    "account": lambda ledger: ledger.account(),
    "namespaces": lambda ledger: ledger.namespaces(),
}


@pytest.mark.parametrize("name", CALLS)
async def test_ledger_that_is_not_open_raises(name, tmp_path):
    """Before it is opened, and after it is closed."""
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    with pytest.raises(LedgerError):
        await CALLS[name](ledger)
    async with ledger:
        await CALLS[name](ledger)
    with pytest.raises(LedgerError):
        await CALLS[name](ledger)
