"""What each store's ledger makes of asking, and of what comes of attempts."""

import asyncio

import pytest
from support.ledger_ops import B, LedgerOps, code_of, held

from rm_voucher.exceptions import BatchStoppedError, IdempotencyConflictError, LedgerError
from rm_voucher.ledger import AttemptState, RequestState
from rm_voucher.ledger.rules.commands import Claimed, Pending

AMBIGUOUS, REJECTED = AttemptState.AMBIGUOUS, AttemptState.REJECTED


@pytest.fixture(params=["once", "twice"])
async def act(ledger, time, request):
    """Acts on a ledger with a baseline, also with each transition repeated."""
    act = LedgerOps(ledger, time, twice=request.param == "twice")
    await act.baseline("old")
    return act


async def test_ask_starts_then_gives_what_was_confirmed(act):
    """A request has an attempt, then a code, and that code for ever."""
    assert await act.ask("r") == Claimed("a-r")
    assert await act.ask("r", "other") == held("r", in_flight=True)
    assert await act.counts() == {"asked": 1, "ambiguous": 1}
    voucher = await act.confirm("r", "c")
    assert (voucher.code, voucher.qr_url) == ("c", "https://qr.invalid/c")
    assert await act.ask("r", "other") == voucher
    assert await act.state_of("r") is AttemptState.CONFIRMED
    assert await act.counts() == {"asked": 1, "assigned": 1}
    assert (await act.code_row("c")).origin == "response"


async def test_ask_a_hundred_times_at_once(act):
    """Of a hundred who ask for one id at once, one is told to send."""
    answers = await asyncio.gather(*(act.ask("r", f"a{n}") for n in range(100)))
    started = [answer for answer in answers if isinstance(answer, Claimed)]
    assert len(started) == 1
    assert len([answer for answer in answers if isinstance(answer, Pending)]) == 99
    attempts = await act.attempts(AttemptState.SENDING)
    assert [attempt.id for attempt in attempts] == [started[0].attempt_id]


async def test_ask_other_content_or_batch_is_a_conflict(act):
    """An id is for one batch and one content, whatever has become of its request."""
    await act.start("r")
    for other in ({"content": "x"}, {"batch": "other"}):
        assert isinstance(await act.ask("r", "b", **other), IdempotencyConflictError)
    await act.confirm("r", "c")
    assert isinstance(await act.ask("r", "b", content="x"), IdempotencyConflictError)
    assert code_of(await act.ask("r", "b")) == "c"


async def test_ask_submitted_only_is_not_started(act):
    """What is only submitted waits, also where the batch is stopped, and is started later."""
    assert await act.ask("r", may_start=False) == held("")
    assert await act.counts() == {"asked": 1, "waiting": 1}
    await act.start("r")


async def test_ask_before_the_baseline_or_after_an_alarm_starts_nothing(ledger, time):
    """A batch without a baseline, or with an alarm, has no attempt; the request is kept."""
    act = LedgerOps(ledger, time)
    assert isinstance(await act.ask("r"), BatchStoppedError)
    await act.baseline()
    await act.settle(stop_reason="it burns")
    with pytest.raises(BatchStoppedError, match="it burns"):
        raise await act.ask("r")
    assert await act.attempts(AttemptState.SENDING) == []
    assert await act.counts() == {"asked": 1, "waiting": 1}


async def test_failed_request_is_opened_again(act):
    """What the server refused may be asked again, with other content too."""
    await act.start("r")
    await act.end("r", REJECTED, "SOLD_OUT")
    ((request, _),) = [one async for one in act.ledger.requests(B)]
    assert (request.state, request.error) == (RequestState.FAILED, "SOLD_OUT")
    assert await act.counts() == {"asked": 1, "failed": 1}
    assert await act.ask("r", "b", content="x") == Claimed("b")
    assert code_of(await act.confirm("r", "c", "b")) == "c"
    assert await act.counts() == {"asked": 1, "assigned": 1}


async def test_failed_request_may_move_to_another_batch(act):
    """A request that was refused has nothing in its batch, so it may be asked of another."""
    await act.start("r")
    await act.end("r", REJECTED, "SOLD_OUT")
    assert isinstance(await act.ask("r", "b", batch="other"), BatchStoppedError)
    assert (await act.ledger.counts(B)).asked == 0
    assert (await act.ledger.counts("other")).waiting == 1


