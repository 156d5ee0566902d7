"""aiohttp's errors, and the system's below it, as errors of ours."""

from __future__ import annotations

import asyncio
import os
import ssl

import aiohttp

from rm_voucher.exceptions import (
    ConnectError,
    ConnectTimeoutError,
    ProxyError,
    ResponseLostError,
    ResponseTimeoutError,
    TransportError,
)

# Most specific first.
_ERRORS: tuple[tuple[type[Exception], type[TransportError], str], ...] = (
    (aiohttp.ConnectionTimeoutError, ConnectTimeoutError, "no connection in time"),
    (aiohttp.ClientConnectorCertificateError, ConnectError, "the server's certificate is refused"),
    (aiohttp.ClientSSLError, ConnectError, "the TLS handshake failed"),
    (aiohttp.ClientConnectorDNSError, ConnectError, "the host name can't be resolved"),
    (aiohttp.ClientProxyConnectionError, ConnectError, "no connection to the proxy"),
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
FOREIGN = tuple(error for error, _, _ in _ERRORS)

# Of what a proxy answers below 500, what may pass: it took too long, or had too many requests.
_PASSING = frozenset({408, 425, 429})


def as_ours(operation: str, exc: Exception, *, is_unsent: bool, proxied: bool) -> TransportError:
    """Return our error for a foreign one, to be raised outside of the ``except`` block.

    ``is_unsent`` is whether it is proven that no byte of the request left: then it is a
    `ConnectError`, whatever the foreign error looks like. aiohttp's texts can hold the headers, or
    the URL and so the voucher's code. As cause or context they would be logged with ours.
    """
    if isinstance(exc, aiohttp.ClientHttpProxyError):
        # It is raised for a tunnel only, which is there before the first byte of a request.
        ends = 400 <= exc.status < 500 and exc.status not in _PASSING
        refused = ProxyError if ends else ConnectError
        return refused(f"{operation}: the proxy refused ({type(exc).__name__}: HTTP {exc.status})")
    ours, words = next((ours, words) for error, ours, words in _ERRORS if isinstance(exc, error))
    if is_unsent and not issubclass(ours, ConnectError):
        is_late = issubclass(ours, ResponseTimeoutError)
        ours = ConnectTimeoutError if is_late else ConnectError
        words = "the proxy made no connection" if proxied else "no connection"
    is_tls = isinstance(exc, ssl.SSLError | aiohttp.ClientSSLError)  # whose numbers are their own
    number = exc.errno if isinstance(exc, OSError) and not is_tls else None
    detail = f": {os.strerror(number)}" if number and number > 0 else ""
    return ours(f"{operation}: {words} ({type(exc).__name__}{detail})")
