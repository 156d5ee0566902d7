"""Take callbacks in an aiohttp server, and keep each voucher's redemption exactly once.

With the client's RM_… variables, RM_CALLBACK_PUBLIC_KEY_FILE (RM's server key), RM_CALLBACK_URL (as
entered at RM: …/callbacks/rm) and DATABASE_URL (sqlite:///app.db or postgresql+psycopg://…) set:
``python callbacks_aiohttp.py`` listens at port 8080. Needs the extra ``sql`` or ``postgres``.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web
from sqlalchemy import Column, DateTime, MetaData, Table, Text, create_engine

from rm_voucher import VoucherClient, VoucherStatus, webhooks
from rm_voucher.database import Transaction
from rm_voucher.webhooks.aiohttp import webhook_routes

POLLER = web.AppKey("POLLER", webhooks.CallbackPoller)  # after an issue: await .expect(code)
REDEMPTIONS = Table(
    "redemptions",
    MetaData(),
    Column("event_id", Text, primary_key=True),
    Column("code", Text, nullable=False),
    Column("used_at", DateTime(timezone=True)),
)


def create_app() -> web.Application:
    key, url = Path(os.environ["RM_CALLBACK_PUBLIC_KEY_FILE"]), os.environ["RM_CALLBACK_URL"]
    store = webhooks.open_event_store(os.environ["DATABASE_URL"])  # the application's own
    router = webhooks.WebhookRouter(webhooks.CallbackVerifier(key, url=url), store=store)

    @router.on(VoucherStatus.VOID)
    async def keep(event: webhooks.VoucherEvent, tx: Transaction) -> None:
        # One commit writes this row and "done". Never log the code.
        row = {"event_id": event.id, "code": event.code, "used_at": event.voucher.used_at}
        await tx.execute(REDEMPTIONS.insert(), row)

    async def callbacks(app: web.Application) -> AsyncIterator[None]:
        engine = create_engine(os.environ["DATABASE_URL"])
        await asyncio.to_thread(REDEMPTIONS.metadata.create_all, engine)
        engine.dispose()
        async with VoucherClient.from_env() as client, router:
            app[POLLER] = webhooks.CallbackPoller(client, router)
            polling = asyncio.create_task(app[POLLER].run())
            yield
            polling.cancel()
            await asyncio.wait([polling])

    app = web.Application()
    app.cleanup_ctx.append(callbacks)
    app.add_routes(webhook_routes(router, "/callbacks/rm"))
    return app


if __name__ == "__main__":
    web.run_app(create_app())
