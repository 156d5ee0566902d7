"""Twelve mistakes that a type checker finds before anybody runs them. Never run.

Each line that ends in ``# error`` is an error in mypy and in pyright, and no other line is
(tests/project/test_typing.py).
"""

from rm_voucher import (
    BulkResult,
    Issued,
    OutcomeUnknownError,
    Timeout,
    VoucherBatch,
    VoucherClient,
)
from rm_voucher.emulator import Emulator
from rm_voucher.ledger import Ledger
from rm_voucher.testing import emulated
from rm_voucher.webhooks import VoucherEvent, WebhookRouter


async def issue(client: VoucherClient) -> str:
    code = client.issue("TEA").code  # error
    await client.issue("TEA", timeout=5)  # error
    return code or await client.issue("TEA")  # error


def settings() -> VoucherClient:
    VoucherClient.from_env(timeout_s=5)  # error
    return VoucherClient.from_env().with_options(retry=3)  # error


def code_of(result: BulkResult[str]) -> str:
    if isinstance(result, Issued):
        return result.voucher.code
    return result.voucher.code  # error


def code_in(error: OutcomeUnknownError) -> str:
    return error.voucher.code  # error


def page_size(batch: VoucherBatch) -> int:
    return batch.key + 1  # error


def handlers(router: WebhookRouter) -> None:
    @router.on("VOID")
    async def used(event: VoucherEvent) -> None: ...

    @router.on("REDEEMED")  # error
    async def seen(code: str) -> None: ...


def in_tests(emulator: Emulator) -> None:
    emulator.client(timeout=Timeout(), retries=3)  # error
    emulated(batches=["TEA"])  # error


async def ledger(client: VoucherClient) -> None:
    async with Ledger.open("sqlite:///shop.db", mode="exclusive", settle_s=60) as opened:
        await opened.issue("TEA", "order 1", client)  # error
