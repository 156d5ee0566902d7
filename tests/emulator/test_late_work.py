"""Work that is done after its connection was reset: when, as of when, and what is known of it."""

import contextlib
import itertools

import pytest
from support.fault_stage import ME, WAYS, stage, until
from support.raw_requests import request_to

from rm_voucher import (
    AuthenticationError,
    FlowPolicy,
    OutcomeUnknownError,
    ResponseLostError,
    RetryPolicy,
    VoucherClient,
    VoucherStateError,
    VoucherStatus,
)
from rm_voucher.emulator import Check, Emulator, Fault, FaultPlan
from rm_voucher.emulator.server import serve

ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture(params=WAYS)
async def on(request):
    """A stage where what is late is up to 8 s late, and every call is made once."""
    async with stage(request.param, retry=ONCE, plan=FaultPlan(late_s=8)) as made:
        yield made


async def late(on, operation):
    on.emulator.fail_next(operation, Fault.LATE_COMMIT)
    with pytest.raises(OutcomeUnknownError):
        await on.call(operation)


async def test_late_issue_is_done_at_its_own_time(on):
    """It is not done before it is due, at the latest after `late_s`, and as of the time it was due,
    though nobody looked on then; its code is undelivered."""
    begun = on.time.now
    await late(on, "issue")
    due = on.emulator.virtual_clock.next_due()
    assert begun < due < begun + 8
    on.time.now = due - 0.001
    assert len(on.emulator.state.issued("B")) == 1
    assert on.emulator.undelivered == []
    on.emulator.advance(1000)
    (code,) = on.emulator.undelivered
    assert on.emulator.state.issued("B") == (on.code, code)
    assert on.emulator.voucher(code).assigned_at.timestamp() == pytest.approx(due, abs=1e-5)


async def test_undelivered_looks_at_the_clock_itself(on):
    """What is due is done for who asks for the undelivered codes first."""
    await late(on, "issue")
    on.time.now += 8
    assert len(on.emulator.undelivered) == 1


async def test_state_looks_at_the_clock_itself(on):
    """What is due is done for who looks at the vouchers first, too."""
    await late(on, "issue")
    on.time.now += 8
    assert len(on.emulator.issued("B")) == 2


async def test_all_that_is_late_is_late_enough():
    """Lateness is spread over `late_s` and never beyond."""
    patient = FlowPolicy(failure_threshold=100)  # than the 40 that are late
    async with stage("memory", retry=ONCE, flow=patient, plan=FaultPlan(late_s=8)) as on:
        on.emulator.add_batch("C", key="C", quantity=100)
        on.emulator.fail_next("issue", Fault.LATE_COMMIT, times=40)
        for _ in range(40):
            with pytest.raises(OutcomeUnknownError):
                await on.client.issue("C")
        done = []
        for _ in range(8):
            done.append(len(on.emulator.undelivered))
            on.emulator.advance(1)
        done.append(len(on.emulator.undelivered))
    assert done[0] == 0
    assert done[-1] == 40
    assert all(later > sooner for sooner, later in itertools.pairwise(done))


@pytest.mark.parametrize(
    ("operation", "status"), [("void", VoucherStatus.VOID), ("redeem", VoucherStatus.REDEEMED)]
)
async def test_late_change(on, operation, status):
    """A change is late too: the voucher is first read back unchanged, and changes afterwards, as
    of the time it was due."""
    await late(on, operation)
    due = on.emulator.virtual_clock.next_due()
    assert on.emulator.voucher(on.code).status is VoucherStatus.ISSUED
    on.emulator.advance(8)
    voucher = on.emulator.voucher(on.code)
    assert voucher.status is status
    at = voucher.used_at if operation == "void" else voucher.redeemed_at
    assert at.timestamp() == pytest.approx(due, abs=1)
    assert on.emulator.undelivered == []


async def test_late_void_of_what_is_void(on):
    """A late void that comes after another one is refused, of which nobody is told."""
    await late(on, "void")
    first = await on.call("void")
    on.emulator.advance(8)
    assert on.emulator.voucher(on.code).used_at == first.used_at
    with pytest.raises(VoucherStateError):
        await on.call("void")


async def test_late_issue_of_an_empty_batch(on):
    """A late issue finds what the others left of the batch, which may be nothing."""
    await late(on, "issue")
    for _ in range(9):
        await on.call("issue")
    on.emulator.advance(8)
    assert on.emulator.undelivered == []
    assert len(on.emulator.state.issued("B")) == 10


async def test_late_work_of_a_request_that_may_not_pass(on):
    """Whether a request may pass is looked at when it comes: a refused one is answered, and never
    done."""
    await on.has_token()
    on.emulator.revoke_tokens()
    on.emulator.fail_next("issue", Fault.LATE_COMMIT, times=2)
    on.emulator.fail_next("token", "INVALID_CLIENT", times=2)
    with pytest.raises(AuthenticationError):
        await on.call("issue")
    assert on.emulator.faults_met["issue", Fault.LATE_COMMIT] == 1
    assert on.emulator.virtual_clock.next_due() is None
    on.emulator.advance(8)
    assert len(on.emulator.state.issued("B")) == 1


async def test_reset_forgets_late_work(on):
    """What was to be done late is forgotten at a reset."""
    await late(on, "issue")
    on.emulator.reset()
    on.emulator.advance(8)
    assert on.emulator.state.issued("B") == ()
    assert on.emulator.undelivered == []


async def test_server_does_late_work_by_itself():
    """Over HTTP late work is done in its time though no further request comes and nobody looks."""
    emulator = Emulator(credentials=ME, batches={"B": 10})
    emulator.faults = FaultPlan(late_s=0.05)
    emulator.fail_next("issue", Fault.LATE_COMMIT)
    async with (
        serve(emulator) as server,
        VoucherClient(ME, environment=server.environment, retry=ONCE) as client,
    ):
        with pytest.raises(OutcomeUnknownError):
            await client.issue("B")
        # Neither `state` nor `undelivered`, which would do it themselves.
        await until(lambda: emulator._engine.undelivered)
        assert emulator.virtual_clock.next_due() is None


async def test_server_wakes_up_when_its_clock_is_set_ahead():
    """Over HTTP what falls due by setting the clock ahead is done at once."""
    async with stage("http", retry=ONCE, plan=FaultPlan(late_s=3000)) as on:
        await late(on, "issue")
        on.emulator.advance(3000)
        await until(lambda: on.emulator._engine.undelivered)


def test_listing_is_in_the_order_of_time():
    """What was done late stands where its time is, also on a clock that moves during a request."""
    ticks = itertools.count(1_800_000_000)
    emulator = Emulator(
        disabled_checks=list(Check), batches={"B": 400}, clock=lambda: next(ticks) / 100
    )
    emulator.faults = FaultPlan(rate=0.5, kinds=[Fault.LATE_COMMIT], late_s=0.2)
    request = request_to("POST", "/v3/voucher-batch/B/issue")
    for _ in range(300):
        with contextlib.suppress(ResponseLostError):
            emulator.handle(request)
    listed = emulator.state.stock.batch("B").listed
    times = [record.assigned_at or 0.0 for record in listed]
    assert len(times) > 100
    assert times == sorted(times)
