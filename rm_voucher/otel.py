"""An observer that makes OpenTelemetry's spans and metrics. Needs the extra ``otel``."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable

import attrs

from rm_voucher._version import __version__
from rm_voucher.calls.hooks import (
    Attempt,
    AttemptResult,
    Gauge,
    Observer,
    Source,
    Work,
    WorkKind,
    WorkResult,
)
from rm_voucher.extras import extra

with extra("otel", __name__):
    from opentelemetry.context import Context, attach, detach, get_current
    from opentelemetry.metrics import (
        CallbackOptions,
        MeterProvider,
        Observation,
        get_meter,
    )
    from opentelemetry.trace import (
        Span,
        SpanKind,
        Status,
        StatusCode,
        TracerProvider,
        get_tracer,
        set_span_in_context,
    )

__all__ = ["OpenTelemetryHook"]

_log = logging.getLogger("rm_voucher")

_NAMES = {WorkKind.CALL: "rm_voucher", WorkKind.LEDGER: "rm_voucher ledger"}
_BOUNDARIES_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_SERVER_ERROR = 500


@attrs.frozen
class _Figure:
    """A gauge's unit and meaning, and what several sources of one client come to."""

    unit: str
    meaning: str
    combine: Callable[[list[float]], float]


_GAUGES = {
    "flow.rate": _Figure("{request}/s", "Requests a second that RM takes, once known", max),
    "flow.waiting": _Figure("{call}", "Calls that wait for their turn", sum),
    "flow.retry_after": _Figure("s", "For how long RM asked to wait", max),
    "flow.outage": _Figure("s", "For how long RM has been failing; 0 while it works", max),
    "flow.processes": _Figure("{process}", "Processes that share the rate", max),
    "flow.store_away": _Figure("s", "For how long the shared rate's store has been away", max),
    "signing.waiting": _Figure("{signature}", "Requests that wait to be signed", sum),
    "signing.processes": _Figure("{process}", "Processes that sign", sum),
    "ledger.backlog": _Figure("{request}", "What a ledger has not finished, by state", max),
    "ledger.oldest": _Figure("s", "For how long the oldest of a state has been so", max),
    "ledger.unkept": _Figure("{code}", "Codes in the memory of this process alone", sum),
}