async def test_rejected_attempt_without_failure_leaves_the_request_waiting(act):
    """What proves that nothing was done, and no more, lets the request be tried again."""
    await act.start("r")
    await act.end("r", REJECTED)
    assert await act.counts() == {"asked": 1, "waiting": 1}
    assert await act.ask("r", "b") == Claimed("b")


async def test_held_requests_start_nothing(act):
    """CANCELLED and UNRESOLVED requests are a person's; so is one that has an ambiguous attempt."""
    await act.start("amb", "unr", "can")
    await act.lose("amb", "unr", "can")
    await act.settle(hold=("a-unr", "a-can"))
    assert isinstance(await act.resolve("can", AttemptState.WRITTEN_OFF), LedgerError | None)
    assert await act.ask("amb", "x") == held("amb")
    assert await act.ask("unr", "x") == held("unr", RequestState.UNRESOLVED)
    assert await act.ask("can", "x") == held("", RequestState.CANCELLED)
    assert [one.id for one in await act.attempts(AttemptState.UNRESOLVED)] == ["a-unr"]
    assert await act.counts() == {
        "asked": 3,
        "ambiguous": 1,
        "unresolved": 1,
        "cancelled": 1,
        "written_off": 1,
    }


async def spares(act, *codes):
    """Leave spare codes, in this order: their attempts were given up before their answers came."""
    names = [f"s-{code}" for code in codes]
    await act.start(*names)
    await act.lose(*names)
    for name in names:
        await act.resolve(name, AttemptState.WRITTEN_OFF)
    for name, code in zip(names, codes, strict=True):
        assert isinstance(await act.confirm(name, code), Pending)
        assert (await act.code_row(code)).origin == "late"


async def test_late_answers_are_spares_and_the_oldest_is_used_first(act):
    """A code that comes after its attempt was given up goes to the next who asks."""
    await spares(act, "zz", "mm", "aa")
    assert (await act.counts())["spare"] == 3
    assert [code_of(await act.ask(f"r{n}")) for n in range(3)] == ["zz", "mm", "aa"]
    await act.start("r3")
    assert (await act.counts()).get("spare") is None


async def test_spare_goes_to_the_oldest_that_waits(act):
    """A late code goes to the request that waits for the longest, and to who waits for nothing
    before who has an ambiguous attempt."""
    await act.start("lost", "amb")
    await act.lose("lost", "amb")
    await act.resolve("lost", AttemptState.WRITTEN_OFF)
    for name in ("r1", "r0"):
        await act.ask(name, may_start=False)
    for code in ("c1", "c2"):
        await act.confirm("lost", code)
    assert await act.who() == {"lost": "cancelled", "amb": "waiting", "r1": "c1", "r0": "c2"}
    await act.confirm("lost", "c3")
    assert (await act.who())["amb"] == "c3"


async def test_spares_in_hundreds_go_round(ledger, time):
    """More spares than are dealt with in a turn all find their requests."""
    act = LedgerOps(ledger, time)
    await act.baseline()
    await act.start("s")
    await act.lose("s")
    await act.resolve("s", AttemptState.WRITTEN_OFF)
    await act.settle(stop_reason="stopped")
    for number in range(300):
        await act.ask(f"r{number}", may_start=False)
    codes = {f"c{number}" for number in range(299)}
    await asyncio.gather(*(act.confirm("s", code) for code in codes))
    who = await act.who()
    assert {who[f"r{number}"] for number in range(299)} == codes
    assert who["r299"] == "waiting"


async def test_loose_attempt_is_relied_on_by_the_next(act):
    """An open attempt whose request got a spare is the next request's: no other is started."""
    await act.start("s", "r")
    await act.lose("s", "r")
    await act.resolve("s", AttemptState.WRITTEN_OFF)
    await act.confirm("s", "spare")
    assert (await act.who())["r"] == "spare"
    assert await act.ask("next", "x") == held("r")
    assert await act.attempts(AttemptState.SENDING) == []
    assert await act.confirm("r", "c") == Pending(RequestState.WAITING, None)
    assert (await act.who())["next"] == "c"


