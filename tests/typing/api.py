"""The public API as its users type it; pyright in strict mode reports nothing here.

Never run: `assert_type` is checked by the type checker.
"""

import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, assert_never, assert_type

from rm_voucher import (
    APIError,
    Attempt,
    AttemptResult,
    BulkIssue,
    BulkResult,
    BulkStatus,
    BulkSummary,
    Credentials,
    DecodeError,
    Environment,
    Failed,
    FileTokenStore,
    FlowPolicy,
    FlowState,
    Hook,
    Issued,
    IssuedVoucher,
    Limits,
    Member,
    Observer,
    Outcome,
    OutcomeUnknownError,
    Page,
    Pager,
    Proxy,
    Request,
    Response,
    Retryable,
    RetryPolicy,
    Safety,
    Source,
    Timeout,
    TokenStore,
    Transport,
    Unresolved,
    Voucher,
    VoucherBatch,
    VoucherClient,
    VoucherError,
    VoucherStatus,
    VoucherType,
    Work,
    WorkKind,
    WorkResult,
    bulk_issue,
)
from rm_voucher.database import Transaction
from rm_voucher.emulator import Check, Emulator, Fault, FaultPlan, Guesses, Window
from rm_voucher.emulator.merchant import Merchant
from rm_voucher.emulator.scenario.apply import emulator_of
from rm_voucher.emulator.server import Server, serve
from rm_voucher.ledger import (
    Counts,
    HeldAttempt,
    Ledger,
    Reconciliation,
    RequestState,
)
from rm_voucher.otel import OpenTelemetryHook
from rm_voucher.shared import Lease, MemorySharedStore, SharedStore, Snapshot, open_shared_store
from rm_voucher.testing import (
    CallbackReceiver,
    Emulated,
    RecordedRequest,
    RecordedRequests,
    emulated,
)
from rm_voucher.transport.aiohttp import AiohttpTransport
from rm_voucher.transport.memory import MemoryTransport
from rm_voucher.webhooks import (
    CallbackPoller,
    CallbackVerifier,
    EventCounts,
    EventOutcome,
    MemoryEventStore,
    VoucherEvent,
    WebhookRouter,
    open_event_store,
)
from rm_voucher.webhooks.aiohttp import webhook_routes
from rm_voucher.webhooks.asgi import WebhookApp


class Recording(Transport):
    async def send(self, request: Request) -> Response:
        return Response(status=200, body=request.body)


class InMemory:
    """A token store of a user's own, which knows nothing of the protocol's class."""

    def __init__(self) -> None:
        self._kept: bytes | None = None

    @contextlib.asynccontextmanager
    async def lock(self) -> AsyncGenerator[None, None]:
        yield

    async def load(self) -> bytes | None:
        return self._kept

    async def save(self, token: bytes) -> None:
        self._kept = token


def timing(attempt: Attempt) -> Callable[[AttemptResult], None]:
    assert_type(attempt.number, int)
    assert_type(attempt.batch_key, str | None)
    assert_type(attempt.started_at, datetime)

    def after(result: AttemptResult) -> None:
        assert_type(result.outcome, Outcome | None)
        assert_type(result.error_code, str | None)
        assert_type(result.duration_s, float)

    return after


def counting(attempt: Attempt) -> None:
    assert_type(attempt.operation, str)


class Watching(Observer):
    def work(self, work: Work, /) -> Callable[[WorkResult], None]:
        assert_type(work.kind, WorkKind)
        assert_type(work.batch_key, str | None)

        def end(result: WorkResult) -> None:
            assert_type(result.answer, str | None)
            assert_type(result.outcome, Outcome | None)

        return end

    def source(self, client: str, source: Source, /) -> None:
        assert_type([gauge.value for gauge in source.gauges()], list[float])


HOOKS: list[Hook] = [timing, counting, Watching(), OpenTelemetryHook()]
STORES: list[TokenStore] = [InMemory(), FileTokenStore(Path("token"))]


def shared(credentials: Credentials) -> VoucherClient:
    return VoucherClient(
        credentials,
        timeout=Timeout(total_s=60),
        token_store=InMemory(),
        hooks=(timing, counting),
    )


