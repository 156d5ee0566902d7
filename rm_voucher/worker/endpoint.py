"""Health, readiness and metrics over HTTP, for whatever runs the worker."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.worker.broker import Broker
from rm_voucher.worker.metrics import read_figures, to_text
from rm_voucher.worker.worker import Worker

_LATE_S = 5.0  # a code that is kept later than that waits for a database


@contextlib.asynccontextmanager
async def serve_health(
    worker: Worker, broker: Broker, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[str]:
    """Serve ``/healthz``, ``/readyz`` and ``/metrics`` while the block runs; yield the URL.

    ``/healthz`` answers as long as the process does. ``/readyz`` is 503, with the reason, while the
    worker stops, the broker is away, or codes wait for the ledger's database. None of them has a
    code or a request's id in it. Raises `ConfigurationError` if nobody can listen there.
    """

    async def is_healthy(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def is_ready(_: web.Request) -> web.Response:
        reason = unready(worker, broker)
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

    async def metrics(_: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=to_text(await read_figures(worker, broker)), headers=headers)

    application = web.Application()
    application.add_routes(
        [
            web.get("/healthz", is_healthy),
            web.get("/readyz", is_ready),
            web.get("/metrics", metrics),
        ]
    )
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as exc:
            raise ConfigurationError(f"Nobody can listen on {host}:{port}: {exc}.") from exc
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def unready(worker: Worker, broker: Broker) -> str | None:
    """Return why a worker serves nothing now; None if it does."""
    if worker.is_stopping:
        return "it stops"
    if not broker.is_connected:
        return "the broker is away"
    if worker.ledger.oldest_unkept_s > _LATE_S:
        return "codes wait for the ledger's database"
    return None
