"""Every operation, on a client whose every secret is a canary, and every trouble it can meet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import attrs
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.answers import ok
from support.canaries import CANARIES, CODE, ECHO, OTHER_CODE, PEM, USED_AT, item
from support.doubles import FakeTime
from support.runtimes import with_runtime

from rm_voucher import (
    ConnectError,
    Credentials,
    Request,
    Response,
    ResponseLostError,
    ResponseTimeoutError,
    RetryPolicy,
    Safety,
    Timeout,
    VoucherClient,
)
from rm_voucher.otel import OpenTelemetryHook
from rm_voucher.transport.memory import MemoryTransport

PIN, PHONE = CANARIES["pin"], CANARIES["phone"]


async def every(pager):
    return [one async for one in pager]


OPERATIONS: dict[str, Callable[[VoucherClient], Awaitable[object]]] = {
    "issue": lambda client: client.issue("KEY"),
    "get": lambda client: client.get(CODE),
    "void": lambda client: client.void(CODE, store_id="7", used_at=USED_AT),
    "reinstate": lambda client: client.reinstate(CODE, pin=PIN, reason=PIN),
    "redeem": lambda client: client.redeem([CODE, OTHER_CODE]),
    "vouchers": lambda client: client.vouchers("KEY"),
    "every voucher": lambda client: every(client.vouchers("KEY")),
    "batch": lambda client: client.batch("KEY"),
    "batches": lambda client: client.batches(status="COMPLETED"),
    "request": lambda client: client.request(
        "PATCH", f"/v3/x/{quote(CODE)}", query={"pin": PIN}, json={"code": CODE, "pin": PIN}
    ),
    "request read": lambda client: client.request(
        "GET", f"/v3/x/{quote(CODE)}", query={"phone": PHONE}, safety=Safety.READ
    ),
    "member vouchers": lambda client: client.member("60", PHONE).vouchers(limit=5),
    "member get": lambda client: client.member("60", PHONE).get(CODE),
    "member redeem": lambda client: client.member("60", PHONE).redeem(CODE),
}
LISTINGS = {"vouchers", "batches", "member vouchers"}
LOOK_UPS = {"get", "member get"}
DONE_STATUS = {"void": "VOID", "redeem": "REDEEMED", "member redeem": "VOID"}


def shaped(request: Request, *items: Any, cursor: str | None = None) -> Response:
    """Answer with voucher(s) in the form that the operation's answer has."""
    if request.operation in ("batch", "batches"):
        items = tuple({**one, "key": "KEY", "staticCode": CODE} for one in items)
    if request.operation in LISTINGS:
        return ok({"items": items, "meta": {"cursor": cursor}, "code": "SUCCESS"})
    one = items if request.operation == "redeem" else items[0]
    return ok({"item": one, "code": "SUCCESS"})


def success(request: Request) -> Response:
    status = DONE_STATUS.get(request.operation, "ISSUED")
    return shaped(request, item(status=status), item(code=OTHER_CODE, status=status))


def token(request: Request) -> Response:
    return ok(
        {
            "accessToken": CANARIES["access token"],
            "expiresIn": 10_000,
            "refreshToken": CANARIES["refresh token"],
            "newField": CANARIES["client secret"],
        }
    )


def always(answer: Response | Exception) -> Callable[[Request], Response]:
    def handler(request: Request) -> Response:
        if isinstance(answer, Exception):
            # An instance a raise, as a transport's are.
            raise type(answer)(*answer.args)
        return answer

    return handler


def error(code: str, status: int) -> Callable[[Request], Response]:
    return always(ok({"error": {"code": code, "message": ECHO}, "newField": ECHO}, status))


def page(status: int) -> Callable[[Request], Response]:
    text = f"<html>{ECHO}</html>".encode()
    return always(Response(status=status, headers={"location": f"/{CODE}"}, body=text))


def shows(*items: object) -> Callable[[Request], Response]:
    return lambda request: shaped(request, *items)


