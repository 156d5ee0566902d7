"""A transport without a network: a handler is the server."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from rm_voucher.exceptions import ResponseTimeoutError
from rm_voucher.transport.base import Request, Response, Transport

__all__ = ["Handler", "MemoryTransport"]

Handler = Callable[[Request], Response | Awaitable[Response]]


class MemoryTransport(Transport):
    """Passes each request to ``handler`` and returns what it returns.

    The handler, plain or async, plays a fault by raising a `TransportError`. Any other exception
    passes through, because it is a bug in the handler.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def send(self, request: Request) -> Response:
        """Call the handler, within ``request.timeout``."""
        answer = self._handler(request)
        if not inspect.isawaitable(answer):
            # As a socket does, let other tasks have a turn: a bulk run would be one long step.
            await asyncio.sleep(0)
            return answer
        try:
            async with asyncio.timeout(request.timeout.attempt_s) as limit:
                return await answer
        except TimeoutError:
            if not limit.expired():
                raise
            raise ResponseTimeoutError(f"{request.operation}: no answer in time") from None
