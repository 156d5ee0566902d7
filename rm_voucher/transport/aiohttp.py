"""The transport over HTTP. The only module that knows aiohttp's client and its exceptions."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import ssl
import sys
from collections.abc import AsyncGenerator

import aiohttp
import attrs

from rm_voucher._version import __version__
from rm_voucher.exceptions import (
    ClosedError,
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    PoolTimeoutError,
    ResponseLostError,
    ResponseTimeoutError,
    TransportError,
)
from rm_voucher.runtime import is_cancelled
from rm_voucher.settings import Limits, Timeout
from rm_voucher.transport.base import Request, Response, Transport

__all__ = ["AiohttpTransport"]

_HEADERS = {
    "User-Agent": f"rm-voucher/{__version__} aiohttp/{aiohttp.__version__}",
    "Accept-Encoding": "identity",  # nothing is decompressed, so nothing can expand
}

_LEAST_S = 0.001  # of a time-out that a wait for a connection leaves

# Most specific first.
_ERRORS: tuple[tuple[type[Exception], type[TransportError], str], ...] = (
    (aiohttp.ConnectionTimeoutError, ConnectTimeoutError, "no connection in time"),
    (aiohttp.ClientConnectorCertificateError, ConnectError, "the server's certificate is refused"),
    (aiohttp.ClientSSLError, ConnectError, "the TLS handshake failed"),
    (aiohttp.ClientConnectorDNSError, ConnectError, "the host name can't be resolved"),
    (aiohttp.ClientConnectorError, ConnectError, "no connection"),
    (aiohttp.InvalidURL, ConnectError, "the URL can't be used"),
    (aiohttp.NonHttpUrlClientError, ConnectError, "the URL can't be used"),
    (asyncio.TimeoutError, ResponseTimeoutError, "no answer in time"),
    (aiohttp.ServerDisconnectedError, ResponseLostError, "the server closed the connection"),
    (aiohttp.ClientPayloadError, ResponseLostError, "the answer was cut short"),
    (aiohttp.ClientResponseError, ResponseLostError, "the answer is not HTTP"),
    (aiohttp.ClientError, ResponseLostError, "the connection broke"),
    (OSError, ResponseLostError, "the connection broke"),
    # From settings of a borrowed session, such as netrc or another event loop.
    (ValueError, ResponseLostError, "the request can't be made"),
    (RuntimeError, ResponseLostError, "the request can't be made"),
)
_MAPPED = tuple(error for error, _, _ in _ERRORS)


def _mapped(operation: str, exc: Exception) -> TransportError:
    """Return our error for a foreign one, to be raised outside of the ``except`` block.

    aiohttp's texts can hold the headers, or the URL and so the voucher's code. As cause or context
    they would be logged with ours.
    """
    ours, words = next((ours, words) for error, ours, words in _ERRORS if isinstance(exc, error))
    is_tls = isinstance(exc, ssl.SSLError | aiohttp.ClientSSLError)  # whose numbers are their own
    number = exc.errno if isinstance(exc, OSError) and not is_tls else None
    detail = f": {os.strerror(number)}" if number and number > 0 else ""
    return ours(f"{operation}: {words} ({type(exc).__name__}{detail})")


def _once(operation: str) -> aiohttp.ClientMiddlewareType:
    async def send_once(
        prepared: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        # An error that aiohttp does not know is an error that it does not re-send after.
        try:
            return await handler(prepared)
        except _MAPPED as exc:
            error = _mapped(operation, exc)
        raise error

    return send_once


@attrs.frozen
class _Owned:
    """A session of the transport's own, and what closes it."""

    session: aiohttp.ClientSession
    slots: asyncio.Semaphore
    closing: AsyncGenerator[None, None]


