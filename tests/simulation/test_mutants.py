"""The simulation notices what is wrong: each mutant breaks a promise within a few seeds, and
without it the same seeds pass."""

import contextlib
from typing import Any

import pytest
from simulation import mutants
from simulation.books import Books, BrokenPromiseError
from simulation.campaign import Campaign
from simulation.restored import History
from simulation.seams import Seams, Trouble
from simulation.test_campaigns import hold_end
from simulation.test_seams import OFF, OVERTAKEN

from rm_voucher import LedgerError, OutcomeUnknownError
from rm_voucher.database.group_commit import UnavailableError
from rm_voucher.emulator import Fault
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.memory import MemoryLedgerStore, MemoryTables, MemoryUnitOfWork
from rm_voucher.ledger.rules import transitions
from rm_voucher.ledger.rules.commands import Ask
from rm_voucher.ledger.rules.records import AttemptState, Batch, IssueAttempt
from rm_voucher.ledger.rules.transitions import confirm
from rm_voucher.runtime import Runtime

SEEDS = range(12)
QUICK: dict[str, Any] = {
    "requests": 60,
    "fault_rate": 0.4,
    "crashes": 2,
    "workers": 16,
    "duplicates": 0.3,
}
PACED: dict[str, Any] = {**QUICK, "pace_s": 10.0, "looks_s": 3.0, "requests": 150, "crashes": 1}
LATE: dict[str, Any] = {  # so that spares and detached attempts are there while requests come in
    **PACED,
    "requests": 80,
    "crashes": 0,
    "finishes": True,
    "looks_s": 1.0,
    "kinds": (Fault.LATE_COMMIT, Fault.HTML_PAGE),
    "workers": 3,
    "late_s": 5.0,
    "lag_s": 0.0,
    "settle_s": 3.0,
    "ledger": {"skew_s": 0.1},
}
LAGGING: dict[str, Any] = {**QUICK, "late_s": 0.0, "settle_s": 3.0, "lag_s": 10.0, "crashes": 0}

# A listing that is often read while calls are in flight.
HURRIED: dict[str, Any] = {**QUICK, "crashes": 0, "lag_s": 0.0, "pace_s": 3.0, "looks_s": 0.5}

# What surrounds the ledger gives way.
BROKEN: dict[str, Any] = {**QUICK, "seams": Seams(troubles=3, kinds=(Trouble.BROKEN,))}
ERRING: dict[str, Any] = {**QUICK, "seams": Seams(codes_in_errors=0.2), "mode": "shared"}
ERRING_AND_BROKEN: dict[str, Any] = {
    **ERRING,
    "seams": Seams(codes_in_errors=0.2, troubles=3, kinds=(Trouble.BROKEN,)),
}
CUT: dict[str, Any] = {**OVERTAKEN, "crashes": 0, "seams": Seams(cuts=6)}
OFF_BY_AN_HOUR: dict[str, Any] = {
    **QUICK,
    **OFF,
    "seams": Seams(clock_off_s=-3600.0, shows_date=False),
}

CAUGHT = {
    mutants.repeat_the_unknown: QUICK,
    mutants.server_error_proves_nothing_was_done: QUICK,
    mutants.unknown_is_refused: QUICK,
    mutants.adopt_what_is_in_flight: HURRIED,
    mutants.send_before_it_is_durable: QUICK,
    mutants.tell_before_it_is_durable: QUICK,
    mutants.skip_the_baseline: QUICK,
    mutants.drop_the_shield: {**QUICK, "cancels": 0.5},
    mutants.ignore_spares: LATE,
    mutants.ignore_detached_attempts: LATE,
    mutants.forget_the_claim: LATE,
    mutants.recover_as_not_sent: QUICK,
    mutants.conclude_at_once: QUICK,
    mutants.believe_an_incomplete_listing: LAGGING,
    mutants.measure_by_the_wall_clock: {**QUICK, "wall_step_s": 3600.0},
    mutants.give_to_nobody: QUICK,
    mutants.give_and_keep: QUICK,
    mutants.give_a_second_code: LATE,
    mutants.adopt_unseen: {**QUICK, "lost_rate": 0.3},
    mutants.ignore_the_content: {**QUICK, "conflicts": 0.2},
    mutants.send_what_another_process_took_over: CUT,
    mutants.drop_what_can_not_be_kept: BROKEN,
    mutants.go_on_while_a_code_can_not_be_kept: BROKEN,
    mutants.duplicate_proves_nothing_was_done: {**QUICK, "seams": Seams(resent=0.1)},
    mutants.ignore_the_code_of_an_error: ERRING,
    mutants.forget_the_code_of_an_error: ERRING,
    mutants.take_the_code_of_an_error: ERRING,
    mutants.keep_the_code_of_an_error: ERRING,
    mutants.orphan_out_of_all_times_is_nothing: OFF_BY_AN_HOUR,
}


BRIEFLY = {  # caught in a moment, one of each promise
    mutants.repeat_the_unknown,
    mutants.send_before_it_is_durable,
    mutants.recover_as_not_sent,
}


