"""What is wrong on purpose: each changes the package while a test runs, and does nothing else."""

import asyncio
from typing import cast

import attrs
from simulation.disk import ATTEMPT, SimulatedStore, SimulatedUnit

from rm_voucher import IssuedVoucher
from rm_voucher.calls import caller, outcomes
from rm_voucher.calls.call import Call
from rm_voucher.ledger import ledger as ledger_module
from rm_voucher.ledger import reconcile
from rm_voucher.ledger import sender as sender_module
from rm_voucher.ledger.keeper import Keeper
from rm_voucher.ledger.leases import Lease
from rm_voucher.ledger.memory import MemoryTables, MemoryUnitOfWork
from rm_voucher.ledger.process import LedgerClock
from rm_voucher.ledger.reconcile import Reconciler
from rm_voucher.ledger.rules import changes, matching, settling, transitions
from rm_voucher.ledger.rules.commands import Ask, Claimed, Listed
from rm_voucher.ledger.rules.matching import Evidence
from rm_voucher.ledger.rules.records import (
    AttemptState,
    Code,
    CodeOrigin,
    CodeState,
    IssueRequest,
    RequestState,
)
from rm_voucher.ledger.rules.transitions import ask, confirm
from rm_voucher.ledger.rules.unit_of_work import UnitOfWork
from rm_voucher.ledger.sender import Sender
from rm_voucher.ledger.sql.unit_of_work import SqlUnitOfWork
from rm_voucher.wire import operations


def repeat_the_unknown(patch):
    patch.setattr(Call, "may_repeat_after", lambda call, error: True)


def server_error_proves_nothing_was_done(patch):
    def classify(error):
        outcome = outcomes.classify(error)
        return outcomes.Outcome.THROTTLED if outcome is outcomes.Outcome.SERVER_FAILED else outcome

    patch.setattr(caller, "classify", classify)


def unknown_is_refused(patch):
    async def end_unknown(sender, client, batch_key, attempt_id, seen=None):
        return await sender._end(batch_key, attempt_id, AttemptState.REJECTED)

    patch.setattr(Sender, "_end_unknown", end_unknown)


def adopt_what_is_in_flight(patch):
    async def go_on(reconciler, batch_key, lease):
        pass

    def swap(unit, code, attempt, at):
        changes.close(unit, attempt, AttemptState.CONFIRMED, at)

    patch.setattr(Reconciler, "_until_ended", go_on)
    patch.setattr(transitions, "_swap", swap)


def send_before_it_is_durable(patch):
    right = Sender._ask

    async def ask_later(sender, batch_key, content, request_id, *, may_start):
        store = sender._store
        request = store.tables.requests.get(request_id)
        waits = request is None or (
            request.state is RequestState.WAITING and not request.attempt_id
        )
        if not (may_start and waits):
            return await right(sender, batch_key, content, request_id, may_start=may_start)
        attempt_id = f"{store.owner}-{next(sender._numbers):07}"
        sender._tracker.sending[attempt_id] = sender._clock.monotonic()
        item = Ask(
            batch=batch_key,
            request_id=request_id,
            content=content,
            attempt_id=attempt_id,
            owner=store.owner,
            at=sender._clock.latest_now(),
        )
        sender._tasks.start(store.commit(ask, item))
        ATTEMPT.set(attempt_id)
        return Claimed(attempt_id)

    patch.setattr(Sender, "_ask", ask_later)


def tell_before_it_is_durable(patch):
    right = SimulatedStore.commit

    async def commit_later(store, transition, item):
        if transition is not confirm:
            return await right(store, transition, item)
        later.add(asyncio.create_task(right(store, transition, item)))
        return IssuedVoucher(code=item.code, qr_url=item.qr_url)

    later = set()
    patch.setattr(SimulatedStore, "commit", commit_later)


def skip_the_baseline(patch):
    async def read_nothing(reconciler, client, batch_key, *, reset=False):
        item = Listed(batch=batch_key, at=reconciler._clock.latest_now(), last=True)
        await reconciler._store.commit(settling.list_codes, item)

    patch.setattr(Reconciler, "read_baseline", read_nothing)


def drop_the_shield(patch):
    class Unshielded:
        def __getattr__(self, name):
            return getattr(asyncio, name)

        def shield(self, task):
            return task

    patch.setattr(ledger_module, "asyncio", Unshielded())


class _Without:
    """A unit that does not find what it is asked for."""

    def __init__(self, unit, *names):
        self._unit, self._names = unit, names

    def __getattr__(self, name):
        if name in self._names:
            return lambda batch, limit: []
        return getattr(self._unit, name)


def _stock_without(patch, name):
    right = transitions._stock
    patch.setattr(
        transitions,
        "_stock",
        lambda unit, batch, number: right(cast("UnitOfWork", _Without(unit, name)), batch, number),
    )


def ignore_spares(patch):
    _stock_without(patch, "find_spares")


def ignore_detached_attempts(patch):
    _stock_without(patch, "find_detached")


def forget_the_claim(patch):
    """A request that gets another code leaves its attempt as if it still waited for it."""

    def give(unit, code, request):
        request.state, request.attempt_id = RequestState.ASSIGNED, None
        code.state, code.request_id = CodeState.ASSIGNED, request.id
        unit.save(request)
        unit.save(code)
        unit.assigned.append(code)

    patch.setattr(changes, "give", give)
    patch.setattr(transitions, "give", give)


def recover_as_not_sent(patch):
    def close(unit, attempt, state, at):
        request = changes.release(unit, attempt, AttemptState.REJECTED, at)
        assert request is None or request.attempt_id is None

    patch.setattr(settling, "close", close)


