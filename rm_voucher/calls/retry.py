"""How attempts are repeated, as a `RetryPolicy` says. The only place that knows tenacity."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from rm_voucher.exceptions import APIError, OutcomeUnknownError, VoucherError
from rm_voucher.runtime import Runtime
from rm_voucher.settings import RetryPolicy

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")


class Retries:
    """Repeats attempts as often and as patiently as its policy says.

    Whether an attempt may be repeated at all is the caller's business.
    """

    def __init__(self, policy: RetryPolicy, runtime: Runtime) -> None:
        # With the first client, so that `import rm_voucher` stays fast and no call pays for it.
        import tenacity  # noqa: F401 - only to load it

        self.policy = policy
        self._runtime = runtime

    async def run(
        self,
        attempt: Callable[[], Coroutine[Any, Any, T]],
        *,
        repeat_after: Callable[[VoucherError], bool],
    ) -> T:
        """Await ``attempt()`` until it succeeds, may not be repeated, or the attempts are spent.

        ``attempt`` is a coroutine function. Raises the last attempt's error.
        """
        try:
            return await attempt()
        except VoucherError as exc:
            failed = exc
        return await self.go_on(failed, attempt, repeat_after=repeat_after)

    async def go_on(
        self,
        failed: VoucherError,
        attempt: Callable[[], Coroutine[Any, Any, T]],
        *,
        repeat_after: Callable[[VoucherError], bool],
        sleep: Callable[[float], Awaitable[None]] | None = None,
        in_time: Callable[[float], bool] = lambda _: True,
        uncounted: Callable[[], int] = lambda: 0,
    ) -> T:
        """Go on after a first attempt that ``failed``, as `run` does.

        ``in_time`` says whether an attempt may still begin after a wait of so many seconds;
        ``uncounted``, how many of the attempts so far don't count.
        """
        # Not in `run`: tenacity takes longer than all else of a call but its signature, and nearly
        # no call needs it. The first attempt that it sees is the one that failed.
        import tenacity

        first = [failed]
        del failed  # it may hold this frame

        async def again() -> T:
            if first:
                raise first.pop()
            return await attempt()

        retrying = tenacity.AsyncRetrying(
            stop=lambda state: (
                state.attempt_number - uncounted() >= self.policy.max_attempts
                or not in_time(state.upcoming_sleep)
            ),
            retry=tenacity.retry_if_exception(
                lambda exc: isinstance(exc, VoucherError) and repeat_after(exc)
            ),
            wait=lambda state: self._wait_s(state, uncounted()),
            sleep=sleep or self._runtime.sleep,
            reraise=True,
        )
        return await retrying(again)

    def _wait_s(self, state: RetryCallState, uncounted: int) -> float:
        policy = self.policy
        # 2**30 is beyond any wait; unbounded it would overflow a float after 1,000 attempts.
        doublings = max(0, min(state.attempt_number - uncounted - 1, 30))
        doubled: float = policy.initial_wait_s * 2**doublings
        wait_s = min(doubled, policy.max_wait_s) * (1 - self._runtime.random() / 2)
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, OutcomeUnknownError):
            error = error.__cause__
        asked_s = error.retry_after_s if isinstance(error, APIError) else None
        return max(wait_s, min(asked_s or 0.0, policy.max_retry_after_s))
