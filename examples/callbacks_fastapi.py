"""Take callbacks in FastAPI, and keep each voucher's redemption exactly once.

With the client's RM_… variables, RM_CALLBACK_PUBLIC_KEY_FILE (RM's server key), RM_CALLBACK_URL (as
entered at RM: …/callbacks/rm) and DATABASE_URL (sqlite:///app.db or postgresql+psycopg://…) set:
``uvicorn --factory callbacks_fastapi:create_app``
Needs fastapi, uvicorn and the extra ``sql`` or ``postgres``.
"""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from sqlalchemy import Column, DateTime, MetaData, Table, Text, create_engine
from starlette.routing import Route

from rm_voucher import VoucherClient, VoucherStatus, webhooks
from rm_voucher.database import Transaction
from rm_voucher.webhooks.asgi import WebhookApp

REDEMPTIONS = Table(
    "redemptions",
    MetaData(),
    Column("event_id", Text, primary_key=True),
    Column("code", Text, nullable=False),
    Column("used_at", DateTime(timezone=True)),
)


def create_app() -> FastAPI:
    key, url = Path(os.environ["RM_CALLBACK_PUBLIC_KEY_FILE"]), os.environ["RM_CALLBACK_URL"]
    store = webhooks.open_event_store(os.environ["DATABASE_URL"])  # the application's own
    router = webhooks.WebhookRouter(webhooks.CallbackVerifier(key, url=url), store=store)

    @router.on(VoucherStatus.VOID)
    async def keep(event: webhooks.VoucherEvent, tx: Transaction) -> None:
        # One commit writes this row and "done". Never log the code.
        row = {"event_id": event.id, "code": event.code, "used_at": event.voucher.used_at}
        await tx.execute(REDEMPTIONS.insert(), row)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        engine = create_engine(os.environ["DATABASE_URL"])
        await asyncio.to_thread(REDEMPTIONS.metadata.create_all, engine)
        engine.dispose()
        async with VoucherClient.from_env() as client, router:
            # After an issue, await poller.expect(code): a lost callback is found then.
            app.state.poller = webhooks.CallbackPoller(client, router)
            polling = asyncio.create_task(app.state.poller.run())
            yield
            polling.cancel()
            await asyncio.wait([polling])

    app = FastAPI(lifespan=lifespan, redirect_slashes=False)  # a redirect would lose a callback
    app.router.routes.append(Route("/callbacks/rm", WebhookApp(router)))
    return app