def conclude_at_once(patch):
    async def wait_for_nothing(reconciler, batch_key):
        pass

    def all_of_them(reconciler, attempts, begun):
        return frozenset(attempt.id for attempt in attempts)

    patch.setattr(Reconciler, "_ripen", wait_for_nothing)
    patch.setattr(Reconciler, "ripe", all_of_them)


def believe_an_incomplete_listing(patch):
    def evidence(**fields):
        return Evidence(**{**fields, "complete": True})

    patch.setattr(reconcile, "Evidence", evidence)


def measure_by_the_wall_clock(patch):
    right = LedgerClock.__init__

    def init(clock, runtime):
        right(clock, attrs.evolve(runtime, monotonic=runtime.clock))

    patch.setattr(LedgerClock, "__init__", init)


def give_to_nobody(patch):
    def take(unit, found, attempt, *, origin, ended, at):
        code = unit.get(Code, [found.code]).get(found.code)
        if code is None:
            code = Code(found.code, attempt.batch, CodeState.SPARE, origin, at)
            unit.add(code)
        code.attempt_id = attempt.id
        changes.close(unit, attempt, ended, at)
        return code

    patch.setattr(transitions, "take", take)


def give_and_keep(patch):
    right = changes.give

    def give(unit, code, request):
        right(unit, code, request)
        code.state = CodeState.SPARE

    patch.setattr(changes, "give", give)


def give_a_second_code(patch):
    """What comes late goes to who asked for it first, and no constraint holds that off."""
    patch.setattr(
        changes,
        "claimant",
        lambda unit, attempt: unit.get(IssueRequest, [attempt.request_id]).get(attempt.request_id),
    )
    right = MemoryTables.put

    def put(store, row):
        if getattr(row, "code", None) is not None:
            store.code_of.pop(row.request_id, None)
        right(store, row)

    patch.setattr(MemoryTables, "put", put)


def adopt_unseen(patch):
    """What was concluded is carried out, whatever has become of it."""
    right = settling.settle

    def settle(unit, items):
        for item in items:
            attempts = changes.load_attempts(unit, [name for name, _ in item.adopt])
            for name, found in item.adopt:
                changes.take(
                    unit,
                    found,
                    attempts[name],
                    origin=CodeOrigin.ADOPTED,
                    ended=AttemptState.ADOPTED,
                    at=item.at,
                )
        return right(unit, items)

    patch.setattr(reconcile, "settle", settle)


def ignore_the_content(patch):
    patch.setattr(ledger_module, "digest", lambda content: "")


# At the seams.


def send_what_another_process_took_over(patch):
    async def check_nothing(sender, batch_key, attempt_id):
        pass

    patch.setattr(Sender, "_check", check_nothing)


def drop_what_can_not_be_kept(patch):
    """A code whose commit failed is neither told nor tried again."""

    async def keep(keeper, transition, item):
        return await keeper._store.commit(transition, item)

    right = sender_module._unknown
    patch.setattr(Keeper, "keep", keep)
    patch.setattr(sender_module, "_unknown", lambda *what, **_: right(*what[:3]))


def go_on_while_a_code_can_not_be_kept(patch):
    async def catch_up(keeper):
        pass

    patch.setattr(Keeper, "catch_up", catch_up)


def settle_while_a_code_is_in_hand(patch):
    """The listing is believed of attempts whose code only the process has."""

    class Idle:
        async def catch_up(self):
            pass

    patch.setattr(Keeper, "attempts", property(lambda keeper: ()))
    patch.setattr(
        ledger_module,
        "Reconciler",
        lambda *parts: attrs.evolve(Reconciler(*parts), keeper=cast("Keeper", Idle())),
    )


def duplicate_proves_nothing_was_done(patch):
    def classify(error):
        outcome = outcomes.classify(error)
        return outcomes.Outcome.REFUSED if outcome is outcomes.Outcome.DUPLICATE else outcome

    patch.setattr(caller, "classify", classify)


def ignore_the_code_of_an_error(patch):
    patch.setattr(operations, "_voucher_in", lambda response: None)


def forget_the_code_of_an_error(patch):
    """It is told, and no evidence."""
    patch.setattr(matching, "_match_seen", lambda evidence: [])


def take_the_code_of_an_error(patch):
    right = operations.parse_issue

    def parse_issue(response):
        return operations._voucher_in(response) or right(response)

    patch.setattr(operations, "parse_issue", parse_issue)


def keep_the_code_of_an_error(patch):
    """What came with an error is as good to `Ledger.keep` as what came with a success."""
    patch.setattr(MemoryUnitOfWork, "find_seen", lambda unit, code: [])


def orphan_out_of_all_times_is_nothing(patch):
    def conclude(batch, evidence, at):
        ambiguous = [a for a in evidence.attempts if a.state is AttemptState.AMBIGUOUS]
        return matching._settle_without(batch, evidence, ambiguous, evidence.orphans, at)

    patch.setattr(matching, "_conclude_shared", conclude)


def stop_only_the_batches_of_the_copy(patch):
    patch.setattr(SqlUnitOfWork, "stop_reason", lambda unit: None)


def take_nobody_for_dead(patch):
    """A lease without an end: what a dead process was sending is never recovered."""
    patch.setattr(SimulatedUnit, "dead_owners", lambda unit, owners: set())


def take_every_lease(patch):
    """Two sweepers: whoever wants a lease has it."""

    async def take(lease):
        return True

    patch.setattr(Lease, "take", take)
