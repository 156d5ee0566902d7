"""A database that is away for two minutes: what was in hand is kept, in whatever order they come
back."""

import asyncio
from collections import Counter
from functools import partial
from typing import Any

import pytest
from simulation.campaign import Campaign
from simulation.seams import Trouble

from rm_voucher import LedgerError, OutcomeUnknownError
from rm_voucher.ledger import AttemptState, Mode

_AWAY_S = 120.0
_REQUESTS = 200


@pytest.mark.parametrize("settle_s", [5.0, 300.0])
@pytest.mark.parametrize("other_settles", [False, True])
def test_no_code_that_arrived_is_held(settle_s: float, other_settles: bool) -> None:
    """Two processes of a shared batch lose the database under full load. Nothing is sent while it
    is away, and in the end nothing waits for a person: each code that came is its request's, even
    where the other process settled what it took for lost."""
    calm = Campaign(
        seed=3, failed_rate=0, lost_rate=0, fault_rate=0, baseline=0,
        mode=Mode.SHARED, settle_s=settle_s,
    )  # fmt: skip
    world: Any = calm.world
    disk = calm.disk
    ends: Counter[type] = Counter()
    sent_at: list[float] = []
    right = world.answer

    def answer(request):
        if request.operation == "issue":
            sent_at.append(world.clock.now)
        return right(request)

    async def issue(ledger, client, limit, name):
        async with limit:
            while True:
                try:
                    voucher = await ledger.issue(client, "B0", name)
                except (OutcomeUnknownError, LedgerError) as exc:
                    ends[type(exc)] += 1
                    await asyncio.sleep(5)
                else:
                    return voucher.code

    async def main():
        async with calm._ledger() as one, calm._ledger() as other:
            limit, begun = asyncio.Semaphore(32), world.clock.now
            processes = [(each, calm._client()) for each in (one, other)]
            issuing = asyncio.gather(
                *(issue(*processes[number % 2], limit, f"r{number}") for number in range(_REQUESTS))
            )
            await asyncio.sleep(1.5)
            disk.fall_ill(Trouble.AWAY, _AWAY_S)
            for number in range(2):
                disk.cut(number, _AWAY_S + (20.0 if number and other_settles else 0.0))
            away_from = world.clock.now
            if other_settles:
                await asyncio.sleep(_AWAY_S + 2)
                await one.recover()
                report = await one.reconcile(processes[0][1], "B0", wait=True)
                assert bool(report.held) is (settle_s == 5)  # until the other one is back
            codes = await issuing
            assert begun < away_from < world.clock.now - _AWAY_S
            late = [at for at in sent_at if away_from + 1 < at < away_from + _AWAY_S]
            assert late == []
            counts = await one.counts()
            held = await one.attempts(states=[AttemptState.UNRESOLVED])
            return codes, counts, held

    world.answer = answer
    codes, counts, held = world.run(partial(main))
    assert ends[OutcomeUnknownError] > 5
    assert held == []
    assert sorted(codes) == sorted(world.emulator.issued("B0"))
    assert (counts.assigned, counts.spare, counts.ambiguous) == (_REQUESTS, 0, 0)