def run(seed, settings):
    """Run one; raise what it broke."""
    campaign = Campaign(seed=seed, **settings).run()
    if campaign.settle_s >= 2 * campaign.lag_s + campaign.late_s or settings is LAGGING:
        hold_end(campaign)
    else:
        assert campaign.over_issued() == campaign.spare()


def broken_by(seed, settings):
    """Return what one broke, or None."""
    try:
        run(seed, settings)
    except (BrokenPromiseError, AssertionError) as exc:
        return str(exc) or "an end that must not be"
    return None


@pytest.mark.parametrize(
    "mutant",
    [each if each in BRIEFLY else pytest.param(each, marks=pytest.mark.long) for each in CAUGHT],
    ids=lambda mutant: mutant.__name__,
)
def test_mutant_breaks_a_promise(mutant, monkeypatch):
    """Each mutant is caught, and the seed that caught it passes without it."""
    settings = CAUGHT[mutant]
    for seed in SEEDS:
        with monkeypatch.context() as patch:
            mutant(patch)
            broken = broken_by(seed, settings)
        if broken is None:
            continue
        without = broken_by(seed, settings)
        if without is None:
            return
        # Where the server is later than expected, an alarm may be right: another seed.
        assert settings is LATE, without
    pytest.fail("nothing noticed it")


def test_ignoring_a_detached_attempt_is_noticed(monkeypatch):
    """Who starts an attempt where a detached one is there breaks a promise, in a single transaction
    too: campaigns have detached ones for moments only."""

    def ask_beside_a_detached_one():
        books = Books()
        books.put(Batch("B", baseline_at=0.0))
        books.put(IssueAttempt("detached", "B", None, "owner", AttemptState.AMBIGUOUS, 0.0))
        unit = MemoryUnitOfWork(books)
        item = Ask(batch="B", request_id="r", content="", attempt_id="new", owner="owner", at=1.0)
        transitions.ask(unit, [item])
        unit.flush()
        books.check(["ask"])
        return books.broken

    assert ask_beside_a_detached_one() == []
    mutants.ignore_detached_attempts(monkeypatch)
    assert "an attempt was started, though a detached one was there" in ask_beside_a_detached_one()


def test_settling_while_a_code_is_in_hand_is_noticed(world, monkeypatch):
    """What was told stays who was told it's, though a listing is read before it can be kept.

    That takes a database that keeps all but what an answer brings, for as long as an outcome takes
    to be settled, which campaigns hardly ever come to.
    """

    class Store(MemoryLedgerStore):
        keeps_answers = True

        async def commit(self, transition, item):
            if transition is confirm and not self.keeps_answers:
                raise LedgerError("not now") from UnavailableError("OperationalError")
            return await super().commit(transition, item)

    async def settle_beside_a_code_in_hand():
        store, client = Store(MemoryTables()), world.client()
        runtime = Runtime(clock=world.clock.wall, monotonic=world.clock.monotonic)
        async with Ledger(store, mode="exclusive", settle_s=2.0, runtime=runtime) as ledger:
            world.emulator.fail_next("issue", Fault.DROP_BEFORE_COMMIT)
            with pytest.raises(OutcomeUnknownError):
                await ledger.issue(client, "B", "lost")
            store.keeps_answers = False
            with pytest.raises(OutcomeUnknownError) as told:
                await ledger.issue(client, "B", "told")
            with contextlib.suppress(LedgerError):
                await ledger.reconcile(client, "B", wait=True)
            store.keeps_answers = True
        return told.value.code, store.tables.code_of

    code, given = world.run(settle_beside_a_code_in_hand)
    assert given == {"told": code}
    mutants.settle_while_a_code_is_in_hand(monkeypatch)
    code, given = world.run(settle_beside_a_code_in_hand)
    assert given == {"lost": code}


def test_settling_shorter_than_the_servers_delay_is_noticed():
    """A settling time that is too short issues too much, which the end shows."""
    assert any(Campaign(seed=seed, **LATE).run().over_issued() > 0 for seed in SEEDS)


def test_foreign_issuer_in_an_exclusive_batch_is_an_alarm():
    """Where no call is in doubt, a code of somebody else's stops the batch and is kept from all."""
    for seed in range(3):
        calm: dict[str, Any] = {**QUICK, "fault_rate": 0.0, "crashes": 0, "failed_rate": 0.0}
        campaign = Campaign(seed=seed, foreign=20, **calm).run()
        assert "issued by somebody else" in campaign.alarms[0]
        assert campaign.over_issued() == 0


def test_foreign_issuer_in_an_exclusive_batch_is_robbed():
    """Where calls are in doubt, their codes are taken for ours: the mode is the caller's word, and
    the simulation shows what it is worth where it is not kept."""
    broken = (broken_by(seed, {**PACED, "foreign": 2}) for seed in SEEDS)
    assert any("somebody else's was taken" in (each or "") for each in broken)


async def test_stop_of_the_copys_batches_alone_is_noticed(tmp_path, monkeypatch):
    """A verdict that is in the rows of batches does not stop those that the copy lacks."""
    mutants.stop_only_the_batches_of_the_copy(monkeypatch)
    with pytest.raises(AssertionError):
        for seed in SEEDS:
            await History(seed, tmp_path / str(seed)).run()
