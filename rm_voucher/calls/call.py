"""One call: what is to be sent, what it is doing, and what its attempts have shown so far."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import attrs

from rm_voucher.calls.outcomes import Outcome, Remedy, Safety, classify, may_repeat
from rm_voucher.calls.recovery import Verdict
from rm_voucher.exceptions import OutcomeUnknownError, VoucherError
from rm_voucher.settings import Timeout
from rm_voucher.transport.base import Request, Response

T = TypeVar("T")

# Reads an answer. A coroutine lets the event loop have its turns now and then.
Parse = Callable[[Response], T] | Callable[[Response], Coroutine[Any, Any, T]]


class Phase(enum.Enum):
    """What a call is doing. It keeps the phase in which it ended."""

    NEW = enum.auto()
    """It has not begun."""
    TOKEN = enum.auto()
    """It waits for a token."""
    TURN = enum.auto()
    """It waits for its turn."""
    SIGNING = enum.auto()
    """It is about to be sent."""
    SENT = enum.auto()
    """An attempt is in flight, or was answered."""
    REPEAT = enum.auto()
    """It waits before it is sent again."""
    NO_TOKEN = enum.auto()
    """Its token was refused, and for now no other can be had."""
    READING_BACK = enum.auto()
    """Its outcome is unknown, and the voucher is looked up."""
    UNCHANGED = enum.auto()
    """The voucher was looked up and shows no trace of it, so it may be sent again."""


_WAITING = frozenset({Phase.TOKEN, Phase.TURN, Phase.REPEAT})


@attrs.define(eq=False)
class Call(Generic[T]):
    """One call of an operation. `Caller.execute` makes it; a bulk run and a ledger watch it."""

    request: Request
    parse: Parse[T] = attrs.field(repr=False)
    safety: Safety
    timeout: Timeout
    deadline: float | None  # by the monotonic clock
    batch_key: str | None = None
    code: str | None = attrs.field(default=None, repr=False)
    # Of a reconcilable operation: looks the voucher up and judges it.
    read_back: Callable[[], Awaitable[tuple[Verdict, T]]] | None = attrs.field(
        default=None, repr=False
    )
    # Of a bulk run: signs elsewhere than on the event loop.
    sign: Callable[[bytes], Awaitable[bytes]] | None = attrs.field(default=None, repr=False)
    # Of a ledger: may refuse an attempt whose turn has come, with an error after which nothing was
    # sent and nothing is repeated.
    before_send: Callable[[], Awaitable[None]] | None = attrs.field(default=None, repr=False)
    is_bulk: bool = False  # one of many, which lets single calls pass

    phase: Phase = Phase.NEW
    has_ended: bool = False
    abandoned: bool = False
    """Whether it is not sent again: its watcher said so, or its turn did not come in time."""
    token: str = attrs.field(default="", repr=False)
    token_renewed: bool = False
    token_error: VoucherError | None = None
    """The refusal of a token that was new, or of which there is no other yet."""
    turn_at: float | None = None
    """When its turn came, by the monotonic clock, if it has not been used."""
    # The last attempt.
    attempts: int = 0
    admitted_at: float = 0.0  # by the monotonic clock
    attempt_id: str = ""
    nonce: str | None = None
    sent_unix_s: float | None = None
    unknown_cause: VoucherError | None = None
    """The first error after which it may have been executed."""
    throttled_at: float | None = None  # first, by the monotonic clock
    trouble: str = ""
    """The text of the last error, or of what it waits for: of another call's."""
    uncounted: int = 0  # throttled attempts that don't count towards the retry policy's

    @property
    def sent_at(self) -> datetime | None:
        """When the last attempt was signed."""
        return None if self.sent_unix_s is None else datetime.fromtimestamp(self.sent_unix_s, UTC)

    @property
    def last_trouble(self) -> str:
        """What it met last, for the end of an error's text."""
        return f" (last: {self.trouble})" if self.trouble else ""

    @property
    def has_begun(self) -> bool:
        """Whether it is being executed, or was."""
        return self.phase is not Phase.NEW

    @property
    def in_flight(self) -> bool:
        """Whether it may have been executed, or may be yet, for all that is known.

        After a cancellation it says whether the outcome is unknown.
        """
        return self.unknown_cause is not None or self.phase in (Phase.SENT, Phase.READING_BACK)

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for a token, its turn or a repeat, so that cancelling loses nothing.

        A call that has ended waits for nothing: its watcher may be keeping its outcome.

        A call that is being signed is about to be sent, and is not worth giving up.
        """
        return self.phase in _WAITING and not (self.in_flight or self.has_ended)

    def abandon(self) -> None:
        """Let the present attempt be the last."""
        self.abandoned = True

    def may_repeat_after(self, error: VoucherError) -> bool:
        """Return whether the retry policy may attempt the call again after this error."""
        if self.abandoned:
            return False
        if isinstance(error, OutcomeUnknownError):
            return self.phase is Phase.UNCHANGED
        outcome = classify(error)
        if outcome.remedy is Remedy.TOKEN:
            return self.token_error is not None and self.is_harmless(outcome)
        return may_repeat(self.safety, outcome)

    def is_harmless(self, outcome: Outcome) -> bool:
        """Return whether the call may be sent again after an attempt of this outcome."""
        return outcome.nothing_done or self.safety is Safety.READ
