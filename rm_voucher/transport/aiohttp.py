"""The transport over HTTP, on aiohttp's client. `foreign` maps its errors, `sending` watches it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import ssl
import sys
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import attrs

from rm_voucher._version import __version__
from rm_voucher.arguments import check_type
from rm_voucher.exceptions import (
    ClosedError,
    ConfigurationError,
    ConnectTimeoutError,
    PoolTimeoutError,
    ResponseLostError,
    TransportError,
)
from rm_voucher.runtime import is_cancelled
from rm_voucher.settings import Limits, Timeout
from rm_voucher.transport.base import Request, Response, Transport
from rm_voucher.transport.coding import decompressed, is_whole
from rm_voucher.transport.foreign import FOREIGN
from rm_voucher.transport.proxy import Proxy
from rm_voucher.transport.sending import Sending

__all__ = ["AiohttpTransport"]

_HEADERS = {
    "User-Agent": f"rm-voucher/{__version__} aiohttp/{aiohttp.__version__}",
    "Accept-Encoding": "identity",  # some gateways compress all the same
}

# Far above what servers send; together no more than the largest body.
_HEAD_LIMITS: dict[str, Any] = {
    name: limit
    for name, limit in {
        "max_line_size": 64 * 1024,
        "max_field_size": 64 * 1024,
        "max_headers": 256,  # aiohttp 3.13.5 and newer
    }.items()
    if name in inspect.signature(aiohttp.ClientSession).parameters
}

_MAX_ERROR_BYTES = 64 * 1024  # RM's are small; a longer one is another's

_LEAST_S = 0.001  # of a time-out that a wait for a connection leaves


@attrs.frozen
class _Owned:
    """A session of the transport's own, what closes it, and the process that has it."""

    session: aiohttp.ClientSession
    slots: asyncio.Semaphore
    closing: AsyncGenerator[None, None]
    process: int = attrs.field(factory=os.getpid)


