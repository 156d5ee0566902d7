"""The probe can't hurt: its cost is bounded, real vouchers are guarded, and it ends early."""

from __future__ import annotations

import asyncio
import random

import attrs
import pytest
from simulation.loop import VirtualLoop
from support.probe_runs import ALL, KEY, PIN, stage

from rm_voucher import (
    ConfigurationError,
    Credentials,
    Environment,
    Request,
    Response,
    Transport,
    VoucherStatus,
)
from rm_voucher.emulator import Fault, FaultPlan, Guesses, Window
from rm_voucher.probe import Cost, Options, Probe, Report, Verdict
from rm_voucher.probe.budget import Budget, BudgetSpentError
from rm_voucher.probe.catalogue import EXPERIMENTS

QUICK = attrs.evolve(ALL, measure_rate=False)


def assert_in_bounds(there, report: Report) -> None:
    """What the server counted is what was stated at most, and no more than is told."""
    assert len(there.wire.requests) == report.used.calls <= report.stated.calls
    assert there.used <= report.used.vouchers <= report.stated.vouchers


def is_open(report: Report) -> bool:
    return all(one.verdict is Verdict.NOT_DECIDED and one.why for one in report.findings)


# Real vouchers.


@pytest.mark.parametrize(
    "url", ["https://open.revenuemonster.my", "https://gateway.example", "https://1.2.3.4"]
)
@pytest.mark.parametrize(
    "options",
    [Options(), Options(production=True), Options(batch_label="Probe me")],
    ids=["nothing", "no label", "no flag"],
)
def test_real_vouchers_take_two_words(url, options, credentials):
    """A server that is not RM's sandbox takes the flag and the label; else nothing is sent."""
    with pytest.raises(ConfigurationError, match="not RM's sandbox"):
        Probe(credentials, KEY, environment=Environment.at(url), options=options)


@pytest.mark.parametrize("label", ["Probe me", "probe me", "Probeme"])
def test_label_must_be_the_batchs(label):
    """The label is compared with the batch's before anything is used."""
    there = stage()
    real = Environment.PRODUCTION
    urls = real.api_url, real.oauth_url

    class Production(Transport):
        async def send(self, request: Request) -> Response:
            assert str(request.url).startswith(urls)
            return await there.wire.send(request)

    async def main() -> Report:
        options = attrs.evolve(QUICK, production=True, batch_label=label)
        async with Probe(
            there.emulator.credentials,
            KEY,
            environment=real,
            options=options,
            transport=Production(),
            runtime=there.runtime,
        ) as probe:
            return await probe.run()

    report = VirtualLoop(there.clock).run(main)
    assert report.environment == "production"
    if label == "Probe me":
        assert report.stopped == ""
        assert there.used == report.used.vouchers - 1 > 0  # one is the member's
    else:
        assert report.stopped == "the batch's label is another one than was given"
        assert there.used == report.used.vouchers == 0
        assert_in_bounds(there, report)


def test_static_batch_is_not_used_as_the_batch():
    there = stage()
    there.emulator.add_batch("One code", key="ONE", quantity=5, static_code="ONE-CODE")

    async def main() -> Report:
        async with Probe(
            there.emulator.credentials,
            "ONE",
            environment=there.emulator.environment,
            transport=there.emulator.transport(),
            runtime=there.runtime,
        ) as probe:
            return await probe.run()

    report = VirtualLoop(there.clock).run(main)
    assert "the batch is static" in report.stopped
    assert there.used == 0


# The budget.


def test_budget_counts_and_refuses():
    """A request beyond the limit, or after the time, is not sent."""
    now = [0.0]
    budget = Budget(limit=Cost(calls=2, vouchers=1), until=10.0, monotonic=lambda: now[0])
    budget.take_voucher()
    with pytest.raises(BudgetSpentError, match="vouchers"):
        budget.take_voucher()
    budget.return_voucher()
    budget.take_voucher()
    budget.take(Cost(calls=1))
    budget.take(Cost(calls=1))
    with pytest.raises(BudgetSpentError, match="calls"):
        budget.take(Cost(calls=1))
    now[0] = 10.0
    with pytest.raises(BudgetSpentError, match="time"):
        budget.take(Cost(calls=1))
    assert budget.used == Cost(calls=2, vouchers=1)