def from_variables(store: SharedStore) -> VoucherClient:
    VoucherClient.from_env(flow=50)  # pyright: ignore[reportArgumentType]
    VoucherClient.from_env(colour="red")  # pyright: ignore[reportCallIssue]
    return VoucherClient.from_env(
        profile="probe.json", shared=store, timeout=Timeout(total_s=60), hooks=[timing]
    )


def make() -> VoucherClient:
    return VoucherClient(
        Credentials("id", "secret", Path("key.pem")),
        environment=Environment.PRODUCTION,
        transport=Recording(),
        retry=RetryPolicy(max_attempts=3),
        timeout=Timeout(connect_s=1, attempt_s=5),
        limits=Limits(max_connections=10),
        flow=FlowPolicy(rate_per_s=50, max_outage_wait_s=600),
    )


def how_fast(client: VoucherClient) -> None:
    state = assert_type(client.flow, FlowState)
    assert_type(state.rate_per_s, float | None)
    assert_type(state.outage_s, float | None)
    assert_type(state.retry_after_s, float)
    assert_type(state.waiting + state.throttled, int)
    FlowPolicy(50)  # pyright: ignore[reportCallIssue]


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
    assert_type(await client.batch("K"), VoucherBatch)
    async for page in client.batches(status="COMPLETED", is_static=False).pages():
        assert_type(page.items, tuple[VoucherBatch, ...])


async def more_operations(client: VoucherClient) -> None:
    assert_type(await client.redeem(["A", "B"]), list[Voucher])
    assert_type(await client.redeem(code for code in "AB"), list[Voucher])
    assert_type(await client.reinstate("CODE", pin="1234", reason="wrong till"), Voucher)
    answer = assert_type(
        await client.request("GET", "/v3/x", query={"a": "b"}, safety=Safety.READ), Response
    )
    assert_type(answer.status, int)
    member = assert_type(client.member("60", "123456789"), Member)
    assert_type(member.vouchers(limit=5), Pager[Voucher])
    assert_type(await member.get("CODE"), Voucher)
    assert_type(await member.redeem("CODE", timeout=Timeout(total_s=30)), Voucher)


async def members() -> AsyncIterator[int]:
    yield 1


async def in_bulk(client: VoucherClient) -> None:
    async with bulk_issue(client, "KEY", ["a", "b"], concurrency=8) as run:
        async for result in run:
            assert_type(result, BulkResult[str])
            assert_type(result.status, BulkStatus)
            assert_type(result.voucher, IssuedVoucher | None)
            match result:
                case Issued(voucher=voucher):
                    assert_type(voucher, IssuedVoucher)
                    assert_type(result.error, None)
                case Failed(error=error):
                    assert_type(error, VoucherError)
                    assert_type(result.was_asked, bool)
                case Unresolved():
                    assert_type(result.error, OutcomeUnknownError)
                    assert_type(result.voucher, IssuedVoucher | None)
                case _:
                    assert_never(result)
            if result.status is BulkStatus.ISSUED:
                assert_type(result.voucher, IssuedVoucher)
    assert_type(run.summary, BulkSummary)
    async with bulk_issue(client, "KEY", members(), on_progress=print, signers=0) as other:
        async for member in other:
            assert_type(member.recipient, int)


async def ledgers(client: VoucherClient) -> None:
    Ledger.open("sqlite:///x.db", settle=5)  # pyright: ignore[reportCallIssue]
    Ledger.open("sqlite:///x.db", mode="own")  # pyright: ignore[reportArgumentType]
    async with Ledger.open("sqlite:///x.db", mode="exclusive", settle_s=60) as ledger:
        assert_type(ledger, Ledger)
        assert_type(await ledger.issue(client, "KEY", "id", content="x"), IssuedVoucher)
        assert_type(await ledger.submit("KEY", "id"), IssuedVoucher | RequestState)
        assert_type(await ledger.finish(client, "KEY"), Counts)
        report = await ledger.reconcile(client, "KEY", wait=True)
        assert_type(report, Reconciliation)
        for held in report.held:
            assert_type(held, HeldAttempt)
            assert_type(held.candidates, tuple[str, ...])
            await ledger.resolve(held.attempt_id, reissue=True)
            await ledger.resolve(held.attempt_id, adopt=IssuedVoucher(code="x"))
        assert_type((await ledger.counts()).spare, int)
        async for request, voucher in ledger.requests():
            assert_type(request.state, RequestState)
            assert_type(voucher, IssuedVoucher | None)
        async with bulk_issue(client, "KEY", [b"a"], ledger=ledger, request_id=bytes.hex) as run:
            assert_type(run, BulkIssue[bytes])
    assert_type(Ledger.in_memory(mode="shared"), Ledger)