class AiohttpTransport(Transport):
    """Sends requests over a pool of kept-alive connections.

    Without ``session`` it makes one for each event loop that it is used in, at the first request,
    and closes it in `aclose` or when the loop ends, as `asyncio.run` ends it. A session that is
    passed in is used and never closed; it must not have an ``auth`` of its own. In both cases TLS
    is verified with ``ssl_context`` (the system's authorities by default, or those of the variable
    ``SSL_CERT_FILE``), https goes through ``proxy``, redirects are not followed, and nothing is
    sent twice: aiohttp would otherwise repeat a GET by itself when a kept-alive connection turns
    out to be dead. A connection that was closed, or said something, while it lay idle is not used.
    Requests wait for a connection in the order in which they come. No instrumentation of aiohttp
    traces the transport's own sessions: spans and breadcrumbs would have the vouchers' codes. A
    session that is passed in is as it was made.

    It may be made before a fork, and used then in an event loop that each process makes. Over the
    connections of another process nothing is sent, with a `ClosedError`: two processes would read
    each other's answers. Raises `ConfigurationError` when constructed.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession | None = None,
        *,
        limits: Limits | None = None,
        ssl_context: ssl.SSLContext | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        check_type("session", session, aiohttp.ClientSession, optional=True)
        check_type("limits", limits, Limits, optional=True)
        check_type("ssl_context", ssl_context, ssl.SSLContext, optional=True)
        # aiohttp 4 will have no such attribute.
        if getattr(session, "auth", None) is not None:
            raise ConfigurationError("The session has an auth of its own; RM's needs the header.")
        if ssl_context is not None and not (
            ssl_context.verify_mode is ssl.CERT_REQUIRED and ssl_context.check_hostname
        ):
            raise ConfigurationError(
                "ssl_context must verify the server and its name (CERT_REQUIRED, check_hostname)."
            )
        if not isinstance(proxy, Proxy | None):
            raise ConfigurationError("proxy must be a Proxy, such as Proxy('http://host:port').")
        self._borrowed = session
        self._process = os.getpid()
        self._borrowed_slots: asyncio.Semaphore | None = None
        self._owned: dict[asyncio.AbstractEventLoop, _Owned] = {}  # connections belong to a loop
        self._closed = False
        self._limits = limits or Limits()
        self._ssl = ssl_context or ssl.create_default_context()
        self._proxy = proxy

    async def send(self, request: Request) -> Response:
        """Send the request once and read the whole answer, within its time and size limits."""
        error: TransportError
        sending = Sending(request.operation)
        try:
            return await self._exchange(request, sending)
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            error = sending.closed()  # nobody cancelled the caller
        except FOREIGN as exc:
            error = sending.error(exc)
        except TransportError as exc:
            error = exc
        # Frames below, aiohttp's too, have token, URL and answer as locals.
        raise error.with_traceback(None)

    async def _exchange(self, request: Request, sending: Sending) -> Response:
        error: TransportError | None = None
        if self._process_of_session() != os.getpid():
            error = ClosedError(
                f"{request.operation}: the connections are another process's: after a fork, each "
                "needs an event loop, and a session of yours, that it made itself"
            )
        elif not self._closed:
            session, slots = await self._session()
            waited_s = await _wait_for_slot(slots, request)
            try:
                if not (self._closed or session.closed):
                    return await self._exchange_over(session, request, sending, waited_s)
            except ConnectTimeoutError:
                if waited_s <= request.timeout.connect_s / 2:
                    raise
                error = _pool_timeout(request)  # it took most of the time, and not the server
            finally:
                slots.release()
        raise error or ClosedError(f"{request.operation}: the transport or its session is closed")

    async def _exchange_over(
        self,
        session: aiohttp.ClientSession,
        request: Request,
        sending: Sending,
        waited_s: float,
    ) -> Response:
        proxy = self._proxy if self._proxy and self._proxy.leads_to(request.url) else None
        async with session.request(
            request.method,
            request.url,
            data=request.body or None,
            headers={**_HEADERS, **request.headers},
            allow_redirects=False,
            auto_decompress=False,
            raise_for_status=False,
            ssl=self._ssl,
            proxy=proxy.url if proxy else None,
            proxy_headers=proxy.headers if proxy else None,
            timeout=_timeout_of(request.timeout, waited_s),
            middlewares=(sending,),  # a session's own are left out: they could send again
            **_HEAD_LIMITS,
        ) as answer:
            return await self._read(answer, request)

    async def _read(self, answer: aiohttp.ClientResponse, request: Request) -> Response:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        is_error = not 200 <= answer.status < 300
        limit = self._limits.max_response_bytes
        if request.max_answer_bytes is not None:
            limit = min(limit, request.max_answer_bytes)
        limit = _MAX_ERROR_BYTES if is_error else limit
        body, broken = await _body(answer, limit)
        if "content-encoding" in headers:
            plain = await decompressed(body, headers["content-encoding"], limit=limit)
            if plain is not None:  # else the parsers can't read it either, and the status decides
                body = plain
                del headers["content-encoding"]
                headers.pop("content-length", None)
        if len(body) > limit:
            if not is_error:
                raise ResponseLostError(f"{request.operation}: the answer is larger than allowed")
            body.clear()  # no error of RM's: what it says is its status
        elif broken is not None and not is_whole(body):
            raise broken
        return Response(status=answer.status, headers=headers, body=bytes(body))

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
            # Sentry and OpenTelemetry put theirs into each session. A URL has the voucher's code.
            session.trace_configs.clear()
            self._owned[loop] = owned = _Owned(session, _slots_of(session), _closing(session))
            await anext(owned.closing)
        return self._owned[loop].session, self._owned[loop].slots

    def _process_of_session(self) -> int:
        """Return the process that has the connections: this one, where there are none yet."""
        if self._borrowed is not None:
            return self._process
        owned = self._owned.get(asyncio.get_running_loop())
        return os.getpid() if owned is None else owned.process

    async def aclose(self) -> None:
        """Close the session if it is the transport's own. Nothing can be sent any more.

        Sessions of other event loops are closed when those end.
        """
        self._closed = True
        loop = asyncio.get_running_loop()
        owned = self._owned.get(loop)
        if owned is not None and owned.process == os.getpid():  # a parent's is kept as it is
            del self._owned[loop]
            await owned.closing.aclose()


async def _body(answer: aiohttp.ClientResponse, limit: int) -> tuple[bytearray, Exception | None]:
    """Return the body, up to one piece more than the limit, and the error that ended it if any."""
    body = bytearray()
    try:
        while len(body) <= limit and not answer.content.at_eof():
            body += await answer.content.readany()
    except FOREIGN as exc:
        answer.close()
        return body, exc
    if len(body) > limit:
        answer.close()
    return body, None


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
    forgot, or keeps for the next event loop, is closed in its own. A child that was forked leaves
    it alone: what it closed, its parent's event loop would hear nothing of any more.
    """
    process = os.getpid()
    try:
        yield
    finally:
        if process == os.getpid():
            await session.close()
