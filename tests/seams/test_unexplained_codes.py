"""Absence is no proof while a code is there that nothing explains.

In a shared batch a listed code that fits no attempt in time may be of any of them, if a clock was
wrong. It holds as many attempts as there are such codes. Where RM's clock and ours are provably
apart, nothing is begun or concluded at all.
"""

from __future__ import annotations

from email.utils import formatdate

import attrs
import pytest
from support.ledger_clients import SETTLE_S, B, Place, client_of, place, reported

from rm_voucher import LedgerError, OutcomeUnknownError, Request, Response, Transport
from rm_voucher.emulator import Fault
from rm_voucher.ledger import Ledger, Reconciliation

FAR = [-3600.0, -30.0, 30.0, 3600.0, 8 * 3600.0]


@pytest.fixture
def there(time) -> Place:
    return place(time)


async def lose(there: Place, ledger: Ledger, name: str, fault: Fault) -> None:
    there.emulator.fail_next("issue", fault)
    with pytest.raises(OutcomeUnknownError):
        await ledger.issue(there.client, B, name)


def shown(report: Reconciliation) -> dict[str, set[str]]:
    return {held.attempt_id: set(held.candidates) for held in report.held}


@pytest.mark.parametrize("ahead_s", FAR)
async def test_clock_that_was_wrong_takes_nothing_for_proof(there, ahead_s) -> None:
    """As many are held as vouchers were issued, whichever way the clock was off, and a person is
    shown the codes that may be theirs."""
    there.wall_ahead_s = ahead_s
    async with there.ledger("shared", settle_s=10.0) as ledger:
        for number in range(14):
            fault = Fault.DROP_BEFORE_COMMIT if number % 7 == 6 else Fault.DROP_AFTER_COMMIT
            await lose(there, ledger, f"r{number}", fault)
            there.time.now += 3
        report = await ledger.reconcile(there.client, B, wait=True)
        assert len(there.issued) == 12
        assert len(report.held) + report.not_issued == 14
        assert len(report.held) >= 12
        if abs(ahead_s) > 60:
            assert all(set(held.candidates) == set(there.issued) for held in report.held)
        assert all(held.candidates for held in report.held)
        again = await ledger.reconcile(there.client, B)
        assert shown(again) == shown(report)
        for held, code in zip(report.held, there.issued, strict=False):
            await ledger.resolve(held.attempt_id, adopt=code)
        assert set(there.issued) <= set((await reported(ledger)).values())


async def test_code_that_was_listed_before_an_attempt_holds_it_not(there) -> None:
    """Once nothing is open, what others issued is known to be theirs, and holds nobody later."""
    async with there.ledger("shared") as ledger:
        await ledger.prepare(there.client, B)
        for _ in range(5):
            await there.client.issue(B)  # a terminal's
        there.time.now += 3 * SETTLE_S
        assert (await ledger.reconcile(there.client, B)).foreign == 5
        there.time.now += 3 * SETTLE_S
        await lose(there, ledger, "r", Fault.DROP_BEFORE_COMMIT)
        report = await ledger.reconcile(there.client, B, wait=True)
        assert (report.not_issued, report.held) == (1, ())
        assert (await ledger.counts(B)).foreign == 5


async def test_each_code_holds_one(there) -> None:
    """Not more: two attempts that did nothing, and one code that fits neither."""
    async with there.ledger("shared") as ledger:
        await ledger.prepare(there.client, B)
        await there.client.issue(B)
        there.time.now += 3 * SETTLE_S
        for name in ("r1", "r2"):
            await lose(there, ledger, name, Fault.DROP_BEFORE_COMMIT)
        report = await ledger.reconcile(there.client, B, wait=True)
        assert (report.not_issued, len(report.held), report.foreign) == (1, 1, 1)
        assert report.held[0].candidates == tuple(there.issued)


