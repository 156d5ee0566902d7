"""`Ledger.reconcile`, `baseline` and `resolve` against the emulator."""

import asyncio
import contextlib
import traceback

import orjson
import pytest
from support.ledger_clients import SETTLE_S, B, client_of, ledger_tasks, place, reported

from rm_voucher import (
    BatchStoppedError,
    IssuedVoucher,
    LedgerError,
    NotFoundError,
    OutcomeUnknownError,
    Response,
    Runtime,
    Transport,
    VoucherError,
)
from rm_voucher.emulator import Emulator, Fault
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.ledger import AttemptState, Ledger, Reconciliation
from rm_voucher.ledger import ledger as ledger_module

DONE, NOT_DONE = Fault.DROP_AFTER_COMMIT, Fault.DROP_BEFORE_COMMIT


@pytest.fixture
def there(time):
    return place(time)


async def lose(there, ledger, name, fault=DONE, client=None):
    """Issue with an answer that gets lost; return the attempt's id."""
    there.emulator.fail_next("issue", fault)
    with pytest.raises(OutcomeUnknownError) as caught:
        await ledger.issue(client or there.client, B, name)
    there.time.now += 60
    return caught.value.attempt_id


def nothing_but(**fields):
    nothing = {
        "adopted": 0,
        "not_issued": 0,
        "open": 0,
        "held": (),
        "foreign": 0,
        "stop_reason": None,
    }
    return Reconciliation(**{**nothing, **fields})


async def test_exclusive_batch_adopts_lost_answers(there):
    """A code that nobody received is the lost answer's, at once; nothing is issued again."""
    async with there.ledger() as ledger:
        await lose(there, ledger, "r")
        report = await ledger.reconcile(there.client, B)
        assert report == nothing_but(listed=1, adopted=1)
        voucher = await ledger.issue(there.client, B, "r")
        assert await ledger.reconcile(there.client, B) == nothing_but(listed=1)
    assert there.issued == [voucher.code]
    assert there.time.slept == []


async def test_lost_request_is_issued_after_settling_only(there):
    """That there is no code proves nothing until the settle horizon has passed."""
    async with there.ledger() as ledger:
        await lose(there, ledger, "r", NOT_DONE)
        assert await ledger.reconcile(there.client, B) == nothing_but(listed=0, open=1)
        with pytest.raises(OutcomeUnknownError, match="to be settled; ask again later"):
            await ledger.issue(there.client, B, "r")
        report = await ledger.reconcile(there.client, B, wait=True)
        assert report == nothing_but(listed=0, not_issued=1)
        assert there.time.slept == [SETTLE_S - 60]
        await ledger.issue(there.client, B, "r")
    assert len(there.issued) == 1


async def test_two_reconciliations_at_once_are_one_after_the_other(there):
    """They don't settle anything twice."""
    async with there.ledger() as ledger:
        await lose(there, ledger, "r")
        reports = await asyncio.gather(*(ledger.reconcile(there.client, B) for _ in range(2)))
        assert [report.adopted for report in reports] == [1, 0]


async def test_hundreds_of_codes_are_settled(time):
    """More than is committed at once is settled as well, and a baseline as long is kept."""
    there = place(time, quantity=2000, page_size=500)
    before = [there.emulator.state.issue(B)[0] for _ in range(450)]
    async with there.ledger() as ledger:
        await ledger.prepare(there.client, B)
        there.emulator.fail_next("issue", DONE, times=450)
        calls = [ledger.issue(there.client, B, f"r{n}") for n in range(450)]
        await asyncio.gather(*calls, return_exceptions=True)
        while (await ledger.reconcile(there.client, B)).open:
            pass
        codes = set((await reported(ledger)).values())
    assert codes == set(there.issued) - set(before)


async def held_in_shared(there, ledger, name):
    attempt_id = await lose(there, ledger, name)
    report = await ledger.reconcile(there.client, B, wait=True)
    (held,) = [one for one in report.held if one.attempt_id == attempt_id]
    assert (report.adopted, report.not_issued, report.open) == (0, 0, 0)
    return held


async def test_shared_batch_holds_with_candidates_and_adopts_on_a_persons_word(there):
    """What may be ours or somebody else's is named, and given when a person says so."""
    async with there.ledger("shared") as ledger:
        held = await held_in_shared(there, ledger, "r")
        assert list(held.candidates) == there.issued
        with pytest.raises(OutcomeUnknownError, match="held for a person to resolve"):
            await ledger.issue(there.client, B, "r")
        await ledger.resolve(held.attempt_id, adopt=held.candidates[0])
        assert (await ledger.issue(there.client, B, "r")).code == held.candidates[0]
        with pytest.raises(LedgerError, match="Nothing is to be resolved"):
            await ledger.resolve(held.attempt_id, reissue=True)
    assert there.posts == 1


