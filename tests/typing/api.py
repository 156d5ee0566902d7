"""The public API as its users type it; pyright in strict mode reports nothing here.

Never run: `assert_type` is checked by the type checker.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import assert_type

from rm_voucher import (
    APIError,
    BulkResult,
    BulkStatus,
    BulkSummary,
    Credentials,
    Environment,
    IssuedVoucher,
    Limits,
    OutcomeUnknownError,
    Page,
    Pager,
    Request,
    Response,
    RetryPolicy,
    Timeout,
    Transport,
    Voucher,
    VoucherBatch,
    VoucherClient,
    VoucherStatus,
    bulk_issue,
)
from rm_voucher.emulator import Emulator
from rm_voucher.transport.aiohttp import AiohttpTransport
from rm_voucher.transport.memory import MemoryTransport


class Recording(Transport):
    async def send(self, request: Request) -> Response:
        return Response(status=200, body=request.body)


def make() -> VoucherClient:
    return VoucherClient(
        Credentials("id", "secret", Path("key.pem")),
        environment=Environment.PRODUCTION,
        transport=Recording(),
        retry=RetryPolicy(max_attempts=3),
        timeout=Timeout(connect_s=1, attempt_s=5),
        limits=Limits(max_connections=10),
    )


async def operations(client: VoucherClient) -> None:
    assert_type(await client.issue("KEY", timeout=Timeout()), IssuedVoucher)
    voucher = assert_type(await client.get("CODE"), Voucher)
    assert_type(voucher.status, VoucherStatus | None)
    assert_type(voucher.amount_rm, Decimal | None)
    assert_type(await client.void("CODE", store_id="1", used_at=datetime.now(UTC)), Voucher)
    listing = assert_type(client.vouchers("KEY"), Pager[Voucher])
    assert_type(await listing, Page[Voucher])
    async for item in listing:
        assert_type(item, Voucher)
    async for page in client.batches(status="COMPLETED", is_static=False).pages():
        assert_type(page.items, tuple[VoucherBatch, ...])


async def members() -> AsyncIterator[int]:
    yield 1


async def in_bulk(client: VoucherClient) -> None:
    async with bulk_issue(client, "KEY", ["a", "b"], concurrency=8) as run:
        async for result in run:
            assert_type(result, BulkResult[str])
            assert_type(result.status, BulkStatus)
            assert_type(result.voucher, IssuedVoucher | None)
    assert_type(run.summary, BulkSummary)
    async with bulk_issue(client, "KEY", members(), on_progress=print) as other:
        async for member in other:
            assert_type(member.recipient, int)


async def errors(client: VoucherClient) -> None:
    try:
        await client.issue("KEY")
    except OutcomeUnknownError as unknown:
        assert_type(unknown.sent_at, datetime | None)
    except APIError as error:
        assert_type(error.retry_after_s, float | None)


async def doubles() -> None:
    emulator = Emulator(seed=1)
    assert_type(emulator.add_batch("label", quantity=5), VoucherBatch)
    async with emulator.client() as client, emulator.serve() as server:
        assert_type(client, VoucherClient)
        assert_type(server.environment, Environment)
    MemoryTransport(emulator.handle)
    AiohttpTransport(limits=Limits())
