"""Conclusions from a batch's listing about unknown outcomes. docs/ledger.md has the reasons.

Pure. An orphan is an issued code of the listing that the ledger does not know.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence

import attrs

from rm_voucher.ledger.rules.commands import Found, Settlement
from rm_voucher.ledger.rules.records import AttemptState, IssueAttempt, Mode

_LATE = 2
"""A code that shows up within so many times ``settle_s`` after an attempt's end may be its own."""

_A_PERSONS = (AttemptState.UNRESOLVED, AttemptState.WRITTEN_OFF)
"""In these states an attempt's code is left to a person, and no sign of another issuer."""


@attrs.frozen(kw_only=True)
class Evidence:
    """All that a reconciliation knows when it concludes.

    Attributes:
        orphans: codes that are listed as issued, and not in the ledger.
        attempts: the attempts that are AMBIGUOUS, NOT_ISSUED, UNRESOLVED or WRITTEN_OFF.
        ripe: ids of AMBIGUOUS attempts that ended ``settle_s`` or more before the listing began.
        complete: whether the listing may be complete: nothing contradicts it.
        balanced: whether the batch's balance agrees with the listing.
    """

    mode: Mode
    orphans: Sequence[Found]
    attempts: Sequence[IssueAttempt]
    ripe: frozenset[str]
    complete: bool
    balanced: bool
    settle_s: float
    skew_s: float


def conclude(batch: str, evidence: Evidence, at: float) -> Settlement:
    """Return the conclusions. Attempts that they don't name stay as they are."""
    seen = _match_seen(evidence)
    if seen:
        taken = {attempt.id for attempt, _ in seen}
        codes = {found.code for _, found in seen}
        evidence = attrs.evolve(
            evidence,
            attempts=[attempt for attempt in evidence.attempts if attempt.id not in taken],
            orphans=[found for found in evidence.orphans if found.code not in codes],
        )
    decide = _conclude_shared if evidence.mode is Mode.SHARED else _conclude_exclusive
    rest = decide(batch, evidence, at)
    return attrs.evolve(rest, adopt=(*((a.id, found) for a, found in seen), *rest.adopt))


def _match_seen(evidence: Evidence) -> list[tuple[IssueAttempt, Found]]:
    """Pair attempts with the codes that came with their errors, where those were issued."""
    listed = {found.code: found for found in evidence.orphans}
    seen = [
        attempt
        for attempt in evidence.attempts
        if attempt.seen_code in listed and attempt.state is not AttemptState.WRITTEN_OFF
    ]
    times = Counter(attempt.seen_code for attempt in seen)
    return [
        (attempt, listed[attempt.seen_code])
        for attempt in seen
        if attempt.seen_code is not None
        and times[attempt.seen_code] == 1  # else nobody can tell whose it is
        and candidates(attempt, [listed[attempt.seen_code]], evidence)
    ]


def _conclude_shared(batch: str, evidence: Evidence, at: float) -> Settlement:
    """Adopt nothing, and take nothing for proof that has another explanation.

    A code that fits no attempt in time may be of any whose clock was wrong. So as many attempts are
    held as there are such codes. When no outcome is open any more, they are foreign: listed before
    an attempt was sent, they can't be of that.
    """
    ambiguous = [a for a in evidence.attempts if a.state is AttemptState.AMBIGUOUS]
    decided = [a for a in evidence.attempts if a.state in _A_PERSONS]
    concluded = _settle_without(batch, evidence, ambiguous, evidence.orphans, at)
    timed = [found for found in evidence.orphans if found.assigned_at is not None]
    _, left = _match(timed, [*ambiguous, *decided], evidence, _LATE * evidence.settle_s)
    more, rest = concluded.not_issued[: len(left)], concluded.not_issued[len(left) :]
    hold = (*concluded.hold, *more)
    all_settled = len(hold) + len(rest) == len(ambiguous)
    foreign = tuple(left) if all_settled else ()
    return attrs.evolve(concluded, hold=hold, not_issued=rest, foreign=foreign)


