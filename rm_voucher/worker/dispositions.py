"""What becomes of a message: pure rules, of the error that its request met."""

from __future__ import annotations

from enum import StrEnum

import attrs

from rm_voucher.exceptions import (
    APIError,
    IdempotencyConflictError,
    InvalidRequestError,
    OutcomeUnknownError,
    VoucherError,
)
from rm_voucher.worker.settings import WorkerSettings


@attrs.frozen
class Delivery:
    """A message as a broker delivers it. ``attempt`` is 1 for the first time."""

    body: bytes = attrs.field(repr=False)
    attempt: int = 1


@attrs.frozen
class HandOn:
    """Publish ``message``, which has the code, and acknowledge the request when that is durable.

    Without a message the voucher was handed on already.
    """

    message: bytes | None = attrs.field(repr=False)


@attrs.frozen
class Later:
    """Deliver it again after a delay. With ``holds`` nothing else would be served either."""

    delay_s: float
    reason: str
    holds: bool = False


@attrs.frozen
class Park:
    """Keep it, with the reason, for a person: another delivery would not help."""

    reason: str


@attrs.frozen
class Leave:
    """Do nothing: the worker stops, and the broker delivers the message to another one."""


Disposition = HandOn | Later | Park | Leave


class Kind(StrEnum):
    """The kinds of dispositions, as metrics name them."""

    HANDED_ON = "handed_on"
    LATER = "later"
    PARKED = "parked"
    LEFT = "left"


KINDS: dict[type, Kind] = {
    HandOn: Kind.HANDED_ON,
    Later: Kind.LATER,
    Park: Kind.PARKED,
    Leave: Kind.LEFT,
}


def backoff_s(attempt: int, settings: WorkerSettings, chance: float) -> float:
    """Return the delay after an attempt, the first of which is 1; ``chance`` is in [0, 1)."""
    doublings = min(attempt - 1, 60)  # a float has no room for any number of them
    longest_s = min(settings.first_delay_s * 2.0**doublings, settings.longest_delay_s)
    return longest_s * (1 - chance / 2)


def judge(
    error: VoucherError,
    attempt: int,
    settings: WorkerSettings,
    *,
    settle_s: float,
    chance: float,
) -> Later | Park:
    """Return what becomes of a message whose request met an error.

    A message whose call has just ended with an unknown outcome comes back once that can be settled,
    and not before. What is about the account, the server or a database would meet the next message
    too.
    """
    reason = f"{type(error).__name__}: {error}"
    refused_here = isinstance(error, InvalidRequestError) and error.http_status is None
    if refused_here or isinstance(error, IdempotencyConflictError):
        return Park(reason)
    if attempt >= settings.max_attempts:
        return Park(f"delivered {attempt} times in vain, at last {reason}")
    delay_s = backoff_s(attempt, settings, chance)
    if isinstance(error, OutcomeUnknownError):
        if error.sent_at is None:  # an earlier call, which may be answered or settled at any moment
            return Later(delay_s, reason)
        return Later(settle_s + backoff_s(1, settings, chance), reason)
    asked_s = error.retry_after_s if isinstance(error, APIError) else None
    return Later(max(delay_s, min(asked_s or 0.0, settings.longest_delay_s)), reason, holds=True)
