"""Where a new token ends the earlier ones, the processes of an account have one, and keep it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import pytest
from simulation.clock import VirtualClock
from support.limited_server import in_virtual_time
from support.shared_token_processes import Account, Process, held_token

_MINUTES_10 = 600.0
_LIFE_S = 320  # it is renewed after half of it: 3 times in 10 minutes


async def together(*works: Coroutine[Any, Any, Any]) -> None:
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)


def test_each_renewal_costs_one_token_request() -> None:
    """8 processes, 10 minutes, 3 renewals: a request for a token each, and of the calls of each
    process at most one a renewal is refused."""

    async def main(clock: VirtualClock) -> None:
        account = Account(clock, token_lifetime_s=_LIFE_S)
        await together(*(each.issue_for(_MINUTES_10, every_s=5) for each in account.processes))
        assert account.token_requests == 1 + 3
        assert max(each.refused for each in account.processes) <= 3
        assert all(each.ended["issued"] > 100 for each in account.processes)
        tokens = {held_token(each.client) for each in account.processes}
        assert tokens == {await account.saved_token(account.processes[0].client)}

    in_virtual_time(main)


@pytest.mark.parametrize("step", ["loaded", "bought"])
def test_renewer_that_was_stopped_saves_no_older_token(step: str) -> None:
    """It goes on after 20 s, in which another one renewed: the others' token stays, and is taken
    by this one, too."""

    async def main(clock: VirtualClock) -> None:
        account = Account(clock, token_lifetime_s=_LIFE_S)
        stopped, *others = account.processes
        await asyncio.gather(*(each.client.issue("B") for each in account.processes))
        assert account.token_requests == 1
        stopped.stops_at, stopped.stops_for_s = step, 20.0
        renewing = asyncio.create_task(_renew(stopped))
        await asyncio.sleep(1)
        account.emulator.revoke_tokens()
        await together(*(each.issue_for(40) for each in others), _after(renewing, stopped))
        saved = await account.saved_token(stopped.client)
        assert {held_token(each.client) for each in account.processes} == {saved}
        # The first, and the others' when the lease ran out. What was bought before the stop has
        # spent the refresh token, so that theirs is refused, and the credentials serve.
        assert account.token_requests == (4 if step == "bought" else 2)
        await asyncio.gather(*(each.client.issue("B") for each in account.processes))
        assert max(each.refused for each in account.processes) <= 2

    in_virtual_time(main)


async def _renew(process: Process) -> None:
    process.client.caller.tokens.refuse(held_token(process.client))
    await process.client.caller.tokens.token()


async def _after(renewing: asyncio.Task[None], process: Process) -> None:
    await renewing
    await process.issue_for(10)


def test_renewer_that_dies_leaves_the_others_a_token() -> None:
    """Between buying and saving: the refresh token that the others have is spent, the token too.
    They wait for its lease, then one of them buys with the credentials."""

    async def main(clock: VirtualClock) -> None:
        account = Account(clock, token_lifetime_s=_LIFE_S)
        dead, *others = account.processes
        await asyncio.gather(*(each.client.issue("B") for each in account.processes))
        dead.stops_at = "bought"
        renewing = asyncio.create_task(_renew(dead))
        await asyncio.sleep(1)
        begun = clock.now
        await asyncio.gather(*(each.client.issue("B") for each in others))
        assert clock.now - begun < 10 + 5
        assert account.token_requests == 1 + 1 + 2  # its own, and a refresh that is refused
        assert {held_token(each.client) for each in others} == {
            await account.saved_token(others[0].client)
        }
        renewing.cancel()

    in_virtual_time(main)


def test_renewal_that_takes_longer_than_a_lease() -> None:
    """It is nobody else's as long as its process lives: a token request for all."""

    async def main(clock: VirtualClock) -> None:
        account = Account(clock, token_lifetime_s=_LIFE_S)
        account.grant_s = 25.0
        await asyncio.gather(*(each.client.issue("B") for each in account.processes))
        assert account.token_requests == 1

    in_virtual_time(main)


def test_store_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """Each process then has a token of its own; where the new ends the earlier, they go on by
    turns, each says so once, and share one again when the store is back."""
    caplog.set_level(logging.WARNING, "rm_voucher")

    async def main(clock: VirtualClock) -> None:
        account = Account(clock, token_lifetime_s=_LIFE_S)
        two = account.processes[:2]
        await asyncio.gather(*(each.client.issue("B") for each in two))
        account.store_is_away = True
        account.emulator.revoke_tokens()
        for _ in range(5):
            for each in two:
                await each.client.issue("B")
                await asyncio.sleep(10)
        failed = [record for record in caplog.records if "the store failed" in record.message]
        assert len(failed) == len(two)
        account.store_is_away = False
        before = account.token_requests
        for _ in range(5):
            for each in two:
                await each.client.issue("B")
                await asyncio.sleep(10)
        assert account.token_requests <= before + 1
        assert len({held_token(each.client) for each in two}) == 1

    in_virtual_time(main)
