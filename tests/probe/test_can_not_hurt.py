"""The probe can't hurt: whatever the server does, a run ends with a true report or a sentence,
within the cost that it stated, as it is counted at the emulator."""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from simulation.loop import VirtualLoop
from support import probe_runs
from support.mutations import mutate
from support.probe_runs import ALL, KEY, MEMBER, PIN, Stage, stage

from rm_voucher import ConfigurationError, Credentials, Environment, Request, Response, Transport
from rm_voucher.emulator import Fault, FaultPlan, Guesses, Window
from rm_voucher.emulator.keys import new_private_key
from rm_voucher.probe import Options, Probe, Report, Verdict
from rm_voucher.probe import probe as probe_module
from rm_voucher.probe.catalogue import EXPERIMENTS
from rm_voucher.probe.findings import plain
from rm_voucher.probe.session import Session

OPERATIONS = (
    *("issue", "get", "void", "vouchers", "batch", "batches", "reinstate", "redeem"),
    *("member vouchers", "member get", "member redeem", "token"),
)
SINGLE = [fault for fault in Fault if fault is not Fault.CLOSED]
MODEST = attrs.evolve(ALL, measure_rate=False)
NAME = "Aminah binti Ismail"
# With fewer characters a word may be there by chance.
LEAST_CHARS = 6


class Counting(Transport):
    """Counts what comes to an emulator's door, also where nobody listens."""

    def __init__(self, inner: Transport) -> None:
        self.inner, self.calls = inner, 0

    async def send(self, request: Request) -> Response:
        self.calls += 1
        return await self.inner.send(request)

    async def aclose(self) -> None:
        await self.inner.aclose()