class OpenTelemetryHook(Observer):
    """Makes spans and metrics of calls, attempts, ledgers and callbacks.

    ``VoucherClient(…, hooks=[OpenTelemetryHook()])`` covers the client, and the bulk issues and
    ledgers that use it; ``WebhookRouter(…, hooks=[…])`` covers callbacks. One object may serve all
    of a process. Without ``tracer_provider`` or ``meter_provider`` the global one is used.

    A call has an internal span under the current one, and each attempt a client span below it,
    by OpenTelemetry's conventions for HTTP clients. No span, attribute or metric holds a URL, a
    code or a secret, and no metric a batch. Instrumentation of aiohttp's client itself does record
    URLs, and so voucher codes: leave that off for this client.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._tracer = get_tracer("rm_voucher", __version__, tracer_provider)
        meter = get_meter("rm_voucher", __version__, meter_provider)
        self._sources: list[tuple[str, weakref.ref[Source]]] = []
        # Several loops may add, each in its thread. Who reads needs no lock: a copy is one step.
        self._adding = threading.Lock()

        def histogram(name: str, meaning: str) -> Callable[[float, dict[str, str | int]], None]:
            return meter.create_histogram(
                f"rm_voucher.{name}.duration",
                "s",
                meaning,
                explicit_bucket_boundaries_advisory=_BOUNDARIES_S,
            ).record

        self._record_attempt = histogram("attempt", "How long an attempt took")
        self._record_work = {
            WorkKind.CALL: histogram("call", "How long a call took, with waits and retries"),
            WorkKind.LEDGER: histogram("ledger", "How long a ledger's work took"),
            WorkKind.CALLBACK: histogram("callback", "How long a callback took"),
        }
        for name, figure in _GAUGES.items():
            meter.create_observable_gauge(
                f"rm_voucher.{name}",
                [_reading(self._sources, name, figure)],
                figure.unit,
                figure.meaning,
            )

    def __call__(self, attempt: Attempt) -> Callable[[AttemptResult], None]:
        """Begin an attempt's span; what is returned ends it."""
        attributes: dict[str, str | int] = {
            "http.request.method": attempt.method,
            "server.address": attempt.host,
            "server.port": attempt.port,
            "url.scheme": attempt.scheme,
            "rm_voucher.operation": attempt.operation,
            "rm_voucher.client": attempt.client,
            "rm_voucher.attempt_id": attempt.attempt_id,
        }
        if attempt.template:
            attributes["url.template"] = attempt.template
        if attempt.number > 1:
            attributes["http.request.resend_count"] = attempt.number - 1
        if attempt.batch_key is not None:
            attributes["rm_voucher.batch_key"] = attempt.batch_key
        span = self._tracer.start_span(
            f"{attempt.method} {attempt.template}".rstrip(),
            kind=SpanKind.CLIENT,
            attributes=attributes,
        )

        def end(result: AttemptResult) -> None:
            _end(span, result, result.error_code or result.error)
            told = _measured(attempt.client, attempt.operation, result)
            if result.http_status is not None:
                told["http.response.status_code"] = result.http_status
            self._record_attempt(result.duration_s, told)

        return end

    def work(self, work: Work) -> Callable[[WorkResult], None]:
        """Begin the span of work, as the current one; what is returned ends it."""
        is_callback = work.kind is WorkKind.CALLBACK
        attributes = {"rm_voucher.operation": work.operation}
        if work.client:
            attributes["rm_voucher.client"] = work.client
        if work.batch_key is not None:
            attributes["rm_voucher.batch_key"] = work.batch_key
        around = Context() if work.is_own else get_current()
        span = self._tracer.start_span(
            "rm_voucher callback" if is_callback else f"{_NAMES[work.kind]} {work.operation}",
            around,
            # A message: RM's request has the web framework's span, if that is instrumented, and an
            # event that is tried again has no request.
            kind=SpanKind.CONSUMER if is_callback else SpanKind.INTERNAL,
            attributes=attributes,
        )
        inside = set_span_in_context(span, around)
        token = attach(inside)

        def end(result: WorkResult) -> None:
            if get_current() is inside:  # a coroutine that is thrown away may end elsewhere
                detach(token)
            failed = result.error_code or result.error
            if (result.http_status or 0) >= _SERVER_ERROR:
                failed = failed or result.answer
            _end(span, result, failed)
            told = _measured(work.client, work.operation, result)
            self._record_work[work.kind](result.duration_s, told)

        return end

    def source(self, client: str, source: Source) -> None:
        """Read the source's figures whenever metrics are collected, as long as it is there."""
        with self._adding:
            known = [(name, ref) for name, ref in self._sources if ref() is not None]
            if all(name != client or ref() is not source for name, ref in known):
                known.append((client, weakref.ref(source)))
            self._sources[:] = known


def _reading(
    sources: list[tuple[str, weakref.ref[Source]]], name: str, figure: _Figure
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    """Return what reads one gauge of all sources. It may run in another thread."""

    def read(_: CallbackOptions) -> Iterable[Observation]:
        found: dict[tuple[str, str], list[float]] = {}
        for client, ref in list(sources):
            for gauge in _gauges_of(ref()):
                if gauge.name == name:
                    found.setdefault((client, gauge.state), []).append(gauge.value)
        for (client, state), values in found.items():
            attributes = {"rm_voucher.client": client}
            if state:
                attributes["rm_voucher.state"] = state
            yield Observation(figure.combine(values), attributes)

    return read


def _gauges_of(source: Source | None) -> Iterable[Gauge]:
    if source is None:
        return ()
    try:
        return source.gauges()
    except Exception as exc:  # noqa: BLE001 - it may change while another thread reads it
        _log.debug("figures can't be read (%s)", type(exc).__name__)
        return ()


def _end(span: Span, result: AttemptResult | WorkResult, failed: str | None) -> None:
    if result.http_status is not None:
        span.set_attribute("http.response.status_code", result.http_status)
    if failed is not None:
        span.set_attribute("error.type", failed)
        span.set_status(Status(StatusCode.ERROR, result.error))
    if (outcome := _outcome(result)) != "done":
        span.set_attribute("rm_voucher.outcome", outcome)
    span.end()


def _measured(
    client: str, operation: str, result: AttemptResult | WorkResult
) -> dict[str, str | int]:
    """Return the attributes of a measurement, each of few values: RM's own code is not one."""
    told: dict[str, str | int] = {"rm_voucher.operation": operation}
    if client:
        told["rm_voucher.client"] = client
    told["rm_voucher.outcome"] = _outcome(result)
    if result.error is not None:
        told["error.type"] = result.error
    return told


def _outcome(result: AttemptResult | WorkResult) -> str:
    if isinstance(result, WorkResult) and result.answer is not None:
        return result.answer
    if result.error is None:
        return "done"
    if result.outcome is not None:
        return result.outcome.words
    return {"OutcomeUnknownError": "unknown", "CancelledError": "cancelled"}.get(
        result.error, "failed"
    )
