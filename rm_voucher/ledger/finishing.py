"""Issuing to the requests that wait: to all that rely on no attempt, until there are none."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from rm_voucher.exceptions import ConfigurationError, OutcomeUnknownError, VoucherError
from rm_voucher.ledger.rules.records import Request, RequestState
from rm_voucher.ledger.rules.unit import UnitOfWork
from rm_voucher.redaction import hide_locals
from rm_voucher.service.client import VoucherClient

if TYPE_CHECKING:
    from rm_voucher.ledger.ledger import Ledger

_BLOCK = 500


@hide_locals
async def issue_waiting(
    ledger: Ledger,
    client: VoucherClient,
    batch_key: str,
    only: Sequence[str] | None,
    concurrency: int,
) -> VoucherError | None:
    """Issue to all of a batch, or to those named; return what stopped it for all."""
    # With none, all would wait for ever.
    if not isinstance(concurrency, int) or concurrency < 1:
        raise ConfigurationError("concurrency must be a number of calls, 1 or more.")
    limit = asyncio.Semaphore(concurrency)
    stopped: list[VoucherError] = []

    async def issue(request: Request) -> None:
        async with limit:
            if stopped:
                return
            work = ledger.sender.issue(client, batch_key, request.content, request.id)
            try:
                await asyncio.shield(ledger.start(work))
            except OutcomeUnknownError:
                pass  # to be settled
            except VoucherError as exc:
                stopped.append(exc)

    async for block in _waiting(ledger, batch_key, only):
        await asyncio.gather(*map(issue, block))
        if stopped:
            return stopped[0]
    return None


async def anybody_waits(ledger: Ledger, batch_key: str, only: Sequence[str] | None) -> bool:
    """Return whether a request waits for what its attempt did."""
    if only is None:
        return (await ledger.counts(batch_key)).ambiguous > 0
    for begin in range(0, len(only), _BLOCK):
        rows = await ledger.read(functools.partial(_load, only[begin : begin + _BLOCK]))
        if any(row.state is RequestState.WAITING and row.attempt_id for row in rows):
            return True
    return False


async def _waiting(
    ledger: Ledger, batch_key: str, only: Sequence[str] | None
) -> AsyncIterator[list[Request]]:
    """Iterate over the requests, a block at a time."""
    if only is None:
        while block := await _read(ledger, lambda unit: unit.find_needy(batch_key, _BLOCK)):
            yield block
        return
    for begin in range(0, len(only), _BLOCK):
        yield await _read(ledger, functools.partial(_load, only[begin : begin + _BLOCK]))


def _load(ids: Sequence[str], unit: UnitOfWork) -> list[Request]:
    return unit.load_requests(ids)


async def _read(ledger: Ledger, reading: Callable[[UnitOfWork], list[Request]]) -> list[Request]:
    return [
        row
        for row in await ledger.read(reading)
        if row.state is RequestState.WAITING and row.attempt_id is None
    ]
