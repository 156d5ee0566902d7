"""A hook that makes an OpenTelemetry span of each attempt. Needs the extra ``otel``."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider, get_tracer

from rm_voucher._version import __version__
from rm_voucher.calls.hooks import Attempt, AttemptResult

__all__ = ["OpenTelemetryHook"]


class OpenTelemetryHook:
    """Makes a client span of each attempt, token requests included, under the current span.

    ``VoucherClient(…, hooks=[OpenTelemetryHook()])``. Without ``tracer_provider`` the global one
    is used. No attribute holds a URL, a code or a secret. Instrumentation of aiohttp's client
    itself does record URLs, and so voucher codes: leave that off for this client.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer = get_tracer("rm_voucher", __version__, tracer_provider)

    def __call__(self, attempt: Attempt) -> Callable[[AttemptResult], None]:
        """Begin the span; what is returned ends it."""
        span = self._tracer.start_span(
            f"rm_voucher {attempt.operation}",
            kind=SpanKind.CLIENT,
            attributes={
                "http.request.method": attempt.method,
                "http.request.resend_count": attempt.number - 1,
                "server.address": attempt.host,
                "rm_voucher.operation": attempt.operation,
                "rm_voucher.attempt_id": attempt.attempt_id,
            },
        )
        if attempt.batch_key is not None:
            span.set_attribute("rm_voucher.batch_key", attempt.batch_key)

        def end(result: AttemptResult) -> None:
            if result.http_status is not None:
                span.set_attribute("http.response.status_code", result.http_status)
            if result.error is not None:
                span.set_attribute("error.type", result.error_code or result.error)
                span.set_status(Status(StatusCode.ERROR, result.error))
            if result.outcome is not None:
                span.set_attribute("rm_voucher.outcome", result.outcome.words)
            span.end()

        return end
