"""The engine: a request in, a `Reply` out. Route and fault first, then checks, then the work."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import unquote

import attrs

from rm_voucher.emulator.authenticator import Authenticator, bearer_of
from rm_voucher.emulator.exchange import Exchange, Journal
from rm_voucher.emulator.faults import Fault, Faults, RateLimit
from rm_voucher.emulator.guesses import Check, Guesses
from rm_voucher.emulator.reply import (
    GATEWAY_PAGE,
    Ending,
    Reply,
    json_response,
    refusal,
    spoilt,
    throttled,
)
from rm_voucher.emulator.routes import TOKEN, Route, Routes
from rm_voucher.emulator.stock import RefusedError
from rm_voucher.emulator.virtual_clock import VirtualClock
from rm_voucher.jsontext import read_json
from rm_voucher.signing.signature import go_json, is_too_deep
from rm_voucher.transport.base import Request, Response


@attrs.define(eq=False, kw_only=True)
class Engine:
    """Answers requests, and counts them."""

    _clock: VirtualClock
    _authenticator: Authenticator
    _routes: Routes
    _guesses: Guesses
    _disabled: Collection[Check]
    _journal: Journal
    _merchant: str
    faults: Faults
    limit: RateLimit | None = None
    requests: Counter[str] = attrs.field(factory=Counter, init=False)
    undelivered: list[str] = attrs.field(factory=list, init=False)

    def reply(self, request: Request) -> Reply:
        """Return the server's reaction to one request, faults included.

        Call it in `VirtualClock.frozen`, so that all work that is due was done before.
        """
        now = self._clock.now()
        if self.faults.is_closed(now):
            # Over HTTP such a request reaches nobody, so it is not counted.
            return Reply(ending=Ending.NOT_CONNECTED)
        number = self._journal.begin()
        operation, fault = "", None
        try:
            route = self._routes.find(_path(request, self._disabled))
            operation = route.operation
            self.requests[operation] += 1
            fault = self.faults.draw(operation, now)
            if fault is None or fault is Fault.LISTING_DELAY:
                reply = self._as_usual(request, route, is_behind=fault is not None)
            else:
                reply = attrs.evolve(self._fail(request, route, fault), fault=fault)
        except RefusedError as exc:
            reply = attrs.evolve(self._refused(exc), fault=fault)
        self._journal.end(Exchange(number, now, self._merchant, operation, request, reply))
        return reply

    def _as_usual(self, request: Request, route: Route, *, is_behind: bool) -> Reply:
        if self.limit is not None and not self.limit.takes(self._clock.now()):
            return Reply(self._over_the_rate())
        delay_s = self.faults.plan.listing_delay_s if is_behind else 0.0
        return self._do(request, route, delay_s=delay_s)

    def _over_the_rate(self) -> Response:
        guesses = self._guesses
        answer = self._fault(guesses.throttle_code).response
        headers = dict(answer.headers)
        if guesses.throttle_retry_after_s is not None:
            headers["retry-after"] = str(guesses.throttle_retry_after_s)
        return attrs.evolve(answer, status=guesses.throttle_status, headers=headers)

    def _refused(self, exc: RefusedError) -> Reply:
        return Reply(refusal(exc, self._guesses.statuses), refused=exc)

    def _fault(self, code: str) -> Reply:
        return Reply(refusal(RefusedError(code), self._guesses.statuses))

    def _fail(self, request: Request, route: Route, fault: Fault | str) -> Reply:
        plan = self.faults.plan
        match fault:
            case Fault.DROP_BEFORE_COMMIT:
                return Reply(ending=Ending.RESET)
            case Fault.TIMEOUT_BEFORE_COMMIT:
                return Reply(ending=Ending.STALLED, lasts_s=plan.stall_s)
            case Fault.THROTTLE:
                return Reply(throttled(retry_after_s=plan.retry_after_s, has_body=True))
            case Fault.THROTTLE_NO_RETRY_AFTER:
                return Reply(throttled(retry_after_s=None, has_body=True))
            case Fault.THROTTLE_NO_BODY:
                return Reply(throttled(retry_after_s=plan.retry_after_s, has_body=False))
            case Fault.THROTTLE_BARE:
                return Reply(throttled(retry_after_s=None, has_body=False))
            case Fault.ERROR_BEFORE_COMMIT:
                return self._fault("INTERNAL_ERROR")
            case Fault.HTML_PAGE:
                return Reply(GATEWAY_PAGE)
            case Fault.TOKEN_REVOKED:
                self._authenticator.revoke(bearer_of(_headers(request).get("authorization", "")))
                return self._do(request, route)
            case Fault.LATE_COMMIT:
                return self._do_late(request, route)
            case Fault():
                return self._do_and_spoil(request, route, fault)
            case code:
                return self._fault(code)

    def _do(self, request: Request, route: Route, *, delay_s: float = 0.0) -> Reply:
        try:
            body = self._authenticate(request, route)
            wire = self._work(request, route, body, delay_s=delay_s)
        except RefusedError as exc:
            return self._refused(exc)
        return Reply(json_response(200, wire), on_loss=lambda: self._withhold(route, wire))

    def _do_late(self, request: Request, route: Route) -> Reply:
        body = self._authenticate(request, route)

        journal, number = self._journal, self._journal.cause

        def work() -> None:
            with (
                journal.because_of(number),
                contextlib.suppress(RefusedError),
            ):  # the client has gone
                self._withhold(route, self._work(request, route, body))

        due = self._clock.now() + self.faults.late_s(route.operation)
        self._clock.call_at(due, work, owner=self._merchant)
        return Reply(ending=Ending.RESET)

    def _do_and_spoil(self, request: Request, route: Route, fault: Fault) -> Reply:
        """Do the work, and lose the answer or spoil it."""
        done, plan = self._do(request, route), self.faults.plan
        if fault is Fault.SLOW_BODY:
            return attrs.evolve(done, ending=Ending.SLOW, lasts_s=plan.slow_body_s)
        done.on_loss()
        match fault:
            case Fault.DROP_AFTER_COMMIT:
                return Reply(ending=Ending.RESET)
            case Fault.TIMEOUT_AFTER_COMMIT:
                return Reply(ending=Ending.STALLED, lasts_s=plan.stall_s)
            case Fault.TRUNCATED:
                return Reply(done.response, ending=Ending.CUT)
            case Fault.ERROR_AFTER_COMMIT:
                return self._fault("INTERNAL_ERROR")
            case Fault.RESENT:
                return self._do_again(request, route)
            case _:
                return Reply(spoilt(done.response, fault))

    def _do_again(self, request: Request, route: Route) -> Reply:
        """Answer the very same bytes again. A nonce works once, whether or not it is checked."""
        if route.operation == TOKEN:  # it has none
            return self._do(request, route)
        try:
            self._authenticate(request, route)
            raise self._authenticator.duplicate()
        except RefusedError as exc:
            return self._refused(exc)

    def _authenticate(self, request: Request, route: Route) -> object:
        """Return the body of a request that passes all checks. Raises `RefusedError`."""
        try:
            body = read_json(request.body) if request.body else None
        except ValueError:
            raise RefusedError("INVALID_REQUEST", "The body is not JSON") from None
        if is_too_deep(body):
            raise RefusedError("INVALID_REQUEST", "The body is nested too deep")
        canonical = go_json(request.body) if request.body else b""
        if request.method not in route.methods and Check.METHOD not in self._disabled:
            raise RefusedError("METHOD_NOT_ALLOWED")
        if route.operation != TOKEN:
            self._authenticator.check(request, _headers(request), canonical)
        return body

    def _work(
        self, request: Request, route: Route, body: object, *, delay_s: float = 0.0
    ) -> dict[str, Any]:
        if route.operation == TOKEN:
            return self._authenticator.grant(_headers(request), body)
        return route.answer(request.url.raw_query_string, body, delay_s=delay_s)

    def _withhold(self, route: Route, wire: Mapping[str, Any]) -> None:
        if route.operation == "issue":
            self.undelivered.append(wire["item"]["code"])


def _headers(request: Request) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _path(request: Request, disabled: Collection[Check]) -> list[str]:
    text = request.url.raw_path
    if Check.PATH in disabled:
        text = text.rstrip("/")
    try:
        return [unquote(part, errors="strict") for part in text.split("/")[1:]]
    except UnicodeDecodeError:
        raise RefusedError("INVALID_REQUEST", "The path is not UTF-8") from None