async def test_loose_attempt_that_is_rejected_leaves_nobody_behind(act):
    """A detached attempt that turns out to be nothing changes no request."""
    await act.start("s", "r")
    await act.lose("s", "r")
    await act.resolve("s", AttemptState.WRITTEN_OFF)
    await act.confirm("s", "spare")
    await act.end("r", REJECTED, "SOLD_OUT")
    assert (await act.who())["r"] == "spare"
    assert await act.counts() == {"asked": 2, "assigned": 1, "cancelled": 1}


async def test_known_code_in_an_answer_stops_the_batch(act):
    """A static batch gives everybody one code: the second answer is an alarm, and nobody's."""
    await act.start("r1", "r2", "r3")
    assert code_of(await act.confirm("r1", "same")) == "same"
    with pytest.raises(BatchStoppedError, match="static batch"):
        raise await act.confirm("r2", "same")
    with pytest.raises(BatchStoppedError):  # one of the baseline is as known as any
        raise await act.confirm("r3", "old")
    assert await act.who() == {"r1": "same", "r2": "unresolved", "r3": "unresolved"}
    assert isinstance(await act.ask("r4"), BatchStoppedError)
    assert code_of(await act.ask("r1")) == "same"


async def test_known_code_in_an_answer_to_a_settled_attempt_stops_the_batch(act):
    """The alarm needs no open attempt."""
    await act.start("r1", "r2")
    await act.confirm("r1", "same")
    await act.lose("r2")
    await act.settle(not_issued=("a-r2",))
    assert isinstance(await act.confirm("r2", "same"), BatchStoppedError)
    assert await act.state_of("r2") is AttemptState.NOT_ISSUED


async def test_end_of_a_settled_attempt_changes_nothing(act):
    """How an attempt ended is no news once it has been settled."""
    await act.start("r")
    await act.confirm("r", "c")
    await act.end("r", REJECTED, "SOLD_OUT")
    await act.lose("r")
    assert await act.state_of("r") is AttemptState.CONFIRMED
    assert await act.who() == {"r": "c"}


async def test_answer_to_an_ambiguous_attempt_is_its_requests(act):
    """An answer that comes after all is taken, if nothing was concluded meanwhile."""
    await act.start("r")
    await act.lose("r")
    assert code_of(await act.confirm("r", "c")) == "c"
    assert (await act.code_row("c")).origin == "response"


async def test_requests_page_in_order(ledger, time):
    """All requests are listed in the order they were asked, over several blocks, by batch."""
    act = LedgerOps(ledger, time)
    names = [f"r{(7 * number) % 1101}" for number in range(1101)]
    batches = [B if number % 3 else "other" for number in range(len(names))]
    asks = zip(names, batches, strict=True)
    await asyncio.gather(*(act.ask(name, may_start=False, batch=batch) for name, batch in asks))
    everything = [request.id async for request, _ in ledger.requests()]
    assert everything == names
    assert list(await act.who()) == [name for number, name in enumerate(names) if number % 3]


async def test_listeners_hear_what_is_durable(ledger, time):
    """Who listens is told of each code that a request got, once that can be read."""
    act = LedgerOps(ledger, time)
    told: list[tuple[str | None, str]] = []
    ledger.subscribe(lambda codes: told.extend((c.request_id, c.code) for c in codes))
    await act.baseline("old")
    await act.start("r1", "r2")
    assert told == []
    await act.confirm("r1", "c1")
    await act.adopt("r2", "never, because nothing is ambiguous")
    await act.lose("r2")
    await act.adopt("r2", "c2")
    assert told == [("r1", "c1"), ("r2", "c2")]


async def test_refused_operation_does_not_spoil_those_beside_it(act):
    """What is refused in a group is refused alone."""
    await act.start("r")
    results = await asyncio.gather(
        act.ask("r", "x", content="other"), act.ask("r2"), act.ask("r", "y")
    )
    assert isinstance(results[0], LedgerError)
    assert results[1] == Claimed("a-r2")
    assert results[2] == held("r", in_flight=True)


async def test_ledger_is_entered_once(make_ledger):
    """One that is open already is left as it is."""
    async with make_ledger() as ledger:
        with pytest.raises(LedgerError, match="open already"):
            await ledger.__aenter__()
        assert (await ledger.counts()).asked == 0
