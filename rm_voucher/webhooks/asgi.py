"""Callbacks in FastAPI, Starlette or any other application that speaks ASGI.

::

    app.routes.append(Route("/callbacks/rm", WebhookApp(router)))  # starlette.routing.Route

A ``mount`` would answer this path with a redirect to the path with a slash at its end.

The router must be open while the application runs: enter it in the application's lifespan. Served
by itself (``uvicorn module:webhook_app``), the app does that.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from rm_voucher.exceptions import VoucherError
from rm_voucher.webhooks.router import WebhookRouter

__all__ = ["WebhookApp"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_log = logging.getLogger("rm_voucher.webhooks")

_METHOD_NOT_ALLOWED = 405


class _DisconnectedError(Exception):
    """The sender has gone; nobody waits for an answer."""


class WebhookApp:
    """An ASGI application that takes deliveries, at every path at which it is served.

    It reads the raw body, within the router's limits of size and time, and answers without a body
    of its own. Methods other than POST are answered with 405.
    """

    def __init__(self, router: WebhookRouter) -> None:
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection, as ASGI says."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        pieces = _Body(receive)
        headers = [(b"content-length", b"0")]
        if scope["method"] == "POST":
            given = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in scope["headers"]]
            try:
                status = await self._router.receive(given, pieces)
            except _DisconnectedError:
                return
        else:
            status = _METHOD_NOT_ALLOWED
            headers.append((b"allow", b"POST"))
        if not pieces.is_read and scope.get("http_version", "1.1").startswith("1"):
            headers.append((b"connection", b"close"))  # the rest of the body is not read
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _live(self, receive: Receive, send: Send) -> None:
        steps: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("startup", self._router.__aenter__),
            ("shutdown", self._router.aclose),
        ]
        for name, step in steps:
            await receive()
            try:
                await step()
            except Exception as exc:  # noqa: BLE001 - raised, a server would take it for "no lifespan"
                is_ours = isinstance(exc, VoucherError)
                if not is_ours:
                    _log.error("the %s of callbacks failed", name, exc_info=True)
                message = str(exc) if is_ours else type(exc).__name__
                await send({"type": f"lifespan.{name}.failed", "message": message})
                return
            await send({"type": f"lifespan.{name}.complete"})


class _Body:
    """The pieces of a request's body."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.is_read = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self.is_read:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _DisconnectedError
            self.is_read = not message.get("more_body", False)
            yield message.get("body", b"")
