"""What a request that gets nothing now is told."""

from __future__ import annotations

from rm_voucher.ledger import MemoryLedger, RequestState
from rm_voucher.ledger.commands import Held


async def test_held_names_an_attempt_only_if_there_is_one() -> None:
    """A request that waits and relies on no attempt has an error without one."""
    sender = MemoryLedger().sender
    without = sender.held("B", Held(state=RequestState.WAITING, attempt_id=None))
    assert "(attempt" not in str(without)
    assert "(attempt a1)" in str(
        sender.held("B", Held(state=RequestState.WAITING, attempt_id="a1"))
    )
