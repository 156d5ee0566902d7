"""What the ledger keeps: requests, attempts, codes and batches, and the states that they have.

Times are seconds since 1970, UTC. Nothing here is stored or sent: see `unit` and `transitions`.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from typing import Literal, TypedDict

import attrs

from rm_voucher.models import IssuedVoucher, mask


class Mode(enum.StrEnum):
    """Who issues from the batches of a ledger."""

    SHARED = "shared"
    """Others may, too: a code that nobody here received may be theirs, and is never given away."""
    EXCLUSIVE = "exclusive"
    """This ledger alone, by its owner's word: such a code is the answer to a lost call."""


class RequestState(enum.StrEnum):
    """Where a request stands. Once ASSIGNED it stays so, with its code."""

    WAITING = "waiting"
    ASSIGNED = "assigned"
    FAILED = "failed"
    """The server refused it. Nothing was issued, so it may be asked again."""
    UNRESOLVED = "unresolved"
    """Pending for a person: its attempt may have issued a voucher, see `Ledger.resolve`."""
    CANCELLED = "cancelled"
    """Given up by a person."""


class AttemptState(enum.StrEnum):
    """How an attempt, that is, one call of *issue*, ended."""

    SENDING = "sending"
    """Written before the first byte is sent."""
    CONFIRMED = "confirmed"
    """Its answer came."""
    REJECTED = "rejected"
    """Provably nothing was done."""
    AMBIGUOUS = "ambiguous"
    """It may have issued a voucher; to be settled."""
    ADOPTED = "adopted"
    """It did: its code was found in the batch's listing, or named by a person."""
    NOT_ISSUED = "not_issued"
    """It did not: the listing shows no code of it long after its end, or a person said so."""
    UNRESOLVED = "unresolved"
    """The listing can't tell; held for a person."""
    WRITTEN_OFF = "written_off"
    """A person gave it up: the voucher, if there is one, is given to nobody."""


OPEN = (AttemptState.SENDING, AttemptState.AMBIGUOUS)
"""The states in which an attempt may still bring a code."""

NOTABLE = (*OPEN, AttemptState.UNRESOLVED, AttemptState.NOT_ISSUED, AttemptState.WRITTEN_OFF)
"""The states that are looked for. All others are ends that nobody asks about."""


class CodeState(enum.StrEnum):
    """Whose a code is."""

    SPARE = "spare"
    """Ours, for the next request that waits."""
    ASSIGNED = "assigned"
    BASELINE = "baseline"
    """Issued before the ledger began."""
    FOREIGN = "foreign"
    """Issued by somebody else."""


class CodeOrigin(enum.StrEnum):
    """How the ledger learned of a code."""

    RESPONSE = "response"
    ADOPTED = "adopted"
    LATE = "late"
    """After its attempt had been settled without it."""
    LISTED = "listed"
    """By a baseline, or as foreign."""


class Settings(TypedDict, total=False):
    """What a `Ledger` takes; it says what each means."""

    mode: Literal["shared", "exclusive"]
    settle_s: float
    skew_s: float
    check_balance: bool
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    make_id: Callable[[], str]


@attrs.define(eq=False)
class Batch:
    """A batch that the ledger issues from."""

    key: str
    baseline_at: float | None = None
    alarm: str | None = None
    """Why nothing more is issued from it."""


@attrs.define(eq=False)
class Request:
    """What somebody asked for.

    ``attempt_id`` is the attempt that it relies on: open, or unresolved. ``content`` is a digest.
    """

    id: str
    batch: str
    content: str
    state: RequestState
    asked_at: float
    attempt_id: str | None = None
    error: str | None = None


@attrs.define(eq=False)
class Attempt:
    """One call of *issue*. Without ``request_id`` it is loose: its code will be a spare."""

    id: str
    batch: str
    request_id: str | None
    owner: str
    state: AttemptState
    sent_at: float
    ended_at: float | None = None


@attrs.define(eq=False)
class Code:
    """A code of a batch. ``assigned_at`` is the server's time, where a listing told it."""

    code: str = attrs.field(repr=mask)
    batch: str
    state: CodeState
    origin: CodeOrigin
    added_at: float
    request_id: str | None = None
    attempt_id: str | None = None
    qr_url: str | None = attrs.field(default=None, repr=mask)
    assigned_at: float | None = None

    @property
    def voucher(self) -> IssuedVoucher:
        """What the caller gets."""
        return IssuedVoucher(code=self.code, qr_url=self.qr_url)


@attrs.frozen(kw_only=True)
class Counts:
    """How a ledger, or one batch of it, stands.

    ``asked`` is the sum of ``assigned``, ``waiting``, ``ambiguous``, ``unresolved``, ``failed`` and
    ``cancelled``. The codes that the server issued to this ledger are ``assigned`` + ``spare``,
    and whatever the ``ambiguous`` and ``unresolved`` turn out to be.

    Attributes:
        asked: requests.
        assigned: requests that have their code.
        waiting: requests for which no call is open.
        ambiguous: requests whose call is in flight, or ended with an unknown outcome.
        unresolved: requests held for a person.
        failed: requests that the server refused.
        cancelled: requests that a person gave up.
        spare: codes that are ours and nobody's yet.
        foreign: codes that somebody else issued.
        written_off: calls with an unknown outcome that a person gave up.
    """

    asked: int = 0
    assigned: int = 0
    waiting: int = 0
    ambiguous: int = 0
    unresolved: int = 0
    failed: int = 0
    cancelled: int = 0
    spare: int = 0
    foreign: int = 0
    written_off: int = 0