@attrs.define(eq=False)
class Counted:
    """A stage, and how its vouchers were before the probe came."""

    there: Stage
    transport: Counting = attrs.field(init=False)
    before: dict[str, str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.transport = Counting(self.there.emulator.transport())
        self.before = self._statuses()

    def _statuses(self) -> dict[str, str]:
        emulator = self.there.emulator
        return {
            code: str(emulator.voucher(code).status)
            for batch in emulator.state.stock.ours()
            for code in emulator.issued(batch.key)
        }

    @property
    def vouchers(self) -> int:
        """How many vouchers are another than they were, once all that is late has happened."""
        self.there.emulator.advance(self.there.emulator.faults.late_s + 1)
        now = self._statuses()
        return sum(now[code] != self.before.get(code) for code in now)


def secrets_of(there: Stage) -> Iterator[str]:
    """Yield what may be in no report."""
    emulator = there.emulator
    yield from (emulator.credentials.client_id, emulator.credentials.client_secret)
    yield from (KEY, PIN, "Probe me", MEMBER[1], NAME, "UPLOADED", "STATIC-CODE-1", "store-1")
    for batch in emulator.state.stock.ours():
        yield from emulator.issued(batch.key)


def assert_within_cost(report: Report, counted: Counted) -> None:
    """Hold that no more was used than was stated, and that the report says how much."""
    assert counted.transport.calls == report.used.calls <= report.stated.calls
    assert counted.vouchers <= report.used.vouchers <= report.stated.vouchers


def assert_true(report: Report, counted: Counted) -> None:
    """Hold that the report is within its cost, tells no secret, and says nothing wrong."""
    there = counted.there
    assert_within_cost(report, counted)
    for text in (report.to_json().decode(), report.to_markdown(), report.guesses_source):
        told = [word for word in secrets_of(there) if len(word) >= LEAST_CHARS and word in text]
        assert told == []
    plan = there.emulator.faults
    excused = EXCUSED.union(*(EXCUSED_BY.get(kind, ()) for kind in plan.kinds if plan.rate))
    wrong = []
    for finding in report.findings:
        if finding.verdict is Verdict.NOT_DECIDED:
            assert finding.why
            continue
        subject = finding.subject
        if subject.startswith("check:"):
            expected = True
        elif ":" not in subject:
            expected = plain(getattr(there.emulator.guesses, subject))
        else:
            continue
        if subject not in excused and finding.value != expected:
            wrong.append(finding)
    assert wrong == []


# What is seen of these is the fault's own doing.
EXCUSED = {"statuses", "throttle_code", "throttle_status", "throttle_retry_after_s"}
EXCUSED_BY = {
    Fault.TOKEN_REVOKED: {"new_token_ends_earlier", "token_delay_s"},
    Fault.LISTING_DELAY: {"listing_delay_s"},
}
RUNS = int(os.environ.get("PROBE_RUNS", "1"))
"""How many times as many runs with faults are made."""


def run_against(there: Stage, options: Options = MODEST, **others: Any) -> Report:
    counted = Counted(there)
    report = there.run(options, transport=counted.transport, **others)
    assert_true(report, counted)
    return report


def troubled(plan: FaultPlan, **options: Any) -> Stage:
    there = stage(**options)
    there.emulator.faults = plan
    return there


def runs(first: int) -> range:
    """Return the seeds of as many runs as are wanted, ``first`` of them by default."""
    return range(first * RUNS)


@pytest.mark.parametrize("fault", SINGLE)
def test_each_fault_on_a_third_of_the_requests(fault: Fault) -> None:
    """Three in ten requests of every operation meet it, those for a token too."""
    for seed in runs(1):
        plan = FaultPlan(rate=0.3, kinds=[fault], seed=seed, operations=OPERATIONS)
        run_against(troubled(plan))


@pytest.mark.long
def test_all_faults_together() -> None:
    """So they do where one request meets this and the next one that."""
    for seed in runs(30):
        plan = FaultPlan(rate=0.3, kinds=SINGLE, seed=seed, operations=OPERATIONS)
        run_against(troubled(plan))


@pytest.mark.parametrize(
    "fault",
    [
        Fault.CLOSED,
        pytest.param(Fault.HTML_PAGE, marks=pytest.mark.long),
        pytest.param(Fault.ERROR_AFTER_COMMIT, marks=pytest.mark.long),
        pytest.param(Fault.TIMEOUT_AFTER_COMMIT, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("start_s", [0, 3, 8])
def test_outage(fault: Fault, start_s: int) -> None:
    """The server is away from the beginning or from the middle on, for good or for a while."""
    for length_s in (5, 60, 100_000):
        window = Window(fault=fault, start_s=start_s, length_s=length_s)
        report = run_against(troubled(FaultPlan(windows=[window])))
        if (start_s, length_s) == (0, 100_000):
            assert report.stopped
            assert report.used.vouchers == 0


@pytest.mark.parametrize("rate_limit", [0.5, 1, 4])
@pytest.mark.parametrize("options", [MODEST, ALL], ids=["modest", "rate"])
def test_throttles(rate_limit: float, options: Options) -> None:
    """A server that takes fewer requests than the probe sends."""
    run_against(stage(rate_limit=rate_limit), options)


@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_small_batch(left: int) -> None:
    """A batch of which hardly anything is left."""
    report = run_against(stage(quantity=6 + left))
    assert report.stopped == ""


@pytest.mark.parametrize("offset_s", [-300, -180, 180, 300])
def test_clock_that_is_off(offset_s: int) -> None:
    """It says by how much, and uses nothing."""
    there = stage()
    there.client_offset_s = offset_s
    report = run_against(there)
    assert re.search(rf"{abs(offset_s)} s|{abs(offset_s) - 1} s", report.stopped)  # Date is whole
    assert report.used.vouchers == 0


def test_clock_that_is_off_on_a_server_that_tells_no_time() -> None:
    """It can't say by how much, and uses nothing."""
    there = stage(Guesses(sends_date=False))
    there.client_offset_s = 300
    report = run_against(there)
    assert report.stopped
    assert report.used.vouchers == 0


def test_wrong_secret() -> None:
    """It ends with RM's word for it, after one request."""
    there = stage()
    there.emulator.credentials = attrs.evolve(there.emulator.credentials, client_secret="another")
    report = run_against(there)
    assert "INVALID_CLIENT" in report.stopped
    assert report.used.vouchers == 0


def test_wrong_key() -> None:
    """Signed with another key nothing is done, and it says so."""
    there = stage()
    mine = there.emulator.credentials
    assert mine is not None
    there.emulator.credentials = Credentials(mine.client_id, mine.client_secret, new_private_key())
    report = run_against(there)
    assert "signature" in report.stopped.lower()
    assert report.used.vouchers == 0


def test_wrong_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that there is not is told before anything is used."""
    there = stage()
    monkeypatch.setattr(probe_runs, "KEY", "NOWHERE")
    report = run_against(there)
    assert "VOUCHER_BATCH_NOT_FOUND" in report.stopped
    assert report.used.vouchers == 0


class Spoiling(Transport):
    """Spoils some answers of an emulator."""

    def __init__(self, inner: Transport, seed: int) -> None:
        self.inner, self.chance = inner, random.Random(seed)

    async def send(self, request: Request) -> Response:
        answer = await self.inner.send(request)
        if self.chance.random() > 0.2:
            return answer
        spoilt = mutate(self.chance, answer.body)
        return attrs.evolve(answer, body=spoilt.body)

    async def aclose(self) -> None:
        await self.inner.aclose()


@pytest.mark.parametrize("first", [5, pytest.param(60, marks=pytest.mark.long)])
def test_answers_of_any_kind(first: int) -> None:
    """Whatever stands in answers, nothing but a report comes of it, within the cost."""
    for seed in runs(first):
        there = stage()
        counted = Counted(there)
        report = there.run(MODEST, transport=Spoiling(counted.transport, seed))
        assert_within_cost(report, counted)
        report.to_json()
        report.to_markdown()
        assert isinstance(report.guesses, Guesses)


@pytest.mark.parametrize("max_s", [3, 12, 20, 25])
def test_time_that_is_over(max_s: float) -> None:
    """Its time ends it in the middle, also where it sends many requests at once."""
    report = run_against(stage(), attrs.evolve(ALL, max_s=max_s))
    assert report.stopped == "not sent: the time for the probe is over"


@pytest.mark.parametrize("name", ["batch", "get", "redeem", "answers"])
def test_answer_of_a_kind_that_nobody_thought_of(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it breaks is not decided, the rest is, and the report tells nothing of it."""

    async def observe(session: Session) -> None:
        raise TypeError(NAME)

    changed = (
        attrs.evolve(one, observe=observe) if one.name == name else one for one in EXPERIMENTS
    )
    monkeypatch.setattr(probe_module, "EXPERIMENTS", tuple(changed))
    report = run_against(stage())
    assert "an answer is not as documented (TypeError)" in report.to_markdown()
    assert bool(report.stopped) == (name == "batch")


def test_messages_of_the_server_are_not_told() -> None:
    """RM's words for a refusal may name a person or repeat a code: none of them is told."""

    class Telling(Transport):
        def __init__(self, inner: Transport) -> None:
            self.inner = inner

        async def send(self, request: Request) -> Response:
            answer = await self.inner.send(request)
            body = answer.body.replace(b'"message":"', b'"message":"of Tan Ah Kow, 0123456789: ')
            return attrs.evolve(answer, body=body)

        async def aclose(self) -> None:
            await self.inner.aclose()

    there = stage()
    report = there.run(MODEST, transport=Telling(there.emulator.transport()))
    for text in (report.to_json().decode(), report.to_markdown()):
        assert "Tan Ah Kow" not in text
        assert "0123456789" not in text


class Interrupting(Transport):
    """Cancels the run at its n-th request: before it is sent, or when its answer is there."""

    def __init__(self, inner: Transport, at: int, *, before: bool) -> None:
        self.inner, self.left, self.before = inner, at, before
        self.task: asyncio.Task[Any] | None = None

    async def send(self, request: Request) -> Response:
        self.left -= 1
        if self.left or self.task is None:
            return await self.inner.send(request)
        if not self.before:
            await self.inner.send(request)
        self.task.cancel()
        await asyncio.sleep(3600)
        raise AssertionError

    async def aclose(self) -> None:
        await self.inner.aclose()


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("before", [True, False])
def test_interrupted_at_each_request(step: int, *, before: bool) -> None:
    """The report has what was found until then, counts what is in flight as used, and nothing is
    left running."""
    for at in range(1, 65, step):
        there = stage()
        counted = Counted(there)
        interrupting = Interrupting(counted.transport, at, before=before)

        async def main(there: Stage = there, interrupting: Interrupting = interrupting) -> Report:
            async with there.probe(MODEST, transport=interrupting) as probe:
                running = interrupting.task = asyncio.create_task(probe.run())
                try:
                    await running
                except asyncio.CancelledError:
                    assert running.cancelled()
                await asyncio.sleep(0)  # a generator that was left is closed
                left = asyncio.all_tasks() - {asyncio.current_task()}
                assert left == set()
                return probe.report()

        report = VirtualLoop(there.clock).run(main)
        assert counted.transport.calls <= report.used.calls <= report.stated.calls
        assert counted.vouchers <= report.used.vouchers <= report.stated.vouchers
        if report.used.calls >= at:
            assert "interrupted" in report.stopped


def real(there: Stage) -> Environment:
    """Return the environment of a stage that stands for production."""
    url = "https://vouchers.example"
    return attrs.evolve(there.emulator.environment, api_url=url, oauth_url=url)


@pytest.mark.parametrize(
    "options",
    [Options(), Options(production=True), Options(batch_label="Probe me")],
    ids=["nothing", "allowed", "label"],
)
@pytest.mark.parametrize("name", ["production", "other", "mixed"])
def test_production_needs_both(options: Options, name: str) -> None:
    """Without permission and label it refuses to be made, so that it sends nothing."""
    there = stage()
    environment = {
        "production": Environment.PRODUCTION,
        "other": real(there),
        "mixed": Environment(Environment.SANDBOX.api_url, Environment.PRODUCTION.oauth_url),
    }[name]
    with pytest.raises(ConfigurationError):
        Probe(
            there.emulator.credentials,
            KEY,
            environment=environment,
            options=options,
            transport=there.emulator.transport(),
        )
    assert sum(there.emulator.requests.values()) == 0


@pytest.mark.parametrize(
    "label", ["Probe me", "Probe\u00a0me ", "probe me", "Probeme", "Static", "\u200b"]
)
def test_production_needs_the_very_label(label: str) -> None:
    """Only the label as the portal shows it lets the probe use a voucher."""
    is_label = label in ("Probe me", "Probe\u00a0me ")  # one looks like the other
    there = stage()
    counted = Counted(there)
    options = attrs.evolve(MODEST, production=True, batch_label=label)
    there.emulator.environment = real(there)
    report = there.run(options, transport=counted.transport)
    assert (counted.vouchers > 0) == is_label
    assert (report.stopped == "") == is_label
