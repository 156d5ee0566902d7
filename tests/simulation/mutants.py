"""What is wrong on purpose: each changes the package while a test runs, and does nothing else."""

import asyncio

from rm_voucher import IssuedVoucher
from rm_voucher.calls import caller, outcomes
from rm_voucher.ledger import ledger as base
from rm_voucher.ledger import reconcile
from rm_voucher.ledger import sender as sending
from rm_voucher.ledger.memory import MemoryStore
from rm_voucher.ledger.rules import changes, settling, transitions
from rm_voucher.ledger.rules.commands import Claimed, Listed
from rm_voucher.ledger.rules.records import AttemptState, CodeOrigin, CodeState
from rm_voucher.ledger.rules.transitions import ask, confirm


def repeat_the_unknown(patch):
    patch.setattr(caller.Call, "may_repeat_after", lambda call, error: True)


def server_error_proves_nothing_was_done(patch):
    def classify(error):
        outcome = outcomes.classify(error)
        return outcomes.Outcome.THROTTLED if outcome is outcomes.Outcome.SERVER_FAILED else outcome

    patch.setattr(caller, "classify", classify)


def unknown_is_refused(patch):
    async def doubt(sender, client, batch_key, attempt_id):
        await sender._end(batch_key, attempt_id, AttemptState.REJECTED)

    patch.setattr(sending.Sender, "_doubt", doubt)


def adopt_what_is_in_flight(patch):
    async def go_on(ledger, batch_key):
        pass

    def trade(unit, code, attempt, at):
        changes.close(unit, attempt, AttemptState.CONFIRMED, at)

    patch.setattr(reconcile, "_until_ended", go_on)
    patch.setattr(transitions, "_trade", trade)


def send_before_it_is_durable(patch):
    right = sending.Sender.ask

    async def ask_later(sender, batch_key, content, request_id, *, may_start=True):
        if not may_start or request_id in sender._ledger.store.requests:
            return await right(sender, batch_key, content, request_id, may_start=may_start)
        ledger = sender._ledger
        attempt_id = f"{ledger.owner}-{next(sender._numbers):07}"
        sender.live.add(attempt_id)
        item = sending.Ask(
            batch=batch_key,
            request_id=request_id,
            content=content,
            attempt_id=attempt_id,
            owner=ledger.owner,
            at=ledger.now(),
        )
        ledger.start(ledger.commit(ask, item))
        return Claimed(attempt_id)

    patch.setattr(sending.Sender, "ask", ask_later)


def tell_before_it_is_durable(patch):
    right = base.Ledger.commit

    def wrap(commit):
        async def commit_later(ledger, transition, item):
            if transition is not confirm:
                return await commit(ledger, transition, item)
            ledger.start(commit(ledger, transition, item))
            return IssuedVoucher(code=item.code, qr_url=item.qr_url)

        return commit_later

    from simulation.disk import SimulatedLedger

    assert SimulatedLedger.commit is not right
    patch.setattr(SimulatedLedger, "commit", wrap(SimulatedLedger.commit))


def skip_the_baseline(patch):
    async def read_nothing(ledger, client, batch_key, *, reset=False):
        item = Listed(batch=batch_key, at=ledger.now(), last=True)
        await ledger.commit(settling.list_codes, item)

    patch.setattr(reconcile, "read_baseline", read_nothing)


def drop_the_shield(patch):
    class Unshielded:
        def __getattr__(self, name):
            return getattr(asyncio, name)

        def shield(self, task):
            return task

    patch.setattr(base, "asyncio", Unshielded())


class _Without:
    """A unit that does not find what it is asked for."""

    def __init__(self, unit, *names):
        self._unit, self._names = unit, names

    def __getattr__(self, name):
        if name in self._names:
            return lambda batch, limit: []
        return getattr(self._unit, name)


def _serve_without(patch, name):
    right = transitions._serve
    patch.setattr(
        transitions,
        "_serve",
        lambda unit, batch, waiting: right(_Without(unit, name), batch, waiting),
    )


def ignore_spares(patch):
    _serve_without(patch, "spares")


def ignore_loose_attempts(patch):
    _serve_without(patch, "detached")


def forget_what_relied(patch):
    """A request that gets another code leaves its attempt as if it still waited for it."""

    def give(unit, code, request):
        request.state, request.attempt_id = base.RequestState.ASSIGNED, None
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
    async def wait_for_nothing(ledger, batch_key):
        pass

    patch.setattr(reconcile, "_ripen", wait_for_nothing)
    patch.setattr(
        reconcile, "_ripe", lambda ledger, attempts, begun: frozenset(a.id for a in attempts)
    )


def believe_an_incomplete_listing(patch):
    right = reconcile.Evidence

    def evidence(**fields):
        return right(**{**fields, "complete": True})

    patch.setattr(reconcile, "Evidence", evidence)


def measure_by_the_wall_clock(patch):
    right = base.Ledger.__init__

    def init(ledger, **settings):
        right(ledger, **{**settings, "monotonic": settings["clock"]})

    patch.setattr(base.Ledger, "__init__", init)


def give_to_nobody(patch):
    def take(unit, found, attempt, *, origin, ended, at):
        code = unit.codes([found.code]).get(found.code)
        if code is None:
            code = changes.Code(found.code, attempt.batch, CodeState.SPARE, origin, at)
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
        "relying",
        lambda unit, attempt: unit.requests([attempt.request_id]).get(attempt.request_id),
    )
    right = MemoryStore.put

    def put(store, row):
        if getattr(row, "code", None) is not None:
            store.code_of.pop(row.request_id, None)
        right(store, row)

    patch.setattr(MemoryStore, "put", put)


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
    patch.setattr(base, "digest", lambda content: "")
