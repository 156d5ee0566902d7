"""What each store's ledger makes of recovery, reconciliation, baselines and a person's word."""

import pytest
from support.ledger_ops import B, LedgerOps, code_of, found, held

from rm_voucher.exceptions import BatchStoppedError, LedgerError
from rm_voucher.ledger import AttemptState, RequestState
from rm_voucher.ledger.rules.commands import Claimed, Found, Listed, Pending
from rm_voucher.ledger.rules.records import CodeState
from rm_voucher.ledger.rules.settling import list_codes

AMBIGUOUS, REJECTED = AttemptState.AMBIGUOUS, AttemptState.REJECTED
NOT_ISSUED, WRITTEN_OFF = AttemptState.NOT_ISSUED, AttemptState.WRITTEN_OFF
ADOPTED = AttemptState.ADOPTED


@pytest.fixture(params=["once", "twice"])
async def act(ledger, time, request):
    """Acts on a ledger with a baseline, also with each transition repeated."""
    act = LedgerOps(ledger, time, twice=request.param == "twice")
    await act.baseline("old")
    return act


async def test_adopted_code_goes_to_the_request_that_waits_for_it(act):
    """A lost answer whose code is found has its request served, and a late answer is no news."""
    await act.start("r")
    await act.lose("r")
    await act.adopt("r", "c")
    assert await act.who() == {"r": "c"}
    assert (await act.state_of("r"), (await act.code_row("c")).origin) == (ADOPTED, "adopted")
    assert code_of(await act.confirm("r", "c")) == "c"
    assert await act.counts() == {"asked": 1, "assigned": 1}


async def test_answer_with_another_code_than_was_adopted_is_one_more(act):
    """The late answer to an attempt with an adopted code brings a spare, if its code is new."""
    await act.start("r", "r2")
    await act.lose("r")
    await act.adopt("r", "c")
    assert await act.confirm("r", "d") == Pending(RequestState.WAITING, None)
    assert (await act.counts())["spare"] == 1
    assert await act.state_of("r") is ADOPTED
    assert (await act.code_row("d")).origin == "late"


async def test_code_adopted_for_another_is_traded(act):
    """An answer proves whose a code is. The attempt that had adopted it is open again, and the
    request of the one that it was taken from relies on that."""
    await act.start("r1", "r2")
    await act.lose("r1", "r2")
    await act.adopt("r1", "c2")
    assert await act.confirm("r2", "c2") == Pending(RequestState.WAITING, None)
    assert await act.who() == {"r1": "c2", "r2": "waiting"}
    assert await act.ask("r2", "x") == held("r1")
    assert (await act.state_of("r1"), await act.state_of("r2")) == (
        AMBIGUOUS,
        AttemptState.CONFIRMED,
    )
    assert await act.confirm("r1", "c1") == Pending(RequestState.WAITING, None)
    assert await act.who() == {"r1": "c2", "r2": "c1"}


async def test_two_codes_adopted_crosswise_are_no_alarm(act):
    """Each request has a code that is ours, and keeps it: the server gave none twice."""
    await act.start("r1", "r2")
    await act.lose("r1", "r2")
    await act.adopt("r1", "c2")
    await act.adopt("r2", "c1")
    assert await act.confirm("r1", "c1") == Pending(RequestState.WAITING, None)
    assert code_of(await act.ask("r1", "x")) == "c2"
    assert await act.confirm("r2", "c2") == Pending(RequestState.WAITING, None)
    assert await act.who() == {"r1": "c2", "r2": "c1"}
    assert await act.counts() == {"asked": 2, "assigned": 2}
    (batch,) = await act.ledger.batches()
    assert batch.stop_reason is None


async def test_code_adopted_for_another_is_traded_by_a_loose_attempt(act):
    """Where nobody relies on the attempt that is proved, the other one is open for the next."""
    await act.start("s", "r1", "r2")
    await act.lose("s", "r1", "r2")
    await act.resolve("s", WRITTEN_OFF)
    await act.adopt("r2", "c1")
    await act.confirm("s", "spare")  # which r1 gets, so its attempt is detached
    await act.confirm("r1", "c1")
    assert await act.who() == {"s": "cancelled", "r1": "spare", "r2": "c1"}
    assert await act.ask("r3", "x") == held("r2")


