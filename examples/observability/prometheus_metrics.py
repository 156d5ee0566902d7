"""Metrics for Prometheus, on a port of their own. Needs the extra `otel`, and of OpenTelemetry's
packages `opentelemetry-sdk` and `opentelemetry-exporter-prometheus` (0.64b0 or newer).

Run it, and look at what Prometheus would get: `curl http://127.0.0.1:9464/metrics`.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Generator

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, start_http_server

from rm_voucher.emulator import Emulator
from rm_voucher.otel import OpenTelemetryHook


@contextlib.contextmanager
def metrics_served(port: int = 9464, host: str = "127.0.0.1") -> Generator[OpenTelemetryHook]:
    """Serve what the hook measures, in a thread, while the block runs."""
    registry = CollectorRegistry()
    provider = MeterProvider([PrometheusMetricReader(scope_info_enabled=False, registry=registry)])
    server, thread = start_http_server(port, host, registry)
    try:
        yield OpenTelemetryHook(meter_provider=provider)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        provider.shutdown()


async def main() -> None:
    with metrics_served() as hook:
        emulator = Emulator(batches={"BREAKFAST": 100_000})
        async with emulator.client(hooks=[hook], name="breakfast") as client:
            for number in itertools.count(1):
                await client.issue("BREAKFAST")
                print(number, "issued: http://127.0.0.1:9464/metrics", flush=True)
                await asyncio.sleep(0.5)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