async def test_code_that_fits_nobody_is_shown_to_each(there) -> None:
    """Also to who has a candidate in time: that may be another's, and this one theirs."""
    async with there.ledger("shared") as ledger:
        await ledger.prepare(there.client, B)
        await there.client.issue(B)
        there.time.now += 3 * SETTLE_S
        for name in ("r1", "r2"):
            await lose(there, ledger, name, Fault.DROP_AFTER_COMMIT)
            there.time.now += 3 * SETTLE_S
        report = await ledger.reconcile(there.client, B, wait=True)
        terminals, first, second = there.issued
        assert [set(held.candidates) for held in report.held] == [
            {first, terminals},
            {second, terminals},
        ]


async def test_nothing_is_foreign_while_an_attempt_is_young(there) -> None:
    """The code may be its own, if the clock was wrong."""
    async with there.ledger("shared") as ledger:
        await ledger.prepare(there.client, B)
        await there.client.issue(B)
        there.time.now += 3 * SETTLE_S
        await lose(there, ledger, "r", Fault.DROP_BEFORE_COMMIT)
        report = await ledger.reconcile(there.client, B)
        assert (report.open, report.foreign) == (1, 0)


class Dated(Transport):
    """Answers have the server's time, which is not ours."""

    def __init__(self, there: Place, ahead_s: float) -> None:
        self.behind = there.emulator.transport()
        self.time = there.time
        self.ahead_s = ahead_s

    async def send(self, request: Request) -> Response:
        answer = await self.behind.send(request)
        date = formatdate(self.time.now + self.ahead_s, usegmt=True)
        return attrs.evolve(answer, headers={**answer.headers, "date": date})


@pytest.mark.parametrize("mode", ["shared", "exclusive"])
@pytest.mark.parametrize("ahead_s", [-30.0, 30.0])
async def test_clock_that_is_provably_wrong_stops(there, mode, ahead_s) -> None:
    """Nothing is issued, and nothing concluded; with a larger ``skew_s`` it is."""
    dated = Dated(there, ahead_s)
    client = client_of(there.emulator, there.time, transport=dated)
    async with there.ledger(mode) as ledger:
        with pytest.raises(LedgerError, match=r"differ by \d+ s or more, and skew_s is 10 s"):
            await ledger.issue(client, B, "r")
        assert there.posts == 0
        dated.ahead_s = 0
        await ledger.prepare(client, B)
        await lose(there, ledger, "lost", Fault.DROP_BEFORE_COMMIT)
        dated.ahead_s = ahead_s
        with pytest.raises(LedgerError, match="Set this machine's clock"):
            await ledger.reconcile(client, B, wait=True)
        assert (await ledger.counts(B)).ambiguous == 1
    async with there.ledger(mode, skew_s=60.0) as ledger:
        assert (await ledger.reconcile(client, B, wait=True)).not_issued == 1


async def test_clock_that_is_set_while_a_process_runs_stops_nothing(there) -> None:
    """The process goes on by the clock that nobody sets. The next one has the wrong one only."""
    runtime = attrs.evolve(there.time.runtime, clock=lambda: there.time.now + there.wall_ahead_s)
    client = client_of(there.emulator, there.time, transport=Dated(there, 0), runtime=runtime)
    async with there.ledger("exclusive") as ledger:
        await ledger.issue(client, B, "before")
        for there.wall_ahead_s in (120.0, -120.0):
            there.emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
            with pytest.raises(OutcomeUnknownError):
                await ledger.issue(client, B, f"lost {there.wall_ahead_s}")
            there.time.now += 2
            async for _ in client.batches():  # an answer with a date
                pass
            assert abs(client.clock_offset_s or 0) > 100
            assert (await ledger.reconcile(client, B, wait=True)).adopted == 1
    async with there.ledger("exclusive") as ledger:
        with pytest.raises(LedgerError, match="Set this machine's clock"):
            await ledger.reconcile(client, B)
