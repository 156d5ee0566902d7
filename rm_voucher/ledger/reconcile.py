"""Reading a batch's listing: as its baseline, and to settle unknown outcomes."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence

import attrs

from rm_voucher.calls.log_fields import log_fields
from rm_voucher.exceptions import InvalidRequestError, LedgerError
from rm_voucher.ledger.keeper import Keeper
from rm_voucher.ledger.leases import Lease, waiting_lease
from rm_voucher.ledger.listing import (
    before_waiting_calls,
    count_without_code,
    have_odd_time,
    issued,
    look_up,
    voucher_pages,
)
from rm_voucher.ledger.process import AttemptTracker, LedgerClock
from rm_voucher.ledger.rules.commands import Found, Listed, Settlement
from rm_voucher.ledger.rules.matching import Evidence, candidates, conclude, time_of
from rm_voucher.ledger.rules.records import AttemptState, Batch, IssueAttempt
from rm_voucher.ledger.rules.settling import list_codes, settle
from rm_voucher.ledger.settings import LedgerSettings
from rm_voucher.ledger.store import LedgerStore, blocks
from rm_voucher.redaction import hide_locals
from rm_voucher.service.client import VoucherClient

_log = logging.getLogger("rm_voucher.ledger")
_POLL_S = 0.1  # at first, for calls to end; then ever more rarely
_LONGEST_POLL_S = 5.0
_LONG_CALL_S = 1_200.0  # with all its attempts; more than any call takes
_BASELINE_TRIES = 3  # a listing may be a little behind
_BASELINE_WAIT_S = 5.0
_WRONG_CLOCK_S = 86_400.0  # a time zone, or a date
_WITHOUT_CODE = (
    AttemptState.AMBIGUOUS,
    AttemptState.NOT_ISSUED,
    AttemptState.UNRESOLVED,
    AttemptState.WRITTEN_OFF,
)
"""The code of an attempt in these states may be among the orphans."""


@attrs.frozen(kw_only=True)
class HeldAttempt:
    """An attempt that a person must resolve.

    ``candidates`` are the codes of the listing that may be its own: none, one or several, and in
    a shared batch maybe somebody else's. Times are seconds since 1970, UTC.
    """

    attempt_id: str
    sent_at: float
    ended_at: float | None
    candidates: tuple[str, ...] = attrs.field(repr=lambda codes: f"<{len(codes)} code(s)>")


@attrs.frozen(kw_only=True)
class Reconciliation:
    """The result of a reconciliation.

    Attributes:
        listed: how many issued vouchers the batch's listing has.
        adopted: lost answers whose code was found.
        not_issued: unknown outcomes that proved to be nothing.
        open: unknown outcomes that are too young to be settled, or for which the listing was
            not complete.
        held: attempts that need a person, of this and earlier reconciliations.
        foreign: codes found to be somebody else's.
        stop_reason: why the batch is stopped, if it is.
    """

    listed: int
    adopted: int
    not_issued: int
    open: int
    held: tuple[HeldAttempt, ...]
    foreign: int
    stop_reason: str | None


@attrs.frozen(eq=False)
class Reconciler:
    """Reads listings, and tells the ledger's store what they prove."""

    _store: LedgerStore
    _settings: LedgerSettings
    _clock: LedgerClock
    _tracker: AttemptTracker
    _keeper: Keeper

    async def prepare(self, client: VoucherClient, batch_key: str) -> None:
        """Refuse a static batch; read the baseline of one that has none."""
        batch, _ = await look_up(client, batch_key)
        self._check_clock(client)
        if batch is not None and "is_static" in batch.misfits:
            raise LedgerError(
                "Whether this batch is static, with one code for everybody, can't be read off RM's "
                "listing of batches: a ledger has no use for one that is."
            )
        if batch is not None and batch.is_static:
            raise InvalidRequestError.refused(
                "This batch is static, with one code for everybody: a ledger, which gives each "
                "request a code of its own, has no use for it. Read the code off the batch "
                "(static_code)."
            )
        row = await self._row(batch_key)
        if row.baseline_at is None and row.stop_reason is None:
            await self.read_baseline(client, batch_key)

    @hide_locals
    async def read_baseline(
        self, client: VoucherClient, batch_key: str, *, reset: bool = False
    ) -> None:
        """Keep the codes that are issued already, so that none is ever given to anybody."""
        if reset:
            await client.vouchers(batch_key)  # refuses a misspelt key, before the batch is stopped
            await self._keep(batch_key, reset=True)
        for _ in range(_BASELINE_TRIES):
            _, issued_before = await look_up(client, batch_key)
            seen = set[str]()  # a listing that moves while it is read shows some vouchers twice
            without_code = 0
            async for page in client.vouchers(batch_key).pages():
                without_code += count_without_code(page.items)
                found = issued(page.items)
                seen.update(each.code for each in found)
                for block in blocks(found):
                    await self._keep(batch_key, block)
            if not without_code and self._may_be_complete(len(seen), issued_before):
                await self._keep(batch_key, last=True)
                return
            await self._clock.sleep(_BASELINE_WAIT_S)
        what = f"The batch's listing has {len(seen):,} issued vouchers, and"
        if without_code:
            what += f" {without_code:,} that may be issued and don't show a code"
        elif issued_before == math.inf:
            what += " its balance can't be read"
        else:
            what += f" by its balance there are {issued_before:,}"
        raise LedgerError(
            f"{what}: a code that is not listed yet would pass for ours. Try again later."
        )

    @hide_locals
    async def reconcile(
        self, client: VoucherClient, batch_key: str, *, wait: bool
    ) -> Reconciliation:
        """Read the listing, and settle what it proves.

        Nothing is concluded while a code is in hand that could not be kept: the listing has it, and
        it would pass for another attempt's. Raises `LedgerError` then. Processes read a batch's
        listing one after the other.
        """
        await self._keeper.catch_up()
        await self._tracker.recover(batch_key)
        ambiguous = await self._tracker.ambiguous(batch_key)
        if wait and ambiguous:
            await self._ripen(ambiguous)
        async with waiting_lease(self.lease(batch_key), self._clock) as lease:
            return await self.settle(client, batch_key, lease)

    def lease(self, batch_key: str) -> Lease:
        """Return the lease of the one process that reads a batch's listing."""
        return Lease(self._store, self._clock, f"listing {batch_key}")

    @hide_locals
    async def settle(self, client: VoucherClient, batch_key: str, lease: Lease) -> Reconciliation:
        """Read the listing, for which this process has the lease, and settle what it proves."""
        await self._keeper.catch_up()
        begun = self._clock.monotonic()
        seen, orphans = set[str](), dict[str, Found]()
        is_clear, has_clear_times = True, True
        with before_waiting_calls():
            _, issued_before = await look_up(client, batch_key)
            self._check_clock(client)
            async for page in voucher_pages(client, batch_key, self._clock):
                await lease.keep()
                is_clear &= not count_without_code(page.items)
                found = issued(page.items)
                seen.update(each.code for each in found)
                unknown = {each.code: each for each in await self._orphans_among(found)}
                has_clear_times &= not have_odd_time(page.items, unknown)
                orphans.update(unknown)
        await self._until_ended(batch_key, lease)
        # Before the orphans are: otherwise another process may adopt one, and its attempt would
        # be missing here.
        attempts = await self._store.attempts(batch_key, _WITHOUT_CODE)
        evidence = Evidence(
            mode=self._settings.mode,
            # Once more: the answers with some of these codes were on their way.
            orphans=await self._orphans_among(list(orphans.values())),
            attempts=attempts,
            ripe=self.ripe(attempts, begun),
            complete=is_clear and self._may_be_complete(len(seen), issued_before),
            # A time that can't be read is no missing one: nothing is adopted by counting then.
            balanced=is_clear and has_clear_times and len(seen) == issued_before,
            settle_s=self._settings.settle_s,
            skew_s=self._settings.skew_s,
        )
        settlement = conclude(batch_key, evidence, self._clock.latest_now())
        await self._carry_out(settlement)
        report = await self._report(batch_key, evidence, settlement, len(seen))
        _log.info(
            "batch reconciled: %d listed, %d adopted, %d not issued, %d open, %d held%s",
            report.listed,
            report.adopted,
            report.not_issued,
            report.open,
            len(report.held),
            f"; stopped: {report.stop_reason}" if report.stop_reason else "",
            extra=log_fields(operation="reconcile", batch=batch_key, client=client.name),
        )
        return report

    def _check_clock(self, client: VoucherClient) -> None:
        """Refuse to compare RM's times with ours where they are provably too far apart."""
        # Times hold by whichever of our clocks is right: one may be set while a process runs.
        off_s = self._clock.off_by_s(client.clock_offset_s or 0.0)
        skew_s = self._settings.skew_s
        if off_s > skew_s:
            raise LedgerError(
                f"RM's clock and this machine's differ by {off_s:,.0f} s or more, and "
                f"skew_s is {skew_s:,.0f} s: no code could be told by its time to be a call's own. "
                "Set this machine's clock."
            )

    async def _row(self, batch_key: str) -> Batch:
        rows = await self._store.read(lambda unit: unit.load(Batch, [batch_key]))
        if rows:
            return rows[0]
        reason = await self._store.read(lambda unit: unit.stop_reason())
        return Batch(batch_key, stop_reason=reason)

    async def _keep(
        self,
        batch_key: str,
        found: Sequence[Found] = (),
        *,
        reset: bool = False,
        last: bool = False,
    ) -> None:
        now = self._clock.latest_now()
        item = Listed(batch=batch_key, at=now, found=tuple(found), reset=reset, last=last)
        error = await self._store.commit(list_codes, item)
        if error is not None:
            raise error

    def _may_be_complete(self, listed: int, issued: float | None) -> bool:
        """Return whether the balance allows that a listing has all vouchers that were issued."""
        return not self._settings.check_balance or issued is None or listed >= issued

    async def _orphans_among(self, found: Sequence[Found]) -> list[Found]:
        """Return the listed vouchers that the ledger does not know."""
        orphans: list[Found] = []
        for block in blocks(found):
            known = await self._known([each.code for each in block])
            orphans += [each for each in block if each.code not in known]
        return orphans

    async def _known(self, codes: Sequence[str]) -> set[str]:
        return await self._store.read(lambda unit: unit.known(codes))

    async def _ripen(self, ambiguous: Sequence[IssueAttempt]) -> None:
        """Wait until the last ambiguous attempt ended ``settle_s`` ago."""
        since = max(self._tracker.ambiguous_since(attempt.id) for attempt in ambiguous)
        left_s = since + self._settings.settle_s - self._clock.monotonic()
        if left_s > 0:
            _log.info(
                "%d outcomes are unknown: waiting %.0f s",
                len(ambiguous),
                left_s,
                extra=log_fields(operation="reconcile", batch=ambiguous[0].batch),
            )
            await self._clock.sleep(left_s)

    def ripe(self, attempts: Iterable[IssueAttempt], begun: float) -> frozenset[str]:
        """Return the ambiguous attempts that ended ``settle_s`` before a listing is begun."""
        # The sum of `_ripen`, to the bit: what that waited for is ripe.
        settle_s = self._settings.settle_s
        return frozenset(
            attempt.id
            for attempt in attempts
            if attempt.state is AttemptState.AMBIGUOUS
            and self._tracker.ambiguous_since(attempt.id) + settle_s <= begun
        )

    async def _until_ended(self, batch_key: str, lease: Lease) -> None:
        """Wait for the calls that were in flight while the listing was read."""
        waiting = await self._sending(batch_key)
        begun, poll_s = self._clock.monotonic(), _POLL_S
        while waiting:
            await self._keeper.catch_up()
            await lease.keep()
            if self._clock.monotonic() - begun > _LONG_CALL_S:
                raise LedgerError(
                    "Calls of another process don't end, so nothing is concluded: end that process."
                )
            await self._clock.sleep(poll_s)
            poll_s = min(2 * poll_s, _LONGEST_POLL_S)
            await self._tracker.recover(batch_key)
            waiting &= await self._sending(batch_key)

    async def _sending(self, batch_key: str) -> set[str]:
        sending = await self._store.attempts(batch_key, [AttemptState.SENDING])
        return {attempt.id for attempt in sending}

    async def _carry_out(self, settlement: Settlement) -> None:
        """Commit it in parts, each of which is right alone. A stop is first: it ends issuing."""
        empty = Settlement(batch=settlement.batch, at=settlement.at)
        parts = [attrs.evolve(empty, adopt=tuple(block)) for block in blocks(settlement.adopt)]
        parts += [
            attrs.evolve(empty, not_issued=tuple(block)) for block in blocks(settlement.not_issued)
        ]
        parts += [attrs.evolve(empty, hold=tuple(block)) for block in blocks(settlement.hold)]
        parts += [attrs.evolve(empty, foreign=tuple(block)) for block in blocks(settlement.foreign)]
        if settlement.stop_reason:
            parts.insert(0, attrs.evolve(empty, stop_reason=settlement.stop_reason))
        for part in parts:
            await self._store.commit(settle, part)
        self._tracker.forget([*dict(settlement.adopt), *settlement.not_issued, *settlement.hold])

    async def _report(
        self, batch_key: str, evidence: Evidence, settlement: Settlement, listed: int
    ) -> Reconciliation:
        taken = {found.code for _, found in settlement.adopt}
        left = {found.code: found for found in evidence.orphans if found.code not in taken}
        held = await self._store.attempts(batch_key, [AttemptState.UNRESOLVED])
        # A code that fits nobody's time may be anybody's whose clock was wrong.
        wide = attrs.evolve(evidence, skew_s=evidence.skew_s + _WRONG_CLOCK_S)
        if held:  # a code of theirs may have been taken for foreign
            times = [time_of(attempt, wide) for attempt in held]
            begin, end = min(time[0] for time in times), max(time[1] for time in times)
            foreign = await self._store.read(lambda unit: unit.find_foreign(batch_key, begin, end))
            for code in foreign:
                left[code.code] = Found(code=code.code, assigned_at=code.assigned_at)
        fitting = {attempt.id: candidates(attempt, left.values(), evidence) for attempt in held}
        fits = {found.code for each in fitting.values() for found in each}
        others = [found for found in left.values() if found.code not in fits]
        return Reconciliation(
            listed=listed,
            adopted=len(settlement.adopt),
            not_issued=len(settlement.not_issued),
            open=len(await self._store.attempts(batch_key, [AttemptState.AMBIGUOUS])),
            held=tuple(
                HeldAttempt(
                    attempt_id=attempt.id,
                    sent_at=attempt.sent_at,
                    ended_at=attempt.ended_at,
                    candidates=tuple(
                        found.code
                        for found in (*fitting[attempt.id], *candidates(attempt, others, wide))
                    ),
                )
                for attempt in held
            ),
            foreign=len(settlement.foreign),
            stop_reason=(await self._row(batch_key)).stop_reason,
        )