@pytest.mark.parametrize("calls", [0, 1, 5, 20, 45])
def test_no_request_beyond_the_limit(calls, monkeypatch):
    """Wherever the calls end, the report says so, and what was seen before stands."""
    monkeypatch.setattr(Probe, "cost", Cost(calls=calls, vouchers=7))
    there = stage()
    report = there.run(QUICK)
    assert len(there.wire.requests) == report.used.calls == calls
    assert report.stopped.endswith("the calls that the probe may make are used up")
    assert not wrong_at_default(report)


@pytest.mark.parametrize("vouchers", [0, 1, 2, 4])
def test_no_voucher_beyond_the_limit(vouchers, monkeypatch):
    monkeypatch.setattr(Probe, "cost", Cost(calls=500, vouchers=vouchers))
    there = stage()
    report = there.run(attrs.evolve(QUICK, member=None, expired_batch="UPLOADED"))
    assert there.used == report.used.vouchers == vouchers
    assert report.stopped.endswith("the vouchers that the probe may use are used up")


def test_time_is_bounded():
    there = stage()
    begun_at = there.clock.now
    report = there.run(attrs.evolve(QUICK, max_s=3.0))
    assert report.stopped.endswith("the time for the probe is over")
    assert there.clock.now - begun_at < 10


def wrong_at_default(report: Report) -> list[str]:
    """Return what is named otherwise than an emulator with no option does it."""
    return [one.subject for one in report.findings if one.verdict is Verdict.REFUTED]


# Troubles.


@pytest.mark.parametrize("seed", range(6))
def test_faults(seed):
    """With 30 % faults it ends within its cost, and names nothing that is not so."""
    kinds = [kind for kind in FaultPlan().kinds if kind is not Fault.LISTING_DELAY]
    there = stage(faults=FaultPlan(rate=0.3, seed=seed, kinds=kinds))
    report = there.run(QUICK)
    assert_in_bounds(there, report)
    assert wrong_at_default(report) == []
    for one in report.findings:
        assert one.verdict is not Verdict.NOT_DECIDED or one.why


@pytest.mark.parametrize("fault", [kind for kind in Fault if kind is not Fault.CLOSED])
def test_each_fault_of_an_issue(fault):
    """An issue of unknown outcome is the last one: it counts as used, and the probe ends."""
    there = stage()
    there.emulator.fail_next("issue", fault)
    report = there.run(QUICK)
    assert_in_bounds(there, report)
    is_unknown = there.emulator.faults_met["issue", fault] and "unknown outcome" in report.stopped
    assert bool(is_unknown) == (there.emulator.requests["issue"] == 1)
    assert wrong_at_default(report) == []


def test_outage_in_the_middle():
    there = stage()
    there.emulator.faults = FaultPlan(windows=[Window(fault=Fault.CLOSED, start_s=4, length_s=600)])
    report = there.run(QUICK)
    assert_in_bounds(there, report)
    assert wrong_at_default(report) == []
    assert report.finding("unknown_path_code").verdict is Verdict.CONFIRMED
    assert report.finding("check:rotation").verdict is Verdict.NOT_DECIDED


@pytest.mark.parametrize("quantity", [1, 2, 3, 4])
def test_small_batch(quantity):
    """A batch that ends in the middle leaves open what needed a voucher."""
    there = stage(quantity=quantity, issued=0)
    report = there.run(attrs.evolve(QUICK, sold_out_batch=""))
    left = quantity - 1  # one is the member's
    assert report.stopped == ""
    assert wrong_at_default(report) == []
    assert report.finding("sold_out_code").value == (
        None if left > 1 else "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY"
    )
    assert_in_bounds(there, report)


def test_wrong_credentials():
    there = stage()
    credentials = attrs.evolve(there.emulator.credentials, client_secret="another-secret-word")
    there.emulator.credentials = credentials
    report = there.run(QUICK)
    assert report.stopped.startswith("no token: INVALID_CLIENT (HTTP 401): The client id or secret")
    assert not report.stopped.endswith(".")
    assert report.refuses_credentials
    assert is_open(report)
    assert list(report.not_decided)[-1] == f"the probe ended early: {report.stopped}"
    assert report.used == Cost(calls=1)


