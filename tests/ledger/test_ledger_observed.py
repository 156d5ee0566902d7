"""What observers are told of a ledger: its work, apart from whoever asked for it, and its state."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from simulation.clock import VirtualClock
from simulation.loop import VirtualLoop
from support.telemetry import Telemetry

from rm_voucher import (
    LedgerError,
    OutcomeUnknownError,
    Runtime,
    VoucherClient,
    VoucherError,
    bulk_issue,
)
from rm_voucher.emulator import Emulator, Fault
from rm_voucher.ledger import Ledger

SETTLE_S = 40.0
POST = "POST /v3/voucher-batch/{key}/issue"
Test = Callable[[Emulator, VoucherClient, Ledger, Runtime], Awaitable[None]]


def run(test: Test, telemetry: Telemetry, **options: Any) -> None:
    """Run a test in virtual time, with a client whose hook is the telemetry's."""
    clock = VirtualClock()
    runtime = Runtime(clock=clock.wall, monotonic=clock.monotonic, random=random.Random(7).random)
    emulator = Emulator(seed=7, clock=clock.true_wall, batches={"B": 100})

    async def main() -> None:
        client = emulator.client(runtime=runtime, hooks=[telemetry.hook], name="till 3")
        ledger = Ledger.in_memory(runtime=runtime, mode="exclusive", settle_s=SETTLE_S, **options)
        async with client, ledger:
            await test(emulator, client, ledger, runtime)

    VirtualLoop(clock).run(main)


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def test_issue_stands_under_whoever_asks(telemetry: Telemetry) -> None:
    """The call below the ledger's work, and the listing of the baseline too."""

    async def test(_: Emulator, client: VoucherClient, ledger: Ledger, __: Runtime) -> None:
        with telemetry.tracers.get_tracer("test").start_as_current_span("order"):
            await ledger.issue(client, "B", "order 1")

    run(test, telemetry)
    tree = telemetry.tree()
    assert (POST, "rm_voucher issue") in tree
    assert ("rm_voucher issue", "rm_voucher ledger issue") in tree
    assert ("rm_voucher vouchers", "rm_voucher ledger prepare") in tree
    assert ("rm_voucher ledger prepare", "rm_voucher ledger issue") in tree
    assert ("rm_voucher ledger issue", "order") in tree
    assert telemetry.one("ledger.duration", operation="issue", client="till 3") == 1
    (span,) = [one for one in telemetry.spans if one.name == "rm_voucher ledger issue"]
    assert span.attributes is not None
    assert span.attributes["rm_voucher.batch_key"] == "B"


def test_each_work_has_a_name(telemetry: Telemetry) -> None:
    """Reconcile, finish's issues and a baseline."""

    async def test(_: Emulator, client: VoucherClient, ledger: Ledger, __: Runtime) -> None:
        await ledger.submit("B", "order 1")
        await ledger.finish(client, "B")
        await ledger.reconcile(client, "B")
        await ledger.baseline(client, "B")

    run(test, telemetry)
    roots = [name for name, above in telemetry.tree() if above is None]
    names = ["prepare", "issue", "prepare", "reconcile", "baseline"]
    assert sorted(set(roots)) == sorted({f"rm_voucher ledger {name}" for name in names})


def test_sweep_is_no_part_of_the_call_that_began_it(telemetry: Telemetry) -> None:
    """It settles what was lost in a trace of its own, and issues to who waits."""

    async def test(
        emulator: Emulator, client: VoucherClient, ledger: Ledger, runtime: Runtime
    ) -> None:
        emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
        with telemetry.tracers.get_tracer("test").start_as_current_span("order"):
            with pytest.raises(OutcomeUnknownError):
                await ledger.issue(client, "B", "order 1")
            await ledger.submit("B", "order 2")
        await runtime.sleep(3 * SETTLE_S)
        assert (await ledger.counts("B")).assigned == 2

    run(test, telemetry, sweeps=True)
    tree = telemetry.tree()
    sweeps = [span for span in telemetry.spans if span.name == "rm_voucher ledger sweep"]
    assert len(sweeps) == 2
    assert {span.parent for span in sweeps} == {None}
    assert ("rm_voucher vouchers", "rm_voucher ledger sweep") in tree
    assert ("rm_voucher ledger issue", "rm_voucher ledger sweep") in tree


