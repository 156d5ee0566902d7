"""Each kind of fault × operation: what the client gets and what the emulator counts, in memory and
over HTTP the same."""

import asyncio
import contextlib
from collections import Counter
from typing import Any

import pytest
from support.fault_stage import (
    KINDS,
    OPERATIONS,
    SHORT,
    THROTTLED,
    WAYS,
    WRITES,
    Meets,
    stage,
    until,
)

from rm_voucher import (
    ConnectError,
    FlowPolicy,
    InvalidRequestError,
    OutcomeUnknownError,
    RateLimitError,
    RetryPolicy,
    Timeout,
    VoucherError,
    VoucherStatus,
)
from rm_voucher.emulator import Fault, FaultPlan, Window

ONCE = RetryPolicy(max_attempts=1)
UNTOUCHED = {
    "issued": 1,
    "undelivered": 0,
    "tokens": 1,
    "balance": 9,
    "used": 1,
    "status": "ISSUED",
}
# What the work of an operation changes in the books.
DONE: dict[str, dict[str, Any]] = {
    "issue": {"issued": 2, "balance": 8, "used": 2},
    "void": {"status": "VOID"},
    "redeem": {"status": "REDEEMED"},
    "token": {"tokens": 1},
}


def test_table_has_every_fault():
    """No kind of fault is left out of the table."""
    assert set(KINDS) == set(Fault)


def met_by(fault, operation):
    """A token request has no nonce: sent again, it is granted again."""
    is_free = (fault, operation) == (Fault.RESENT, "token")
    return Meets(None, done=True) if is_free else KINDS[fault]


def expected_requests(fault, operation):
    meets = met_by(fault, operation)
    requests = Counter({operation: 1})
    if fault is Fault.CLOSED:
        return Counter()
    if operation == "token":
        requests["get"] += meets.error is None
    elif fault is Fault.TOKEN_REVOKED:
        requests.update([operation, "token"])
    elif operation in ("void", "redeem"):
        requests["get"] += meets.error not in (None, RateLimitError)  # it is read back
    return +requests


def expected_books(fault, operation):
    meets = met_by(fault, operation)
    books: dict[str, Any] = {
        **UNTOUCHED,
        "tokens": 0 if operation == "token" else 1,
        "requests": expected_requests(fault, operation),
        "met": {} if fault is Fault.CLOSED else {(operation, fault): 1},
    }
    if meets.done:
        books |= DONE.get(operation, {})
        books["undelivered"] = int(operation == "issue" and meets.error is not None)
    if (fault, operation) == (Fault.RESENT, "token"):
        books["tokens"] = 2
    return books


async def played(way, fault, operation):
    """Let a call meet the fault; return its result or error, and the books."""
    meets = KINDS[fault]
    timeout = SHORT if meets.waits else Timeout()
    async with stage(way, retry=ONCE, timeout=timeout) as on:
        if operation != "token":
            await on.has_token()
        if fault is Fault.CLOSED:
            await on.close()
        else:
            on.emulator.fail_next(operation, fault)
        try:
            result = await on.call(operation)
        except VoucherError as exc:
            result = exc
        wanted = expected_books(fault, operation)
        # What the server does when it sees that the client has gone.
        await until(lambda: on.books()["undelivered"] == wanted["undelivered"])
        books = on.books()
        on.emulator.advance(10)
        return result, books, on.books(), on.emulator


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("fault", Fault)
async def test_kind(fault, operation, way):
    """The client gets the error that the table names, or the result; the emulator did the work or
    not, at once or later, and its books say so."""
    meets = met_by(fault, operation)
    result, books, later, emulator = await played(way, fault, operation)
    error = result
    # With any other error a change may have been done.
    if operation in WRITES and meets.error not in (None, RateLimitError, ConnectError):
        assert type(result) is OutcomeUnknownError
        error = result.__cause__
    if meets.error is None:
        assert not isinstance(result, VoucherError)
    else:
        assert type(error) is meets.error
        assert getattr(error, "code", None) == meets.code
    assert books == expected_books(fault, operation)
    if meets.late:
        books |= DONE.get(operation, {})
        books["undelivered"] = int(operation == "issue")
    assert later == books
    assert emulator.undelivered == list(emulator.state.issued("B")[1:])[: books["undelivered"]]


def ends(fault):
    """Return what becomes of a void, an issue and a get with the full policy."""
    meets = KINDS[fault]
    if meets.error in (None, RateLimitError):
        return ("VOID", "voucher", "found")
    # A void that was not done is sent again; one that was, or that came meanwhile, stays in doubt,
    # as an issue does in any case.
    void = "unknown, it is VOID" if meets.done or meets.late else "VOID"
    return (void, "unknown", "found")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.CLOSED])
