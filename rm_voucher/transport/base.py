"""The transport: a request in, a response out. It never retries, signs, parses or logs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import attrs
from yarl import URL

from rm_voucher.settings import Timeout

__all__ = ["Request", "Response", "Transport"]


_TIMEOUT = Timeout()


@attrs.frozen(kw_only=True)
class Request:
    """One HTTP request, exactly as it goes on the wire.

    ``url`` is built once with ``encoded=True``, and the same object is signed and sent; so is
    ``body``, where empty means none. ``operation`` is for logs: the URL holds the voucher's code
    and the headers hold secrets, so neither is in the repr. ``max_answer_bytes`` is more than any
    answer to it takes, where that is known: a longer one would hold everything else up.
    ``template``, for traces, is the path with ``{code}`` or ``{key}`` in place of one, and empty
    where it is not known.
    """

    operation: str
    method: str
    url: URL = attrs.field(repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    body: bytes = attrs.field(default=b"", repr=False)
    timeout: Timeout = attrs.field(default=_TIMEOUT, repr=False)
    max_answer_bytes: int | None = attrs.field(default=None, repr=False)
    template: str = attrs.field(default="", repr=False)


@attrs.frozen(kw_only=True)
class Response:
    """One whole HTTP answer, whatever its status. ``headers`` has lower-case names."""

    status: int
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    body: bytes = attrs.field(default=b"", repr=False)


class Transport(ABC):
    """Sends a request and returns the answer.

    An implementation returns any HTTP status, follows no redirect, sends a request at most once,
    and raises only the `TransportError` family: `ConnectError` when provably no byte of the
    request left, `ResponseLostError` in every other case. It keeps to ``request.timeout`` and
    ``request.max_answer_bytes``.
    """

    @abstractmethod
    async def send(self, request: Request) -> Response:
        """Send the request once. Cancelling leaves the outcome of the request unknown."""

    async def aclose(self) -> None:  # noqa: B027 - many transports own nothing
        """Release what the transport owns. It may be called more than once."""