async def errors(client: VoucherClient) -> None:
    try:
        await client.issue("KEY")
    except OutcomeUnknownError as unknown:
        assert_type(unknown.sent_at, datetime | None)
        assert_type(unknown.codes, tuple[str, ...])
        assert_type(unknown.voucher, Voucher | IssuedVoucher | None)
        assert_type(unknown.vouchers + unknown.redeemed, tuple[Voucher, ...])
        assert_type(unknown.retryable, Retryable)
    except DecodeError as unreadable:
        assert_type(unreadable.voucher, object | None)
    except APIError as error:
        assert_type(error.retry_after_s, float | None)


async def callbacks(client: VoucherClient) -> None:
    verifier = CallbackVerifier([b"old", Path("new.pem")], url="https://shop.example/rm")
    event = verifier.verify({"X-Signature": "…"}, b"{}")
    assert_type(event, VoucherEvent)
    assert_type(event.code, str)
    assert_type(event.status, VoucherStatus)
    assert_type(event.voucher, Voucher)
    assert_type(event.sent_at, datetime | None)
    verifier.verify([("X-Signature", "…")], "{}")  # pyright: ignore[reportArgumentType]
    router = WebhookRouter(verifier, store=open_event_store("sqlite:///shop.db"), confirm=client)

    @router.on(VoucherStatus.VOID)
    async def used(event: VoucherEvent, tx: Transaction) -> int:
        assert_type(await tx.run(lambda connection: connection.closed), bool)
        return 1

    @router.on("REDEEMED", VoucherStatus.ISSUED)
    async def redeemed(event: VoucherEvent) -> None: ...

    @router.on()  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
    def plain(event: VoucherEvent) -> None: ...

    assert_type(await redeemed(event), None)
    async with router:
        assert_type(await used(event, Transaction), int)  # pyright: ignore[reportArgumentType]
        assert_type(await router.receive({}, b""), int)
        assert_type(await router.dispatch(event), EventOutcome)
        assert_type(await router.store.counts(), EventCounts)
        poller = CallbackPoller(client, router, rate_per_s=2)
        await poller.expect("CODE", "OTHER")
        assert_type(await poller.poll(), int)
    WebhookRouter(verifier, store=MemoryEventStore())
    WebhookRouter(verifier, store=MemoryEventStore(), hooks=[Watching()], on_error=print)
    webhook_routes(router, "/rm")
    WebhookApp(router)


async def doubles() -> None:
    emulator = Emulator(seed=1)
    assert_type(emulator.add_batch("label", quantity=5), VoucherBatch)
    emulator.add_batch("label", codes=["A", "B"], type=VoucherType.CASH, amount_sen=500)
    emulator.add_batch("label", quantity=5, amount=500)  # pyright: ignore[reportCallIssue]
    emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
    emulator.fail_next("issue", "VOUCHER_SOLD_OUT", times=2)
    emulator.faults = FaultPlan(
        rate=0.2,
        kinds=[Fault.THROTTLE, "truncated"],
        windows=[Window(fault=Fault.CLOSED, start_s=1, length_s=2)],
    )
    assert_type(emulator.faults_met, Counter[tuple[str, Fault | str]])
    emulator = Emulator(
        guesses=Guesses(page_size=5), disabled_checks=[Check.TIMESTAMP], batches={"TEA": 5}
    )
    assert_type(emulator.voucher("CODE"), Voucher)
    assert_type(emulator.batch("KEY"), VoucherBatch)
    assert_type(emulator.issued("KEY"), Sequence[str])
    async with emulator.client() as client, serve(emulator) as server:
        assert_type(client, VoucherClient)
        assert_type(server.environment, Environment)
        assert_type(server.variables, Mapping[str, str])
    MemoryTransport(emulator.handle)
    AiohttpTransport(limits=Limits(), proxy=Proxy("http://proxy.test:3128", no_proxy="a.test"))
    assert_type(Proxy.from_env(), Proxy | None)