NOT_SENT = always(ConnectError("x: no connection"))
LOST = always(ResponseLostError("x: the server closed the connection"))


def read_back(look: Callable[[Request], Any]) -> Callable[[Request], Any]:
    """Lose what changes something, and answer look-ups."""
    return lambda request: (look if request.operation in LOOK_UPS else LOST)(request)


def partly(request: Request) -> Response:
    """Redeem one code of two; the other has changed, but nobody knows by whom."""
    code = CODE if request.operation == "redeem" else OTHER_CODE
    return shaped(request, item(code=code, status="REDEEMED"))


def late(request: Request) -> Response:
    """Lose a redeem of two; one is unchanged and then redeemed, the other has changed."""
    if request.operation in LOOK_UPS:
        status = "REDEEMED" if OTHER_CODE in request.url.path else "VALID"
        return shaped(request, item(status=status))
    is_repeat = request.operation == "redeem" and OTHER_CODE.encode() not in request.body
    return shaped(request, item(status="REDEEMED")) if is_repeat else LOST(request)


def second_page(handler: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """Answer a first page of a listing, and meet trouble at the second."""

    def answer(request: Request) -> Response:
        if request.operation in LISTINGS and "cursor" not in request.url.query:
            return shaped(request, item(), cursor="next")
        return handler(request)

    return answer


WRONG_TYPES = item(
    code={"code": CODE}, amount=CODE, usedAt=PIN, expiry=[CODE], label=[CODE], qrUrl=[CODE]
)
SERVERS: dict[str, Callable[[Request], Response]] = {
    "not sent": NOT_SENT,
    "lost": LOST,
    "timed out": always(ResponseTimeoutError("x: no answer in time")),
    "refused with an echo": error("VOUCHER_NOT_FOUND", 404),
    "failed with an echo": error("INTERNAL_ERROR", 500),
    "throttled with an echo": error("TOO_MANY_REQUEST_PER_SECOND", 429),
    "unlisted code with an echo": error("NEW_CODE", 400),
    "error without a code": always(ok({"error": {"code": ECHO, "message": [CODE]}}, 400)),
    "error of wrong types": always(ok({"error": {"code": [CODE], "message": 1}})),
    "error and voucher": always(ok({"item": item(), "error": {"code": CODE}})),
    "wrong method with an echo": error("METHOD_NOT_ALLOWED", 405),
    "gateway's page": page(502),
    "no such page": page(404),
    "redirect": page(302),
    "unauthorized page": page(401),
    "token refused": error("TOKEN_INVALID", 401),
}
# Of these, `request` returns the answer as it is.
ANSWERS: dict[str, Callable[[Request], Response]] = {
    "page instead of JSON": page(200),
    "JSON that is cut off": always(Response(status=200, body=ok({"item": item()}).body[:-9])),
    "JSON of another kind": always(ok([CODE, PIN])),
    "wrong code word": always(ok({"item": item(), "items": [item()], "code": CODE})),
    "wrong types": shows(WRONG_TYPES),
    "not an object": always(ok({"item": CODE, "items": [PIN, CODE], "code": "SUCCESS"})),
    "page with a cursor of a wrong type": always(
        ok({"items": [item()], "meta": {"cursor": [CODE]}, "item": CODE, "code": "SUCCESS"})
    ),
}
# What can befall a change only.
CHANGES: dict[str, Callable[[Request], Response]] = {
    "another's code": lambda request: shows(
        item(code="another", status=DONE_STATUS.get(request.operation, "ISSUED"))
    )(request),
    "wrong status": lambda request: shows(
        item(status="VOID" if request.operation == "reinstate" else "COMPLETE")
    )(request),
    "read back valid": read_back(shows(item(status="VALID"))),
    "read back void": read_back(shows(item(status="VOID"))),
    "read back not found": read_back(error("VOUCHER_NOT_FOUND", 404)),
    "read back wrong": read_back(shows(WRONG_TYPES)),
    "partly in doubt": partly,
    "partly in doubt, late": late,
}
SEVERAL: dict[str, Callable[[Request], Response]] = {
    "second page lost": second_page(LOST),
    "second page wrong": second_page(shows(WRONG_TYPES)),
    "second voucher wrong": shows(item(), WRONG_TYPES),
}
CHANGING = ("void", "reinstate", "redeem", "member redeem")
KEPT = [
    *(
        (operation, server)
        for operation in sorted({*LISTINGS, "every voucher"})
        for server in ("wrong types", "not an object")
    ),
    *(("every voucher", server) for server in ("second page wrong", "second voucher wrong")),
    ("batch", "wrong types"),
]
"""Listings, and a batch, with what does not fit, which are read all the same."""
MEETINGS = [
    *((operation, server) for operation in OPERATIONS for server in SERVERS),
    *(
        (operation, server)
        for operation in OPERATIONS
        for server in ANSWERS
        if not operation.startswith("request") and (operation, server) not in KEPT
    ),
    *((operation, server) for operation in CHANGING for server in CHANGES),
    ("every voucher", "second page lost"),
    ("redeem", "second voucher wrong"),
]
"""Each operation with each server that troubles it; all of them end in an error."""
SERVER_OF = SERVERS | ANSWERS | CHANGES | SEVERAL

TOKEN_SERVERS: dict[str, Callable[[Request], Response]] = {
    "not sent": NOT_SENT,
    "lost": LOST,
    "refused with an echo": error("InvalidClient", 401),
    "failed with an echo": error("INTERNAL_ERROR", 500),
    "gateway's page": page(502),
    "page instead of JSON": page(200),
    "JSON that is cut off": lambda request: attrs.evolve(
        token(request), body=token(request).body[:-3]
    ),
    "wrong types": always(ok({"accessToken": [ECHO], "refreshToken": {"x": ECHO}})),
    "token that fits no header": always(ok({"accessToken": ECHO + "\n"})),
}


class CanarySigner:
    def sign(self, text: bytes) -> bytes:
        return CANARIES["signature"].encode()


@attrs.define
class World:
    """A client in memory, its server, and all that may tell of what it does."""

    answer: Callable[[Request], Response | Awaitable[Response]] = success
    buy: Callable[[Request], Response | Awaitable[Response]] = token
    time: FakeTime = attrs.field(factory=FakeTime)
    exporter: InMemorySpanExporter = attrs.field(factory=InMemorySpanExporter)
    reader: InMemoryMetricReader = attrs.field(factory=InMemoryMetricReader)
    seen: list[object] = attrs.field(factory=list)

    def hook(self) -> OpenTelemetryHook:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        meters = MeterProvider([self.reader], shutdown_on_exit=False)
        return OpenTelemetryHook(provider, meters)

    def client(self, **options: Any) -> VoucherClient:
        hooks = [self.hook(), *options.pop("hooks", ())]
        defaults = {
            "transport": MemoryTransport(self.handle),
            "retry": RetryPolicy(max_attempts=2),
            "timeout": Timeout(),
            "signer": CanarySigner(),
            "runtime": self.time.runtime,
        }
        credentials = Credentials("client-id", CANARIES["client secret"], PEM)
        self.seen.append(credentials)
        return VoucherClient(credentials, hooks=hooks, **with_runtime({**defaults, **options}))

    async def handle(self, request: Request) -> Response:
        self.seen.append(request)
        answer = (self.buy if request.operation == "token" else self.answer)(request)
        response = answer if isinstance(answer, Response) else await answer
        self.seen.append(response)
        return response


async def outcome_of(operation: Awaitable[object]) -> Any:
    """Return what an operation returns or raises, a cancellation too."""
    try:
        return await operation
    except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - whatever it is
        return exc


class Hanging:
    """A handler that never answers, and an event that says that a request has arrived."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()

    async def __call__(self, request: Request) -> Response:
        self.arrived.set()
        return await asyncio.Future()
