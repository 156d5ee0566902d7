"""Looks up what a batch's vouchers are worth, for the sheets that say so."""

from __future__ import annotations

from rm_voucher import VoucherBatch
from rm_voucher.cli.connect import is_memory, make_client, make_memory_client
from rm_voucher.cli.interrupts import run_until_interrupted


def find_batch(key: str, environment: str | None) -> VoucherBatch:
    """Return a batch, in one call. Raises `VoucherError`."""
    client = make_memory_client(batch=key) if is_memory(environment) else make_client(environment)
    found: list[VoucherBatch] = []

    async def look() -> None:
        async with client:
            found.append(await client.batch(key))

    run_until_interrupted(look())
    return found[0]
