"""What a request that gets nothing now is told."""

from __future__ import annotations

import pytest
from support.voucher_shop import Shop

from rm_voucher import ConnectError
from rm_voucher.ledger import MemoryLedger, RequestState
from rm_voucher.ledger.rules.commands import Pending
from rm_voucher.service.client import issue_call


async def test_held_names_an_attempt_only_if_there_is_one() -> None:
    """A request that waits and relies on no attempt has an error without one."""
    sender = MemoryLedger().sender
    without = sender.held("B", Pending(state=RequestState.WAITING, attempt_id=None))
    assert "(attempt" not in str(without)
    assert "(attempt a1)" in str(
        sender.held("B", Pending(state=RequestState.WAITING, attempt_id="a1"))
    )


async def test_close_before_a_call_is_sent_gives_it_up(credentials, time):
    """A request that was started when the ledger began to close is not sent, and is as before."""
    shop = Shop(credentials, time)
    async with shop.client() as client, MemoryLedger(**shop.settings) as ledger:
        await ledger.prepare(client, "B")
        started = await ledger.sender.ask("B", "", "late")
        opened, ledger._opened = ledger._opened, False
        with pytest.raises(ConnectError, match="being closed"):
            await ledger.sender._send_alone(
                client, issue_call(client.caller, "B"), "late", started.attempt_id
            )
        ledger._opened = opened
        assert shop.emulator.requests["issue"] == 0
        assert (await ledger.issue(client, "B", "late")).code
