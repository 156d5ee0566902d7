"""A shop: an order earns a voucher, and the order's page shows when it was used.

With the client's RM_… variables, BATCH_KEY, RM_CALLBACK_PUBLIC_KEY_FILE (RM's server key) and
RM_CALLBACK_URL (…/callbacks/rm) set: ``uvicorn --factory shop:create_app``
It keeps orders in memory. fastapi_app.py and callbacks_fastapi.py show what a real one does about
errors and restarts.
"""

import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path

from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from starlette.routing import Route

from rm_voucher import VoucherClient, VoucherStatus, webhooks
from rm_voucher.webhooks.asgi import WebhookApp

PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Kopi shop</title><link rel="icon" href="data:,"></head>
<body style="font: 18px system-ui; max-width: 30em; margin: 2em auto; padding: 0 1em">
<main><h1>Kopi shop</h1>{content}</main></body>
</html>"""
START = '<form method="post" action="/orders"><button>Order a breakfast</button></form>'
ORDER = """<p>Thank you for your order. It earned you a voucher:</p>
<p><a href="{url}" target="_blank">Open your voucher</a></p>
<p>Your voucher: <b id="status" role="status">{status}</b></p>
<script>setInterval(async () => {{
  const status = await (await fetch(location.pathname + "/status")).text();
  const shown = document.getElementById("status");
  if (shown.textContent !== status) shown.textContent = status;
}}, 500)</script>"""
WORDS = {
    VoucherStatus.ISSUED: "not used yet",
    VoucherStatus.REDEEMED: "in your rewards",
    VoucherStatus.VOID: "used",
}


@dataclass
class Order:
    """An order; its number is a secret, for its page shows the voucher."""

    number: str
    code: str
    qr_url: str
    status: VoucherStatus = VoucherStatus.ISSUED

    @property
    def words(self) -> str:
        return WORDS.get(self.status, self.status)


def create_app() -> FastAPI:
    key, url = Path(os.environ["RM_CALLBACK_PUBLIC_KEY_FILE"]), os.environ["RM_CALLBACK_URL"]
    verifier = webhooks.CallbackVerifier(key, url=url)
    router = webhooks.WebhookRouter(verifier, store=webhooks.MemoryEventStore())
    orders: dict[str, Order] = {}

    @router.on()
    async def changed(event: webhooks.VoucherEvent) -> None:
        for order in orders.values():
            if order.code == event.code and event.voucher.status is not None:
                order.status = event.voucher.status

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        async with VoucherClient.from_env() as app.state.vouchers, router:
            yield

    app = FastAPI(lifespan=lifespan, redirect_slashes=False)
    app.router.routes.append(Route("/callbacks/rm", WebhookApp(router)))

    @app.get("/")
    async def start() -> HTMLResponse:
        return HTMLResponse(PAGE.format(content=START))

    @app.post("/orders")
    async def place() -> RedirectResponse:
        voucher = await app.state.vouchers.issue(os.environ["BATCH_KEY"])
        order = Order(secrets.token_urlsafe(), voucher.code, voucher.qr_url or voucher.code)
        orders[order.number] = order
        return RedirectResponse(f"/orders/{order.number}", status_code=303)

    def find(number: str) -> Order:
        if number not in orders:
            raise HTTPException(404)
        return orders[number]

    @app.get("/orders/{number}")
    async def show(number: str) -> HTMLResponse:
        order = find(number)
        content = ORDER.format(url=escape(order.qr_url), status=escape(order.words))
        return HTMLResponse(PAGE.format(content=content), headers={"Cache-Control": "no-store"})

    @app.get("/orders/{number}/status")
    async def status(number: str) -> PlainTextResponse:
        return PlainTextResponse(find(number).words, headers={"Cache-Control": "no-store"})

    return app