def test_no_server():
    """The operation is named once, nothing is doubled, and the credentials are not to blame."""
    there = stage()
    there.emulator.faults = FaultPlan(windows=[Window(fault=Fault.CLOSED, start_s=0, length_s=600)])
    report = there.run(QUICK)
    assert report.stopped == "token: no connection"
    assert not report.refuses_credentials
    # Beside what was left out there is one reason.
    (why,) = (why for why in report.not_decided if "left out" not in why)
    assert why == "the probe ended early: token: no connection"


def test_token_that_is_never_taken():
    """It is a matter of the credentials as well."""
    there = stage(Guesses(token_delay_s=10_000.0))
    report = there.run(attrs.evolve(QUICK, max_s=10_000.0))
    assert report.refuses_credentials
    assert there.used == 0


def test_another_key():
    """The signature is refused: a sentence, and nothing used."""
    there = stage()
    from rm_voucher.emulator.keys import new_private_key

    made = Credentials(
        there.emulator.client_id, there.emulator.client_secret, _another(new_private_key)
    )
    there.emulator.credentials = made
    report = there.run(QUICK)
    assert "INVALID_REQUEST_SIGNATURE" in report.stopped
    assert report.refuses_credentials
    assert there.used == report.used.vouchers == 0


def _another(make) -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=3, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@pytest.mark.parametrize("off_s", [300.0, -300.0])
def test_clock_five_minutes_off(off_s):
    there = stage()
    there.client_offset_s = off_s
    report = there.run(QUICK)
    side = "ahead of" if off_s > 0 else "behind"
    assert report.stopped.startswith(f"this machine's clock is {abs(off_s) - 1:.0f} s {side}") or (
        report.stopped.startswith(f"this machine's clock is {abs(off_s):.0f} s {side}")
    )
    assert is_open(report)
    assert there.used == 0


def test_clock_off_where_answers_have_no_date():
    there = stage(Guesses(sends_date=False))
    there.client_offset_s = 300.0
    report = there.run(QUICK)
    assert "INVALID_TIMESTAMP" in report.stopped
    assert there.used == 0


def test_slow_server_is_asked_slowly():
    """Where the server takes 3 a second, nothing is named wrong, and nothing is used twice."""
    there = stage(rate_limit=3.0)
    report = there.run(ALL)
    assert_in_bounds(there, report)
    rate = {"taken_per_s": 2, "throttled_per_s": 5}
    assert report.decided.get("fact:rate", rate) == rate
    assert set(wrong_at_default(report)) <= {"fact:rate"}


# Ctrl-C.


@pytest.mark.parametrize("seed", range(8))
def test_interrupted_anywhere(seed):
    """Cancelled at any moment it leaves nothing running, and its report is true until then."""
    there = stage()
    after_s = random.Random(seed).uniform(0, 8)

    async def main() -> Report:
        probe = there.probe(QUICK)
        run = asyncio.create_task(probe.run())
        await asyncio.sleep(after_s)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return probe.report()

    report = VirtualLoop(there.clock).run(main)
    assert report.stopped == "it was interrupted"
    assert wrong_at_default(report) == []
    assert_in_bounds(there, report)


def test_interrupted_during_an_issue():
    """An issue that was in flight counts as a voucher."""
    there = stage()
    inner = there.emulator.transport()

    class Stuck(Transport):
        async def send(self, request: Request) -> Response:
            answer = await inner.send(request)
            if request.operation == "issue":
                await asyncio.sleep(1000)
            return answer

    async def main() -> Report:
        probe = there.probe(QUICK, transport=Stuck())
        run = asyncio.create_task(probe.run())
        await asyncio.sleep(100)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        return probe.report()

    report = VirtualLoop(there.clock).run(main)
    assert report.used.vouchers == there.used == 1


# What is left.


def test_voids_are_undone_with_a_pin():
    """With the PIN both vouchers are usable again; without it both are void."""
    for pin in (PIN, ""):
        there = stage()
        there.run(Options(pin=pin))
        statuses = [there.emulator.voucher(code).status for code in there.emulator.issued(KEY)]
        assert statuses.count(VoucherStatus.VOID) == (0 if pin else 2)


def test_experiments_say_what_they_cost():
    """The sum of what each takes is what is stated, but for the token and repeats."""
    there = stage()
    probe = there.probe(attrs.evolve(ALL, measure_idle=True))
    parts = sum((one.cost for one in EXPERIMENTS), Cost())
    assert probe.cost.vouchers == parts.vouchers == 7
    assert probe.cost.calls == parts.calls + 64
