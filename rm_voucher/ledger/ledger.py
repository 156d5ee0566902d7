"""The ledger: it gives each request exactly one code, whatever is lost on the way.

What it promises rests on `transitions`; here is who sends, and when. A request's attempt is
durable before its call is sent, and its code before the caller sees it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack

from rm_voucher.exceptions import ConfigurationError, LedgerError
from rm_voucher.ledger import reconcile
from rm_voucher.ledger.finishing import anybody_waits, issue_waiting
from rm_voucher.ledger.reconcile import Reconciliation
from rm_voucher.ledger.rules.commands import Found, Pending, Recover, Resolve, check_id, digest
from rm_voucher.ledger.rules.records import (
    Attempt,
    AttemptState,
    Batch,
    Code,
    Counts,
    Mode,
    Request,
    RequestState,
    Settings,
)
from rm_voucher.ledger.rules.settling import recover, resolve
from rm_voucher.ledger.rules.unit import UnitOfWork
from rm_voucher.ledger.sender import Sender
from rm_voucher.models import IssuedVoucher
from rm_voucher.redaction import hide_locals
from rm_voucher.service.client import VoucherClient
from rm_voucher.settings import Timeout

I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")
T = TypeVar("T")

Transition = Callable[[UnitOfWork, Sequence[I]], Sequence[R]]
Reading = Callable[[UnitOfWork], R]
Page = list[tuple[int, Request, Code | None]]

_log = logging.getLogger("rm_voucher.ledger")
_PAGE = 500
_IDLE_ROUNDS = 3  # that settle nothing, before waiting on is given up


class Ledger(ABC):
    """Issues vouchers so that each request has exactly one, and no voucher is lost.

    Use it as an async context manager; `open` gives one that is kept in a database. A *request* is
    what somebody asked for, under an id of the caller's: ask again with the same id, after a crash
    or in another process, and the same voucher is returned. An id is for one batch and content.

    When the answer to a call is lost, the request waits until `reconcile` has settled it; that is,
    until the batch's listing shows what the call did. In the mode "exclusive" a code of the
    listing that nobody received is taken for the lost answer. That is right only if this ledger
    is the batch's only issuer: nothing in RM's API tells such a code from one that a terminal
    issued. So by default, "shared", what the listing leaves in doubt is held for `resolve`.

    Args:
        mode: "shared", or "exclusive" if nothing but this ledger issues from its batches.
        settle_s: how long after the end of a call its voucher may still come into being or into
            the listing. RM does not document it. Too short a time issues too much.
        skew_s: how far RM's clock and ours may be apart, when a voucher's time is compared with
            a call's.
        check_balance: whether a listing with fewer issued vouchers than the batch's balance says
            is taken for incomplete.
    """

    def __init__(
        self,
        *,
        mode: Literal["shared", "exclusive"] = "shared",
        settle_s: float = 300.0,
        skew_s: float = 10.0,
        check_balance: bool = True,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        make_id: Callable[[], str] = lambda: secrets.token_hex(6),
    ) -> None:
        if mode not in tuple(Mode):
            raise ConfigurationError('mode is "shared" or "exclusive".')
        if not (0 <= settle_s < math.inf and 0 <= skew_s < math.inf):
            raise ConfigurationError("settle_s and skew_s are seconds, 0 or more, and finite.")
        self.mode = Mode(mode)
        self.settle_s = settle_s
        self.skew_s = skew_s
        self.check_balance = check_balance
        self.owner = make_id()
        self.monotonic = monotonic
        self.sleep = sleep
        self._clock = clock
        self._epoch = clock() - monotonic()
        self._opened = False
        self._running: dict[str, tuple[object, asyncio.Task[IssuedVoucher]]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._prepared: set[str] = set()
        self.sender = Sender(self)
        self.ambiguous_since: dict[str, float] = {}
        """Since when this process knows that an attempt is ambiguous, by the monotonic clock."""
        self.listeners: set[Callable[[Sequence[Code]], None]] = set()
        """Told of the codes that were given to requests, after that is durable."""

    read_only = False

    @staticmethod
    def open(url: str, *, read_only: bool = False, **settings: Unpack[Settings]) -> Ledger:
        """Return a ledger that is kept in a database; enter it with ``async with``.

        ``url`` is ``sqlite:///campaign.db``, a file that one process at a time may use, or
        ``postgresql://user@host/database``, for several; the settings are those of `Ledger`. Needs
        the extra ``sql`` or ``postgres``. Raises `ConfigurationError`, and `LedgerError` on entry.
        """
        try:
            from rm_voucher.ledger.sql.store import SqlLedger  # an extra, and slow to import

            return SqlLedger(url, read_only=read_only, **settings)
        except ImportError as exc:
            raise ConfigurationError.no_driver("A ledger", url) from exc

    @abstractmethod
    async def commit(self, transition: Transition[I, R], item: I) -> R:
        """Run one item of a transition; return its result when that is durable.

        What was given to requests is told to `tell` then. Raises `LedgerError`.
        """

    @abstractmethod
    async def read(self, reading: Reading[R]) -> R:
        """Run what only reads, beside transactions. Raises `LedgerError`."""

    @abstractmethod
    async def _open(self) -> None: ...

    @abstractmethod
    async def _close(self) -> None: ...

    async def __aenter__(self) -> Self:
        if self._opened:
            raise LedgerError("The ledger is open already.")
        await self._open()
        self._opened = True
        try:
            if not self.read_only:
                await self.recover()
            for attempt in await self.attempts(states=[AttemptState.AMBIGUOUS]):
                self.ambiguous_since[attempt.id] = self.monotonic()
        except BaseException:
            await self.aclose()  # nobody else will
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Wait for what is in flight, give up what is not, and close. It may be called again."""
        if self._opened:
            self._opened = False
            self.sender.stop()
            try:
                while self._tasks:
                    await asyncio.wait(self._tasks)
            finally:
                await self._close()

    @hide_locals
    async def issue(
        self,
        client: VoucherClient,
        batch_key: str,
        request_id: str,
        *,
        content: str = "",
        timeout: Timeout | None = None,
    ) -> IssuedVoucher:
        """Return the voucher of a request; issue it if it has none (RM's page "Issue Voucher").

        It may be repeated, with the same id, at once or after a crash: it never issues twice.
        ``content`` is whatever makes two requests with one id different, say an order's lines;
        only a digest of it is kept. Cancelling is safe: the call goes on, and the ledger keeps
        what comes of it.

        Raises `OutcomeUnknownError` when a voucher may have been issued whose code is not known:
        ask again later, with the same id, after `reconcile`. Raises `IdempotencyConflictError`,
        `BatchStoppedError`, `LedgerError`, and what `VoucherClient.issue` raises.
        """
        what = (batch_key, digest(content))
        check_id(request_id)
        await self.prepare(client, batch_key)
        running = self._running.get(request_id)
        if running is not None and running[0] == what:
            return await asyncio.shield(running[1])
        task = self.start(self.sender.issue(client, *what, request_id, timeout=timeout))
        if running is None:
            self._running[request_id] = (what, task)
            task.add_done_callback(lambda _: self._running.pop(request_id))
        return await asyncio.shield(task)

    @hide_locals
    async def submit(
        self, batch_key: str, request_id: str, *, content: str = ""
    ) -> IssuedVoucher | RequestState:
        """Keep a request, without sending anything; return its voucher, or how it stands.

        When this returns, the request is durable, and a message that asked for it may be
        acknowledged: `finish` issues to all that wait. May be repeated; cancelling is safe.
        """
        answer = await self.sender.ask(
            batch_key, digest(content), check_id(request_id), may_start=False
        )
        if isinstance(answer, IssuedVoucher):
            return answer
        return answer.state if isinstance(answer, Pending) else RequestState.WAITING

    async def finish(
        self,
        client: VoucherClient,
        batch_key: str,
        *,
        request_ids: Iterable[str] | None = None,
        concurrency: int = 16,
    ) -> Counts:
        """Issue to all requests of a batch that wait, and settle what is unknown.

        It takes at least ``settle_s`` where an outcome is unknown, and as long again for what
        gets lost meanwhile; it ends when waiting settles nothing more. Returns how the batch
        stands then, or raises what stopped it, such as `OutOfStockError`. ``request_ids``: only
        these. Cancelling is safe.
        """
        await self.prepare(client, batch_key)
        only = None if request_ids is None else list(request_ids)
        stopped = await issue_waiting(self, client, batch_key, only, concurrency)
        idle = 0
        while idle < _IDLE_ROUNDS and await anybody_waits(self, batch_key, only):
            report = await self.reconcile(client, batch_key, wait=True)
            idle = 0 if report.adopted or report.not_issued else idle + 1
            stopped = await issue_waiting(self, client, batch_key, only, concurrency)
        if stopped is not None:
            raise stopped
        return await self.counts(batch_key)

    async def reconcile(
        self, client: VoucherClient, batch_key: str, *, wait: bool = False
    ) -> Reconciliation:
        """Settle unknown outcomes by the batch's listing (RM's page "Get Voucher Batch By Key").

        It reads the whole listing. ``wait`` first until ``settle_s`` has passed since the last
        unknown outcome, so that all can be settled. May be repeated; cancelling is safe. Raises
        what `VoucherClient.vouchers` raises; nothing is concluded then.
        """
        await self.prepare(client, batch_key)
        async with self._locks[f"reconcile {batch_key}"]:
            self.sender.doubts[batch_key] = 0
            return await reconcile.reconcile(self, client, batch_key, wait=wait)

    async def baseline(self, client: VoucherClient, batch_key: str) -> None:
        """Begin anew with a batch that was stopped: take what is listed as it is.

        Codes that the ledger does not know are FOREIGN from now on, and given to nobody; unknown
        outcomes are held for `resolve`. If the ledger is an old copy, requests issued to since
        would get a second voucher. Raises `LedgerError` while calls are in flight.
        """
        await self.recover(batch_key)
        async with self._locks[f"prepare {batch_key}"]:
            await reconcile.read_baseline(self, client, batch_key, anew=True)
            self._prepared.discard(batch_key)

    @hide_locals
    async def resolve(
        self,
        attempt_id: str,
        *,
        adopt: str | None = None,
        reissue: bool = False,
        write_off: bool = False,
    ) -> None:
        """Decide about an attempt whose outcome is unknown; see `Reconciliation.held`.

        Exactly one of: ``adopt``, the code that it issued, which its request gets; ``reissue``,
        it issued nothing, or that does not matter: its request waits again; ``write_off``, its
        request is given up. Raises `LedgerError` when there is nothing to resolve, or the code
        is known already.
        """
        if (adopt is not None) + reissue + write_off != 1:
            raise ConfigurationError("resolve takes one of adopt, reissue and write_off.")
        found = await self.read(lambda unit: unit.load_attempts([attempt_id]))
        if not found:
            raise LedgerError("The ledger has no such attempt.")
        state = AttemptState.WRITTEN_OFF if write_off else AttemptState.NOT_ISSUED
        error = await self.commit(
            resolve,
            Resolve(
                batch=found[0].batch,
                attempt_id=attempt_id,
                state=state if adopt is None else AttemptState.ADOPTED,
                at=self.now(),
                code=None if adopt is None else Found(code=adopt),
            ),
        )
        if error is not None:
            raise error

    async def counts(self, batch_key: str | None = None) -> Counts:
        """Return how the ledger, or one batch of it, stands."""
        return await self.read(lambda unit: unit.counts(batch_key))

    async def attempts(
        self,
        batch_key: str | None = None,
        states: Iterable[AttemptState] = (AttemptState.AMBIGUOUS, AttemptState.UNRESOLVED),
    ) -> list[Attempt]:
        """Return attempts, by default those whose outcome is unknown, the first sent first."""
        wanted = tuple(states)
        return await self.read(lambda unit: unit.find_attempts(batch_key, wanted))

    async def batches(self) -> list[Batch]:
        """Return the batches that the ledger knows, with the reason of those that are stopped."""
        return await self.read(lambda unit: unit.find_batches())

    async def requests(
        self, batch_key: str | None = None
    ) -> AsyncIterator[tuple[Request, IssuedVoucher | None]]:
        """Iterate over all requests, in the order in which they were asked."""
        after = 0
        while rows := await self._page(batch_key, after):
            for number, request, code in rows:
                after = number
                yield request, None if code is None else code.voucher

    async def _page(self, batch_key: str | None, after: int) -> Page:
        return await self.read(lambda unit: unit.page(batch_key, after, _PAGE))

    async def recover(self, batch_key: str | None = None) -> None:
        """Make ambiguous what a process was sending that is gone. Entering the ledger does it."""
        sending = await self.attempts(batch_key, (AttemptState.SENDING,))
        lost = tuple(attempt for attempt in sending if attempt.id not in self.sender.live)
        for begin in range(0, len(lost), _PAGE):
            part = lost[begin : begin + _PAGE]
            item = Recover(attempts=part, own=self.owner, at=self.now())
            for attempt_id in await self.commit(recover, item):
                self.ambiguous_since[attempt_id] = self.monotonic()

    async def prepare(self, client: VoucherClient, batch_key: str) -> None:
        """Before the first call to a batch: refuse a static one, and read the baseline."""
        if batch_key in self._prepared:
            return
        async with self._locks[f"prepare {batch_key}"]:
            if batch_key not in self._prepared:
                await reconcile.prepare(self, client, batch_key)
                self._prepared.add(batch_key)

    def now(self) -> float:
        """Return the time, in seconds since 1970: the later one, if the clock was set back."""
        return max(self._epoch + self.monotonic(), self._clock())

    def begun(self) -> float:
        """Return the earlier one: so an attempt's time holds by whichever is right."""
        return min(self._epoch + self.monotonic(), self._clock())

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run what must not end with its caller; `aclose` waits for it."""
        if not self._opened:
            work.close()
            raise LedgerError("The ledger is not open: use it with 'async with'.")
        task = asyncio.create_task(work, name="rm-voucher ledger")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Whoever waits has it; if nobody does, the ledger has what is to be known.
            _log.debug("a task of the ledger ended with %s", type(error).__name__)

    def tell(self, codes: Sequence[Code]) -> None:
        """Tell the listeners of codes that were given to requests."""
        if codes:
            for listener in tuple(self.listeners):
                listener(codes)
