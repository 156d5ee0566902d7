"""The transport over HTTP. The only module that knows aiohttp's client and its exceptions."""

from __future__ import annotations

import asyncio
import ssl

import aiohttp

from rm_voucher._version import __version__
from rm_voucher.exceptions import (
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    ResponseLostError,
    ResponseTimeoutError,
    TransportError,
)
from rm_voucher.settings import Limits
from rm_voucher.transport.base import Request, Response, Transport

__all__ = ["AiohttpTransport"]

_USER_AGENT = f"rm-voucher/{__version__} aiohttp/{aiohttp.__version__}"

# Most specific first. What is not here, and may be raised by a request, is a lost answer.
_ERRORS: tuple[tuple[type[BaseException], type[TransportError], str], ...] = (
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
)
_MAPPED = tuple(error for error, _, _ in _ERRORS)


def _mapped(operation: str, exc: BaseException) -> TransportError:
    ours, words = next((ours, words) for error, ours, words in _ERRORS if isinstance(exc, error))
    return ours(f"{operation}: {words} ({type(exc).__name__})")


class AiohttpTransport(Transport):
    """Sends requests over a pool of kept-alive connections.

    Without ``session`` it makes one at the first request and closes it in `aclose`. A session
    that is passed in is used and never closed; it must not have an ``auth`` of its own. In both
    cases TLS is verified with ``ssl_context`` (the system's authorities by default), redirects are
    not followed, and nothing is sent twice: aiohttp would otherwise repeat a GET by itself when a
    kept-alive connection turns out to be dead. Raises `ConfigurationError` when constructed.
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
        if ssl_context is not None and ssl_context.verify_mode is not ssl.CERT_REQUIRED:
            raise ConfigurationError("ssl_context must verify the server (CERT_REQUIRED).")
        self._borrowed = session
        self._owned: aiohttp.ClientSession | None = None
        self._limits = limits or Limits()
        self._ssl = ssl_context or ssl.create_default_context()

    async def send(self, request: Request) -> Response:
        """Send the request once and read the whole answer, within its time and size limits."""
        try:
            return await self._exchange(request)
        except _MAPPED as exc:
            raise _mapped(request.operation, exc) from exc

    async def _exchange(self, request: Request) -> Response:
        async def send_once(
            prepared: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            # An error that aiohttp does not know is an error that it does not re-send after.
            try:
                return await handler(prepared)
            except _MAPPED as exc:
                raise _mapped(request.operation, exc) from exc

        session = self._session()
        if session.closed:
            raise ConnectError(f"{request.operation}: the session is closed")
        async with session.request(
            request.method,
            request.url,
            data=request.body or None,
            headers={
                "User-Agent": _USER_AGENT,
                # Nothing is decompressed, so nothing can expand.
                "Accept-Encoding": "identity",
                **request.headers,
            },
            allow_redirects=False,
            auto_decompress=False,
            raise_for_status=False,
            ssl=self._ssl,
            timeout=aiohttp.ClientTimeout(
                total=request.timeout.attempt_s, connect=request.timeout.connect_s
            ),
            middlewares=(send_once,),
        ) as answer:
            body = await self._read(answer, request.operation)
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return Response(status=answer.status, headers=headers, body=body)

    async def _read(self, answer: aiohttp.ClientResponse, operation: str) -> bytes:
        body = bytearray()
        async for chunk in answer.content.iter_any():
            body += chunk
            if len(body) > self._limits.max_response_bytes:
                answer.close()
                raise ResponseLostError(f"{operation}: the answer is larger than allowed")
        return bytes(body)

    def _session(self) -> aiohttp.ClientSession:
        if self._borrowed is not None:
            return self._borrowed
        if self._owned is None:
            self._owned = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._limits.max_connections),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._owned

    async def aclose(self) -> None:
        """Close the session if it is the transport's own."""
        owned, self._owned = self._owned, None
        if owned is not None:
            await owned.close()