async def test_end_with_retries(fault, way):
    """With the full policy a read always succeeds; a void that was not done too; what may have
    been done is unknown; and no more was done than is known."""
    timeout = SHORT if KINDS[fault].waits else Timeout()
    async with stage(way, timeout=timeout, plan=FaultPlan(late_s=0.2)) as on:
        for operation in ("void", "issue", "get"):
            on.emulator.fail_next(operation, fault)
        found = (await on.client.get(on.code)).status
        assert found == "ISSUED"
        try:
            voided = (await on.call("void")).status
        except OutcomeUnknownError as exc:
            voided = f"unknown, it is {(await on.client.get(on.code)).status}"
            assert exc.voucher is not None
        try:
            issued = await on.call("issue")
        except OutcomeUnknownError:
            issued = None
        assert (voided, "voucher" if issued else "unknown", "found") == ends(fault)
        on.emulator.advance(1)
        wanted = {issued.code} if issued else set()
        done = KINDS[fault].done or KINDS[fault].late
        await until(lambda: len(on.emulator.undelivered) == (0 if issued else int(done)))
        handed_out = wanted | set(on.emulator.undelivered)
        assert set(on.emulator.state.issued("B")) == handed_out | {on.code}
        assert on.emulator.faults_met == {(op, fault): 1 for op in ("void", "issue", "get")}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_closed_for_a_time_with_retries(operation, way):
    """A client that is patient gets through once something listens again."""
    waited = []

    async def sleep(seconds):
        waited.append(seconds)
        on.emulator.advance(20)
        await on.until_closed(closed=len(waited) < 3)

    async with stage(way, sleep=sleep) as on:
        await on.close()
        await on.call(operation)
        assert len(waited) == 3
        assert sum(on.emulator.requests.values()) == 2


@pytest.mark.parametrize("way", WAYS)
async def test_closed_for_a_time(way):
    """While nothing listens there is no connection, a kept-alive one neither; then the same client
    is served at the same place again."""
    async with stage(way, retry=ONCE) as on:
        closed = Window(fault=Fault.CLOSED, start_s=5.1, length_s=2.2)
        on.emulator.faults = FaultPlan(windows=[closed])
        assert (await on.call("get")).status == "ISSUED"
        url, requests = on.url, dict(on.emulator.requests)
        on.emulator.advance(5.1)
        await on.until_closed()
        for operation in ("get", "issue", "void"):
            with pytest.raises(VoucherError) as caught:
                await on.call(operation)
            assert type(caught.value).__name__ == "ConnectError"
        assert dict(on.emulator.requests) == requests
        on.emulator.advance(2.2)
        await on.until_closed(closed=False)
        assert (await on.call("void")).status == "VOID"
        assert on.url == url
        assert on.emulator.faults_met == {}


async def test_closed_breaks_a_request_in_flight():
    """A client that waits for an answer when the listener closes loses its connection, and a
    voucher that was on its way to it is lost."""
    async with stage("http", retry=ONCE) as on:
        plan = FaultPlan(slow_body_s=6000, windows=[Window(fault="closed", start_s=9, length_s=1)])
        on.emulator.faults = plan
        on.emulator.fail_next("issue", Fault.SLOW_BODY)
        call = asyncio.create_task(on.call("issue"))
        await until(lambda: on.emulator.requests["issue"])
        on.emulator.advance(9)
        with pytest.raises(OutcomeUnknownError):
            await call
        await until(lambda: on.emulator.undelivered)
        assert on.emulator.undelivered == [on.emulator.state.issued("B")[1]]


@pytest.mark.parametrize("way", WAYS)
async def test_unknown_path_while_closed(way):
    """A path that is none is not heard of either while nothing listens."""
    async with stage(way, retry=ONCE) as on:
        await on.has_token()
        await on.close()
        with pytest.raises(VoucherError, match="no connection"):
            await on.client.request("GET", "/v3/nothing")
        on.emulator.advance(60)
        await on.until_closed(closed=False)
        with pytest.raises(InvalidRequestError):
            await on.client.request("GET", "/v3/nothing")


@pytest.mark.parametrize("way", WAYS)
async def test_rate_limit(way):
    """Of many requests in a second as many get through as the limit says, the others are throttled
    with RM's error and nothing is done; the next second there is room again."""
    eager = FlowPolicy(adaptive=False)  # or the client would not send what is to be throttled
    async with stage(way, retry=ONCE, flow=eager) as on:
        await on.has_token()
        on.emulator.rate_limit = 20  # of which 2 may come at once
        for second in range(3):
            ends: Counter[object] = Counter()
            for _ in range(4):
                try:
                    ends[(await on.call("issue")) is not None] += 1
                except RateLimitError as exc:
                    assert (exc.code, exc.http_status, exc.retry_after_s) == (THROTTLED, 429, None)
                    ends["throttled"] += 1
            assert ends == {True: 2, "throttled": 2}
            assert len(on.emulator.state.issued("B")) == 1 + 2 * (second + 1)
            on.emulator.advance(1)
        on.emulator.rate_limit = None
        for _ in range(3):
            await on.call("issue")
        assert on.emulator.undelivered == []