def test_what_goes_on_has_no_part_in_the_request(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To look at the ledger's state is not done for whoever issued first."""
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")
    seen: list[str] = []
    look = Ledger.backlog

    async def backlog(ledger: Ledger, batch_key: str | None = None) -> Any:
        seen.append(request.get())
        return await look(ledger, batch_key)

    async def test(_: Emulator, client: VoucherClient, ledger: Ledger, runtime: Runtime) -> None:
        request.set("the first")
        await ledger.issue(client, "B", "order 1")
        await runtime.sleep(60)

    monkeypatch.setattr(Ledger, "backlog", backlog)
    run(test, telemetry)
    assert set(seen) == {"none"}


def test_state_is_known_while_the_ledger_lives(telemetry: Telemetry) -> None:
    """Counts by state, and for how long the oldest has been so, as the database says."""

    async def test(
        emulator: Emulator, client: VoucherClient, ledger: Ledger, runtime: Runtime
    ) -> None:
        await ledger.prepare(client, "B")
        emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
        with contextlib.suppress(OutcomeUnknownError):
            await ledger.issue(client, "B", "order 1")
        await ledger.submit("B", "order 2")
        await runtime.sleep(20)
        states = {
            dict(key)["rm_voucher.state"]: value
            for key, value in telemetry.points("ledger.backlog").items()
        }
        assert states == {"waiting": 1, "sending": 0, "ambiguous": 1, "held": 0, "spare": 0}
        assert telemetry.one("ledger.oldest", state="waiting") >= 15
        assert telemetry.one("ledger.oldest", state="ambiguous") >= 15
        assert telemetry.one("ledger.oldest", state="unkept") == 0
        assert telemetry.one("ledger.unkept") == 0

    run(test, telemetry)


def test_state_that_is_old_is_not_shown(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database is away nothing is claimed of it, and what is in memory is still told."""

    async def test(_: Emulator, client: VoucherClient, ledger: Ledger, runtime: Runtime) -> None:
        await ledger.prepare(client, "B")
        await runtime.sleep(1)
        assert len(telemetry.points("ledger.backlog")) == 5

        async def away(*_: object) -> None:
            raise LedgerError("The database is away.")

        monkeypatch.setattr(ledger.store, "read", away)
        await runtime.sleep(100)
        assert telemetry.points("ledger.backlog") == {}
        assert telemetry.one("ledger.unkept") == 0
        monkeypatch.undo()

    run(test, telemetry)


def test_bulk_issue_through_a_ledger(telemetry: Telemetry) -> None:
    """Each recipient's call is below the ledger's work for it."""

    async def test(_: Emulator, client: VoucherClient, ledger: Ledger, __: Runtime) -> None:
        async with bulk_issue(client, "B", ["a", "b"], ledger=ledger) as run:
            assert len([result async for result in run]) == 2

    run(test, telemetry)
    assert telemetry.tree().count(("rm_voucher issue", "rm_voucher ledger issue")) == 2


def test_without_observers_nothing_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger asks its database for nothing that nobody reads."""
    asked = []

    async def main() -> None:
        emulator = Emulator(batches={"B": 1})
        async with emulator.client() as client, Ledger.in_memory() as ledger:
            monkeypatch.setattr(ledger, "backlog", lambda *_: asked.append(1))
            await ledger.issue(client, "B", "order 1")

    VirtualLoop(VirtualClock()).run(main)
    assert asked == []


def test_records_have_the_fields_of_their_request(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """A reconciliation's record names its batch and its client."""

    async def test(_: Emulator, client: VoucherClient, ledger: Ledger, __: Runtime) -> None:
        with contextlib.suppress(VoucherError):
            await ledger.reconcile(client, "B")

    caplog.set_level(logging.INFO, logger="rm_voucher")
    run(test, telemetry)
    (record,) = [one for one in caplog.records if one.msg.startswith("batch reconciled")]
    fields = vars(record)
    assert (fields["rm_operation"], fields["rm_batch"], fields["rm_client"]) == (
        "reconcile",
        "B",
        "till 3",
    )