def _conclude_exclusive(batch: str, evidence: Evidence, at: float) -> Settlement:
    ambiguous = [a for a in evidence.attempts if a.state is AttemptState.AMBIGUOUS]
    timed = [found for found in evidence.orphans if found.assigned_at is not None]
    untimed = [found for found in evidence.orphans if found.assigned_at is None]
    settled = [a for a in evidence.attempts if a.state is AttemptState.NOT_ISSUED]
    decided = [a for a in evidence.attempts if a.state in _A_PERSONS]
    pairs, left = _match(timed, ambiguous, evidence, evidence.settle_s)
    taken = {attempt.id for attempt, _ in pairs}
    # An attempt that is not settled yet may be late as well.
    settled += [attempt for attempt in ambiguous if attempt.id not in taken]
    late, left = _match(left, settled, evidence, _LATE * evidence.settle_s)
    theirs, foreign = _match(left, decided, evidence, _LATE * evidence.settle_s)
    taken.update(attempt.id for attempt, _ in late)
    rest = [attempt for attempt in ambiguous if attempt.id not in taken]
    if foreign or len(untimed) > len(rest) + len(decided) - len(theirs):
        reason = (
            f"{len(foreign) or len(untimed)} code(s) were issued by somebody else, or while the "
            "clock was wrong, or the ledger was restored from an old copy: this ledger is not the "
            "batch's only issuer"
        )
        # If the clock was wrong, each code may be any attempt's.
        hold = tuple(attempt.id for attempt in ambiguous)
        return Settlement(batch=batch, at=at, hold=hold, foreign=tuple(foreign), stop_reason=reason)
    if untimed and evidence.balanced:
        counted = list(zip(rest, untimed, strict=False))
        pairs += counted
        rest, untimed = rest[len(counted) :], untimed[len(counted) :]
    nothing = _settle_without(batch, evidence, rest, untimed, at)
    adopt = tuple((attempt.id, found) for attempt, found in (*pairs, *late))
    return attrs.evolve(nothing, adopt=adopt)


def time_of(attempt: IssueAttempt, evidence: Evidence) -> tuple[float, float]:
    """Return the server's time, from and until, in which an attempt's code may be issued."""
    return _window(attempt, evidence, _LATE * evidence.settle_s)


def candidates(attempt: IssueAttempt, orphans: Iterable[Found], evidence: Evidence) -> list[Found]:
    """Return the orphans that an attempt may have brought."""
    begin, end = time_of(attempt, evidence)
    return [
        found for found in orphans if found.assigned_at is None or begin <= found.assigned_at <= end
    ]


def _settle_without(
    batch: str,
    evidence: Evidence,
    attempts: Iterable[IssueAttempt],
    orphans: Sequence[Found],
    at: float,
) -> Settlement:
    """Adopt nothing: hold the ripe attempts that have a candidate; the others issued nothing."""
    ripe = [attempt for attempt in attempts if attempt.id in evidence.ripe]
    hold = [a.id for a in ripe if candidates(a, orphans, evidence)]
    kept = set(hold)
    not_issued = [a.id for a in ripe if a.id not in kept] if evidence.complete else []
    return Settlement(batch=batch, at=at, not_issued=tuple(not_issued), hold=tuple(hold))


def _match(
    orphans: Iterable[Found], attempts: Iterable[IssueAttempt], evidence: Evidence, after_s: float
) -> tuple[list[tuple[IssueAttempt, Found]], list[Found]]:
    """Pair orphans with attempts by the time of issue; return the pairs, and the orphans left.

    Each orphan takes the attempt whose window ends first, so no other pairing has more pairs.
    """
    windows = sorted(
        (*_window(attempt, evidence, after_s), number, attempt)
        for number, attempt in enumerate(attempts)
    )
    windows.reverse()
    fitting: list[tuple[float, int, IssueAttempt]] = []
    pairs: list[tuple[IssueAttempt, Found]] = []
    left: list[Found] = []
    for found in sorted(orphans, key=_assigned_at):
        time = _assigned_at(found)
        while windows and windows[-1][0] <= time:
            _, end, number, attempt = windows.pop()
            heapq.heappush(fitting, (end, number, attempt))
        while fitting and fitting[0][0] < time:
            heapq.heappop(fitting)
        if fitting:
            pairs.append((heapq.heappop(fitting)[2], found))
        else:
            left.append(found)
    return pairs, left


def _window(attempt: IssueAttempt, evidence: Evidence, after_s: float) -> tuple[float, float]:
    ended_at = attempt.sent_at if attempt.ended_at is None else attempt.ended_at
    if ended_at < attempt.sent_at:  # the clock was set back meanwhile: its time is unknown
        return -math.inf, math.inf
    return attempt.sent_at - evidence.skew_s, ended_at + after_s + evidence.skew_s


def _assigned_at(found: Found) -> float:
    return found.assigned_at or 0.0
