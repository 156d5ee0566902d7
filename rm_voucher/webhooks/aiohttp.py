"""Callbacks in an aiohttp application.

::

    app.add_routes(webhook_routes(router, "/callbacks/rm"))

The router must be open while the application runs: enter it in a ``cleanup_ctx``.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Iterator

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from rm_voucher.calls.log_fields import log_fields
from rm_voucher.webhooks.router import WebhookRouter

__all__ = ["webhook_routes"]

_log = logging.getLogger("rm_voucher.webhooks")

_BAD_REQUEST = 400
_FIELDS = log_fields(operation="callback")


class _DisconnectedError(Exception):
    """The sender has gone; nobody waits for an answer."""


@contextlib.contextmanager
def _ending_when_gone() -> Iterator[None]:
    try:
        yield
    except OSError:  # aiohttp would log it as a failure of the application
        raise _DisconnectedError from None


def webhook_routes(router: WebhookRouter, path: str) -> list[web.RouteDef]:
    """Return the route that takes deliveries at a path.

    It reads the raw body, within the router's limits of size and time, and answers without a body
    of its own. A compressed body is refused: RM's are plain. Methods other than POST are answered
    with 405.
    """

    async def receive(request: web.Request) -> web.Response:
        answer = web.Response(status=_BAD_REQUEST)
        try:
            answer = web.Response(status=await _status(router, request))
            if not request.content.at_eof():
                await _end_with(answer, request)
        except _DisconnectedError:
            _log.info("a sender has gone before its delivery was whole", extra=_FIELDS)
        return answer

    return [web.post(path, receive)]


async def _status(router: WebhookRouter, request: web.Request) -> int:
    encodings = request.headers.getall("Content-Encoding", ())
    if any(encoding.lower() != "identity" for encoding in encodings):
        # aiohttp unpacks it, and does not give the bytes that came.
        _log.warning("a delivery was refused: its body is compressed", extra=_FIELDS)
        return _BAD_REQUEST
    try:
        return await router.receive(request.headers, _pieces(request))
    except (web.RequestPayloadError, HttpProcessingError):
        _log.warning("a delivery was refused: its body is not as its headers tell", extra=_FIELDS)
        return _BAD_REQUEST


async def _pieces(request: web.Request) -> AsyncIterator[bytes]:
    with _ending_when_gone():
        async for piece in request.content.iter_any():
            yield piece


async def _end_with(answer: web.Response, request: web.Request) -> None:
    """Answer, and end the connection: aiohttp would read the rest for ten seconds, for nobody."""
    answer.force_close()
    with _ending_when_gone():
        await answer.prepare(request)
        await answer.write_eof()
    request.protocol.force_close()
