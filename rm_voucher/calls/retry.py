"""How often, and how patiently, a call is attempted. The only place that knows tenacity."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from rm_voucher.exceptions import APIError, OutcomeUnknownError, VoucherError
from rm_voucher.settings import positive

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often and how patiently a call is attempted; whether it may be is not its business.

    The wait after attempt n is ``initial_wait_s`` · 2ⁿ⁻¹, at most ``max_wait_s``, of which a
    random half is taken off, so that many callers don't return at once. A wait that the server
    asks for (``Retry-After``) is kept, up to ``max_retry_after_s``.
    """

    max_attempts: int = attrs.field(default=6, validator=positive)
    initial_wait_s: float = attrs.field(default=0.5, validator=positive)
    max_wait_s: float = attrs.field(default=20.0, validator=positive)
    max_retry_after_s: float = attrs.field(default=120.0, validator=positive)

    def __attrs_post_init__(self) -> None:
        # With the first policy, that is, the first client: neither with the package, whose import
        # would take longer, nor in the middle of a call.
        import tenacity  # noqa: F401 - only to load it

    async def run(
        self,
        attempt: Callable[[], Coroutine[Any, Any, T]],
        *,
        repeat_after: Callable[[VoucherError], bool],
        sleep: Callable[[float], Awaitable[None]],
        random: Callable[[], float],
    ) -> T:
        """Await ``attempt()`` until it succeeds, may not be repeated, or the attempts are spent.

        ``attempt`` is a coroutine function. Raises the last attempt's error. ``random`` gives
        numbers in [0, 1).
        """
        try:
            return await attempt()
        except VoucherError as exc:
            failed = exc
        return await self.run_on(
            failed, attempt, repeat_after=repeat_after, sleep=sleep, random=random
        )

    async def run_on(
        self,
        failed: VoucherError,
        attempt: Callable[[], Coroutine[Any, Any, T]],
        *,
        repeat_after: Callable[[VoucherError], bool],
        sleep: Callable[[float], Awaitable[None]],
        random: Callable[[], float],
        in_time: Callable[[float], bool] = lambda _: True,
        uncounted: Callable[[], int] = lambda: 0,
    ) -> T:
        """Go on after a first attempt that ``failed``, as `run` does.

        ``in_time`` says whether an attempt may still begin after a wait of so many seconds;
        ``uncounted``, how many of the attempts so far don't count.
        """
        # Only now: tenacity takes longer than all else of a call but its signature, and nearly no
        # call needs it. What it sees first is the attempt that failed.
        import tenacity

        first = [failed]
        del failed  # it may hold this frame

        async def again() -> T:
            if first:
                raise first.pop()
            return await attempt()

        retrying = tenacity.AsyncRetrying(
            stop=lambda state: (
                state.attempt_number - uncounted() >= self.max_attempts
                or not in_time(state.upcoming_sleep)
            ),
            retry=tenacity.retry_if_exception(
                lambda exc: isinstance(exc, VoucherError) and repeat_after(exc)
            ),
            wait=lambda state: self._wait_s(state, uncounted(), random()),
            sleep=sleep,
            reraise=True,
        )
        return await retrying(again)

    def _wait_s(self, state: RetryCallState, uncounted: int, luck: float) -> float:
        # 2**30 is beyond any wait; unbounded it would overflow a float after 1,000 attempts.
        doublings = max(0, min(state.attempt_number - uncounted - 1, 30))
        doubled: float = self.initial_wait_s * 2**doublings
        wait_s = min(doubled, self.max_wait_s) * (1 - luck / 2)
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, OutcomeUnknownError):
            error = error.__cause__
        asked_s = error.retry_after_s if isinstance(error, APIError) else None
        return max(wait_s, min(asked_s or 0.0, self.max_retry_after_s))
