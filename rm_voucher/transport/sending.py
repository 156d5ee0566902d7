"""One request over one connection, at most once, and the proof whether a byte of it left."""

from __future__ import annotations

import ipaddress
import select
import weakref
from asyncio import Transport as Wire

import aiohttp

from rm_voucher.exceptions import ClosedError, ConnectError, ResponseLostError, TransportError
from rm_voucher.settings import is_loopback
from rm_voucher.transport.foreign import FOREIGN, as_ours

_used = weakref.WeakSet[object]()  # connections that have carried a request, of any transport


class _StaleError(Exception):
    """Something happened on a connection since its last answer. Only `Sending` sees it."""


class Sending:
    """A middleware of aiohttp's, the only one that runs, for one request.

    It looks at the connection that aiohttp would write to, and lets it have another if anything
    happened on that one while it lay idle. aiohttp repeats a GET by itself when a kept-alive
    connection turns out to be dead; after an error that it does not know, as all of ours are, it
    does not.
    """

    def __init__(self, operation: str) -> None:
        self._operation = operation
        self._is_unsent = False  # proven
        self._proxied = False

    async def __call__(
        self, prepared: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send the request."""
        send = prepared.send
        self._is_unsent = True
        self._proxied = prepared.proxy is not None

        async def send_over(connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
            self._check(connection, prepared.url.scheme, prepared.url.host or "")
            self._is_unsent = False
            return await send(connection)

        # Nothing is written before this is called, and nothing comes between it and the first byte.
        prepared.send = send_over  # type: ignore[assignment]
        try:
            while True:
                try:
                    answer = await handler(prepared)
                except _StaleError:
                    continue
                except FOREIGN as exc:
                    error = self.error(exc)
                else:
                    if not self._is_unsent:
                        return answer
                    # Better no answer than a proof that is none: the first token shows it.
                    self._is_unsent = False
                    error = ResponseLostError(f"{self._operation}: aiohttp can't be watched")
                raise error
        finally:
            del prepared.send  # a circle

    def error(self, exc: Exception) -> TransportError:
        """Return our error for a foreign one."""
        return as_ours(self._operation, exc, is_unsent=self._is_unsent, proxied=self._proxied)

    def closed(self) -> TransportError:
        """Return the error for a session that was closed under the call."""
        error = ClosedError if self._is_unsent else ResponseLostError
        return error(f"{self._operation}: the session was closed")

    def _check(self, connection: aiohttp.connector.Connection, scheme: str, host: str) -> None:
        """Raise if the connection can't carry the request."""
        protocol, wire = connection.protocol, connection.transport
        is_used = protocol in _used
        if protocol is None or wire is None or wire.is_closing() or protocol.should_close:
            is_quiet = False
        elif is_used:
            is_quiet = not has_unread(wire)
        elif scheme == "http" and is_loopback(host) and not is_here(wire):
            raise ConnectError(f"{self._operation}: {host} is another machine; use https")
        else:
            _used.add(protocol)
            is_quiet = True
        if is_quiet:
            return
        if is_used:
            raise _StaleError
        raise ConnectError(f"{self._operation}: the server closed, or spoke, before it was asked")


def has_unread(wire: Wire) -> bool:
    """Return whether the kernel has bytes, or the end, of a connection whose loop was busy.

    Only of one that was used: on a new one TLS may have tickets, which the first answer brings in.
    """
    socket = wire.get_extra_info("socket")
    if socket is None:  # of a stranger's connector
        return False
    poll = select.poll()
    poll.register(socket.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def is_here(wire: Wire) -> bool:
    """Return whether the other end is on this machine: a loopback address, or a socket's file."""
    peer = wire.get_extra_info("peername")
    return not isinstance(peer, tuple) or ipaddress.ip_address(peer[0].split("%")[0]).is_loopback
