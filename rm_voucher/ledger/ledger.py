"""The ledger: each request gets exactly one code, whatever is lost on the way.

Its promises rest on `rules.transitions`. An attempt is durable before its call is sent, and a code
before the caller sees it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from rm_voucher.calls.hooks import Gauge, WorkKind, tell_source
from rm_voucher.exceptions import (
    ConfigurationError,
    ConnectError,
    InvalidRequestError,
    LedgerError,
    OutcomeUnknownError,
    VoucherError,
)
from rm_voucher.extras import extra, extra_of
from rm_voucher.ledger.keeper import Keeper
from rm_voucher.ledger.memory import MemoryLedgerStore
from rm_voucher.ledger.process import AttemptTracker, LedgerClock, LedgerTasks
from rm_voucher.ledger.reconcile import Reconciler, Reconciliation
from rm_voucher.ledger.rules.commands import (
    Found,
    Keep,
    Resolve,
    check_id,
    check_key,
    digest,
)
from rm_voucher.ledger.rules.records import (
    AttemptState,
    Backlog,
    Batch,
    Counts,
    IssueAttempt,
    IssueRequest,
    Mode,
    RequestState,
)
from rm_voucher.ledger.rules.settling import keep, resolve
from rm_voucher.ledger.rules.unit_of_work import Page
from rm_voucher.ledger.sender import Errand, Sender, overdue_error
from rm_voucher.ledger.settings import LedgerOptions, LedgerSettings
from rm_voucher.ledger.store import LedgerStore, Listener, blocks
from rm_voucher.ledger.sweeper import Sweeper
from rm_voucher.models import IssuedVoucher
from rm_voucher.redaction import hide_locals
from rm_voucher.runtime import Runtime, is_cancelled
from rm_voucher.service.client import VoucherClient, issue_call
from rm_voucher.settings import Timeout

if TYPE_CHECKING:  # it imports SQLAlchemy, an extra
    from rm_voucher.database.connections import SqlDatabase

T = TypeVar("T")

_PAGE = 500
_IDLE_ROUNDS = 3  # that settle nothing, before `finish` gives up
# So many new unknown outcomes are worth reading a batch's listing in the middle of a run.
_MANY_UNKNOWN = 50
_MANY_UNKNOWN_SHARE = 0.005
_SWEPT_AT_ONCE = 4
_LOOK_S = 15.0
_STALE_S = 60.0


class Ledger:
    """Issues vouchers so that each request has exactly one, and no voucher is lost.

    Use it as an async context manager. `open` gives one in a database, and `in_memory` one for
    tests. A *request* asks for one voucher, under an id of the caller's. Ask again with the same
    id, after a crash or in another process, and the same voucher is returned. An id is for one
    batch and one content.

    When the answer to a call is lost, the request waits until `reconcile` has settled it: until
    the batch's listing shows what the call did. In the mode "exclusive" a code of the listing
    that nobody received is taken for the lost answer. That is right only if this ledger is the
    batch's only issuer: nothing in RM's API tells such a code from one that a terminal issued.
    So by default, "shared", a person decides with `resolve` where the listing leaves a doubt.

    Args:
        store: the database. It belongs to this ledger, which opens and closes it.
        runtime: its clocks, and how it waits.
        mode: "shared", or "exclusive" if nothing but this ledger issues from its batches.
        settle_s: how long after the end of a call its voucher may still come into being or into
            the listing; 300 by default. RM does not document it. Too short a time issues too much.
        skew_s: how far RM's clock and ours may be apart, when a voucher's time is compared with
            a call's; 10 by default.
        check_balance: whether a listing is incomplete if it has fewer issued vouchers than the
            batch's balance says; True by default.
        sweeps: whether this process finishes, while it lives, what calls and processes have left of
            the batches that it prepared: it settles unknown outcomes, and issues to requests that
            wait and that nobody issues to. Only then does it read a listing, with a fifth of the
            client's rate at most, and in one process at a time. False by default, because a program
            that ends calls `finish`.

    Every method raises `LedgerError` where the ledger is not open, or its database can't be used.
    """

    def __init__(
        self,
        store: LedgerStore,
        *,
        runtime: Runtime | None = None,
        **settings: Unpack[LedgerOptions],
    ) -> None:
        self.settings: LedgerSettings = LedgerSettings(**settings)
        self.store = store
        self.clock: LedgerClock = LedgerClock(runtime or Runtime())
        self._tasks = LedgerTasks()
        self._keeper = Keeper(store, self.clock)
        self._tracker = AttemptTracker(store, self.clock, self._keeper.attempts)
        self._reconciler = Reconciler(store, self.settings, self.clock, self._tracker, self._keeper)
        self.sender: Sender = Sender(
            store,
            self.clock,
            self._tracker,
            self._tasks,
            self._keeper,
            self._outcome_unknown,
            self.settings.settle_s,
        )
        """Issues to one request step by step, for a bulk run; everybody else calls `issue`."""
        self._sweeper = Sweeper(
            store, self.clock, self._tracker, self._reconciler, self._issue_what_waits
        )
        self._swept: set[str] = set()
        self._issuing: dict[str, tuple[object, Errand, asyncio.Task[IssuedVoucher]]] = {}
        self._account: str | None = None  # which the ledger is known to belong to
        self._prepared: set[str] = set()
        self._preparing: dict[str, asyncio.Task[None]] = {}
        self._prepare_locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._reconcile_locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        # Outcomes of each batch that became unknown since its listing was read.
        self._unknown_outcomes: dict[str, int] = defaultdict(int)
        self._watched: set[str] = set()
        self._backlogs: dict[str, tuple[float, Backlog]] = {}
        """What was not finished of each watched batch, and when that was so."""
        self._reading: set[asyncio.Task[Any]] = set()
        """Tasks that read listings, which closing gives up."""

    @classmethod
    def open(
        cls,
        database: str | SqlDatabase,
        *,
        namespace: str | None = None,
        read_only: bool = False,
        patience_s: float = 30.0,
        runtime: Runtime | None = None,
        **settings: Unpack[LedgerOptions],
    ) -> Self:
        """Return a ledger that is kept in a database; enter it with ``async with``.

        ``database`` is a URL: ``sqlite:///campaign.db``, a file that one process at a time may use,
        or ``postgresql://user@host/database``, for several. Several merchants may share it, each in
        a ``namespace`` of its own, such as ``client.account``, and in one process with one
        `SqlDatabase` for all. ``read_only`` looks at a ledger that another process may be using,
        and changes nothing. ``patience_s`` is how long each step waits for a database that is away,
        read-only or full. The settings are those of `Ledger`.
        Needs the extra ``sql`` or ``postgres``. It may be made before a fork, and is then opened in
        each child. Raises `ConfigurationError`, and `LedgerError` on entry.
        """
        with extra(extra_of(database), "A ledger", ConfigurationError):
            from rm_voucher.ledger.sql.store import SqlLedgerStore  # slow to import

        store = SqlLedgerStore(
            database,
            namespace=namespace,
            read_only=read_only,
            patience_s=patience_s,
            runtime=runtime,
        )
        return cls(store, runtime=runtime, **settings)

    @classmethod
    def in_memory(
        cls, *, runtime: Runtime | None = None, **settings: Unpack[LedgerOptions]
    ) -> Self:
        """Return a ledger that lasts as long as this object: for tests."""
        return cls(MemoryLedgerStore(), runtime=runtime, **settings)

    async def __aenter__(self) -> Self:
        if self._tasks.is_open:
            raise LedgerError("The ledger is open already.", is_final=True)
        await self.store.open()
        self._tasks.is_open = True
        try:
            await self._tracker.open()
        except BaseException:
            await self.aclose()  # nobody else will
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Wait for calls in flight, give up those that wait, and close. It may be called again.

        What the ledger could not keep is tried once more. A database that does not answer is given
        up within 15 s. Codes that are left are in `unkept`.
        """
        if self._tasks.is_open:
            self._tasks.is_open = False
            self.store.hurry()
            self.sender.stop()
            for task in self._reading:
                task.cancel()
            try:
                await self._tasks.drain()
                await self._keeper.aclose()
            finally:
                await self.store.close()

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
        ``content`` tells apart two requests with one id, say by an order's lines; the ledger keeps
        only a digest of it. Cancelling is safe: the call goes on, and the ledger keeps its outcome.
        So it does after the ``total_s`` of the timeout, which bounds all that this waits for, the
        database and the listing of `prepare` too.

        Raises `OutcomeUnknownError` when a voucher may have been issued whose code is not known:
        ask again later, with the same id, after `reconcile`. It has a ``voucher`` where a code is
        known that the ledger could not keep, or that came with an error: evidence, not to be
        handed on. Raises `ConnectTimeoutError` when nothing was sent in time,
        `IdempotencyConflictError`, `BatchStoppedError`, `LedgerError`, and what
        `VoucherClient.issue` raises.
        """
        what = (check_key(batch_key), digest(content))
        check_id(request_id)
        errand = Errand(issue_call(_checked(client).caller, batch_key, timeout))
        # The work may have been begun by another one, with a call that has another deadline.
        deadline = errand.call.deadline
        issuing = self._issuing.get(request_id)
        if issuing is not None and issuing[0] == what:
            _, errand, task = issuing
        else:
            task = self._tasks.start(self._issue(client, *what, request_id, errand))
            if issuing is None:
                self._issuing[request_id] = (what, errand, task)
                task.add_done_callback(lambda _: self._issuing.pop(request_id))
        within_s = None if deadline is None else deadline - self.clock.monotonic()
        try:
            async with asyncio.timeout(within_s) as limit:
                return await asyncio.shield(task)
        except TimeoutError:
            if not limit.expired():
                raise
        # A call is not sent after its own deadline, but another's may have more time.
        may_be_sent = errand.in_flight or errand.call.deadline != deadline
        voucher = self.unkept.get(request_id)  # its commit takes longer than the caller has
        trouble = client.caller.trouble_of(errand.call)
        raise overdue_error(batch_key, in_flight=may_be_sent, voucher=voucher, trouble=trouble)

    @hide_locals
    async def submit(
        self, batch_key: str, request_id: str, *, content: str = ""
    ) -> IssuedVoucher | RequestState:
        """Keep a request, without sending anything; return its voucher, or its state.

        When this returns, the request is durable, and a message that asked for it may be
        acknowledged. `finish` issues to all that wait. May be repeated; cancelling is safe.
        """
        answer = await self.sender.look_up(
            check_key(batch_key), digest(content), check_id(request_id)
        )
        return answer if isinstance(answer, IssuedVoucher) else answer.state

    @hide_locals
    async def keep(self, batch_key: str, request_id: str, voucher: IssuedVoucher) -> None:
        """Keep a code that an earlier process received for a request, and could not keep.

        It is the ``voucher`` of an `OutcomeUnknownError` or of an unresolved `BulkResult`. The
        request gets it, be its attempt unknown or held. Call it before anything else is done with
        the batch. What came with an error of the server's stays evidence, for `reconcile`. May be
        repeated. Raises `LedgerError` when the ledger knows the code or the request otherwise.
        """
        if not isinstance(voucher, IssuedVoucher):
            raise InvalidRequestError.refused("What is to be kept is an IssuedVoucher.")
        check_id(request_id)
        await self._tracker.recover(check_key(batch_key))
        item = Keep(
            batch=batch_key, request_id=request_id, voucher=voucher, at=self.clock.latest_now()
        )
        error = await self.store.commit(keep, item)
        if error is not None:
            raise error

    @property
    def unkept(self) -> dict[str, IssuedVoucher]:
        """The codes that only this process's memory has, by the ids of their requests.

        The ledger could not keep them yet. If there are some after `aclose`, write them down: they
        are real vouchers, and `keep` takes them.
        """
        return self._keeper.unkept

    @property
    def oldest_unkept_s(self) -> float:
        """For how long the oldest code of `unkept` has been there, 0 without one.

        A commit takes milliseconds: after some seconds the database is away.
        """
        return self._keeper.oldest_s

    async def finish(
        self,
        client: VoucherClient,
        batch_key: str,
        *,
        request_ids: Iterable[str] | None = None,
        concurrency: int = 16,
    ) -> Counts:
        """Issue to all requests of a batch that wait, and settle unknown outcomes.

        With an unknown outcome it takes at least ``settle_s``, and as long again if more answers
        are lost meanwhile; it ends when waiting settles nothing more. Returns the counts of the
        batch then, or raises what stopped it, such as `OutOfStockError`. ``request_ids``: only
        these. Cancelling is safe.
        """
        # With a concurrency of 0 all would wait for ever.
        if not isinstance(concurrency, int) or concurrency < 1:
            raise ConfigurationError("concurrency must be a number of calls, 1 or more.")
        await self.prepare(client, batch_key)
        only = None if request_ids is None else list(request_ids)
        stopped_by = await self._issue_waiting(client, batch_key, only, concurrency)
        idle = 0
        while idle < _IDLE_ROUNDS and await self._any_unknown(batch_key, only):
            report = await self.reconcile(client, batch_key, wait=True)
            idle = 0 if report.adopted or report.not_issued else idle + 1
            stopped_by = await self._issue_waiting(client, batch_key, only, concurrency)
        if stopped_by is not None:
            raise stopped_by
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
        async with self._reconcile_locks[batch_key]:
            self._unknown_outcomes[batch_key] = 0
            reading = self._reconciler.reconcile(client, batch_key, wait=wait)
            return await _observed(client, reading, "reconcile", batch_key)

    async def baseline(self, client: VoucherClient, batch_key: str) -> None:
        """Begin again with a batch that was stopped, and take its listing as it is.

        Codes that the ledger does not know are FOREIGN from now on, and given to nobody. Unknown
        outcomes are held for `resolve`. If the ledger is an old copy, requests that got a voucher
        since would get a second one. Raises `LedgerError` while calls are in flight.
        """
        await self._claim(client)
        await self._tracker.recover(check_key(batch_key))
        async with self._prepare_locks[batch_key]:
            await _observed(
                client,
                self._reconciler.read_baseline(client, batch_key, reset=True),
                "baseline",
                batch_key,
            )
            self._prepared.discard(batch_key)

    @hide_locals
    async def resolve(
        self,
        attempt_id: str,
        *,
        adopt: str | IssuedVoucher | None = None,
        reissue: bool = False,
        write_off: bool = False,
    ) -> None:
        """Decide about an attempt whose outcome is unknown; see `Reconciliation.held`.

        Give exactly one of: ``adopt``, the code that it issued, which its request gets, or that
        voucher with its QR URL, which the request would have none of otherwise;
        ``reissue``, it issued nothing, or that does not matter: its request waits again;
        ``write_off``, its request is given up. Raises `LedgerError` when there is nothing to
        resolve, or the ledger has the code already.
        """
        if (adopt is not None) + reissue + write_off != 1:
            raise ConfigurationError("resolve takes one of adopt, reissue and write_off.")
        found = await self.store.read(lambda unit: unit.load(IssueAttempt, [attempt_id]))
        if not found:
            raise LedgerError("The ledger has no such attempt.", is_final=True)
        state = AttemptState.WRITTEN_OFF if write_off else AttemptState.NOT_ISSUED
        code = None
        if adopt is not None:
            state = AttemptState.ADOPTED
            voucher = adopt if isinstance(adopt, IssuedVoucher) else IssuedVoucher(code=adopt)
            code = Found(code=voucher.code, qr_url=voucher.qr_url or None)
        error = await self.store.commit(
            resolve,
            Resolve(
                batch=found[0].batch,
                attempt_id=attempt_id,
                state=state,
                at=self.clock.latest_now(),
                code=code,
            ),
        )
        if error is not None:
            raise error

    async def counts(self, batch_key: str | None = None) -> Counts:
        """Return the counts of the ledger, or of one batch. It looks at all of its rows."""
        return await self.store.read(lambda unit: unit.counts(batch_key))

    async def backlog(self, batch_key: str | None = None) -> Backlog:
        """Return what is not finished, of the ledger or of one batch.

        It looks at those rows alone, so it may be asked often, however large the ledger is.
        """
        return await self.store.read(lambda unit: unit.backlog(batch_key))

    async def attempts(
        self,
        batch_key: str | None = None,
        states: Iterable[AttemptState] = (AttemptState.AMBIGUOUS, AttemptState.UNRESOLVED),
    ) -> list[IssueAttempt]:
        """Return attempts, by default those whose outcome is unknown, the first sent first."""
        return await self.store.attempts(batch_key, states)

    async def batches(self) -> list[Batch]:
        """Return the batches that the ledger knows, with ``stop_reason`` if one is stopped."""
        return await self.store.read(lambda unit: unit.find_batches())

    async def stop_reason(self) -> str | None:
        """Return why the whole ledger was stopped, if it was: an older copy was put back.

        Each batch, also one that it does not know yet, is stopped then until its `baseline`. With
        ``read_only`` it is also what would stop it when it is opened to write.
        """
        reason = await self.store.read(lambda unit: unit.stop_reason())
        return reason or await self.store.doubt()

    async def requests(
        self, batch_key: str | None = None
    ) -> AsyncIterator[tuple[IssueRequest, IssuedVoucher | None]]:
        """Iterate over all requests, in the order in which they were asked."""
        after = 0
        while rows := await self._page(batch_key, after):
            for number, request, code in rows:
                after = number
                yield request, None if code is None else code.voucher

    async def find(self, request_ids: Iterable[str]) -> AsyncIterator[IssueRequest]:
        """Iterate over the requests with these ids: those of them that the ledger knows."""
        ids = iter(request_ids)
        while block := list(itertools.islice(ids, _PAGE)):
            for request in await self._load(block):
                yield request

    async def recover(self, batch_key: str | None = None) -> None:
        """Make ambiguous the attempts that a dead process was sending. Entering does it too."""
        await self._tracker.recover(batch_key)

    async def prepare(self, client: VoucherClient, batch_key: str) -> None:
        """Make a batch ready: refuse a static one, and read its whole listing as the baseline.

        The first call to a batch does it, in each process. Call it at the start of a program, so
        that no request waits for the listing. Cancelling is safe: it goes on.
        """
        await self._claim(client)
        if check_key(batch_key) in self._prepared:
            return
        task = self._preparing.get(batch_key)
        if task is None:
            task = self._preparing[batch_key] = self._read(self._prepare(client, batch_key))
            task.add_done_callback(lambda _: self._preparing.pop(batch_key))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            raise ConnectError("issue: given up, because the ledger was closed") from None

    async def account(self) -> str | None:
        """Return the account that the ledger belongs to: `VoucherClient.account`, or None yet.

        It is the account of the first client that the ledger is used with. Every other client is
        refused with a `LedgerError`.
        """
        return await self.store.account()

    async def namespaces(self) -> dict[str, str]:
        """Return the namespaces of the database that are somebody's, each with its account."""
        return await self.store.namespaces()

    async def rebind(self, client: VoucherClient) -> None:
        """Let the ledger belong to this client's account from now on: a person's word.

        It is for a merchant who has a new client id, and for a ledger of which the client's account
        lists not all batches any more. May be repeated. Raises `LedgerError` if the account has
        another namespace in the database.
        """
        account = _checked(client).account
        await self.store.claim(account, rebind=True)
        self._account = account

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call the listener with codes given to requests, once durable; return what ends that."""
        return self.store.subscribe(listener)

    async def _claim(self, client: VoucherClient) -> None:
        """See that the ledger is this client's account's, or becomes so. Raises `LedgerError`.

        One from before accounts were kept becomes so only if the account lists each batch that was
        issued from.
        """
        account = _checked(client).account
        self.store.check_open()
        if account == self._account:
            return
        if await self.store.account() is None:
            begun = {row.key for row in await self.batches() if row.baseline_at is not None}
            if begun:
                begun.difference_update([batch.key async for batch in client.batches()])
            if begun:
                raise LedgerError(
                    "Whose this ledger is is not known, and this client's account does not list "
                    f"its batch {min(begun)}: use it with its own client first, or, if it is this "
                    "client's, say so with rebind.",
                    is_final=True,
                )
        await self.store.claim(account)
        self._account = account

    def _outcome_unknown(self, client: VoucherClient, batch_key: str) -> None:
        """Read the listing in the middle of a run when many outcomes are unknown."""
        self._unknown_outcomes[batch_key] += 1
        many = max(_MANY_UNKNOWN, _MANY_UNKNOWN_SHARE * self.sender.sent)
        is_open, mode = self._tasks.is_open, self.settings.mode
        if is_open and mode is Mode.EXCLUSIVE and self._unknown_outcomes[batch_key] > many:
            self._unknown_outcomes[batch_key] = 0
            self._read(self.reconcile(client, batch_key))

    async def _look(self, batch_key: str) -> None:
        """Look at what is not finished, for observers, now and then."""
        while True:
            with contextlib.suppress(LedgerError):
                found = await self.backlog(batch_key)
                self._backlogs[batch_key] = self.clock.monotonic(), found
            await self.clock.sleep(_LOOK_S)

    def gauges(self) -> list[Gauge]:
        """Return what is known of all batches that this process issues from, for observers.

        What the database did not say within the last minute is left out.
        """
        gauges = [
            Gauge("ledger.unkept", len(self.unkept)),
            Gauge("ledger.oldest", self.oldest_unkept_s, "unkept"),
        ]
        looks, since = list(self._backlogs.values()), self.clock.monotonic() - _STALE_S
        fresh = [found for at, found in looks if at > since]
        if not fresh or len(fresh) < len(looks):
            return gauges
        now = self.clock.latest_now()
        for state in ("waiting", "sending", "ambiguous", "held", "spare"):
            count = sum(getattr(found, state) for found in fresh)
            gauges.append(Gauge("ledger.backlog", count, state))
        for state in ("waiting", "ambiguous"):
            times = [getattr(found, f"oldest_{state}_at") for found in fresh]
            oldest = min((at for at in times if at is not None), default=now)
            gauges.append(Gauge("ledger.oldest", max(now - oldest, 0.0), state))
        return gauges

    def _read(self, reading: Coroutine[Any, Any, T], *, is_own: bool = False) -> asyncio.Task[T]:
        """Read a listing in a task of its own; see `LedgerTasks.start`."""
        task = self._tasks.start(reading, is_own=is_own)
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)
        return task

    async def _prepare(self, client: VoucherClient, batch_key: str) -> None:
        async with self._prepare_locks[batch_key]:
            reading = self._reconciler.prepare(client, batch_key)
            await _observed(client, reading, "prepare", batch_key)
            self._prepared.add(batch_key)
            if client.caller.observers and batch_key not in self._watched:
                tell_source(client.caller.observers, client.name, self)
                self._watched.add(batch_key)
                self._read(self._look(batch_key), is_own=True)
            if self.settings.sweeps and batch_key not in self._swept:
                self._swept.add(batch_key)
                # With the time and the patience of the client, and not of one call.
                sweep = self._sweeper.sweep(client.made_of or client, batch_key)
                self._read(sweep, is_own=True)

    async def _issue(
        self,
        client: VoucherClient,
        batch_key: str,
        content: str,
        request_id: str,
        errand: Errand | None = None,
    ) -> IssuedVoucher:
        return await _observed(
            client,
            self._prepare_and_issue(client, batch_key, content, request_id, errand),
            "issue",
            batch_key,
        )

    async def _prepare_and_issue(
        self,
        client: VoucherClient,
        batch_key: str,
        content: str,
        request_id: str,
        errand: Errand | None = None,
    ) -> IssuedVoucher:
        await self.prepare(client, batch_key)
        return await self.sender.issue(client, batch_key, content, request_id, errand)

    async def _issue_what_waits(
        self, client: VoucherClient, batch_key: str, request_ids: list[str]
    ) -> VoucherError | None:
        return await self._issue_waiting(client, batch_key, request_ids, _SWEPT_AT_ONCE)

    @hide_locals
    async def _issue_waiting(
        self,
        client: VoucherClient,
        batch_key: str,
        only: Sequence[str] | None,
        concurrency: int,
    ) -> VoucherError | None:
        """Issue to all waiting requests of a batch, or to some; return what stopped it for all."""
        limit = asyncio.Semaphore(concurrency)
        stopped_by: VoucherError | None = None

        async def issue(request: IssueRequest) -> None:
            nonlocal stopped_by
            async with limit:
                if stopped_by is not None:
                    return
                work = self._issue(client, batch_key, request.content, request.id)
                try:
                    await asyncio.shield(self._tasks.start(work))
                except OutcomeUnknownError:
                    pass  # to be settled
                except VoucherError as exc:
                    stopped_by = stopped_by or exc

        async for block in self._waiting(batch_key, only):
            await asyncio.gather(*map(issue, block))
            if stopped_by is not None:
                break
        return stopped_by

    async def _waiting(
        self, batch_key: str, only: Sequence[str] | None
    ) -> AsyncIterator[list[IssueRequest]]:
        """Iterate over the requests that wait and claim no attempt, a block at a time."""
        if only is None:
            while block := _unclaimed(
                await self.store.read(lambda unit: unit.find_unserved(batch_key, _PAGE))
            ):
                yield block
            return
        for ids in blocks(only, _PAGE):
            yield _unclaimed(await self._load(ids))

    async def _any_unknown(self, batch_key: str, only: Sequence[str] | None) -> bool:
        """Return whether a request waits for the outcome of its attempt."""
        if only is None:
            return await self.store.read(lambda unit: unit.has_unknown(batch_key))
        for ids in blocks(only, _PAGE):
            rows = await self._load(ids)
            if any(row.state is RequestState.WAITING and row.attempt_id for row in rows):
                return True
        return False

    async def _page(self, batch_key: str | None, after: int) -> Page:
        return await self.store.read(lambda unit: unit.page(batch_key, after, _PAGE))

    async def _load(self, ids: Sequence[str]) -> list[IssueRequest]:
        return await self.store.read(lambda unit: unit.load(IssueRequest, ids))


def _checked(client: VoucherClient) -> VoucherClient:
    if not isinstance(client, VoucherClient):
        raise ConfigurationError("client must be of type VoucherClient.")
    return client


def _observed(
    client: VoucherClient, running: Awaitable[T], operation: str, batch_key: str
) -> Awaitable[T]:
    """Return what does the ledger's work and tells the client's observers of it."""
    return client.caller.observed(running, operation, kind=WorkKind.LEDGER, batch_key=batch_key)


def _unclaimed(requests: Iterable[IssueRequest]) -> list[IssueRequest]:
    return [
        request
        for request in requests
        if request.state is RequestState.WAITING and request.attempt_id is None
    ]
