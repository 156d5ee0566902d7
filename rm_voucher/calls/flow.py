"""The queue that every attempt passes: the rate, the circuit breaker and ``Retry-After`` in one.

All callers of a client share one `Flow`, because the server counts all their requests. It makes no
request and reads no answer: the caller reports how each attempt ended.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import attrs

from rm_voucher.calls.hooks import Gauge
from rm_voucher.calls.pace import Pace
from rm_voucher.exceptions import ConnectTimeoutError
from rm_voucher.runtime import Runtime
from rm_voucher.settings import FlowPolicy

_MOST_FORGIVEN_S = 120.0  # two of a server's minutes
_SLICE_S = 0.25  # of a wait, after which the flow looks again

SKIPS_QUEUE: ContextVar[bool] = ContextVar("SKIPS_QUEUE", default=False)
"""Whether this task's attempts take the next permits, before all calls that wait already.

For upkeep, one request at a time: what settles calls must not wait for all calls to be made.
"""


@attrs.frozen(kw_only=True)
class FlowState:
    """How a client sends at the moment; see `VoucherClient.flow`.

    Attributes:
        rate_per_s: the requests a second that are allowed now, None for any number.
        throttled: how many attempts the server has throttled so far.
        waiting: how many calls wait for their turn.
        retry_after_s: for how many more seconds all calls wait because the server asked for it
            (``Retry-After``), else 0.
        outage_s: for how many seconds the server has been failing, so that all calls wait, or None.
        processes: how many clients shared the rate of late, with this one; None where it is not
            shared. Then ``rate_per_s`` is that of all together.
        store_away_s: for how many seconds the store of the shared rate has been away, or None. So
            long, ``rate_per_s`` is this client's own share.
    """

    rate_per_s: float | None
    throttled: int
    waiting: int
    retry_after_s: float
    outage_s: float | None
    processes: int | None = None
    store_away_s: float | None = None


class Flow:
    """Admits attempts as fast as the server takes them, in the order in which they came.

    Only one call of all bulk runs waits among the single calls, so that a single call waits for
    few; and only one of those waits beside upkeep (`SKIPS_QUEUE`).
    """

    def __init__(self, policy: FlowPolicy, runtime: Runtime) -> None:
        self._policy = policy
        self._runtime = runtime
        self._pace = Pace.new(policy, runtime.random)
        self.unlimited: bool = policy.rate_per_s is None
        """Whether attempts may be sent without asking."""
        self.has_worked: bool = False
        """Whether the server has ever answered."""
        self.has_failed: bool = False
        """Whether an attempt ever got no answer of the server's."""
        self.trouble: str = ""
        """The last error that made calls wait, until an answer comes."""
        self._throttled = 0
        self._waiting = 0
        # Locks belong to an event loop; a client may be used in one after another.
        self._queues: dict[asyncio.AbstractEventLoop, tuple[asyncio.Lock, ...]] = {}

    @property
    def state(self) -> FlowState:
        """How it stands now."""
        now, pace = self._runtime.monotonic(), self._pace
        opened_at = pace.breaker.opened_at
        return FlowState(
            rate_per_s=pace.rate.per_s(now),
            throttled=self._throttled,
            waiting=self._waiting,
            retry_after_s=max(0.0, pace.paused_until - now),
            outage_s=None if opened_at is None else now - opened_at,
        )

    def gauges(self) -> list[Gauge]:
        """Return how it stands now, for observers."""
        state = self.state
        known = {
            "flow.rate": state.rate_per_s,
            "flow.waiting": state.waiting,
            "flow.retry_after": state.retry_after_s,
            "flow.outage": state.outage_s or 0.0,
            "flow.processes": state.processes,
        }
        if state.processes is not None:
            known["flow.store_away"] = state.store_away_s or 0.0
        return [Gauge(name, value) for name, value in known.items() if value is not None]

    @property
    def is_failing(self) -> bool:
        """Whether all calls wait, because the server fails."""
        return self._pace.is_failing

    async def acquire(self, operation: str, *, latest: float | None, is_bulk: bool) -> None:
        """Wait for the turn to send an attempt. Cancelling is safe.

        Raises `ConnectTimeoutError` when the turn would come later than ``latest`` by the
        monotonic clock, or when the server has failed for too long.
        """
        # Before the queue too: the calls in front may have more time.
        self._wait_s(operation, latest, self._runtime.monotonic())
        head, queue, bulk_queue = self._queues_of(asyncio.get_running_loop())
        self._waiting += 1
        try:
            if SKIPS_QUEUE.get():
                async with head:
                    await self._take_turn(operation, latest)
            elif is_bulk:
                async with bulk_queue, queue, head:
                    await self._take_turn(operation, latest)
            else:
                async with queue, head:
                    await self._take_turn(operation, latest)
        finally:
            self._waiting -= 1

    def _queues_of(self, loop: asyncio.AbstractEventLoop) -> tuple[asyncio.Lock, ...]:
        if loop not in self._queues:
            # A lock with waiters holds its loop, so no weak key would let it go.
            for ended in [other for other in self._queues if other.is_closed()]:
                del self._queues[ended]
            self._queues[loop] = asyncio.Lock(), asyncio.Lock(), asyncio.Lock()
        return self._queues[loop]

    async def _take_turn(self, operation: str, latest: float | None) -> None:
        now = self._runtime.monotonic()
        while (wait_s := self._wait_s(operation, latest, now)) > 0:
            now = await self._sleep(now, wait_s)
        self._pace.take(now)
        self.unlimited = self._pace.is_unlimited(now)

    async def _sleep(self, now: float, wait_s: float) -> float:
        """Wait for a while, and not longer than that; return the time."""
        slept_s = min(wait_s, _SLICE_S)
        await self._runtime.sleep(slept_s)  # until the turn; it is looked at again by then
        # Believed, because in tests a sleep may take no time, and a clock may stand still.
        return max(self._runtime.monotonic(), now + slept_s)

    def _wait_s(self, operation: str, latest: float | None, now: float) -> float:
        """Return how long the next turn is away. Raises `ConnectTimeoutError` if too long."""
        wait_s = self._pace.wait_s(now)
        self._refuse_late(operation, latest, now, wait_s)
        return wait_s

    def _refuse_late(self, operation: str, latest: float | None, now: float, wait_s: float) -> None:
        """Raise `ConnectTimeoutError` where a turn that is so far away comes too late."""
        if wait_s > 0 and self._pace.breaker.gives_up(now):
            raise ConnectTimeoutError(f"{operation}: not sent, because the server keeps failing")
        if wait_s > 0 and latest is not None and now + wait_s > latest:
            raise ConnectTimeoutError(
                f"{operation}: not sent, because its turn would come after its deadline"
            )

    def answered(self, admitted_at: float, now: float) -> None:
        """Take note of an answer that is neither a throttle nor a failure of the server.

        ``admitted_at``, here and below, is when the attempt had its turn.
        """
        self.has_worked = True
        self.trouble = ""
        self._pace.answered(admitted_at, now)

    def throttled(self, admitted_at: float, now: float) -> None:
        """Take note of a throttle."""
        self.has_worked = True
        self._throttled += 1
        if self._policy.adaptive:
            self.unlimited = False
        self._pace.throttled(admitted_at, now, cuts=self._policy.adaptive)

    def forgives_throttles(self, seconds: float) -> bool:
        """Return whether a call of a bulk run may be throttled for so long at no cost."""
        return self._policy.adaptive and seconds < min(
            self._policy.max_outage_wait_s, _MOST_FORGIVEN_S
        )

    def pause_until(self, until: float) -> None:
        """Admit no attempt before then: the server asked for it."""
        self._pace.pause_until(until)
        self.unlimited = False

    def failed(self, call: object, admitted_at: float, now: float) -> None:
        """Take note of an attempt without an answer, or with one that says the server failed.

        All attempts of one ``call`` count once.
        """
        self.has_failed = True
        self._pace.failed(call, admitted_at, now)
        if self.is_failing:
            self.unlimited = False