async def test_revoked_token_is_one():
    """Only the token that the request carries is revoked: another client's is still good."""
    async with stage("memory") as on, on.emulator.client() as other:
        await on.has_token()
        await other.batches()
        on.emulator.fail_next("get", Fault.TOKEN_REVOKED)
        await on.call("get")
        await other.batches()
        assert on.emulator.requests == {"token": 2, "batches": 2, "get": 2}


async def test_delayed_listing():
    """A delayed listing is as it was `listing_delay_s` ago: what is older is shown."""
    async with stage("memory", plan=FaultPlan(listing_delay_s=5)) as on:
        on.emulator.advance(3)
        younger = (await on.call("issue")).code
        for ahead_s, shown in ((0, []), (2, [on.code]), (3, [on.code, younger])):
            on.emulator.advance(ahead_s)
            on.emulator.fail_next("vouchers", Fault.LISTING_DELAY)
            page = await on.call("vouchers")
            assert [voucher.code for voucher in page.items] == shown
            page = await on.call("vouchers")
            assert [voucher.code for voucher in page.items] == [on.code, younger]


@pytest.mark.parametrize("way", WAYS)
async def test_slow_body_in_time(way):
    """A slow answer that is whole in time is the whole answer, and nothing is lost."""
    async with stage(way, plan=FaultPlan(slow_body_s=0.02), retry=ONCE) as on:
        on.emulator.fail_next("issue", Fault.SLOW_BODY)
        on.emulator.fail_next("get", Fault.SLOW_BODY)
        code = (await on.call("issue")).code
        assert (await on.client.get(code)).status is VoucherStatus.ISSUED
        assert on.emulator.undelivered == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", [Fault.TIMEOUT_BEFORE_COMMIT, Fault.TIMEOUT_AFTER_COMMIT])
async def test_silence_shorter_than_the_time_out(fault, way):
    """A silence that ends before the client's patience ends in a broken connection."""
    async with stage(way, plan=FaultPlan(stall_s=0.02), retry=ONCE) as on:
        on.emulator.fail_next("get", fault)
        with pytest.raises(VoucherError) as caught:
            await on.call("get")
        assert type(caught.value).__name__ == "ResponseLostError"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("fault", "asked_s"),
    [
        (Fault.THROTTLE, 7.0),
        (Fault.THROTTLE_NO_RETRY_AFTER, None),
        (Fault.THROTTLE_NO_BODY, 7.0),
        (Fault.THROTTLE_BARE, None),
    ],
)
async def test_retry_after(fault, asked_s, way):
    """Retry-After is there, or not, as the kind says; a patient client keeps to it."""
    async with stage(way, plan=FaultPlan(retry_after_s=7)) as on:
        on.emulator.fail_next("issue", fault)
        with contextlib.suppress(VoucherError):
            await on.call("issue")
        assert on.time.slept == [asked_s or 0.5]
        assert on.emulator.requests["issue"] == 2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "fault", [fault for fault, meets in KINDS.items() if meets.done and meets.error]
)
async def test_refused_work_is_not_done(fault, way):
    """A request that is refused is refused under a fault too: nothing is done and nothing is
    undelivered, whatever the client makes of it."""
    timeout = SHORT if KINDS[fault].waits else Timeout()
    async with stage(way, retry=ONCE, timeout=timeout) as on:
        await on.has_token()
        on.emulator.fail_next("issue", fault)
        with pytest.raises(VoucherError):
            await on.client.issue("none")
        assert on.books() == {
            **UNTOUCHED,
            "requests": {"issue": 1},
            "met": {("issue", fault): 1},
        }


@pytest.mark.parametrize("way", WAYS)
async def test_error_code_for_the_next_request(way):
    """An error code refuses a request as RM would, and nothing is done."""
    async with stage(way, retry=ONCE) as on:
        await on.has_token()
        on.emulator.fail_next("void", "STORE_NOT_FOUND")
        with pytest.raises(InvalidRequestError) as caught:
            await on.call("void")
        assert caught.value.code == "STORE_NOT_FOUND"
        assert on.books() == {
            **UNTOUCHED,
            "requests": {"void": 1},
            "met": {("void", "STORE_NOT_FOUND"): 1},
        }