@pytest.mark.parametrize("settled", [NOT_ISSUED, WRITTEN_OFF, AttemptState.UNRESOLVED])
async def test_code_adopted_for_another_is_traded_by_a_settled_attempt(act, settled):
    """A process that was taken for dead may bring its answer after all: that is no alarm."""
    await act.start("r1", "r2")
    await act.lose("r1", "r2")
    if settled is AttemptState.UNRESOLVED:
        await act.settle(hold=("a-r2",))
    else:
        await act.resolve("r2", settled)
    await act.adopt("r1", "c2")
    assert await act.confirm("r2", "c2") == Pending(RequestState.WAITING, None)
    states = [await act.state_of(name) for name in ("r1", "r2")]
    assert states == [AMBIGUOUS, AttemptState.CONFIRMED]
    assert await act.ask("r3", "x") == (
        Claimed("x") if settled is AttemptState.UNRESOLVED else held("r1")
    )
    await act.confirm("r1", "c1")
    await act.counts()
    who = await act.who()
    assert who["r1"] == "c2"
    assert who["r2" if settled is AttemptState.UNRESOLVED else "r3"] == "c1"


async def test_foreign_code_that_an_answer_brings_is_ours(act):
    """What was taken for somebody else's is ours, if it is the answer to a call of ours."""
    await act.start("r")
    await act.lose("r")
    await act.settle(foreign=found("c"))
    assert await act.counts() == {"asked": 1, "ambiguous": 1, "foreign": 1}
    assert code_of(await act.confirm("r", "c")) == "c"
    assert await act.counts() == {"asked": 1, "assigned": 1}


async def test_settlement_is_carried_out_as_far_as_it_still_holds(act):
    """What has happened since the listing was read is not undone."""
    await act.start("confirmed", "rejected", "open", "held")
    await act.confirm("confirmed", "c")
    await act.end("rejected", REJECTED)
    await act.lose("held")
    await act.settle(hold=("a-held",))
    names = ("confirmed", "rejected", "open", "held")
    await act.settle(
        adopt=tuple((f"a-{name}", Found(code=f"x-{name}")) for name in names),
        foreign=found("c", "old"),
    )
    await act.settle(not_issued=tuple(f"a-{name}" for name in names))
    await act.settle(hold=tuple(f"a-{name}" for name in names))
    assert await act.who() == {
        "confirmed": "c",
        "rejected": "waiting",
        "open": "waiting",
        "held": "unresolved",
    }
    assert await act.state_of("open") is AttemptState.SENDING
    assert await act.counts() == {
        "asked": 4,
        "assigned": 1,
        "waiting": 1,
        "ambiguous": 1,
        "unresolved": 1,
    }


async def test_known_code_is_not_adopted(act):
    """A code that came to be known since the listing was read is not given a second time."""
    await act.start("r1", "r2")
    await act.confirm("r1", "c")
    await act.lose("r2")
    await act.adopt("r2", "c")
    await act.adopt("r2", "old")
    assert await act.who() == {"r1": "c", "r2": "waiting"}
    assert await act.state_of("r2") is AMBIGUOUS


async def test_not_issued_lets_the_request_be_tried_again(act):
    """Only what proved to be nothing is sent again."""
    await act.start("r")
    await act.lose("r")
    await act.settle(not_issued=("a-r",))
    assert await act.counts() == {"asked": 1, "waiting": 1}
    assert await act.ask("r", "b") == Claimed("b")


async def test_code_found_for_a_settled_attempt_is_a_late_spare(act):
    """A code that comes into the listing too late is nobody's yet, and used first."""
    await act.start("r")
    await act.lose("r")
    await act.settle(not_issued=("a-r",))
    await act.ask("r", "b")
    await act.confirm("r", "new", "b")
    await act.adopt("r", "late")
    assert (await act.code_row("late")).origin == "late"
    assert await act.counts() == {"asked": 1, "assigned": 1, "spare": 1}
    assert code_of(await act.ask("r2")) == "late"


async def test_late_answer_when_the_request_was_tried_again(act):
    """The answer to an attempt that was settled as nothing is a spare; the new one goes on."""
    await act.start("r")
    await act.lose("r")
    await act.settle(not_issued=("a-r",))
    assert await act.ask("r", "b") == Claimed("b")
    assert await act.confirm("r", "late") == Pending(RequestState.WAITING, None)
    assert (await act.counts())["spare"] == 1
    await act.end("r", REJECTED)
    assert code_of(await act.confirm("r", "new", "b")) == "new"
    assert (await act.code_row("late")).origin == "late"