def merchants(scenario: Path) -> None:
    emulator = assert_type(emulator_of("sells-out", seed=1), Emulator)
    assert_type(emulator_of(scenario), Emulator)
    cafe = assert_type(emulator.merchant("cafe", batches={"TEA": 5}, rate_limit=10), Merchant)
    assert_type(cafe.add_batch("label", quantity=5), VoucherBatch)
    assert_type(cafe.client(), VoucherClient)
    assert_type(emulator.merchants, Sequence[Merchant])
    assert_type(emulator.find_merchant("cafe"), Merchant | None)
    emulator.merchant("cafe", colour="red")  # pyright: ignore[reportCallIssue]
    emulator.merchant("cafe", batches=["TEA"])  # pyright: ignore[reportArgumentType]
    emulator_of(5)  # pyright: ignore[reportArgumentType]


def saved_and_put_back(emulator: Emulator) -> None:
    document = assert_type(emulator.export(), dict[str, Any])
    assert_type(emulator.restore(document), None)
    emulator.restore("saved.json")  # pyright: ignore[reportArgumentType]
    with emulator.snapshot() as nothing:
        assert_type(nothing, None)


async def in_tests() -> None:
    with emulated(scenario="sells-out", seed=1) as rm:
        assert_type(rm, Emulated)
        assert_type(rm.emulator, Emulator)
        assert_type(rm.client, VoucherClient)
        assert_type(rm.client_of("cafe", batches={"TEA": 5}), VoucherClient)
        assert_type(rm.server, Server)
        assert_type(rm.callbacks, CallbackReceiver)
        assert_type(rm.callbacks.vouchers, list[Voucher])
        assert_type(await rm.callbacks.deliver_all(), int)
    emulated("sells-out")  # pyright: ignore[reportCallIssue]
    emulated(scenario=Path("own.toml"))  # pyright: ignore[reportArgumentType]


def what_came(requests: RecordedRequests) -> None:
    issues = assert_type(requests.of("issue").to("cafe").failed, RecordedRequests)
    assert_type(issues.count + len(issues), int)
    assert_type(issues.last, RecordedRequest)
    assert_type(issues[0], RecordedRequest)
    assert_type(issues[:2], list[RecordedRequest])
    for one in issues:
        assert_type(one.headers, Mapping[str, str])
        assert_type(one.body, bytes)
        assert_type(one.status, int | None)
        assert_type(one.code, str | None)
        assert_type(one.fault, str | None)


async def shared_rate(credentials: Credentials) -> None:
    async with open_shared_store("sqlite:///shared.db") as store:
        assert_type(store, SharedStore)
        client = VoucherClient(credentials, shared=store)
        assert_type(client.flow.processes, int | None)
        assert_type(client.flow.store_away_s, float | None)
        snapshot = await store.load("key")
        assert_type(snapshot, Snapshot)
        assert_type(snapshot.content, bytes | None)
        assert_type(await store.swap("key", snapshot.version, b"content"), Snapshot | None)
        assert_type(await store.update("key", lambda found: found.content), Snapshot)
    VoucherClient(credentials, shared=MemorySharedStore())
    VoucherClient(credentials, shared="sqlite:///shared.db")  # pyright: ignore[reportArgumentType]


async def lease(store: SharedStore) -> None:
    held = Lease(store, "key", duration_s=10)
    assert_type(await held.acquire(), bool)
    assert_type(await held.renew(), bool)
    assert_type(held.is_held, bool)
    assert_type(held.fence, int)
    await held.release()
