"""A shop that takes callbacks, in a process that is killed: ``receiver.py OPTIONS``, as JSON.

It listens until it is told to end, or with ``ahead_s`` handles, once, what is due so much later.
Of the points that it passes, ``point`` is where it kills itself.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import orjson
from aiohttp import web
from kills.killer import Killer
from sqlalchemy import Connection, text

from rm_voucher import VoucherStatus
from rm_voucher.database import Transaction
from rm_voucher.runtime import Runtime
from rm_voucher.webhooks import (
    CallbackVerifier,
    VoucherEvent,
    WebhookRouter,
    open_event_store,
)
from rm_voucher.webhooks.aiohttp import webhook_routes
from rm_voucher.webhooks.sql.store import SqlEventStore

INSERT = text("INSERT INTO seen (event, code, status) VALUES (:event, :code, :status)")


def make_router(options: dict[str, Any], killer: Killer) -> WebhookRouter:
    """Return a router whose handler fails at random, half the time after it has inserted."""
    verifier = CallbackVerifier(Path(options["public_key"]), url=options["callback_url"])
    ahead_s = options.get("ahead_s", 0)
    store = open_event_store(options["store"], runtime=Runtime(clock=lambda: time.time() + ahead_s))
    router = WebhookRouter(verifier, store=store, dispatch_stale=True)
    random, fails = Random(options.get("seed")), options.get("fails", 0)

    @router.on(VoucherStatus.REDEEMED, VoucherStatus.VOID)
    async def see(event: VoucherEvent, tx: Transaction) -> None:
        luck = random.random()
        if luck < fails / 2:
            raise RuntimeError("no luck before the insert")
        await tx.execute(INSERT, {"event": event.id, "code": event.code, "status": event.status})
        killer.passing("inserted")
        if luck < fails:
            raise RuntimeError("no luck after the insert")

    return router


def watch(killer: Killer) -> None:
    """Points: ``unrecorded``, ``recorded`` (and not handled), ``uncommitted``, ``committed``."""
    record, commit = SqlEventStore.record, Transaction.commit

    async def watched_record(self: SqlEventStore, event: VoucherEvent, **options: Any) -> Any:
        killer.passing("unrecorded")
        found = await record(self, event, **options)
        killer.passing("recorded")
        return found

    async def watched_commit(self: Transaction, last: Callable[[Connection], None]) -> None:
        def watched_last(connection: Connection) -> None:
            last(connection)
            killer.passing("uncommitted")

        await commit(self, watched_last)
        killer.passing("committed")

    SqlEventStore.record = watched_record  # type: ignore[method-assign]
    Transaction.commit = watched_commit  # type: ignore[method-assign]


def say_it_listens(_: object) -> None:
    os.write(1, b"listening\n")


def serve(router: WebhookRouter, port: int) -> None:
    """Serve it until a signal; a line on stdout says that it listens."""

    async def run(app: web.Application) -> Any:
        async with router:
            yield

    app = web.Application()
    app.cleanup_ctx.append(run)
    app.add_routes(webhook_routes(router, "/callbacks"))
    web.run_app(app, host="127.0.0.1", port=port, print=say_it_listens)


async def run_due(router: WebhookRouter) -> None:
    """Handle what is due, until nothing is."""
    async with router:
        while await router.run_due():
            pass


def main() -> None:
    options = orjson.loads(sys.argv[1])
    killer = Killer(options.get("point", ""))
    watch(killer)
    router = make_router(options, killer)
    if "ahead_s" in options:
        asyncio.run(run_due(router))
    else:
        serve(router, options["port"])


if __name__ == "__main__":
    main()
