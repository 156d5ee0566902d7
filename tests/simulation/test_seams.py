"""Campaigns keep the ledger's promises where its surroundings give way: at the network, at the
database, by the clock."""

import asyncio
import math
from functools import partial
from typing import Any

import pytest
from simulation.campaign import Campaign
from simulation.seams import Seams, Trouble
from simulation.test_campaigns import SEEDS, hold_end

from rm_voucher import IssuedVoucher, LedgerError, OutcomeUnknownError

COMMON: dict[str, Any] = {"requests": 120, "crashes": 2}
# The server asks for long waits, and what it does is soon to be seen: so that an outcome is settled
# while a call of another process waits.
OVERTAKEN: dict[str, Any] = {
    "ledgers": 2,
    "retry_after_s": 40,
    "settle_s": 12.0,
    "late_s": 4.0,
    "lag_s": 1.0,
    "workers": 8,
    "requests": 60,
    "looks_s": 3.0,
    "finishes": True,
    "pace_s": 2.0,
}
# What a held attempt explains is a matter of time: a second round of lost answers may pass for the
# first one's. So there is one, and a clock that is off for all of it.
OFF: dict[str, Any] = {"mode": "shared", "crashes": 0, "calm_after_s": 35.0}
SEAMS: dict[str, dict[str, Any]] = {
    "bytes sent again": {"seams": Seams(resent=0.1)},
    "bytes sent again, shared": {"seams": Seams(resent=0.1), "mode": "shared", "foreign": 10},
    "bytes sent again, in bulk": {"seams": Seams(resent=0.1), "bulk": True},
    "codes in errors": {"seams": Seams(codes_in_errors=0.1)},
    "codes in errors, shared": {
        "seams": Seams(codes_in_errors=0.1),
        "mode": "shared",
        "foreign": 10,
    },
    "codes in errors, in bulk": {"seams": Seams(codes_in_errors=0.1), "bulk": True},
    "a full disk": {"seams": Seams(troubles=4, kinds=(Trouble.FULL,))},
    "a full disk, shared": {"seams": Seams(troubles=4, kinds=(Trouble.FULL,)), "mode": "shared"},
    "a full disk, in bulk": {"seams": Seams(troubles=4, kinds=(Trouble.FULL,)), "bulk": True},
    "a broken disk": {"seams": Seams(troubles=4, kinds=(Trouble.BROKEN,))},
    "a broken disk, shared": {
        "seams": Seams(troubles=4, kinds=(Trouble.BROKEN,)),
        "mode": "shared",
    },
    "a broken disk, in bulk": {"seams": Seams(troubles=4, kinds=(Trouble.BROKEN,)), "bulk": True},
    "read only": {"seams": Seams(troubles=4, kinds=(Trouble.READ_ONLY,))},
    "away": {"seams": Seams(troubles=4, kinds=(Trouble.AWAY,)), "mode": "shared"},
    "two processes": {"ledgers": 2},
    "two processes, shared": {"ledgers": 2, "mode": "shared", "foreign": 10},
    "lost locks": {"seams": Seams(cuts=6), **OVERTAKEN},
    "lost locks, shared": {"seams": Seams(cuts=6), **OVERTAKEN, "mode": "shared"},
    "lost leases, swept": {
        "seams": Seams(cuts=6),
        **OVERTAKEN,
        "ledgers": 3,
        "ledger": {"sweeps": True},
    },
    "lost leases, swept, shared": {
        "seams": Seams(cuts=6),
        **OVERTAKEN,
        "ledgers": 3,
        "ledger": {"sweeps": True},
        "mode": "shared",
        "foreign": 10,
    },
    "a clock that is ahead": {"seams": Seams(clock_off_s=30.0, shows_date=False), **OFF},
    "a clock that is behind": {"seams": Seams(clock_off_s=-150.0, shows_date=False), **OFF},
    "a clock far behind": {
        "seams": Seams(clock_off_s=-3600.0, shows_date=False),
        **OFF,
        "foreign": 10,
    },
    "all of it": {
        "seams": Seams(resent=0.05, codes_in_errors=0.05, troubles=3, cuts=3),
        **OVERTAKEN,
        "mode": "shared",
        "foreign": 10,
    },
    "all of it, in bulk": {
        "seams": Seams(resent=0.05, codes_in_errors=0.05, troubles=4),
        "mode": "shared",
        "bulk": True,
    },
}

EACH = SEEDS // len(SEAMS) + 1  # so many seeds of each kind, and of all of them ``SEEDS`` or more


def campaign(kind, seed):
    return Campaign(seed=seed, **{**COMMON, **SEAMS[kind]}).run()


@pytest.mark.parametrize("kind", SEAMS)
@pytest.mark.parametrize(
    "seeds", [range(1), pytest.param(range(1, EACH), marks=pytest.mark.long)], ids=["one", "more"]
)
def test_campaigns_issue_exactly_once_where_seams_give_way(kind, seeds):
    """Whatever gives way, each request gets one code, what came is told or kept, and no code is
    too many."""
    for seed in seeds:
        hold_end(campaign(kind, seed))


def test_code_that_can_not_be_kept_is_told():
    """A disk that is full from the first answer on: every code that came is told with its error,
    nothing more is sent, and the next process gives each to who was told it."""
    told: dict[str, str] = {}
    given: dict[str, str] = {}
    names = [f"r{number}" for number in range(40)]
    calm = Campaign(seed=1, failed_rate=0, lost_rate=0, fault_rate=0, baseline=0)
    disk = calm.disk
    world: Any = calm.world
    right = world.answer

    def answer(request):
        reply = right(request)
        if request.operation == "issue" and disk.trouble() is None:
            disk.fall_ill(Trouble.FULL, math.inf)
        return reply

    async def ask(ledger, client, names):
        limit = asyncio.Semaphore(8)

        async def one(name):
            async with limit:
                try:
                    given[name] = (await ledger.issue(client, "B0", name)).code
                except OutcomeUnknownError as exc:
                    told[name] = exc.code or ""
                except LedgerError:
                    pass

        await asyncio.gather(*map(one, names))

    async def fill(names):
        world.answer = answer
        async with calm._ledger() as ledger:
            await ask(ledger, calm._client(), names)
        assert {name: voucher.code for name, voucher in ledger.unkept.items()} == told

    async def go_on(names):
        world.answer = right
        async with calm._ledger() as ledger:
            for name, code in told.items():
                await ledger.keep("B0", name, IssuedVoucher(code=code))
            await ask(ledger, calm._client(), names)

    world.run(partial(fill, names))
    assert given == {}
    assert sorted(told.values()) == sorted(world.emulator.issued("B0"))
    assert 0 < len(told) <= 8
    disk.recover()
    world.run(partial(go_on, names))
    assert given == {**given, **told}
    assert sorted(given.values()) == sorted(world.emulator.issued("B0"))
    assert len(given) == len(names)


def test_same_seed_same_seams():
    """One seed replays to the same digest, whatever gives way."""
    assert campaign("all of it", 0).world.digest() == campaign("all of it", 0).world.digest()