async def test_adopted_voucher_has_its_url(there):
    """A person may name the voucher whole: its request has a picture to show then."""
    async with there.ledger("shared") as ledger:
        held = await held_in_shared(there, ledger, "r")
        (code,) = held.candidates
        voucher = IssuedVoucher(code=code, qr_url="https://qr.example/1")
        await ledger.resolve(held.attempt_id, adopt=voucher)
        await ledger.resolve(held.attempt_id, adopt=voucher)  # the answer to the commit was lost
        assert await ledger.issue(there.client, B, "r") == voucher


async def test_shared_batch_reissues_on_a_persons_word(there):
    """Who is to get another one gets it when asked for again."""
    async with there.ledger("shared") as ledger:
        held = await held_in_shared(there, ledger, "r")
        await ledger.resolve(held.attempt_id, reissue=True)
        voucher = await ledger.issue(there.client, B, "r")
        assert voucher.code not in held.candidates
    assert there.posts == 2


async def test_shared_batch_writes_off_on_a_persons_word(there):
    """A request that was given up gets nothing any more."""
    async with there.ledger("shared") as ledger:
        held = await held_in_shared(there, ledger, "r")
        await ledger.resolve(held.attempt_id, write_off=True)
        with pytest.raises(LedgerError, match="given up by a person"):
            await ledger.issue(there.client, B, "r")
        counts = await ledger.counts(B)
        assert (counts.cancelled, counts.written_off) == (1, 1)
    assert there.posts == 1


@pytest.mark.parametrize(
    "words", [{}, {"reissue": True, "write_off": True}, {"adopt": "x", "reissue": True}]
)
async def test_resolve_takes_one_word(there, words):
    """A person decides one thing about an attempt that is there."""
    async with there.ledger() as ledger:
        with pytest.raises(ConfigurationError):
            await ledger.resolve("a", **words)
        with pytest.raises(LedgerError, match="no such attempt"):
            await ledger.resolve("a", reissue=True)


async def test_shared_batch_without_a_candidate_is_settled(there):
    """With no code that could be the attempt's in a complete listing, it did nothing."""
    async with there.ledger("shared") as ledger:
        await lose(there, ledger, "r", NOT_DONE)
        report = await ledger.reconcile(there.client, B, wait=True)
        assert report == nothing_but(listed=0, not_issued=1)


async def test_shared_batch_never_gives_away_what_others_issued(time):
    """However the issues of a shop and lost answers mingle, no code of the shop's is given."""
    there = place(time, quantity=500)
    theirs = set()
    faults = [None, DONE, NOT_DONE, Fault.LATE_COMMIT, None, Fault.ERROR_AFTER_COMMIT]
    async with there.ledger("shared") as ledger:
        for number in range(60):
            theirs.add(there.emulator.state.issue(B)[0])
            if (fault := faults[number % len(faults)]) is not None:
                there.emulator.fail_next("issue", fault)
            with contextlib.suppress(OutcomeUnknownError):
                await ledger.issue(there.client, B, f"r{number}")
            there.time.now += number % 7
        counts = await ledger.finish(there.client, B)
        given = [code for code in (await reported(ledger)).values() if code in there.issued]
    assert counts.unresolved >= 30
    assert len(given) == counts.assigned == 60 - counts.unresolved
    assert theirs.isdisjoint(given)


async def test_foreign_code_in_an_exclusive_batch_stops_it_until_a_new_baseline(there):
    """A code from nowhere is an alarm: nothing more is issued, and it is never given to anybody."""
    async with there.ledger() as ledger:
        attempt_id = await lose(there, ledger, "lost", NOT_DONE)
        there.time.now += 3 * SETTLE_S
        foreign, _ = there.emulator.state.issue(B)
        report = await ledger.reconcile(there.client, B)
        assert (report.foreign, report.adopted, report.not_issued) == (1, 0, 0)
        assert "somebody else" in report.stop_reason
        assert [held.attempt_id for held in report.held] == [attempt_id]
        with pytest.raises(BatchStoppedError, match="somebody else"):
            await ledger.issue(there.client, B, "r")
        await ledger.baseline(there.client, B)
        voucher = await ledger.issue(there.client, B, "r")
        await ledger.resolve(attempt_id, reissue=True)
        await ledger.finish(there.client, B)
        assert foreign not in (await reported(ledger)).values()
        assert (await ledger.reconcile(there.client, B)).stop_reason is None
    assert voucher.code != foreign


