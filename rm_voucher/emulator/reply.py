"""The server's reaction to a request: an answer, and the end of the exchange."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from rm_voucher.emulator.faults import Fault
from rm_voucher.emulator.stock import RefusedError
from rm_voucher.exceptions import (
    APIError,
    AuthenticationError,
    ConnectError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ResponseLostError,
    ResponseTimeoutError,
    ServerError,
    SignatureError,
)
from rm_voucher.jsontext import read_json, write_json
from rm_voucher.transport.base import Request, Response
from rm_voucher.wire.error_codes import ERROR_CODES

_STATUS_OF_CODE = {"METHOD_NOT_ALLOWED": 405, "API_ENDPOINT_NOT_FOUND": 404, "PAGE_NOT_FOUND": 404}
_STATUS_OF_ERROR: dict[type[APIError], int] = {
    AuthenticationError: 401,
    SignatureError: 401,
    PermissionDeniedError: 403,
    NotFoundError: 404,
    RateLimitError: 429,
    ServerError: 500,
}
GATEWAY_PAGE = Response(
    status=502,
    headers={"content-type": "text/html"},
    body=b"<html><head><title>502 Bad Gateway</title></head><body>Bad Gateway</body></html>",
)
"""The answer of a gateway that does not reach its server."""


class Ending(enum.Enum):
    """How an exchange ends."""

    WHOLE = enum.auto()
    """With the answer."""
    RESET = enum.auto()
    """The connection is reset instead of an answer."""
    STALLED = enum.auto()
    """No answer comes for a time, then the connection is reset."""
    CUT = enum.auto()
    """The connection ends in the middle of the answer."""
    SLOW = enum.auto()
    """The answer's body comes in pieces."""
    NOT_CONNECTED = enum.auto()
    """There was never a connection."""


@attrs.frozen
class Reply:
    """An answer and its ending, which takes ``lasts_s``."""

    response: Response = attrs.field(factory=lambda: Response(status=500))
    ending: Ending = attrs.field(default=Ending.WHOLE, kw_only=True)
    lasts_s: float = attrs.field(default=0.0, kw_only=True)
    on_loss: Callable[[], None] = attrs.field(default=lambda: None, kw_only=True, repr=False)
    """Call it when the client did not wait for the end."""
    refused: RefusedError | None = attrs.field(default=None, kw_only=True, repr=False)
    fault: str | None = attrs.field(default=None, kw_only=True)
    """The fault that the request met, for the log."""

    @property
    def code(self) -> str | None:
        """RM's error code that the request was refused with, None for none."""
        if self.refused is not None:
            return self.refused.code
        return self.fault if self.fault is not None and self.fault not in list(Fault) else None

    def for_client_in_memory(self, request: Request) -> Response:
        """Return the answer, or raise the error that the client's transport would raise."""
        is_too_long = self.lasts_s >= request.timeout.attempt_s
        match self.ending:
            case Ending.WHOLE:
                return self.response
            case Ending.NOT_CONNECTED:
                raise ConnectError(f"{request.operation}: no connection")
            case Ending.SLOW if not is_too_long:
                return self.response
            case Ending.SLOW | Ending.STALLED if is_too_long:
                self.on_loss()
                raise ResponseTimeoutError(f"{request.operation}: no answer in time")
            case _:
                raise ResponseLostError(f"{request.operation}: the connection broke")


def json_response(status: int, wire: object) -> Response:
    """Return an answer with JSON in it."""
    return Response(
        status=status, headers={"content-type": "application/json"}, body=write_json(wire)
    )


def refusal(exc: RefusedError, statuses: Mapping[str, int]) -> Response:
    """Return RM's error answer. ``statuses`` are those of codes that have one of their own."""
    wire = {**exc.beside, "error": {"code": exc.code, "message": exc.message}}
    return json_response(statuses.get(exc.code) or usual_status(exc.code), wire)


def usual_status(code: str) -> int:
    """Return the HTTP status of an error code, unless `Guesses.statuses` has another one."""
    info = ERROR_CODES.get(code)
    default = 400 if info is None else _STATUS_OF_ERROR.get(info.error, 400)
    return _STATUS_OF_CODE.get(code, default)


def throttled(*, retry_after_s: int | None, has_body: bool) -> Response:
    """Return the answer to a request that is throttled."""
    answer = refusal(RefusedError("TOO_MANY_REQUEST_PER_SECOND"), {})
    headers = dict(answer.headers) if has_body else {}
    if retry_after_s is not None:
        headers["retry-after"] = str(retry_after_s)
    return Response(status=429, headers=headers, body=answer.body if has_body else b"")


def spoilt(response: Response, fault: Fault) -> Response:
    """Return an answer as MALFORMED_JSON or WRONG_TYPES spoils it."""
    if fault is Fault.MALFORMED_JSON:
        return attrs.evolve(response, body=response.body[: len(response.body) // 2])
    return attrs.evolve(response, body=write_json(_wrong(read_json(response.body))))


def _wrong(wire: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object whose objects are lists, and whose lists and texts are objects."""
    return {name: value if name == "code" else _swapped(value) for name, value in wire.items()}


def _swapped(value: object) -> object:
    match value:
        case dict():
            return list(value.values())
        case list():
            return {str(index): item for index, item in enumerate(value)}
        case _:
            return {"value": value}
