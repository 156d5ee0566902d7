"""Keeping requests and codes in a ledger without a server: the transactions of an issue."""

from __future__ import annotations

import secrets

from support.doubles import FakeTime

from rm_voucher.ledger import Ledger
from rm_voucher.ledger.rules.commands import Ask, Claimed, Confirm, Listed, Pending
from rm_voucher.ledger.rules.settling import list_codes
from rm_voucher.ledger.rules.transitions import ask, confirm
from rm_voucher.models import IssuedVoucher
from rm_voucher.runtime import Runtime

BATCH = "BATCH"


def runtime_at(time: FakeTime) -> Runtime:
    """Return what a ledger needs to live in that time."""
    return Runtime(clock=time.clock, monotonic=time.clock, sleep=time.sleep)


async def begin(ledger: Ledger, batch: str = BATCH, *, reset: bool = False) -> None:
    """Read the baseline of a batch of which nothing was issued."""
    item = Listed(batch=batch, at=ledger.clock.latest_now(), last=True, reset=reset)
    assert await ledger.store.commit(list_codes, item) is None


async def start(
    ledger: Ledger, request_id: str, batch: str = BATCH
) -> IssuedVoucher | Claimed | Pending | Exception:
    """Ask for a code; what is Claimed may be given to `bring`."""
    item = Ask(
        batch=batch,
        request_id=request_id,
        content="",
        attempt_id=secrets.token_hex(6),
        owner=ledger.store.owner,
        at=ledger.clock.latest_now(),
    )
    return await ledger.store.commit(ask, item)


async def bring(
    ledger: Ledger, request_id: str, attempt_id: str, code: str, batch: str = BATCH
) -> IssuedVoucher | Pending | Exception:
    """Confirm an attempt with the code that its answer brought."""
    item = Confirm(
        batch=batch,
        request_id=request_id,
        attempt_id=attempt_id,
        code=code,
        qr_url=None,
        at=ledger.clock.latest_now(),
    )
    return await ledger.store.commit(confirm, item)


async def issue(ledger: Ledger, request_id: str, code: str = "", batch: str = BATCH) -> str:
    """Do both; return the code that the request has in the end."""
    started = await start(ledger, request_id, batch)
    if isinstance(started, Claimed):
        code = code or f"CODE-{secrets.token_hex(6)}"
        started = await bring(ledger, request_id, started.attempt_id, code, batch)
    assert isinstance(started, IssuedVoucher), started
    return started.code


async def codes(ledger: Ledger, batch: str = BATCH) -> dict[str, str | None]:
    """Return each request's code."""
    return {
        request.id: None if voucher is None else voucher.code
        async for request, voucher in ledger.requests(batch)
    }