async def test_new_baseline_is_refused_while_calls_are_in_flight(there):
    """A code that is on its way must not be taken for somebody else's."""
    gate, client = there.gate()
    async with there.ledger() as ledger:
        task = asyncio.create_task(ledger.issue(client, B, "r"))
        await gate.arrived.wait()
        with pytest.raises(LedgerError, match="in flight"):
            await ledger.baseline(there.client, B)
        gate.opened.set()
        await task
        await ledger.baseline(there.client, B)
        assert (await ledger.counts(B)).foreign == 0


async def test_foreign_code_is_shown_for_what_is_held(there):
    """A new baseline takes the code of a lost answer for foreign; a person may know better."""
    async with there.ledger() as ledger:
        attempt_id = await lose(there, ledger, "r")
        await ledger.baseline(there.client, B)
        (held,) = (await ledger.reconcile(there.client, B)).held
        assert (held.attempt_id, list(held.candidates)) == (attempt_id, there.issued)
        await ledger.resolve(attempt_id, adopt=there.issued[0])
        assert await reported(ledger) == {"r": there.issued[0]}


async def test_codes_from_before_are_the_baselines(there):
    """What was issued before the ledger began is neither adopted nor foreign."""
    before, _ = there.emulator.state.issue(B)
    async with there.ledger() as ledger:
        await lose(there, ledger, "r", NOT_DONE)
        report = await ledger.reconcile(there.client, B, wait=True)
        assert report == nothing_but(listed=1, not_issued=1)
        assert (await ledger.issue(there.client, B, "r")).code != before


async def test_page_that_fails_decides_nothing(time):
    """When not all pages can be read, nothing is concluded of those that could, and the error
    shows none of their codes."""
    there = place(time, page_size=2)
    async with there.ledger() as ledger:
        for number in range(5):
            await lose(there, ledger, f"r{number}", DONE if number else NOT_DONE)
        gate, client = there.gate("vouchers")
        task = asyncio.create_task(ledger.reconcile(client, B, wait=True))
        await gate.arrived.wait()
        there.emulator.fail_next("vouchers", NOT_DONE, times=2)
        gate.opened.set()
        with pytest.raises(VoucherError) as caught:
            await task
        assert len(await ledger.attempts(B, [AttemptState.AMBIGUOUS])) == 5
    error = caught.value
    lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
    shown = "".join(lines)
    assert not [code for code in there.issued if code in shown]


async def test_listing_with_fewer_than_the_balance_decides_nothing(time):
    """A listing that is behind proves no absence, however long ago the attempt was."""
    there = place(time, listing_delay_s=10 * SETTLE_S)
    async with there.ledger() as ledger:
        await lose(there, ledger, "r")
        assert await ledger.reconcile(there.client, B, wait=True) == nothing_but(listed=0, open=1)
        assert (await ledger.finish(there.client, B)).ambiguous == 1
        there.time.now += 10 * SETTLE_S
        assert (await ledger.reconcile(there.client, B)).adopted == 1


async def test_listing_that_shows_one_twice_and_another_not_decides_nothing(there):
    """A listing that moves while it is read has as many rows as the balance says, and yet lacks a
    code: what counts is how many different ones it has, for a baseline too."""

    class Moving(Transport):
        async def send(self, request):
            answer = await behind.send(request)
            if request.operation != "vouchers":
                return answer
            body = orjson.loads(answer.body)
            body["items"] = [body["items"][0]] * len(body["items"])
            return Response(status=200, body=orjson.dumps(body))

    behind = there.emulator.transport()
    moving = client_of(there.emulator, there.time, transport=Moving())
    async with there.ledger() as ledger:
        for name in ("r", "lost"):
            await lose(there, ledger, name)
        report = await ledger.reconcile(moving, B, wait=True)
        assert (report.listed, report.not_issued) == (1, 0)
        with pytest.raises(LedgerError, match="listing has 1 issued vouchers, and by its balance"):
            await ledger.baseline(moving, B)


async def test_listing_is_believed_without_the_balance_if_told_so(time):
    """Where the balance is not to be looked at, the listing alone decides; a code that comes into
    it after that is a spare."""
    there = place(time, listing_delay_s=4 * SETTLE_S)
    async with there.ledger(check_balance=False) as ledger:
        await lose(there, ledger, "r")
        assert (await ledger.reconcile(there.client, B, wait=True)).not_issued == 1
        there.time.now += 4 * SETTLE_S
        assert (await ledger.reconcile(there.client, B)).adopted == 1
        assert (await ledger.issue(there.client, B, "r")).code == there.issued[0]
    assert there.posts == 1