async def test_late_answer_when_the_request_waits_again(act):
    """A request that waits gets the late answer to its own earlier attempt."""
    await act.start("r")
    await act.lose("r")
    await act.settle(not_issued=("a-r",))
    await act.confirm("r", "late")
    assert code_of(await act.ask("r", "x")) == "late"


async def test_recover_takes_what_its_process_sends_no_more(act):
    """SENDING becomes AMBIGUOUS where the process that sent it is gone, and never is sent again."""
    await act.start("mine")
    await act.start("theirs", owner="a process that is gone")
    assert act.twice or await act.recover(own=act.ledger.store.owner) == ["a-mine", "a-theirs"]
    await act.recover(own=act.ledger.store.owner)
    assert await act.attempts(AttemptState.SENDING) == []
    assert await act.ask("mine", "x") == held("mine")
    assert await act.recover(own=act.ledger.store.owner) == []


async def test_recovered_attempt_may_get_a_spare_that_waited(act):
    """A request whose attempt became ambiguous is next in line for a spare."""
    await act.start("s", "r")
    await act.lose("s")
    await act.resolve("s", WRITTEN_OFF)
    await act.confirm("s", "spare")
    assert (await act.counts())["spare"] == 1
    await act.recover(own=act.ledger.store.owner)
    assert (await act.who())["r"] == "waiting"  # until it is known whether its code is in hand
    await act.settle()
    assert (await act.who())["r"] == "spare"


async def test_entering_the_ledger_recovers(make_ledger, time):
    """What the last process was sending is ambiguous in the next one."""
    async with make_ledger() as ledger:
        act = LedgerOps(ledger, time)
        await act.baseline()
        await act.start("r")
    async with make_ledger() as ledger:
        for batch in (B, None):
            (attempt,) = await ledger.attempts(batch)
            assert (attempt.id, attempt.state) == ("a-r", AMBIGUOUS)
        assert await LedgerOps(ledger, time).ask("r", "x") == held("r")


async def test_baseline_codes_are_nobodys(act):
    """Codes that were issued before the ledger began are never given, adopted or resolved to."""
    await act.start("r")
    await act.lose("r")
    await act.adopt("r", "old")
    assert isinstance(await act.resolve("r", ADOPTED, "old"), LedgerError)
    assert (await act.code_row("old")).state == "baseline"
    assert await act.counts() == {"asked": 1, "ambiguous": 1}


async def test_baseline_is_read_once(ledger, time):
    """Nothing is started until its last part is in; what comes after that is not taken up."""
    act = LedgerOps(ledger, time)
    await act.commit(list_codes, Listed(batch=B, at=act.at(), found=found("old")))
    assert isinstance(await act.ask("r"), BatchStoppedError)
    await act.commit(list_codes, Listed(batch=B, at=act.at(), last=True))
    await act.start("r")
    await act.baseline("ours, of which another process heard late")
    rows = await ledger.store.read(
        lambda unit: unit.known(["ours, of which another process heard late"])
    )
    assert rows == set()


async def test_baseline_anew(act):
    """It takes what is unknown as foreign, holds what is ambiguous, and ends the alarm."""
    await act.start("r", "lost", "sending")
    await act.confirm("r", "c")
    await act.lose("lost")
    assert isinstance(await act.baseline(reset=True), LedgerError)  # a call is in flight
    await act.end("sending", REJECTED)
    await act.settle(stop_reason="it burns")
    await act.commit(list_codes, Listed(batch=B, at=act.at(), reset=True))
    assert isinstance(await act.ask("sending", "x"), BatchStoppedError)
    await act.commit(list_codes, Listed(batch=B, at=act.at(), found=found("c", "new", "old")))
    assert isinstance(await act.ask("sending", "x"), BatchStoppedError)
    await act.baseline()
    assert await act.ask("sending", "x") == Claimed("x")
    states = [(await act.code_row(code)).state for code in ("c", "new", "old")]
    assert states == ["assigned", "foreign", "baseline"]
    assert await act.who() == {"r": "c", "lost": "unresolved", "sending": "waiting"}


async def test_baseline_anew_that_was_not_finished_stops_the_batch(act):
    """A batch whose new baseline was begun, and not ended, says so."""
    await act.commit(list_codes, Listed(batch=B, at=act.at(), reset=True))
    with pytest.raises(BatchStoppedError, match="not read to its end"):
        raise await act.ask("r")
    assert isinstance(await act.ask("r2"), BatchStoppedError)


