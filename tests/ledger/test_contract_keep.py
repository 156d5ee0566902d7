"""What each store's ledger makes of a code that an earlier process received and could not keep."""

from __future__ import annotations

from typing import Any

import pytest
from support.ledger_ops import B, LedgerOps, code_of

from rm_voucher import IssuedVoucher
from rm_voucher.exceptions import LedgerError
from rm_voucher.ledger import AttemptState, RequestState
from rm_voucher.ledger.rules.commands import Check, Claimed, End, Keep
from rm_voucher.ledger.rules.settling import keep
from rm_voucher.ledger.rules.transitions import check, end

UNRESOLVED, WRITTEN_OFF = AttemptState.UNRESOLVED, AttemptState.WRITTEN_OFF
NOT_ISSUED = AttemptState.NOT_ISSUED


class Ops(LedgerOps):
    async def keep(self, name: str, code: str, batch: str = B) -> Any:
        voucher = IssuedVoucher(code=code, qr_url=f"https://qr.invalid/{code}")
        item = Keep(batch=batch, request_id=name, voucher=voucher, at=self.at())
        return await self.commit(keep, item)

    async def see(self, name: str, code: str) -> None:
        """Let an attempt end with an error that came with a code."""
        seen = IssuedVoucher(code=code, qr_url=f"https://qr.invalid/{code}")
        state = AttemptState.AMBIGUOUS
        item = End(batch=B, attempt_id=f"a-{name}", state=state, at=self.at(), seen=seen)
        await self.commit(end, item)


@pytest.fixture(params=["once", "twice"])
async def act(ledger, time, request) -> Ops:
    act = Ops(ledger, time, twice=request.param == "twice")
    await act.baseline("old")
    return act


async def ambiguous(act: Ops) -> None:
    await act.lose("r")


async def recovered(act: Ops) -> None:
    await act.recover(own=act.ledger.store.owner)


async def held(act: Ops) -> None:
    await act.lose("r")
    await act.settle(hold=("a-r",))


async def settled_as_nothing(act: Ops) -> None:
    await act.lose("r")
    await act.settle(not_issued=("a-r",))


async def found_to_be_foreign(act: Ops) -> None:
    await held(act)
    await act.baseline("c", reset=True)


async def reissued(act: Ops) -> None:
    await act.lose("r")
    await act.resolve("r", NOT_ISSUED)
    assert await act.ask("r", "a-second") == Claimed("a-second")
    item = End(batch=B, attempt_id="a-second", state=AttemptState.AMBIGUOUS, at=act.at())
    await act.commit(end, item)


async def foreign_and_reissued(act: Ops) -> None:
    await settled_as_nothing(act)
    await act.baseline("c", reset=True)


BEFORE = [
    ambiguous,
    recovered,
    held,
    settled_as_nothing,
    found_to_be_foreign,
    reissued,
    foreign_and_reissued,
]


@pytest.mark.parametrize("before", BEFORE, ids=lambda before: before.__name__)
async def test_code_that_was_seen_is_the_requests(act, before) -> None:
    """Whatever has become of the attempt: the request has it, and nobody is held for it."""
    await act.start("r")
    await before(act)
    assert await act.keep("r", "c") is None
    assert await act.who() == {"r": "c"}
    counts = await act.counts()
    assert (counts["assigned"], counts.get("unresolved", 0), counts.get("spare", 0)) == (1, 0, 0)
    assert code_of(await act.ask("r", "other")) == "c"
    assert (await act.ask("r", "other")).qr_url == "https://qr.invalid/c"
    assert await act.keep("r", "c") is None


async def test_code_that_became_a_spare_is_the_requests_all_the_same(act) -> None:
    """What the listing had given to nobody yet is given to whom it was shown."""
    await act.start("other", "r")
    await act.lose("other", "r")
    await act.resolve("other", WRITTEN_OFF)
    await act.settle(hold=("a-r",))
    await act.confirm("other", "c")  # a late answer's
    assert (await act.counts())["spare"] == 1
    assert await act.keep("r", "c") is None
    assert (await act.who())["r"] == "c"
    assert (await act.counts()).get("spare") is None


async def test_what_the_ledger_contradicts(act) -> None:
    """It stays as it is, and says so in a sentence, which shows no code."""
    await act.start("r", "s", "gone", "flying", "waits")
    await act.confirm("r", "c")
    await act.confirm("s", "d")
    await act.lose("gone", "waits")
    await act.resolve("gone", WRITTEN_OFF)
    before = await act.who()
    for name, code, why in [
        ("nobody", "new", "never heard of"),
        ("r", "new", "another code already"),
        ("waits", "d", "already, as one another request's"),
        ("waits", "old", "already, as one of before the ledger"),
        ("gone", "new", "given up by a person"),
        ("flying", "new-2", "is in flight"),
    ]:
        error = await act.keep(name, code)
        assert isinstance(error, LedgerError), (name, code)
        assert why in str(error)
        assert "new" not in str(error)
    assert isinstance(await act.keep("r", "c", batch="other"), LedgerError)
    assert await act.who() == before


async def test_code_of_a_request_that_has_another_is_given_to_nobody(act) -> None:
    """It may have been shown to somebody: known to the ledger, it is found for no one else."""
    await act.start("r", "s")
    await act.confirm("r", "c")
    assert isinstance(await act.keep("r", "seen"), LedgerError)
    assert (await act.code_row("seen")).state == "foreign"
    await act.lose("s")
    await act.resolve("s", WRITTEN_OFF)
    await act.confirm("s", "late")
    assert isinstance(await act.keep("r", "late"), LedgerError)
    assert (await act.code_row("late")).state == "foreign"
    await act.start("t")


async def test_code_of_an_error_stays_evidence(act) -> None:
    """Nothing proves that it was issued, so `keep` leaves it to a listing."""
    await act.start("r")
    await act.see("r", "c")
    assert await act.keep("r", "c") is None
    assert await act.who() == {"r": "waiting"}
    answer = await act.ask("r", "other")
    assert answer.seen == IssuedVoucher(code="c", qr_url="https://qr.invalid/c")
    await act.settle(not_issued=("a-r",))
    assert await act.keep("r", "c") is None
    assert await act.who() == {"r": "waiting"}


@pytest.mark.parametrize("is_held", [False, True])
async def test_code_of_an_error_is_adopted_when_it_is_listed(act, is_held) -> None:
    """Also by an attempt that is held already."""
    await act.start("r")
    await act.see("r", "c")
    if is_held:
        await act.settle(hold=("a-r",))
    await act.adopt("r", "c")
    assert await act.who() == {"r": "c"}


async def test_evidence_that_comes_after_another_settled_the_attempt(act) -> None:
    """It is kept beside whatever was concluded."""
    await act.start("r")
    await act.lose("r")
    await act.settle(hold=("a-r",))
    await act.see("r", "c")
    assert await act.state_of("r") is UNRESOLVED
    assert (await act.ask("r", "other")).state is RequestState.UNRESOLVED
    assert (await act.ask("r", "other")).seen.code == "c"


async def test_check_of_an_attempt(act) -> None:
    """It may be sent while it is SENDING, and its own process's."""
    await act.start("r")
    own = act.ledger.store.owner

    async def may_send(owner: str = own) -> Any:
        return await act.commit(check, Check(batch=B, attempt_id="a-r", owner=owner))

    assert await may_send() is True
    assert await may_send("another") is False
    await act.lose("r")
    assert await may_send() is False
    assert isinstance(
        await act.commit(check, Check(batch=B, attempt_id="none", owner=own)), LedgerError
    )