async def test_codes_without_time_are_adopted_by_the_balance(time):
    """Where the listing shows no time of issue, count and balance prove whose the codes are."""
    there = place(time, shows_assigned_at=False)
    async with there.ledger() as ledger:
        for number in range(4):
            await lose(there, ledger, f"r{number}", DONE if number % 2 else NOT_DONE)
        report = await ledger.reconcile(there.client, B, wait=True)
        assert (report.adopted, report.not_issued) == (2, 2)


async def test_codes_without_time_or_balance_are_held_and_stay_so(time):
    """With nothing to go by they are a person's; and no reconciliation takes them for foreign."""
    there = place(time, shows_assigned_at=False, used_from="VOID")
    async with there.ledger() as ledger:
        attempt_id = await lose(there, ledger, "r")
        for _ in range(2):
            report = await ledger.reconcile(there.client, B, wait=True)
            assert [held.attempt_id for held in report.held] == [attempt_id]
            assert list(report.held[0].candidates) == there.issued
            assert (report.stop_reason, report.foreign, report.adopted) == (None, 0, 0)
        await ledger.resolve(attempt_id, write_off=True)
        assert (await ledger.reconcile(there.client, B, wait=True)).stop_reason is None


async def test_batch_that_no_list_shows_has_no_balance(there):
    """Without the batch's figures, what has a time is settled as ever."""

    class Unlisted(Transport):
        async def send(self, request):
            if request.operation == "batches":
                return Response(status=200, body=orjson.dumps({"items": [], "code": "SUCCESS"}))
            return await behind.send(request)

    behind = there.emulator.transport()
    client = client_of(there.emulator, there.time, transport=Unlisted())
    async with there.ledger() as ledger:
        await lose(there, ledger, "r0", DONE, client)
        await lose(there, ledger, "r1", NOT_DONE, client)
        report = await ledger.reconcile(client, B, wait=True)
        assert report == nothing_but(listed=1, adopted=1, not_issued=1)
        with pytest.raises(NotFoundError):
            await ledger.reconcile(client, "nothing")


async def test_many_unknown_outcomes_are_settled_in_between(there, monkeypatch):
    """When many answers get lost, an exclusive batch is reconciled while it goes on."""
    monkeypatch.setattr(ledger_module, "_MANY_UNKNOWN", 2)
    async with there.ledger() as ledger:
        for number in range(3):
            assert (await ledger.counts(B)).ambiguous == number
            await lose(there, ledger, f"r{number}")
        while tasks := ledger_tasks():
            await asyncio.wait(tasks)
        assert (await ledger.counts(B)).assigned == 3


async def test_many_unknown_outcomes_while_closing_are_left_to_the_next_process(there, monkeypatch):
    """A ledger that is being closed begins no reconciliation; the caller is told of its doubt."""
    monkeypatch.setattr(ledger_module, "_MANY_UNKNOWN", 0)
    arrived, opened = asyncio.Event(), asyncio.Event()
    behind = there.emulator.transport()

    class Slow(Transport):
        async def send(self, request):
            if request.operation == "issue":
                arrived.set()
                await opened.wait()
            return await behind.send(request)

    client = client_of(there.emulator, there.time, transport=Slow())
    async with there.ledger() as ledger:
        there.emulator.fail_next("issue", DONE)
        task = asyncio.create_task(ledger.issue(client, B, "r"))
        await arrived.wait()
        asyncio.get_running_loop().call_soon(opened.set)
    with pytest.raises(OutcomeUnknownError):
        await task


@pytest.mark.parametrize("start_s", [0.7, 84.74337369372327, 1234.56789])
async def test_what_a_reconciliation_waited_for_is_ripe(start_s):
    """Whatever the clock says to the last bit: a clock that only `sleep` moves ends the wait at
    just the instant at which an attempt may be settled."""
    now = [start_s]

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    runtime = Runtime(clock=lambda: 1.7e9 + now[0], monotonic=lambda: now[0], sleep=sleep)
    emulator = Emulator(batches={"B": 5}, clock=runtime.clock)
    client = emulator.client(runtime=runtime)
    async with Ledger.in_memory(runtime=runtime) as ledger:
        await ledger.prepare(client, "B")
        emulator.fail_next("issue", Fault.DROP_BEFORE_COMMIT)
        with pytest.raises(OutcomeUnknownError):
            await ledger.issue(client, "B", "order")
        report = await ledger.reconcile(client, "B", wait=True)
        assert (report.open, report.not_issued) == (0, 1)
