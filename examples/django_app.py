"""Issue a voucher to a member from Django, under ASGI and under WSGI.

A client keeps its connections on an event loop. Under ASGI, `asgi` opens it on the server's, which
lives as long as the process. Under WSGI there is none, and `async_to_sync` makes one for each call,
which would connect anew: so `VOUCHERS` keeps one in a thread (background.py).

With the RM_… variables, BATCH_KEY and DJANGO_SECRET_KEY set: ``uvicorn django_app:asgi`` or
``gunicorn --threads 8 django_app:wsgi``. In a project, settings, urls and views have their files.
"""

import asyncio
import atexit
import logging
import math
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from asgiref.sync import async_to_sync
from background import Background
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIRequest
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from rm_voucher import (
    OutcomeUnknownError,
    OutOfStockError,
    RateLimitError,
    Timeout,
    VoucherClient,
    VoucherError,
)

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

log = logging.getLogger("django_app")
RUNNING: set[asyncio.Task[JsonResponse]] = set()

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        SECRET_KEY=os.environ["DJANGO_SECRET_KEY"],
        LOGGING_CONFIG=None,
    )


def client_from_env() -> VoucherClient:
    # A person waits for the answer, so a call has a deadline.
    return VoucherClient.from_env(timeout=Timeout(connect_s=3, attempt_s=10, total_s=15))


def issued(qr_url: str, member_id: int) -> JsonResponse:
    log.info("member %d has a voucher", member_id)  # never its code: a reader could use it
    return JsonResponse({"qr_url": qr_url}, status=201, headers={"Cache-Control": "no-store"})


def not_issued(exc: VoucherError, member_id: int) -> JsonResponse:
    match exc:
        case OutcomeUnknownError():
            # Not a 5xx: a proxy may repeat those, and a repeat may issue a second voucher.
            log.error("member %d: %s; nonce %s, sent %s", member_id, exc, exc.nonce, exc.sent_at)
            return JsonResponse({"status": "unknown", "reference": exc.attempt_id}, status=202)
        # After every other error of `issue` it is certain that there is no voucher.
        case OutOfStockError():
            return JsonResponse({"detail": "no voucher is left"}, status=409)
        case RateLimitError():
            wait_s = math.ceil(exc.retry_after_s or 5)
            return JsonResponse(
                {"detail": "try again later"}, status=503, headers={"Retry-After": str(wait_s)}
            )
        case _:
            log.error("member %d: %s", member_id, exc)
            return JsonResponse({"detail": "no voucher was issued"}, status=502)


# The API knows no member and no idempotency key. Your database must see to it that a member gets
# one voucher only, and keep which.


@csrf_exempt  # in a project: whoever calls it is authenticated
@require_POST
async def issue(request: ASGIRequest, member_id: int) -> JsonResponse:
    """Under ASGI."""
    # Django cancels a view whose browser goes away. A call that was sent must come to its end.
    task = asyncio.create_task(issue_to(request.scope["vouchers"], member_id))
    RUNNING.add(task)
    task.add_done_callback(RUNNING.discard)
    return await asyncio.shield(task)


async def issue_to(client: VoucherClient, member_id: int) -> JsonResponse:
    try:
        voucher = await client.issue(os.environ["BATCH_KEY"])
    except VoucherError as exc:
        return not_issued(exc, member_id)
    return issued(voucher.qr_url or voucher.code, member_id)


@csrf_exempt
@require_POST
def issue_sync_asgi(request: ASGIRequest, member_id: int) -> JsonResponse:
    """Under ASGI, a view that is not async: Django runs it in a thread beside the server's loop."""
    client: VoucherClient = request.scope["vouchers"]
    try:
        voucher = async_to_sync(client.issue)(os.environ["BATCH_KEY"])  # runs on that loop
    except VoucherError as exc:
        return not_issued(exc, member_id)
    return issued(voucher.qr_url or voucher.code, member_id)


@csrf_exempt
@require_POST
def issue_wsgi(request: HttpRequest, member_id: int) -> JsonResponse:
    """Under WSGI."""
    try:
        voucher = VOUCHERS.run(lambda client: client.issue(os.environ["BATCH_KEY"]))
    except VoucherError as exc:
        return not_issued(exc, member_id)
    return issued(voucher.qr_url or voucher.code, member_id)


urlpatterns = [
    path("members/<int:member_id>/voucher", issue),
    path("sync/members/<int:member_id>/voucher", issue_sync_asgi),
    path("wsgi/members/<int:member_id>/voucher", issue_wsgi),
]

VOUCHERS = Background(client_from_env)
atexit.register(VOUCHERS.close)


def create_app(make_client: Callable[[], VoucherClient] = client_from_env) -> App:
    """Return Django's ASGI application with a lifespan, which Django's own has not."""
    django: App = get_asgi_application()
    client: VoucherClient | None = None

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        nonlocal client
        if scope["type"] != "lifespan":
            await django({**scope, "vouchers": client}, receive, send)
            return
        await receive()
        # One client for the process: it keeps connections, the token and the parsed key.
        async with make_client() as client:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    return app


asgi = create_app()
wsgi = get_wsgi_application()
