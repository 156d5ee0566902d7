"""How fast to send: what the server takes, learned from its throttles; and a pause while it fails.

One `Flow` is shared by all callers of a client, because the server counts all their requests. It
makes no request and reads no answer: the caller tells it how each attempt ended.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import attrs

from rm_voucher.calls.rate_limiter import AdaptiveRate
from rm_voucher.exceptions import ConfigurationError, ConnectTimeoutError
from rm_voucher.settings import positive

_LEAST_FAILING_CALLS = 20
_MOST_BORNE_S = 120.0  # for which a call of a bulk run may be throttled: two of a server's minutes
_FIRST_PROBE_S = 1.0
# Of how long it has failed lies between two probes, up to a minute: each may be an issue whose
# outcome nobody knows.
_PROBE_SHARE = 1 / 12
_LONGEST_PROBE_S = 60.0
_SLICE_S = 0.25  # of a wait, to see what has changed


def _enough(instance: object, attribute: attrs.Attribute[int], value: object) -> None:
    # Fewer may be the bad luck of calls that are out together.
    if not isinstance(value, int | float) or not _LEAST_FAILING_CALLS <= value < math.inf:
        raise ConfigurationError(
            f"{attribute.name} must be {_LEAST_FAILING_CALLS} or more, and finite."
        )


def _yes_or_no(instance: object, attribute: attrs.Attribute[bool], value: object) -> None:
    # "no" would be taken for a yes.
    if not isinstance(value, bool):
        raise ConfigurationError(f"{attribute.name} must be True or False.")


@attrs.frozen(kw_only=True)
class FlowPolicy:
    """How fast a client may send, and what it does while the server fails.

    Attributes:
        rate_per_s: never more requests a second than that, give or take what 20 ms hold; None for
            no limit until the server throttles. A throttle (HTTP 429, or an error code of class
            *retry*) lowers the rate in both cases, and time raises it again. RM documents no limit.
        adaptive: whether throttles lower the rate for all. False where a server throttles more than
            one request in two hundred whatever the rate, which would lower it, in the end to a few
            a second; then each call waits by itself.
        failure_threshold: so many calls in a row that get no answer, one that says that the server
            failed, or one that is not RM's, pause all callers; 20 or more.
        probe_interval_s: how many seconds lie between two calls that are sent to see whether the server is
            back. The first come sooner: after one second, then two. In a long outage it is a
            twelfth of the time so far, up to a minute: the outcome of each may be unknown.
        max_outage_wait_s: for how many seconds calls wait for it. After that they fail at once with
            `ConnectTimeoutError`, provably unsent, so each may be repeated, until a probe succeeds.
            For as long, but two minutes at most, a throttled attempt of a call of a bulk run is
            none of the retry policy's attempts.

    Raises `ConfigurationError`.
    """

    rate_per_s: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(positive)
    )
    adaptive: bool = attrs.field(default=True, validator=_yes_or_no)
    failure_threshold: int = attrs.field(default=_LEAST_FAILING_CALLS, validator=_enough)
    probe_interval_s: float = attrs.field(default=5.0, validator=positive)
    max_outage_wait_s: float = attrs.field(default=120.0, validator=positive)


@attrs.frozen(kw_only=True)
class FlowState:
    """How a client sends at the moment; see `VoucherClient.flow`.

    Attributes:
        rate_per_s: the requests a second that are allowed now, None for any number.
        throttled: how many attempts the server has throttled so far.
        waiting: how many calls wait for their turn.
        retry_after_s: for how many more seconds all wait, because the server asked for it
            (``Retry-After``); 0 when nobody does.
        outage_s: for how many seconds all have been waiting for a server that fails, or None: it
            answers.
    """

    rate_per_s: float | None
    throttled: int
    waiting: int
    retry_after_s: float
    outage_s: float | None


class CircuitBreaker:
    """Whether the server fails, and when it is tried again."""

    def __init__(self, policy: FlowPolicy, random: Callable[[], float]) -> None:
        self._policy = policy
        self._random = random
        self._failures = 0
        self._streak = 0
        self._probe_at = 0.0
        self._next_probe_s = self._waited_s = 0.0
        self._failed_at = 0.0
        self._worked_at = float("-inf")  # when the last that was answered had been sent
        self.failing_since: float | None = None

    def answered(self, sent_at: float) -> bool:
        """Take note that the server works; return whether that ends a pause."""
        self._worked_at = max(self._worked_at, sent_at)
        if self._failures:
            self._failures = 0
            self._streak += 1
        ended = self.failing_since is not None
        self.failing_since = None
        return ended

    def failed(self, counted: int, sent_at: float, now: float) -> int:
        """Take note that a call failed. ``counted`` is what this returned for it before, or -1."""
        if sent_at < self._worked_at:  # what was sent later was answered: it is there again
            return counted
        self._failed_at = now
        if counted != self._streak:
            self._failures += 1
        if self._failures >= self._policy.failure_threshold and self.failing_since is None:
            self.failing_since = now
            self._next_probe_s = _FIRST_PROBE_S
            self._await_probe(now)
        return self._streak

    def wait_s(self, now: float) -> float:
        """Return how long until the next probe; 0 or less where calls may be sent."""
        return 0.0 if self.failing_since is None else self._probe_at - now

    def is_out_of_patience(self, now: float) -> bool:
        """Return whether it has failed for so long that nobody waits for it.

        Not where nobody has tried it for as long: the probe that is out now will tell.
        """
        since, policy = self.failing_since, self._policy
        if since is None or now - since < policy.max_outage_wait_s:
            return False
        return now - self._failed_at < max(policy.max_outage_wait_s, 2 * self._waited_s)

    def take(self, now: float) -> None:
        """Send the probe, if it is one. The next does not wait for its end, which may never be."""
        if self.failing_since is not None:
            self._await_probe(now)

    def _await_probe(self, now: float) -> None:
        assert self.failing_since is not None  # noqa: S101 - for the type checker
        long_s = min((now - self.failing_since) * _PROBE_SHARE, _LONGEST_PROBE_S)
        self._waited_s = wait_s = max(
            min(self._next_probe_s, self._policy.probe_interval_s), long_s
        )
        self._next_probe_s = 2 * wait_s
        # Up to half earlier, so that many clients don't come at the same time.
        self._probe_at = now + wait_s * (1 - self._random() / 2)


class Flow:
    """Lets attempts pass as fast as the server takes them, in the order in which they came.

    Of bulk runs only one waits among the others, so that a single call waits for few.
    """

    def __init__(
        self,
        policy: FlowPolicy,
        *,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        random: Callable[[], float],
    ) -> None:
        self._policy = policy
        self._monotonic = monotonic
        self._sleep = sleep
        self._pace = AdaptiveRate(policy.rate_per_s)
        self._circuit = CircuitBreaker(policy, random)
        self._held_until = float("-inf")
        self.unlimited = policy.rate_per_s is None
        """Whether attempts may be sent without asking."""
        self._throttled = 0
        self._waiting = 0
        # Locks belong to an event loop; a client may be used in one after another.
        self._queues: dict[asyncio.AbstractEventLoop, tuple[asyncio.Lock, asyncio.Lock]] = {}

    @property
    def state(self) -> FlowState:
        """How it stands now."""
        now, since = self._monotonic(), self._circuit.failing_since
        return FlowState(
            rate_per_s=self._pace.per_s(now),
            throttled=self._throttled,
            waiting=self._waiting,
            retry_after_s=max(0.0, self._held_until - now),
            outage_s=None if since is None else now - since,
        )

    @property
    def is_failing(self) -> bool:
        """Whether all wait for a server that fails."""
        return self._circuit.failing_since is not None

    async def acquire(self, operation: str, *, latest: float | None, is_bulk: bool) -> None:
        """Wait for the turn to send an attempt. Cancelling is safe.

        Raises `ConnectTimeoutError` when it would come later than ``latest`` by the monotonic
        clock, or when the server has failed for too long.
        """
        # Before the queue too: whoever waits in front may have more time.
        self._wait_s(operation, latest, self._monotonic())
        queue, bulk_queue = self._queues_of(asyncio.get_running_loop())
        self._waiting += 1
        try:
            if is_bulk:
                async with bulk_queue, queue:
                    await self._turn(operation, latest)
            else:
                async with queue:
                    await self._turn(operation, latest)
        finally:
            self._waiting -= 1

    def _queues_of(self, loop: asyncio.AbstractEventLoop) -> tuple[asyncio.Lock, asyncio.Lock]:
        if loop not in self._queues:
            # A lock that somebody waited for holds its loop, so no weak key would let it go.
            for ended in [other for other in self._queues if other.is_closed()]:
                del self._queues[ended]
            self._queues[loop] = asyncio.Lock(), asyncio.Lock()
        return self._queues[loop]

    async def _turn(self, operation: str, latest: float | None) -> None:
        now = self._monotonic()
        while (wait_s := self._wait_s(operation, latest, now)) > 0:
            slept_s = min(wait_s, _SLICE_S)
            await self._sleep(slept_s)
            # Believed, because in tests a sleep may take no time, and a clock may stand still.
            now = max(self._monotonic(), now + slept_s)
        self._circuit.take(now)
        self._pace.take(now)
        self.unlimited = self._pace.per_s(now) is None and self._circuit.failing_since is None

    def _wait_s(self, operation: str, latest: float | None, now: float) -> float:
        """Return for how long nobody may pass. Raises `ConnectTimeoutError` if that is too long."""
        wait_s = max(self._pace.wait_s(now), self._circuit.wait_s(now), self._held_until - now)
        if wait_s > 0 and self._circuit.is_out_of_patience(now):
            raise ConnectTimeoutError(f"{operation}: not sent, because the server keeps failing")
        if wait_s > 0 and latest is not None and now + wait_s > latest:
            raise ConnectTimeoutError(
                f"{operation}: not sent, because its turn would come after its deadline"
            )
        return wait_s

    def answered(self, sent_at: float, now: float) -> None:
        """Take note of an answer that is neither a throttle nor a failure of the server.

        ``sent_at``, here and below, is when the attempt was let pass.
        """
        self._pace.accepted(now)
        if self._circuit.answered(sent_at):
            self._pace.ramp(now)

    def throttled(self, sent_at: float, now: float) -> None:
        """Take note of a throttle."""
        self._throttled += 1
        if self._policy.adaptive:
            self.unlimited = False
            self._pace.throttled(sent_at, now)
        # Not by the throttle alone: it may pass for chance, and all that wait would go at once.
        if self._circuit.answered(sent_at):
            self._pace.ramp(now)

    def bears_throttles(self, seconds: float) -> bool:
        """Return whether a call that waits for its end may be throttled for so long."""
        return self._policy.adaptive and seconds < min(
            self._policy.max_outage_wait_s, _MOST_BORNE_S
        )

    def pause_until(self, until: float) -> None:
        """Let nobody pass before then: the server asked for it."""
        self._held_until = max(self._held_until, until)
        self.unlimited = False

    def failed(self, counted: int, sent_at: float, now: float) -> int:
        """Take note of an attempt without an answer, or with one that says the server failed.

        ``counted`` is what this returned when the same call failed before, or -1.
        """
        streak = self._circuit.failed(counted, sent_at, now)
        if self._circuit.failing_since is not None:
            self.unlimited = False
        return streak
