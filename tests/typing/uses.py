"""Thirty things that programs do with the library, as they write them. Never run.

Each type checker that people use takes all of it: mypy, pyright, pyrefly and ty, the first two in
strict mode (tests/project/test_typing.py).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, assert_never

import attrs
import pytest
from aiohttp import web
from fastapi import Depends, FastAPI
from fastapi import Request as HttpRequest
from sqlalchemy import text
from starlette.routing import Route

from rm_voucher import (
    APIError,
    Attempt,
    AttemptResult,
    BulkResult,
    ConnectError,
    Credentials,
    Environment,
    Failed,
    FlowPolicy,
    Issued,
    IssuedVoucher,
    Limits,
    NotFoundError,
    OutcomeUnknownError,
    OutOfStockError,
    Page,
    RateLimitError,
    Retryable,
    RetryPolicy,
    Safety,
    Timeout,
    Token,
    TokenSource,
    Unresolved,
    Voucher,
    VoucherBatch,
    VoucherClient,
    VoucherError,
    VoucherStateError,
    VoucherStatus,
    bulk_issue,
)
from rm_voucher.database import Transaction
from rm_voucher.emulator import Emulator, Fault, FaultPlan, Guesses
from rm_voucher.emulator.server import serve
from rm_voucher.ledger import Ledger, RequestState
from rm_voucher.shared import open_shared_store
from rm_voucher.signing import Signer
from rm_voucher.testing import RecordedRequests, emulated
from rm_voucher.webhooks import (
    CallbackPoller,
    CallbackVerifier,
    VoucherEvent,
    WebhookRouter,
    open_event_store,
)
from rm_voucher.webhooks.aiohttp import webhook_routes
from rm_voucher.webhooks.asgi import WebhookApp
from rm_voucher.worker import Outbox, QueueNames, Worker, WorkerSettings, open_broker
from rm_voucher.worker.messages import VoucherRequest, voucher_message

log = logging.getLogger("shop")


# 1. A client for the life of an application, from the variables.
@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    timeout = Timeout(connect_s=3, attempt_s=10, total_s=15)
    async with VoucherClient.from_env(environment="sandbox", timeout=timeout) as client:
        app.state.vouchers = client
        yield


# 2. A dependency of FastAPI.
def vouchers(request: HttpRequest) -> VoucherClient:
    client: VoucherClient = request.app.state.vouchers
    return client


app = FastAPI(lifespan=lifespan)


# 3. Issue in a route, and answer with what the customer scans.
@app.post("/vouchers/{batch_key}")
async def issue(
    batch_key: str, client: Annotated[VoucherClient, Depends(vouchers)]
) -> dict[str, str]:
    voucher = await client.issue(batch_key)
    return {"qr_url": voucher.qr_url}


# 4. All settings in code, for one merchant of several.
def client_of(merchant: Mapping[str, str], key: Path) -> VoucherClient:
    return VoucherClient(
        Credentials(merchant["client_id"], merchant["client_secret"], key),
        environment=Environment.PRODUCTION if merchant["live"] == "yes" else "sandbox",
        retry=RetryPolicy(max_attempts=3),
        limits=Limits(max_connections=10),
        flow=FlowPolicy(rate_per_s=20),
    )


# 5. Errors, each with its own answer.
async def issue_or_say(client: VoucherClient, batch_key: str) -> str:
    try:
        return (await client.issue(batch_key)).code
    except OutcomeUnknownError as unknown:
        sent_at = unknown.sent_at.isoformat() if unknown.sent_at else "never"
        return f"keep for a person: {unknown.attempt_id}, {unknown.nonce}, {sent_at}"
    except OutOfStockError as error:
        return f"{error.code}: {error.hint}"
    except RateLimitError as error:
        return f"come back in {error.retry_after_s or 60:.0f} seconds"


# 6. The same by a match.
def status_of(error: VoucherError) -> int:
    match error:
        case OutcomeUnknownError():
            return 202
        case RateLimitError(retry_after_s=float(seconds)) if seconds > 60:
            return 429
        case APIError(http_status=int(status)):
            return status
        case ConnectError():
            return 503
        case _:
            return 500


# 7. A worker of one's own: whether to repeat.
async def attempt(call: Callable[[], Awaitable[object]], later: Callable[[float], None]) -> bool:
    try:
        await call()
    except VoucherError as error:
        match error.retryable:
            case Retryable.NEVER:
                log.error("parked: %s", error)
            case Retryable.AFTER_WAIT:
                asked_s = error.retry_after_s if isinstance(error, APIError) else None
                later(asked_s or 5.0)
            case Retryable.READ_BACK:
                log.error("to be looked up: %s", error)
        return False
    return True


# 8. What an unknown outcome carries.
def code_in(error: OutcomeUnknownError) -> str | None:
    if isinstance(error.voucher, IssuedVoucher):
        return error.voucher.code
    return error.voucher.code if error.voucher is not None else error.code


# 9. A bulk redeem, and what is left of it.
async def redeem_all(client: VoucherClient, codes: list[str]) -> list[str | None]:
    try:
        return [voucher.code for voucher in await client.redeem(codes)]
    except OutcomeUnknownError as error:
        seen = {voucher.code: voucher.status for voucher in error.vouchers}
        log.error("%d unknown, of which %d were seen", len(error.codes), len(seen))
        return [voucher.code for voucher in error.redeemed]


# 10. A bulk issue, its results told apart by class.
async def campaign(client: VoucherClient, batch_key: str, members: list[int]) -> dict[int, str]:
    codes: dict[int, str] = {}
    async with bulk_issue(client, batch_key, members, concurrency=8) as run:
        async for result in run:
            match result:
                case Issued(recipient=member, voucher=voucher):
                    codes[member] = voucher.code
                case Failed(error=error, was_asked=True):
                    log.warning("no voucher: %s", error)
                case Failed():
                    log.info("not asked")
                case Unresolved(error=error):
                    log.error("to be settled: %s", error.attempt_id)
                case _:
                    assert_never(result)
    return codes


# 11. The same by status, as a function of a result.
def row(result: BulkResult[str]) -> tuple[str, str, str]:
    code = result.voucher.code if result.voucher is not None else ""
    return result.recipient, result.status.value, code


# 12. Recipients from a database, and progress.
async def recipients(pages: AsyncIterator[list[str]]) -> AsyncIterator[str]:
    async for page in pages:
        for name in page:
            yield name


async def campaign_from(client: VoucherClient, pages: AsyncIterator[list[str]]) -> int:
    async with bulk_issue(client, "K", recipients(pages), on_progress=print) as run:
        results = [result async for result in run]
    return run.summary.issued + len(results) + len(run.undelivered)


# 13. A look-up, with money for people.
async def worth(client: VoucherClient, code: str) -> Decimal:
    try:
        voucher: Voucher = await client.get(code)
    except NotFoundError:
        return Decimal(0)
    if voucher.status is VoucherStatus.VOID or voucher.amount_rm is None:
        return Decimal(0)
    return voucher.amount_rm


# 14. A void at a till, with the instant that proves it.
async def void(client: VoucherClient, code: str, store_id: str) -> bool:
    used_at = datetime.now(UTC)
    try:
        await client.void(code, store_id=store_id, used_at=used_at)
    except VoucherStateError:
        return (await client.get(code)).used_at == used_at
    return True


# 15. A reinstatement, with a person's PIN.
async def reinstate(client: VoucherClient, code: str, pin: str) -> VoucherStatus | None:
    return (await client.reinstate(code, pin=pin, reason="wrong till")).status


# 16. A client with options of its own for some calls.
async def quickly(client: VoucherClient, code: str) -> Voucher:
    quick = client.with_options(timeout=Timeout(total_s=3), retry=RetryPolicy(max_attempts=1))
    return await quick.get(code)


# 17. All vouchers of a batch; pages; one page.
async def codes_of(client: VoucherClient, batch_key: str) -> list[str]:
    codes = [voucher.code async for voucher in client.vouchers(batch_key) if voucher.code]
    async for page in client.vouchers(batch_key).pages():
        codes += [voucher.code for voucher in page.items if voucher.code is not None]
    first: Page[Voucher] = await client.vouchers(batch_key, cursor=None)
    return codes if first.cursor else codes[: first.count]


# 18. Batches by key: each has one.
async def batches(client: VoucherClient) -> dict[str, VoucherBatch]:
    return {batch.key: batch async for batch in client.batches(status="COMPLETED")}


# 19. A loyalty member's vouchers.
async def member_codes(client: VoucherClient, phone: str) -> set[str | None]:
    return {voucher.code async for voucher in client.member("60", phone).vouchers(limit=10)}


# 20. A request that the client has no method for.
async def stores(client: VoucherClient) -> bytes:
    answer = await client.request("GET", "/v3/stores", query={"limit": "10"}, safety=Safety.READ)
    return answer.body if answer.status == 200 else b""


# 21. A ledger: one code for each request.
async def once(client: VoucherClient, order: str) -> str | None:
    async with Ledger.open("sqlite:///shop.db", mode="exclusive", settle_s=60) as ledger:
        answer = await ledger.submit("K", order)
        if isinstance(answer, RequestState):
            await ledger.finish(client, "K")
        voucher = await ledger.issue(client, "K", order, content="order")
        counts = await ledger.counts("K")
        return voucher.code if not counts.spare else None


# 22. A bulk issue through a ledger.
@attrs.frozen
class Order:
    number: int


async def orders(client: VoucherClient, ledger: Ledger, found: list[Order]) -> int:
    async with bulk_issue(
        client, "K", found, ledger=ledger, request_id=lambda order: str(order.number)
    ) as run:
        return sum([isinstance(result, Issued) async for result in run])


# 23. Callbacks: a handler, and one that writes in their transaction.
def callbacks(server_key: Path, client: VoucherClient) -> WebhookRouter:
    verifier = CallbackVerifier([server_key], url="https://shop.example/rm")
    router = WebhookRouter(verifier, store=open_event_store("sqlite:///shop.db"), confirm=client)

    @router.on(VoucherStatus.VOID)
    async def used(event: VoucherEvent, tx: Transaction) -> None:
        await tx.execute(
            text("UPDATE orders SET used = 1 WHERE code = :code"), {"code": event.code}
        )

    @router.on("REDEEMED", VoucherStatus.ISSUED)
    async def seen(event: VoucherEvent) -> None:
        log.info("a voucher is %s since %s", event.status, event.voucher.updated_at)

    return router


# 24. Their routes, in aiohttp and in ASGI; and those that never came.
async def receive(router: WebhookRouter, client: VoucherClient) -> None:
    application = web.Application()
    application.add_routes(webhook_routes(router, "/rm"))
    app.routes.append(Route("/rm", WebhookApp(router)))
    async with router:
        await CallbackPoller(client, router).poll()
        await router.run_due()


# 25. Hooks: before and after each attempt.
def timing(seconds: dict[str, float]) -> Callable[[Attempt], Callable[[AttemptResult], None]]:
    def before(attempt: Attempt) -> Callable[[AttemptResult], None]:
        def after(result: AttemptResult) -> None:
            seconds[attempt.operation] = result.duration_s

        return after

    return before


def watched(credentials: Credentials) -> VoucherClient:
    return VoucherClient(credentials, hooks=[timing({}), lambda attempt: None])


# 26. Processes that share the rate and the token.
async def in_many_processes() -> None:
    async with (
        open_shared_store(os.environ["SHARED_URL"]) as store,
        VoucherClient.from_env(shared=store) as client,
    ):
        log.info("%s calls wait", client.flow.waiting)


# 27. A signer and a source of tokens of one's own.
class Hsm:
    def sign(self, text: bytes) -> bytes:
        return text


class Bought(TokenSource):
    def __init__(self, token: Token) -> None:
        self._token = token

    async def token(self) -> str:
        return self._token.access_token

    def refuse(self, token: str) -> bool:
        return False


def with_own(credentials: Credentials, token: Token) -> VoucherClient:
    signer: Signer = Hsm()
    return VoucherClient(credentials, signer=signer, token_source=Bought(token))


# 28. The emulator in tests, by the fixtures.
@pytest.mark.rm_emulator(batches={"TEA": 5})
async def test_lost_answer(
    rm_emulator: Emulator, rm_client: VoucherClient, rm_requests: RecordedRequests
) -> None:
    rm_emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
    with pytest.raises(OutcomeUnknownError):
        await rm_client.issue("TEA")
    assert rm_requests.of("issue").count == 1


# 29. The same in a block, and over HTTP with faults.
async def test_in_a_block() -> None:
    with emulated(batches={"TEA": 5}, guesses=Guesses(page_size=5), seed=1) as rm:
        await asyncio.gather(*(rm.client.issue("TEA") for _ in range(5)))
        assert await rm.client_of("cafe", batches={"CAKE": 1}).issue("CAKE")
    emulator = Emulator(batches={"TEA": 5}, faults=FaultPlan(rate=0.2))
    async with (
        serve(emulator) as server,
        VoucherClient(emulator.credentials, environment=server.environment) as client,
    ):
        await client.issue("TEA")


# 30. A worker on a queue, which writes in the shop's database.
async def work(client: VoucherClient, ledger: Ledger, stopping: asyncio.Event) -> None:
    names, settings = QueueNames(requests="orders"), WorkerSettings(first_delay_s=5)
    broker = open_broker(os.environ["BROKER"], names=names, settings=settings)
    async with Outbox("sqlite:///shop.db") as outbox:

        async def hand_on(request: VoucherRequest, voucher: IssuedVoucher) -> None:
            async with outbox.once(request.id, voucher_message(request, voucher)) as tx:
                if tx is not None:
                    await tx.execute(text("INSERT INTO orders VALUES (:id)"), {"id": request.id})

        worker = Worker(client, ledger, "K", settings=settings, hand_on=hand_on)
        async with worker.working(broker):
            await stopping.wait()
