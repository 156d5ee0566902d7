"""Keeps how attempts end. What can't be committed stays in memory, and is tried again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Collection
from typing import Any, TypeVar

import attrs

from rm_voucher.calls.log_fields import log_fields
from rm_voucher.exceptions import BatchStoppedError, LedgerError
from rm_voucher.ledger.process import LedgerClock
from rm_voucher.ledger.rules.commands import Confirm, End, Settlement
from rm_voucher.ledger.rules.records import AttemptState
from rm_voucher.ledger.rules.settling import settle
from rm_voucher.ledger.rules.transitions import end
from rm_voucher.ledger.store import LedgerStore, Transition
from rm_voucher.models import IssuedVoucher

I = TypeVar("I", Confirm, End)  # noqa: E741 - an item
R = TypeVar("R")

_log = logging.getLogger("rm_voucher.ledger")
_FIELDS = log_fields(operation="keep")
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 30.0
_REFUSED = (
    "how a call to it ended can't be kept in this database: RM answered with a text that it can't "
    "hold, or rows were removed or changed by hand; the log of the process says which"
)
_UNREADABLE = "a code that can't be kept"


class Keeper:
    """Commits the outcomes of one process's attempts, for as long as the process lives.

    A code in hand is in no listing's gift: where it is not durable, it is here, and nothing more
    is issued until it is. One that the database refuses for what it is stops its batch alone.
    """

    def __init__(self, store: LedgerStore, clock: LedgerClock) -> None:
        self._store = store
        self._clock = clock
        self._keeping: dict[str, Confirm | End] = {}  # by attempt, for the first time
        # By attempt. To commit one twice is harmless.
        self._unkept: dict[str, tuple[Transition[Any, Any], Confirm | End]] = {}
        self._refused: set[str] = set()
        """Those of them whose batch is stopped: they keep nobody else waiting."""
        self._failed: LedgerError | None = None
        self._trying: asyncio.Task[None] | None = None
        self._waiting: asyncio.Task[None] | None = None

    async def keep(self, transition: Transition[I, R], item: I) -> R:
        """Commit an outcome, or as much of it as the database can hold.

        Raises `LedgerError` if that can't be done now, and `BatchStoppedError` if never.
        """
        self._keeping[item.attempt_id] = item
        try:
            return await self._commit(transition, item)
        except BaseException as exc:  # also a cancellation: nobody would learn how it went on
            self._unkept[item.attempt_id] = transition, item
            if isinstance(exc, LedgerError):
                self._failed = exc
            if self._waiting is None or self._waiting.done():
                self._waiting = asyncio.create_task(self._try_again(), name="rm-voucher keeper")
            raise
        finally:
            del self._keeping[item.attempt_id]

    @property
    def attempts(self) -> Collection[str]:
        """The ids of the attempts whose outcome is in this process's memory alone, at any time."""
        return self._unkept.keys()

    @property
    def unkept(self) -> dict[str, IssuedVoucher]:
        """The codes that are in this process's memory alone, by the ids of their requests."""
        return {item.request_id: item.voucher for item in self._confirms()}

    @property
    def oldest_s(self) -> float:
        """For how long the oldest of these codes has been there; 0 without one."""
        oldest = min((item.at for item in self._confirms()), default=math.inf)
        return max(self._clock.latest_now() - oldest, 0.0)

    def _confirms(self) -> list[Confirm]:
        items = [*self._keeping.values(), *(item for _, item in self._unkept.values())]
        return [item for item in items if isinstance(item, Confirm)]

    async def catch_up(self) -> None:
        """Try again to commit what is not kept. Raises `LedgerError` if something is left."""
        for _ in range(2):  # what is under way may have begun before the database was back
            if not self._blocking:
                return
            is_new = self._trying is None or self._trying.done()
            if self._trying is None or is_new:
                self._trying = asyncio.create_task(self._try(), name="rm-voucher keeper")
            await asyncio.shield(self._trying)
            if is_new:
                break
        if left := self._blocking:
            codes = sum(isinstance(self._unkept[name][1], Confirm) for name in left)
            raise LedgerError(
                f"Nothing more is issued: the ledger could not keep how {len(left):,} "
                f"call(s) ended, {codes:,} of them with a code. They are in this "
                "process's memory, and tried again while it lives. The last error was: "
                f"{self._failed or 'the process was interrupted'}"
            )

    async def aclose(self) -> None:
        """Try for the last time. What is not kept then stays in `unkept`."""
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.wait([self._waiting])
        try:
            await self.catch_up()
        except LedgerError as exc:
            _log.error("%s", exc, extra=_FIELDS)
            return
        await self._try()  # what was refused, too: rows may have been put back
        if self._unkept:
            _log.error(
                "the ledger can't keep how %d call(s) ended", len(self._unkept), extra=_FIELDS
            )

    @property
    def _blocking(self) -> Collection[str]:
        return self._unkept.keys() - self._refused

    async def _try_again(self) -> None:
        wait_s = _FIRST_WAIT_S
        while self._blocking:
            await self._clock.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            try:
                await self.catch_up()
            except LedgerError as exc:
                _log.warning("%s", exc, extra=_FIELDS)

    async def _try(self) -> None:
        await asyncio.gather(*map(self._try_one, list(self._unkept)))

    async def _try_one(self, attempt_id: str) -> None:
        _, item = self._unkept[attempt_id]
        try:
            refused = await self._commit(*self._unkept[attempt_id])
        except LedgerError as exc:
            self._failed = exc
            return
        self._unkept.pop(attempt_id, None)
        self._refused.discard(attempt_id)
        if isinstance(refused, LedgerError):  # which the ledger has noted
            _log.warning("attempt %s: %s", attempt_id, refused, extra=_fields(item))

    async def _commit(self, transition: Transition[I, R], item: I) -> R:
        try:
            return await self._store.commit(transition, item)
        except LedgerError as exc:
            if exc.__cause__ is not None:  # the database can't be used, whatever is to be kept
                raise
            refusal = exc
        less = _without_details(item)
        if less != item:
            with contextlib.suppress(LedgerError):
                return await self._store.commit(transition, less)
        if item.attempt_id not in self._refused:
            await self._stop(item)
            self._refused.add(item.attempt_id)
            _log.error(
                "attempt %s: how it ended can't be kept: %s",
                item.attempt_id,
                refusal,
                extra=_fields(item),
            )
        raise BatchStoppedError(f"Nothing is issued from this batch: {_REFUSED}.") from refusal

    async def _stop(self, item: Confirm | End) -> None:
        """Stop the batch, and hold the attempt, if its row is sound. Raises `LedgerError`."""
        batch, at = item.batch, item.at
        over = End(
            batch=batch, attempt_id=item.attempt_id, state=AttemptState.AMBIGUOUS, at=item.at
        )
        stop = Settlement(batch=batch, at=at, stop_reason=_REFUSED)
        try:
            await self._store.commit(end, over)
            await self._store.commit(settle, attrs.evolve(stop, hold=(item.attempt_id,)))
        except LedgerError as exc:
            if exc.__cause__ is not None:
                raise
            await self._store.commit(settle, stop)


def _without_details(item: I) -> I:
    """Return an outcome without the texts that it can do without."""
    less: dict[str, Any] = {"qr_url": None}
    if isinstance(item, End):
        less = {"seen": None, "failure": item.failure and _UNREADABLE}
    return attrs.evolve(item, **less)


def _fields(item: Confirm | End) -> dict[str, str]:
    return log_fields(operation="keep", attempt=item.attempt_id, batch=item.batch)