@pytest.mark.parametrize("is_held", [True, False])
async def test_resolve_with_a_code(act, is_held):
    """A person's word gives the request its code, also one that was taken for somebody else's."""
    await act.start("r", "r2")
    await act.lose("r", "r2")
    if is_held:
        await act.settle(hold=("a-r", "a-r2"), foreign=found("f"))
    await act.resolve("r", ADOPTED, "c")
    assert isinstance(await act.resolve("r2", ADOPTED, "c"), LedgerError)
    await act.resolve("r2", ADOPTED, "f")
    assert await act.who() == {"r": "c", "r2": "f"}
    assert await act.state_of("r") is ADOPTED
    assert await act.counts() == {"asked": 2, "assigned": 2}


async def test_resolve_as_not_issued(act):
    """A request whose attempt a person takes for nothing waits again."""
    await act.start("r")
    await act.lose("r")
    await act.settle(hold=("a-r",))
    await act.resolve("r", NOT_ISSUED)
    assert await act.counts() == {"asked": 1, "waiting": 1}
    assert await act.ask("r", "b") == Claimed("b")


async def test_resolve_as_written_off(act):
    """A request that a person gives up is not tried again; a late answer is a spare."""
    await act.start("r")
    await act.lose("r")
    await act.settle(hold=("a-r",))
    await act.resolve("r", WRITTEN_OFF)
    assert await act.counts() == {"asked": 1, "cancelled": 1, "written_off": 1}
    assert await act.confirm("r", "late") == Pending(RequestState.WAITING, None)
    assert await act.who() == {"r": "cancelled"}


async def test_resolve_of_a_loose_attempt_concerns_no_request(act):
    """An attempt whose request was served otherwise is settled alone."""
    await act.start("s", "r")
    await act.lose("s", "r")
    await act.resolve("s", WRITTEN_OFF)
    await act.confirm("s", "spare")
    await act.settle(hold=("a-r",))
    assert await act.state_of("r") is AttemptState.UNRESOLVED
    await act.resolve("r", NOT_ISSUED)
    assert await act.who() == {"s": "cancelled", "r": "spare"}


@pytest.mark.parametrize(
    ("word", "code", "end"),
    [(ADOPTED, "c", "c"), (NOT_ISSUED, None, "waiting"), (WRITTEN_OFF, None, "cancelled")],
)
async def test_resolve_may_be_repeated(act, word, code, end):
    """The answer to its commit can be lost too: the same word again changes nothing, and is no
    error."""
    await act.start("r")
    await act.lose("r")
    for _ in range(2):
        assert await act.resolve("r", word, code) is None
        assert await act.who() == {"r": end}
    assert isinstance(await act.resolve("r", ADOPTED, "other"), LedgerError)


async def test_resolve_refuses_what_is_not_in_doubt(act):
    """Nothing is resolved that is in flight, or has its outcome."""
    await act.start("sending", "done")
    await act.confirm("done", "c")
    for name in ("sending", "done"):
        for state in (NOT_ISSUED, WRITTEN_OFF):
            assert isinstance(await act.resolve(name, state), LedgerError)
        assert isinstance(await act.resolve(name, ADOPTED, "d"), LedgerError)
    assert await act.who() == {"sending": "waiting", "done": "c"}
    assert await act.ledger.store.read(lambda unit: unit.known(["c", "d"])) == {"c"}


async def test_foreign_codes_are_found_by_batch_and_time(act):
    """Between two times, both included, or without a time; codes that were given are not among."""
    times = {"early": 10.0, "first": 20.0, "last": 30.0, "late": 31.0, "timeless": None}
    listed = tuple(Found(code=code, assigned_at=at) for code, at in times.items())
    for batch, part in ((B, listed), ("other", (Found(code="others", assigned_at=25.0),))):
        item = Listed(batch=batch, at=act.at(), found=part, last=True, reset=True)
        assert await act.commit(list_codes, item) is None
    await act.start("r")
    await act.confirm("r", "ours")
    foreign = await act.ledger.store.read(lambda unit: unit.find_foreign(B, 20.0, 30.0))
    assert {code.code for code in foreign} == {"first", "last", "timeless"}
    assert {code.state for code in foreign} == {CodeState.FOREIGN}
