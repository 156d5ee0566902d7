"""The rows of a ledger: batches, requests, attempts and codes, with their states.

Times are seconds since 1970, UTC. Nothing here is stored or sent: see `unit` and `transitions`.
"""

from __future__ import annotations

import enum

import attrs

from rm_voucher.models import IssuedVoucher, mask


class Mode(enum.StrEnum):
    """Who issues from the batches of a ledger."""

    SHARED = "shared"
    """Others may issue too. An unknown code may be theirs, and is never given away."""
    EXCLUSIVE = "exclusive"
    """By its owner's word nobody else issues: an unknown code is the answer to a lost call."""


class RequestState(enum.StrEnum):
    """Where a request stands. Once ASSIGNED it stays so, with its code."""

    WAITING = "waiting"
    ASSIGNED = "assigned"
    FAILED = "failed"
    """The server refused it. Nothing was issued, so it may be asked again."""
    UNRESOLVED = "unresolved"
    """A person must decide: its attempt may have issued a voucher, see `Ledger.resolve`."""
    CANCELLED = "cancelled"
    """Given up by a person."""


class AttemptState(enum.StrEnum):
    """How an attempt ended, that is, one call of *issue*."""

    SENDING = "sending"
    """Written before the first byte is sent."""
    CONFIRMED = "confirmed"
    """Its answer came."""
    REJECTED = "rejected"
    """Provably nothing was done."""
    AMBIGUOUS = "ambiguous"
    """It may have issued a voucher; to be settled."""
    ADOPTED = "adopted"
    """It issued a voucher: the batch's listing has the code, or a person named it."""
    NOT_ISSUED = "not_issued"
    """It issued nothing: long after its end the listing has no code of it, or a person said so."""
    UNRESOLVED = "unresolved"
    """The listing can't tell: a person must decide."""
    WRITTEN_OFF = "written_off"
    """A person gave it up: the voucher, if there is one, is given to nobody."""


OPEN = (AttemptState.SENDING, AttemptState.AMBIGUOUS)
"""In these states an attempt may still bring a code."""

NOTABLE = (*OPEN, AttemptState.UNRESOLVED, AttemptState.NOT_ISSUED, AttemptState.WRITTEN_OFF)
"""Queries look for these states. The others are final, and no query asks for them."""


class CodeState(enum.StrEnum):
    """Who has a code."""

    SPARE = "spare"
    """It is ours, for the next request that waits."""
    ASSIGNED = "assigned"
    BASELINE = "baseline"
    """Issued before the ledger began."""
    FOREIGN = "foreign"
    """Issued by somebody else."""


class CodeOrigin(enum.StrEnum):
    """Where the ledger has a code from."""

    RESPONSE = "response"
    ADOPTED = "adopted"
    LATE = "late"
    """It came after its attempt had been settled without it."""
    LISTED = "listed"
    """A baseline read it, or it was found to be foreign."""


@attrs.define(eq=False)
class Batch:
    """A batch that the ledger issues from."""

    key: str
    baseline_at: float | None = None
    stop_reason: str | None = None
    """Why nothing more is issued from it, if that is so."""


@attrs.define(eq=False)
class IssueRequest:
    """A request for one voucher, under an id that the caller chose.

    It claims the attempt ``attempt_id``, which is open or unresolved: whatever code that brings is
    its own. ``content`` is a digest.
    """

    id: str
    batch: str
    content: str
    state: RequestState
    asked_at: float
    attempt_id: str | None = None
    error: str | None = None


@attrs.define(eq=False)
class IssueAttempt:
    """One call of *issue*. Without ``request_id`` it is detached: its code becomes a spare.

    ``seen_code`` is a code that came with an error: evidence, which only a listing can prove.
    ``unknown_since`` is when it became AMBIGUOUS by the database's clock, where that has one of its
    own. The other times are by the clock of the process that wrote them.
    """

    id: str
    batch: str
    request_id: str | None
    owner: str
    state: AttemptState
    sent_at: float
    ended_at: float | None = None
    seen_code: str | None = attrs.field(default=None, repr=mask)
    seen_qr_url: str | None = attrs.field(default=None, repr=mask)
    unknown_since: float | None = None

    @property
    def seen(self) -> IssuedVoucher | None:
        """The voucher that came with an error, if one did."""
        if self.seen_code is None:
            return None
        return IssuedVoucher(code=self.seen_code, qr_url=self.seen_qr_url or "")


@attrs.define(eq=False)
class Code:
    """A code of a batch. ``assigned_at`` is the server's time, if a listing showed it."""

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
        """The voucher, as the caller gets it."""
        return IssuedVoucher(code=self.code, qr_url=self.qr_url or "")


@attrs.frozen(kw_only=True)
class Backlog:
    """What is not finished, of a ledger or of one batch of it.

    Attributes:
        waiting: requests for which no call is open.
        oldest_waiting_at: when the oldest of them was asked, in seconds since 1970, UTC.
        sending: attempts whose call may be in flight.
        ambiguous: attempts that may have issued a voucher, to be settled.
        oldest_ambiguous_at: when the call of the oldest of them was sent.
        held: attempts that a person must decide.
        spare: codes that are ours, and no request's yet.
    """

    waiting: int = 0
    oldest_waiting_at: float | None = None
    sending: int = 0
    ambiguous: int = 0
    oldest_ambiguous_at: float | None = None
    held: int = 0
    spare: int = 0


@attrs.frozen(kw_only=True)
class Counts:
    """How a ledger, or one batch of it, stands.

    ``asked`` is the sum of ``assigned``, ``waiting``, ``ambiguous``, ``unresolved``, ``failed`` and
    ``cancelled``. The server has issued ``assigned`` + ``spare`` codes to this ledger, and perhaps
    one for each of the ``ambiguous`` and ``unresolved``.

    Attributes:
        asked: requests.
        assigned: requests that have their code.
        waiting: requests for which no call is open.
        ambiguous: requests whose call is in flight, or ended with an unknown outcome.
        unresolved: requests that a person must decide.
        failed: requests that the server refused.
        cancelled: requests that a person gave up.
        spare: codes that are ours, and no request's yet.
        foreign: codes that somebody else issued.
        written_off: attempts with an unknown outcome that a person gave up.
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
