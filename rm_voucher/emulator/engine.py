"""The engine: a request in, a `Reply` out. Faults, access, routes and the work, in this order."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import unquote

import attrs
import orjson

from rm_voucher.emulator.faults import Fault, Faults, RateLimit
from rm_voucher.emulator.gate import Gate, bearer_of
from rm_voucher.emulator.guesses import Rule
from rm_voucher.emulator.reply import Ending, Reply, gateway_page, refusal, spoilt, throttled
from rm_voucher.emulator.routes import TOKEN, Route, Routes
from rm_voucher.emulator.stock import RefusedError
from rm_voucher.emulator.timeline import Timeline
from rm_voucher.signing.signature import canonical_json, is_too_deep
from rm_voucher.transport.base import Request, Response


class Engine:
    """Answers requests, and keeps the books of them."""

    def __init__(
        self,
        *,
        timeline: Timeline,
        gate: Gate,
        routes: Routes,
        relaxed: Collection[Rule],
        seed: int,
    ) -> None:
        self.faults = Faults(seed=seed)
        self.limit: RateLimit | None = None
        self.requests: Counter[str] = Counter()
        self.undelivered: list[str] = []
        self._timeline = timeline
        self._gate = gate
        self._routes = routes
        self._relaxed = relaxed

    def reply(self, request: Request) -> Reply:
        """Return what the server does about one request, faults included.

        What fell due before has happened: see `Timeline.moment`.
        """
        now = self._timeline.now()
        if self.faults.is_closed(now):
            # Over HTTP nobody hears of such a request, so it is in no book.
            return Reply(ending=Ending.NOT_CONNECTED)
        try:
            route = self._routes.find(_path(request, self._relaxed))
        except RefusedError as exc:
            return Reply(refusal(exc), refused=exc)
        self.requests[route.operation] += 1
        fault = self.faults.draw(route.operation, now)
        if fault is None or fault is Fault.LISTING_LAG:
            if self.limit is not None and not self.limit.takes(now):
                return Reply(throttled(retry_after_s=None, has_body=True))
            lag_s = 0.0 if fault is None else self.faults.plan.lag_s
            return self._do(request, route, lag_s=lag_s)
        return attrs.evolve(self._fail(request, route, fault), fault=fault)

    def _fail(self, request: Request, route: Route, fault: Fault | str) -> Reply:
        plan = self.faults.plan
        match fault:
            case Fault.DROP_BEFORE_COMMIT:
                return Reply(ending=Ending.RESET)
            case Fault.TIMEOUT_BEFORE_COMMIT:
                return Reply(ending=Ending.SILENT, lasts_s=plan.hold_s)
            case Fault.THROTTLE:
                return Reply(throttled(retry_after_s=plan.retry_after_s, has_body=True))
            case Fault.THROTTLE_NO_RETRY_AFTER:
                return Reply(throttled(retry_after_s=None, has_body=True))
            case Fault.THROTTLE_NO_BODY:
                return Reply(throttled(retry_after_s=plan.retry_after_s, has_body=False))
            case Fault.THROTTLE_BARE:
                return Reply(throttled(retry_after_s=None, has_body=False))
            case Fault.ERROR_BEFORE_COMMIT:
                return Reply(refusal(RefusedError("INTERNAL_ERROR")))
            case Fault.HTML_PAGE:
                return Reply(gateway_page())
            case Fault.TOKEN_REVOKED:
                self._gate.revoke(bearer_of(_headers(request).get("authorization", "")))
                return self._do(request, route)
            case Fault.LATE_COMMIT:
                return self._do_late(request, route)
            case Fault():
                return self._do_and_spoil(request, route, fault)
            case code:
                return Reply(refusal(RefusedError(code)))

    def _do(self, request: Request, route: Route, *, lag_s: float = 0.0) -> Reply:
        try:
            body = self._admit(request, route)
            wire = self._work(request, route, body, lag_s=lag_s)
        except RefusedError as exc:
            return Reply(refusal(exc), refused=exc)
        return Reply(_ok(wire), on_loss=lambda: self._withhold(route, wire))

    def _do_late(self, request: Request, route: Route) -> Reply:
        try:
            body = self._admit(request, route)
        except RefusedError as exc:
            return Reply(refusal(exc), refused=exc)

        def work() -> None:
            with contextlib.suppress(RefusedError):  # nobody is there to be told
                self._withhold(route, self._work(request, route, body))

        due = self._timeline.now() + self.faults.late_s(route.operation)
        self._timeline.at(due, work)
        return Reply(ending=Ending.RESET)

    def _do_and_spoil(self, request: Request, route: Route, fault: Fault) -> Reply:
        """Do the work, and let the answer be lost on its way, or arrive as something else."""
        try:
            body = self._admit(request, route)
            wire = self._work(request, route, body)
            response = _ok(wire)
        except RefusedError as exc:
            wire = {}
            response = refusal(exc)
        plan = self.faults.plan
        if fault is Fault.SLOW_DRIP:
            return Reply(
                response,
                ending=Ending.DRIP,
                lasts_s=plan.drip_s,
                on_loss=lambda: self._withhold(route, wire),
            )
        self._withhold(route, wire)
        match fault:
            case Fault.DROP_AFTER_COMMIT:
                return Reply(ending=Ending.RESET)
            case Fault.TIMEOUT_AFTER_COMMIT:
                return Reply(ending=Ending.SILENT, lasts_s=plan.hold_s)
            case Fault.TRUNCATED:
                return Reply(response, ending=Ending.CUT)
            case Fault.ERROR_AFTER_COMMIT:
                return Reply(refusal(RefusedError("INTERNAL_ERROR")))
            case _:
                return Reply(spoilt(response, fault))

    def _admit(self, request: Request, route: Route) -> object:
        """Return the body of a request that may pass. Raises `RefusedError`."""
        try:
            body = orjson.loads(request.body) if request.body else None
        except orjson.JSONDecodeError:
            raise RefusedError("INVALID_REQUEST", "The body is not JSON") from None
        if is_too_deep(body):
            raise RefusedError("INVALID_REQUEST", "The body is nested too deep")
        canonical = canonical_json(body)
        if request.method not in route.methods and Rule.METHOD not in self._relaxed:
            raise RefusedError("METHOD_NOT_ALLOWED")
        if route.operation != TOKEN:
            self._gate.check(request, _headers(request), canonical)
        return body

    def _work(
        self, request: Request, route: Route, body: object, *, lag_s: float = 0.0
    ) -> dict[str, Any]:
        if route.operation == TOKEN:
            return self._gate.grant(_headers(request), body)
        return route.answer(request.url.raw_query_string, body, lag_s=lag_s)

    def _withhold(self, route: Route, wire: Mapping[str, Any]) -> None:
        if route.operation == "issue" and wire:
            self.undelivered.append(wire["item"]["code"])


def _headers(request: Request) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _path(request: Request, relaxed: Collection[Rule]) -> list[str]:
    text = request.url.raw_path
    if Rule.PATH in relaxed:
        text = text.rstrip("/")
    try:
        return [unquote(part, errors="strict") for part in text.split("/")[1:]]
    except UnicodeDecodeError:
        raise RefusedError("INVALID_REQUEST", "The path is not UTF-8") from None


def _ok(wire: Mapping[str, Any]) -> Response:
    return Response(
        status=200, headers={"content-type": "application/json"}, body=orjson.dumps(wire)
    )
