"""What all operations of a client share: observers are told, and no code stays in a traceback."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from rm_voucher.exceptions import VoucherError
from rm_voucher.redaction import strip_tracebacks

F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])


def operation(name: str) -> Callable[[F], F]:
    """Return the decorator of a method that is a call: from its arguments to its end.

    The object has a ``caller``, whose observers see calls that are refused before anything is sent,
    too. As `hide_locals` does, it cuts frames off the tracebacks; one function does both, because
    each costs every call.
    """

    def decorate(method: F) -> F:
        @functools.wraps(method)
        async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            handled = sys.exception()
            running: Any = method(self, *args, **kwargs)
            if self.caller.observers:
                running = self.caller.observed(running, name)
            del args, kwargs  # of this frame, which the traceback keeps
            try:
                return await running
            except (VoucherError, asyncio.CancelledError) as exc:
                strip_tracebacks(exc, handled)
                raise

        return cast("F", call)

    return decorate