class AiohttpTransport(Transport):
    """Sends requests over a pool of kept-alive connections.

    Without ``session`` it makes one for each event loop that it is used in, at the first request,
    and closes it in `aclose` or when the loop ends, as `asyncio.run` ends it. A session that is
    passed in is used and never closed; it must not have an ``auth`` of its own. In both cases TLS
    is verified with ``ssl_context`` (the system's authorities by default), redirects are not
    followed, and nothing is sent twice: aiohttp would otherwise repeat a GET by itself when a
    kept-alive connection turns out to be dead. Requests wait for a connection in the order in
    which they come. Raises `ConfigurationError` when constructed.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession | None = None,
        *,
        limits: Limits | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        # aiohttp 4 will have no such attribute.
        if getattr(session, "auth", None) is not None:
            raise ConfigurationError("The session has an auth of its own; RM's needs the header.")
        if ssl_context is not None and not (
            ssl_context.verify_mode is ssl.CERT_REQUIRED and ssl_context.check_hostname
        ):
            raise ConfigurationError(
                "ssl_context must verify the server and its name (CERT_REQUIRED, check_hostname)."
            )
        self._borrowed = session
        self._borrowed_slots: asyncio.Semaphore | None = None
        self._owned: dict[asyncio.AbstractEventLoop, _Owned] = {}  # connections belong to a loop
        self._closed = False
        self._limits = limits or Limits()
        self._ssl = ssl_context or ssl.create_default_context()

    async def send(self, request: Request) -> Response:
        """Send the request once and read the whole answer, within its time and size limits."""
        error: TransportError
        try:
            return await self._exchange(request)
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            # Nobody cancelled the caller: the session was closed under the call.
            error = ResponseLostError(f"{request.operation}: the session was closed")
        except _MAPPED as exc:
            error = _mapped(request.operation, exc)
        except TransportError as exc:
            error = exc
        # Frames below, aiohttp's too, have token, URL and answer as locals.
        raise error.with_traceback(None)

    async def _exchange(self, request: Request) -> Response:
        error: TransportError | None = None
        if not self._closed:
            session, slots = await self._session()
            waited_s = await _wait_for_slot(slots, request)
            try:
                if not (self._closed or session.closed):
                    return await self._exchange_over(session, request, waited_s)
            except (aiohttp.ConnectionTimeoutError, ConnectTimeoutError):
                if waited_s <= request.timeout.connect_s / 2:
                    raise
                error = _pool_timeout(request)  # it took most of the time, and not the server
            finally:
                slots.release()
        raise error or ClosedError(f"{request.operation}: the transport or its session is closed")

    async def _exchange_over(
        self, session: aiohttp.ClientSession, request: Request, waited_s: float
    ) -> Response:
        async with session.request(
            request.method,
            request.url,
            data=request.body or None,
            headers={**_HEADERS, **request.headers},
            allow_redirects=False,
            auto_decompress=False,
            raise_for_status=False,
            ssl=self._ssl,
            timeout=_timeout_of(request.timeout, waited_s),
            # aiohttp re-sends neither of the two; none at all also leaves out a session's own.
            middlewares=() if request.method in ("POST", "PATCH") else (_once(request.operation),),
        ) as answer:
            body = await self._read(answer, request.operation)
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return Response(status=answer.status, headers=headers, body=body)

    async def _read(self, answer: aiohttp.ClientResponse, operation: str) -> bytes:
        content = answer.content
        body = bytearray(await content.readany())
        while True:
            if len(body) > self._limits.max_response_bytes:
                answer.close()
                raise ResponseLostError(f"{operation}: the answer is larger than allowed")
            if content.at_eof():
                return bytes(body)
            body += await content.readany()

    async def _session(self) -> tuple[aiohttp.ClientSession, asyncio.Semaphore]:
        """Return the session to send over, and a slot for each of its connections."""
        if self._borrowed is not None:
            if self._borrowed_slots is None:
                self._borrowed_slots = _slots_of(self._borrowed)
            return self._borrowed, self._borrowed_slots
        loop = asyncio.get_running_loop()
        if loop not in self._owned:
            for ended in [known for known in self._owned if known.is_closed()]:
                del self._owned[ended]
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._limits.max_connections),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            self._owned[loop] = owned = _Owned(session, _slots_of(session), _closing(session))
            await anext(owned.closing)
        return self._owned[loop].session, self._owned[loop].slots

    async def aclose(self) -> None:
        """Close the session if it is the transport's own. Nothing can be sent any more.

        Sessions of other event loops are closed when those end.
        """
        self._closed = True
        owned = self._owned.pop(asyncio.get_running_loop(), None)
        if owned is not None:
            await owned.closing.aclose()


def _slots_of(session: aiohttp.ClientSession) -> asyncio.Semaphore:
    limit = session.connector.limit if session.connector else 0
    return asyncio.Semaphore(limit or sys.maxsize)  # 0: no limit


async def _wait_for_slot(slots: asyncio.Semaphore, request: Request) -> float:
    """Take a slot; return how long that took. Raises `PoolTimeoutError`.

    aiohttp would queue the request as well, but can't tell a full pool from a server that does not
    answer.
    """
    if not slots.locked():
        await slots.acquire()
        return 0.0
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(request.timeout.connect_s):
            await slots.acquire()
            return loop.time() - begun
    # Here, and not in the context of the time-out, whose frames have the request as a local.
    raise _pool_timeout(request)


def _pool_timeout(request: Request) -> PoolTimeoutError:
    return PoolTimeoutError(f"{request.operation}: no connection became free in time")


@functools.lru_cache(maxsize=32)  # nearly all requests have the same, and wait for nothing
def _timeout_of(timeout: Timeout, waited_s: float) -> aiohttp.ClientTimeout:
    """Return what a wait has left of a time-out. To aiohttp, 0 would be no limit."""
    return aiohttp.ClientTimeout(
        total=max(timeout.attempt_s - waited_s, _LEAST_S),
        connect=max(timeout.connect_s - waited_s, _LEAST_S),
    )


async def _closing(session: aiohttp.ClientSession) -> AsyncGenerator[None, None]:
    """Close the session when this generator is closed, or its event loop ends.

    `asyncio.run` closes the asynchronous generators that are left. So a session that its owner
    forgot, or keeps for the next event loop, is closed in its own.
    """
    try:
        yield
    finally:
        await session.close()
