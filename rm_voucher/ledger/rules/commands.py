"""The commands of a ledger and its answers: the items of `transitions` and `settling`.

Each command is about one batch. Times are seconds since 1970, UTC.
"""

from __future__ import annotations

import hashlib
import re

import attrs

from rm_voucher.exceptions import InvalidRequestError
from rm_voucher.ledger.rules.records import AttemptState, RequestState
from rm_voucher.models import IssuedVoucher, mask

_MAX_ID_CHARS = 1000
_MAX_ID_BYTES = 2500  # an index of PostgreSQL takes no more; all stores take the same
# Control characters, and halves of surrogate pairs: no database takes those.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@attrs.frozen(kw_only=True)
class Ask:
    """Give a request its code. If an attempt is started for it, that is ``attempt_id``."""

    batch: str
    request_id: str
    content: str
    attempt_id: str
    owner: str
    at: float
    may_start: bool = True


@attrs.frozen
class Claimed:
    """The request claims an attempt of its own, which is durable: send it."""

    attempt_id: str


@attrs.frozen
class Pending:
    """Nothing is to be sent: the request waits, for an attempt or for a person."""

    state: RequestState
    attempt_id: str | None
    in_flight: bool = False
    seen: IssuedVoucher | None = None
    """What came with the error that left the attempt's outcome unknown."""


@attrs.frozen(kw_only=True)
class Confirm:
    """The answer to an attempt brought a code."""

    batch: str
    request_id: str
    attempt_id: str
    code: str = attrs.field(repr=mask)
    qr_url: str | None = attrs.field(repr=mask)
    at: float

    @property
    def voucher(self) -> IssuedVoucher:
        """The voucher, as the caller gets it."""
        return IssuedVoucher(code=self.code, qr_url=self.qr_url or "")


@attrs.frozen(kw_only=True)
class End:
    """An attempt ended without a code: REJECTED or AMBIGUOUS.

    ``failure`` is the reason, if the server refused the request for good. ``seen`` is what came
    with an error after which the outcome is unknown.
    """

    batch: str
    attempt_id: str
    state: AttemptState
    at: float
    failure: str | None = None
    seen: IssuedVoucher | None = None


@attrs.frozen(kw_only=True)
class Check:
    """Whether an attempt is still SENDING, as ``owner`` left it."""

    batch: str
    attempt_id: str
    owner: str


@attrs.frozen(kw_only=True)
class Keep:
    """An earlier process received a code for a request, and could not keep it."""

    batch: str
    request_id: str
    voucher: IssuedVoucher
    at: float


@attrs.frozen(kw_only=True)
class Recover:
    """Attempts that are SENDING, perhaps of dead processes. ``own`` is the process that asks."""

    batch: str
    attempt_ids: tuple[str, ...]
    own: str
    at: float


@attrs.frozen(kw_only=True)
class Found:
    """An issued voucher, as a batch's listing shows it."""

    code: str = attrs.field(repr=mask)
    qr_url: str | None = attrs.field(default=None, repr=mask)
    assigned_at: float | None = None


@attrs.frozen(kw_only=True)
class Settlement:
    """The conclusions of a reconciliation. ``adopt`` has pairs: an attempt's id and its code."""

    batch: str
    at: float
    adopt: tuple[tuple[str, Found], ...] = ()
    not_issued: tuple[str, ...] = ()
    hold: tuple[str, ...] = ()
    foreign: tuple[Found, ...] = ()
    stop_reason: str | None = None


@attrs.frozen(kw_only=True)
class Listed:
    """A part of a baseline's listing; the last part ends it.

    ``reset`` begins another baseline: codes that the ledger does not know then are FOREIGN.
    """

    batch: str
    at: float
    found: tuple[Found, ...] = ()
    last: bool = False
    reset: bool = False


@attrs.frozen(kw_only=True)
class Resolve:
    """A person's decision about an attempt: ADOPTED with its code, NOT_ISSUED or WRITTEN_OFF."""

    batch: str
    attempt_id: str
    state: AttemptState
    at: float
    code: Found | None = None


def digest(content: str) -> str:
    """Return the digest of a request's content, which is all that the ledger keeps of it.

    Raises `InvalidRequestError` if it is no text.
    """
    if not isinstance(content, str):
        raise InvalidRequestError.refused(
            "content is text: of an order's lines, say, their JSON with sorted keys."
        )
    return (
        hashlib.blake2b(content.encode(errors="surrogatepass"), digest_size=16).hexdigest()
        if content
        else ""
    )


def check_id(request_id: str) -> str:
    """Return a request's id. Raises `InvalidRequestError` if it can be none."""
    if not isinstance(request_id, str) or not 0 < len(request_id) <= _MAX_ID_CHARS:
        raise InvalidRequestError.refused(
            f"A request id is text of 1 to {_MAX_ID_CHARS:,} characters."
        )
    if _CONTROL.search(request_id):
        raise InvalidRequestError.refused("A request id has no control characters.")
    if len(request_id.encode()) > _MAX_ID_BYTES:
        raise InvalidRequestError.refused(
            f"A request id is no longer than {_MAX_ID_BYTES:,} bytes in UTF-8."
        )
    return request_id


def check_key(batch_key: str) -> str:
    """Return a batch's key. Raises `InvalidRequestError` if it can be none."""
    if not isinstance(batch_key, str) or not batch_key:
        raise InvalidRequestError.refused("The batch is given by its key: a text.")
    if _CONTROL.search(batch_key) or len(batch_key.encode()) > _MAX_ID_BYTES:
        raise InvalidRequestError.refused(
            f"A batch's key has no control characters, and {_MAX_ID_BYTES:,} bytes at most."
        )
    return batch_key
