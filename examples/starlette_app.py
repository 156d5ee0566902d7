"""Issue a voucher to a member from Starlette.

With the RM_… variables and BATCH_KEY set: ``uvicorn --factory starlette_app:create_app``
"""

import logging
import math
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TypedDict

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from rm_voucher import (
    OutcomeUnknownError,
    OutOfStockError,
    RateLimitError,
    Timeout,
    VoucherClient,
    VoucherError,
)

log = logging.getLogger("starlette_app")


class State(TypedDict):
    vouchers: VoucherClient
    batch_key: str


def client_from_env() -> VoucherClient:
    # A person waits for the answer, so a call has a deadline.
    return VoucherClient.from_env(timeout=Timeout(connect_s=3, attempt_s=10, total_s=15))


async def issue(request: Request) -> JSONResponse:
    # The API knows no member and no idempotency key. Your database must see to it that a member
    # gets one voucher only, and keep which.
    client: VoucherClient = request.state.vouchers
    voucher = await client.issue(request.state.batch_key)
    log.info("member %d has a voucher", request.path_params["member_id"])  # never its code
    return JSONResponse(
        {"qr_url": voucher.qr_url or voucher.code},
        status_code=201,
        headers={"Cache-Control": "no-store"},
    )


async def answer_error(request: Request, exc: Exception) -> JSONResponse:
    member_id = request.path_params["member_id"]
    match exc:
        case OutcomeUnknownError():
            # Not a 5xx: a proxy may repeat those, and a repeat may issue a second voucher.
            log.error("member %d: %s; nonce %s, sent %s", member_id, exc, exc.nonce, exc.sent_at)
            return JSONResponse({"status": "unknown", "reference": exc.attempt_id}, status_code=202)
        # After every other error of `issue` it is certain that there is no voucher.
        case OutOfStockError():
            return JSONResponse({"detail": "no voucher is left"}, status_code=409)
        case RateLimitError():
            wait_s = math.ceil(exc.retry_after_s or 5)
            return JSONResponse(
                {"detail": "try again later"}, status_code=503, headers={"Retry-After": str(wait_s)}
            )
        case _:
            log.error("member %d: %s", member_id, exc)
            return JSONResponse({"detail": "no voucher was issued"}, status_code=502)


def create_app(make_client: Callable[[], VoucherClient] = client_from_env) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[State]:
        # One client for the process: it keeps connections, the token and the parsed key.
        async with make_client() as client:
            yield {"vouchers": client, "batch_key": os.environ["BATCH_KEY"]}

    return Starlette(
        routes=[Route("/members/{member_id:int}/voucher", issue, methods=["POST"])],
        exception_handlers={VoucherError: answer_error},
        lifespan=lifespan,
    )
