"""What all operations of a client share: observers are told, and no code stays in a traceback."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from rm_voucher.calls.caller import Caller
from rm_voucher.exceptions import VoucherError
from rm_voucher.redaction import strip_tracebacks

P = ParamSpec("P")
T = TypeVar("T")


class _HasCaller(Protocol):
    caller: Caller


S = TypeVar("S", bound=_HasCaller)
Method = Callable[Concatenate[S, P], Coroutine[Any, Any, T]]


def operation(name: str) -> Callable[[Method[S, P, T]], Method[S, P, T]]:
    """Return the decorator of a method that is a call: from its arguments to its end.

    Calls that are refused before anything is sent are seen too. As `hide_locals` does, it cuts
    frames off the tracebacks; one function does both, because each costs every call.
    """

    def decorate(method: Method[S, P, T]) -> Method[S, P, T]:
        @functools.wraps(method)
        async def call(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
            handled = sys.exception()
            running: Awaitable[T] = method(self, *args, **kwargs)
            if self.caller.observers:
                running = self.caller.observed(running, name)
            del args, kwargs  # of this frame, which the traceback keeps
            try:
                return await running
            except (VoucherError, asyncio.CancelledError) as exc:
                strip_tracebacks(exc, handled)
                raise

        return cast("Method[S, P, T]", call)

    return decorate
