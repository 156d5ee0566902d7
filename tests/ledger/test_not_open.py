"""A ledger that is not open says so, whatever it is asked and wherever it is kept."""

import pytest
from support.ledger_clients import B, client_of
from support.ledger_ops import LedgerOps

from rm_voucher import IssuedVoucher, LedgerError, Retryable, bulk_issue
from rm_voucher.emulator import Emulator
from rm_voucher.ledger import Ledger


async def first(results):
    return await anext(aiter(results), None)


async def issue_in_bulk(ledger, client):
    async with bulk_issue(client, B, ["order 1"], ledger=ledger) as run:
        return [result async for result in run]


CALLS = {
    "submit": lambda ledger, _: ledger.submit(B, "order 1"),
    "counts": lambda ledger, _: ledger.counts(),
    "backlog": lambda ledger, _: ledger.backlog(),
    "attempts": lambda ledger, _: ledger.attempts(),
    "batches": lambda ledger, _: ledger.batches(),
    "stop_reason": lambda ledger, _: ledger.stop_reason(),
    "requests": lambda ledger, _: first(ledger.requests()),
    "find": lambda ledger, _: first(ledger.find(["order 1"])),
    "recover": lambda ledger, _: ledger.recover(),
    "account": lambda ledger, _: ledger.account(),
    "namespaces": lambda ledger, _: ledger.namespaces(),
    "prepare": lambda ledger, client: ledger.prepare(client, B),
    "issue": lambda ledger, client: ledger.issue(client, B, "order 1"),
    "bulk_issue": lambda ledger, client: issue_in_bulk(ledger, client),
    "finish": lambda ledger, client: ledger.finish(client, B),
    "reconcile": lambda ledger, client: ledger.reconcile(client, B),
    "baseline": lambda ledger, client: ledger.baseline(client, B),
    "rebind": lambda ledger, client: ledger.rebind(client),
    "keep": lambda ledger, _: ledger.keep(B, "lost", IssuedVoucher(code="C")),
    "resolve": lambda ledger, _: ledger.resolve("a-lost", write_off=True),
}
WRITES = ("submit", "prepare", "issue", "finish", "reconcile", "baseline", "rebind", "keep")


@pytest.fixture
def client(time):
    return client_of(Emulator(batches={B: 5}, clock=time.clock), time)


@pytest.fixture
async def lost(make_ledger, client, time):
    """Leave a ledger with a request whose outcome is unknown."""
    async with make_ledger() as ledger:
        act = LedgerOps(ledger, time)
        await act.baseline()
        await act.start("lost")
        await act.lose("lost")
        await ledger.rebind(client)


@pytest.mark.usefixtures("lost")
@pytest.mark.parametrize("name", CALLS)
async def test_ledger_that_is_not_open_raises(name, make_ledger, client):
    """Before it is opened, and after it is closed."""
    ledger = make_ledger()
    with pytest.raises(
        LedgerError, match=r"^The ledger is not open: use it with 'async with'\.$"
    ) as caught:
        await CALLS[name](ledger, client)
    assert caught.value.retryable is Retryable.NEVER
    async with ledger:
        await CALLS[name](ledger, client)
    with pytest.raises(LedgerError, match=r"^The ledger is not open: use it with 'async with'\.$"):
        await CALLS[name](ledger, client)


@pytest.mark.parametrize("name", CALLS)
async def test_ledger_that_was_never_open_makes_no_file(name, client, tmp_path):
    """To be told that it is not open costs nothing."""
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    with pytest.raises(LedgerError):
        await CALLS[name](ledger, client)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", WRITES)
async def test_ledger_to_look_at_writes_nothing(name, client, tmp_path):
    """Not even whose it is."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    async with Ledger.open(url):
        pass
    async with Ledger.open(url, read_only=True) as looking:
        with pytest.raises(LedgerError, match="not open for writing") as caught:
            await CALLS[name](looking, client)
        assert caught.value.retryable is Retryable.NEVER
        assert await looking.account() is None
