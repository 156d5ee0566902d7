"""An OpenTelemetry hook whose spans and metrics stay in memory."""

from __future__ import annotations

from typing import Any

import attrs
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rm_voucher.otel import OpenTelemetryHook


@attrs.define
class Telemetry:
    """A hook, and what it told."""

    exporter: InMemorySpanExporter = attrs.field(factory=InMemorySpanExporter)
    reader: InMemoryMetricReader = attrs.field(factory=InMemoryMetricReader)
    tracers: TracerProvider = attrs.field(init=False)
    hook: OpenTelemetryHook = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        # Without a handler at the exit of the process, which would keep it.
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.hook = OpenTelemetryHook(self.tracers, meters)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def tree(self) -> list[tuple[str, str | None]]:
        """Return the spans' names, each with that of the span above it."""
        names = {span.context.span_id: span.name for span in self.spans if span.context}
        return [
            (span.name, None if span.parent is None else names[span.parent.span_id])
            for span in self.spans
        ]

    def points(self, name: str) -> dict[frozenset[tuple[str, Any]], Any]:
        """Return the points of a metric by their attributes: a gauge's value, or a count."""
        data = self.reader.get_metrics_data()
        found = {}
        for resource in [] if data is None else data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == f"rm_voucher.{name}":
                        for point in metric.data.data_points:
                            key = frozenset(dict(point.attributes or {}).items())
                            value = getattr(point, "count", None)
                            found[key] = getattr(point, "value", value)
        return found

    def one(self, name: str, **attributes: Any) -> Any:
        """Return the one point of a metric that has these attributes among its own."""
        wanted = {(f"rm_voucher.{key}", value) for key, value in attributes.items()}
        (value,) = [value for key, value in self.points(name).items() if wanted <= key]
        return value
