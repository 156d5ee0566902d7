"""An asyncio event loop in virtual time: one process, which can crash, or several that share it.

Nothing waits, nothing has threads, and the same steps come in the same order in each run.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, NoReturn, TypeVar
from weakref import WeakSet

from simulation.clock import VirtualClock

T = TypeVar("T")

_LONGEST_S = 86_400.0
_MOST_TURNS_AT_AN_INSTANT = 100_000
_MOST_AWAITS_WHEN_CLOSED = 100
# What code may raise that is closed in the middle; nobody is left to be told.
_RAISED_BY_THE_DEAD = (Exception, asyncio.CancelledError)


class CrashError(BaseException):
    """The process is gone. No `Exception`, so that no process handles its own end."""


class DeadlockError(Exception):
    """The process waits for what will never come, spins while time stands still, or lives on for
    a day."""


class Life:
    """One of several processes in a loop: what was begun in its context. See `LIFE`."""

    def __init__(self) -> None:
        self.is_dead = False
        self._is_stopped = False
        self._held: list[asyncio.Handle] = []

    def kill(self) -> None:
        """Let it do nothing more, not even end."""
        self.is_dead = True

    def stop(self) -> None:
        """Let it do nothing for now, as SIGSTOP does. What falls due waits."""
        self._is_stopped = True

    def go_on(self, loop: VirtualLoop) -> None:
        self._is_stopped = False
        loop._ready.extend(self._held)
        self._held.clear()

    def may_run(self, handle: asyncio.Handle) -> bool:
        """Return whether a step of it comes now; if not, keep it."""
        if self._is_stopped:
            self._held.append(handle)
        return not (self.is_dead or self._is_stopped)


LIFE: ContextVar[Life | None] = ContextVar("LIFE", default=None)


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs one main coroutine, a process of its own, on a clock; see `run`.

    It stands on asyncio's inner `_run_once`, `_ready`, `_asyncgens` and `_asyncgen_finalizer_hook`,
    because a selector can neither see what happens outside of the process nor stop within a turn.
    """

    # What asyncio's own loop has, and keeps to itself.
    _ready: deque[asyncio.Handle]
    _asyncgens: WeakSet[AsyncGenerator[Any, Any]]
    _check_thread: Callable[[], None]

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self.clock = clock
        self.dead = False
        """Whether the process is gone: what is outside takes nothing from it any more."""
        # In order of creation, because asyncio's own are a set, in an order of addresses. And held,
        # because those are weak: the collector would have a say in when a task ends.
        self._tasks: dict[asyncio.Task[Any], Life | None] = {}
        self._turns = 0
        self._turns_at = clock.now
        self._ends_at = clock.now + _LONGEST_S

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine function to its end, cancel the tasks it left, and return its value.

        Generators that it left are closed as those of a dead process: nothing hears of it.

        Raises `CrashError` when the process crashed, `DeadlockError` when it would never end. Then
        the loop is closed; the next process needs another one, on the same clock.
        """
        try:
            task = self.create_task(self._run_main(main), name="main")
            task.add_done_callback(lambda _: self.stop())
            self.run_forever()
            if self.dead:
                raise CrashError
            return task.result()
        finally:
            self._bury()
            self.close()

    def crash(self) -> NoReturn:
        """End the process here, in the middle of a task's step; for a disk or server to call."""
        self.dead = True
        raise CrashError

    def crash_at(self, when: float) -> None:
        """End the process at an instant, before any further step of its tasks."""
        self.clock.at(when, self._die)

    def _die(self) -> None:
        self.dead = True

    async def _run_main(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return await main()
        finally:
            rest = [
                task
                for task, life in self._tasks.items()
                if task is not asyncio.current_task() and not (life and life.is_dead)
            ]
            if rest and not self.dead:
                for task in rest:
                    task.cancel()
                await asyncio.wait(rest)

    # What asyncio asks of an event loop, as far as it is used: hence the narrower signatures.

    def time(self) -> float:
        return self.clock.now

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        if not self.dead:
            self.clock.set_timer(timer, self._ring)
        return timer

    def _ring(self, timer: asyncio.TimerHandle) -> None:
        self._ready.append(timer)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, T], **options: Any
    ) -> asyncio.Task[T]:
        task = super().create_task(coro, **options)
        self._tasks[task] = (options.get("context") or copy_context()).get(LIFE)
        task.add_done_callback(self._tasks.pop)
        return task

    def call_soon_threadsafe(  # type: ignore[override]
        self, *args: Any, **options: Any
    ) -> asyncio.Handle:
        self._check_thread()
        return self.call_soon(*args, **options)

    def run_in_executor(self, *args: object) -> NoReturn:
        raise RuntimeError("there are no threads in virtual time")

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.dead:  # that tasks of a dead process never ended is no news
            super().call_exception_handler(context)

    def _asyncgen_finalizer_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        if self.dead:
            _close_generator(agen)
        else:
            super()._asyncgen_finalizer_hook(agen)  # type: ignore[misc]

    def _run_once(self) -> None:
        ready, clock = self._ready, self.clock
        clock.run_due()
        while not ready and not self.dead:
            if not clock.run_next():
                raise DeadlockError(f"nothing will ever happen, and these wait: {self._waiting()}")
        self._turns += 1
        if self._turns_at != clock.now:
            self._turns_at, self._turns = clock.now, 0
            if clock.now > self._ends_at:
                raise DeadlockError(f"after a day these still run: {self._waiting()}")
        elif self._turns > _MOST_TURNS_AT_AN_INSTANT:
            raise DeadlockError(f"time stands still while these run: {self._waiting()}")
        for _ in range(len(ready)):
            if self.dead:
                break
            handle = ready.popleft()
            life = handle._context.get(LIFE)  # type: ignore[attr-defined]
            if not handle.cancelled() and (life is None or life.may_run(handle)):
                handle._run()
        if self.dead:
            self.stop()

    def _waiting(self) -> str:
        return ", ".join(
            f"{task.get_name()} ({_name(task.get_coro())})"
            for task in self._tasks
            if not task.done()
        )

    def _bury(self) -> None:
        """Close what the process left, quietly: no `finally` of it is heard any more.

        Left to the collector, they would run later, within another process.
        """
        self.dead = True
        self.clock.forget(self._ring)
        asyncio._set_running_loop(self)  # else what they begin would be a coroutine never awaited
        try:
            while self._tasks or self._asyncgens:  # those begin others
                tasks, self._tasks = self._tasks, {}
                for task in tasks:
                    _close(task.get_coro())
                generators = list(self._asyncgens)
                self._asyncgens.clear()
                for agen in generators:
                    _close_generator(agen)
        finally:
            asyncio._set_running_loop(None)


def _name(of: Any) -> str:
    return str(of.__qualname__)


def _close(coro: Any) -> None:
    for _ in range(_MOST_AWAITS_WHEN_CLOSED):
        try:
            coro.close()
        except RuntimeError:  # one of its `finally` awaits: the next time it is closed there
            continue
        except (*_RAISED_BY_THE_DEAD, CrashError):
            pass
        return
    raise AssertionError(f"{_name(coro)} can't be closed: it awaits again and again")


def _close_generator(agen: AsyncGenerator[Any, Any]) -> None:
    closing = agen.aclose()
    try:
        closing.send(None)
        for _ in range(_MOST_AWAITS_WHEN_CLOSED):
            closing.throw(CrashError())
    except (*_RAISED_BY_THE_DEAD, CrashError):  # StopIteration, when it has ended
        return
    raise AssertionError(f"{_name(agen)} can't be closed: it awaits again and again")
