"""What is not finished, in each store: the figures that a worker's operator looks at."""

from __future__ import annotations

from support.doubles import FakeTime
from support.ledger_rows import BATCH, begin, issue, start

from rm_voucher.ledger import AttemptState, Backlog, Ledger
from rm_voucher.ledger.rules.commands import Claimed, End
from rm_voucher.ledger.rules.transitions import end


async def leave(ledger: Ledger, request_id: str, state: AttemptState) -> None:
    """Ask for a code, and end the attempt without one."""
    claimed = await start(ledger, request_id)
    assert isinstance(claimed, Claimed)
    at = ledger.clock.latest_now()
    await ledger.store.commit(
        end, End(batch=BATCH, attempt_id=claimed.attempt_id, state=state, at=at)
    )


async def test_backlog_of_each_kind(ledger: Ledger, time: FakeTime) -> None:
    """It counts what waits, is sent or unknown, and since when; what is served does not count."""
    assert await ledger.backlog() == Backlog()
    await begin(ledger)
    await begin(ledger, "OTHER")
    await issue(ledger, "served")
    waits_since = ledger.clock.latest_now()
    await leave(ledger, "waits", AttemptState.REJECTED)
    time.now += 10
    await leave(ledger, "waits later", AttemptState.REJECTED)
    unknown_since = ledger.clock.latest_now()
    await leave(ledger, "unknown", AttemptState.AMBIGUOUS)
    await start(ledger, "in flight")
    await start(ledger, "in flight there", "OTHER")
    everything = await ledger.backlog()
    assert (everything.waiting, everything.sending, everything.ambiguous) == (2, 2, 1)
    assert (everything.held, everything.spare) == (0, 0)
    assert everything.oldest_waiting_at == waits_since
    assert everything.oldest_ambiguous_at == unknown_since
    there = await ledger.backlog("OTHER")
    assert (there.waiting, there.sending, there.ambiguous) == (0, 1, 0)
    assert (there.oldest_waiting_at, there.oldest_ambiguous_at) == (None, None)


async def test_namespaces_of_a_ledger_without_an_account(ledger: Ledger) -> None:
    """Nobody has claimed any."""
    assert await ledger.namespaces() == {}
