"""Answers of RM's, by its documentation's examples, and the errors of a transport."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import orjson
from support.files import PAYLOADS

from rm_voucher import ConnectError, Request, Response, ResponseLostError

Answer = Response | BaseException | Callable[[Request], Response]


def payload(name: str) -> Any:
    """Return one of the example payloads of RM's documentation."""
    return orjson.loads((PAYLOADS / f"{name}.json").read_bytes())


def finished(result: Any) -> Any:
    """Return what a parser gives; a page's, which lets others have their turns, without them."""
    if not inspect.iscoroutine(result):
        return result
    while True:
        try:
            result.send(None)
        except StopIteration as end:
            return end.value


def ok(body: object, status: int = 200, **headers: str) -> Response:
    """Return an answer with a JSON body."""
    return Response(
        status=status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        body=orjson.dumps(body),
    )


def rm_error(code: str, status: int = 400, message: str = "", **headers: str) -> Response:
    """Return an answer with RM's own error body."""
    return ok({"error": {"code": code, "message": message}}, status, **headers)


ISSUED = ok({"item": {"code": "NAklEfbVdV", "qrUrl": "https://qr.invalid/1"}, "code": "SUCCESS"})


NOT_SENT = ConnectError("x: no connection")
LOST = ResponseLostError("x: the server closed the connection")
HTML = Response(status=502, body=b"<html>Bad Gateway</html>")
THROTTLED = rm_error("TOO_MANY_REQUEST_PER_SECOND", 429)
GO_ZERO_TIME = "0001-01-01T00:00:00Z"


def voucher_item(status: str, code: str = "X", used_at: str = GO_ZERO_TIME) -> dict[str, Any]:
    """Return a voucher as it stands in an answer; unless used or redeemed it shows no such time."""
    redeemed = status in ("REDEEMED", "VOID")
    return {
        **payload("get-voucher")["item"],
        "code": code,
        "status": status,
        "usedAt": used_at,
        "redeemedAt": "2018-09-28T17:19:35Z" if redeemed else GO_ZERO_TIME,
    }


def voucher(status: str, used_at: str = GO_ZERO_TIME, code: str = "X") -> Response:
    """Return an answer that shows one voucher."""
    return ok({"item": voucher_item(status, code, used_at), "code": "SUCCESS"})
