"""What campaigns once found, as small as it gets."""

import asyncio
from typing import Any

import pytest
from simulation.campaign import Campaign

from rm_voucher import OutcomeUnknownError, VoucherClient
from rm_voucher.emulator import Fault
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.memory import MemoryLedgerStore, MemoryTables
from rm_voucher.ledger.rules.commands import Found, Settlement
from rm_voucher.ledger.rules.matching import Evidence, conclude
from rm_voucher.ledger.rules.records import (
    AttemptState,
    Batch,
    IssueAttempt,
    IssueRequest,
    Mode,
    RequestState,
)
from rm_voucher.ledger.rules.settling import settle
from rm_voucher.runtime import Runtime


def runtime_of(world):
    return Runtime(clock=world.clock.wall, monotonic=world.clock.monotonic)


def test_request_asked_twice_before_the_baseline_is_read(world):
    """Who asks for one request twice while the batch is made ready gets one voucher, and no
    callback fails."""
    complaints = []

    async def main():
        world.loop.set_exception_handler(lambda _, context: complaints.append(context))
        client = world.client()
        async with Ledger.in_memory(runtime=runtime_of(world)) as ledger:
            asked = [ledger.issue(client, "B", "r") for _ in range(3)]
            return {voucher.code for voucher in await asyncio.gather(*asked)}

    assert tuple(world.run(main)) == world.emulator.issued("B")
    assert complaints == []


async def test_request_and_attempt_in_states_of_one_name():
    """A request that is unresolved is not found among the attempts that are."""
    tables = MemoryTables()
    tables.put(IssueRequest("r", "B", "", RequestState.UNRESOLVED, 0.0, "a"))
    tables.put(IssueAttempt("a", "B", "r", "owner", AttemptState.UNRESOLVED, 0.0))
    async with Ledger(MemoryLedgerStore(tables)) as ledger:
        assert [attempt.id for attempt in await ledger.attempts("B")] == ["a"]


def test_late_code_of_an_attempt_that_is_not_settled():
    """A code that came into being later than expected is no foreign one while its attempt is in
    doubt: it is adopted."""
    attempt = IssueAttempt("a", "B", None, "owner", AttemptState.AMBIGUOUS, 1000.0, 1001.0)
    code = Found(code="c", assigned_at=1030.0)
    evidence = Evidence(
        mode=Mode.EXCLUSIVE,
        orphans=[code],
        attempts=[attempt],
        ripe=frozenset(["a"]),
        complete=True,
        balanced=True,
        settle_s=12,
        skew_s=10,
    )
    settlement = conclude("B", evidence, 1040.0)
    assert settlement.adopt == (("a", code),)
    assert (settlement.stop_reason, settlement.not_issued, settlement.hold) == (None, (), ())


def test_short_settling_time_is_no_foreign_issuer():
    """Where the server is later than expected, too much is issued, and no batch is stopped."""
    assert Campaign(seed=7, settle_s=12).run().alarms == []


@pytest.mark.parametrize("is_before", [True, False])
def test_two_processes_settle_at_once(world, is_before):
    """What another process adopts while this one concludes is no foreign code: no batch is stopped,
    and nothing is issued again."""

    class OvertakenStore(MemoryLedgerStore):
        """Another one reconciles before, or after, this one looks at what is unknown."""

        async def attempts(self, batch_key, states):
            overtakes = AttemptState.NOT_ISSUED in states
            if overtakes and is_before:
                await other.reconcile(clients[0], "B")
            rows = await super().attempts(batch_key, states)
            if overtakes and not is_before:
                await other.reconcile(clients[0], "B")
            return rows

    tables = MemoryTables()
    clients: list[VoucherClient] = []
    settings: dict[str, Any] = {"mode": "exclusive", "settle_s": 1, "runtime": runtime_of(world)}
    other = Ledger(MemoryLedgerStore(tables), **settings)
    ledger = Ledger(OvertakenStore(tables), **settings)

    async def main():
        client = world.client()
        clients.append(client)
        async with other, ledger:
            world.emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
            with pytest.raises(OutcomeUnknownError):
                await other.issue(client, "B", "r")
            report = await ledger.reconcile(client, "B", wait=True)
            return report, (await other.issue(client, "B", "r")).code

    report, code = world.run(main)
    assert (report.stop_reason, report.held, report.open) == (None, (), 0)
    assert world.emulator.issued("B") == (code,)


async def test_first_reason_why_a_batch_is_stopped_stays():
    """What a listing seems to prove in a batch that is stopped does not take the reason's place."""
    tables = MemoryTables()
    tables.put(Batch("B", stop_reason="its new baseline was not read to its end"))
    async with Ledger(MemoryLedgerStore(tables), mode="exclusive") as ledger:
        found = Found(code="c", assigned_at=1.0)
        item = Settlement(batch="B", at=2.0, foreign=(found,), stop_reason="somebody else issues")
        await ledger.store.commit(settle, item)
        (batch,) = await ledger.batches()
    assert batch.stop_reason == "its new baseline was not read to its end"
