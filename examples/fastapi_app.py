"""Issue a voucher to a member from FastAPI.

With the RM_… variables and BATCH_KEY set: ``uvicorn --factory fastapi_app:create_app``
"""

import logging
import math
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from rm_voucher import (
    OutcomeUnknownError,
    OutOfStockError,
    RateLimitError,
    Timeout,
    VoucherClient,
    VoucherError,
)

log = logging.getLogger("fastapi_app")


def client_from_env() -> VoucherClient:
    # A person waits for the answer, so a call has a deadline.
    return VoucherClient.from_env(timeout=Timeout(connect_s=3, attempt_s=10, total_s=15))


def create_app(make_client: Callable[[], VoucherClient] = client_from_env) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        # One client for the process: it keeps connections, the token and the parsed key.
        app.state.batch_key = os.environ["BATCH_KEY"]
        async with make_client() as app.state.vouchers:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/members/{member_id:int}/voucher", status_code=201)
    async def issue(member_id: int, request: Request) -> JSONResponse:
        # The API knows no member and no idempotency key. Your database must see to it that a member
        # gets one voucher only, and keep which.
        state = request.app.state
        voucher = await state.vouchers.issue(state.batch_key)
        log.info("member %d has a voucher", member_id)  # never its code: a reader could use it
        return JSONResponse(
            {"qr_url": voucher.qr_url or voucher.code},
            status_code=201,
            headers={"Cache-Control": "no-store"},
        )

    @app.exception_handler(OutcomeUnknownError)
    async def outcome_unknown(request: Request, exc: OutcomeUnknownError) -> JSONResponse:
        # Not a 5xx: a proxy may repeat those, and a repeat may issue a second voucher.
        member_id = request.path_params["member_id"]
        log.error("member %d: %s; nonce %s, sent %s", member_id, exc, exc.nonce, exc.sent_at)
        return JSONResponse({"status": "unknown", "reference": exc.attempt_id}, status_code=202)

    # After every other error of `issue` it is certain that there is no voucher.

    @app.exception_handler(OutOfStockError)
    async def out_of_stock(request: Request, exc: OutOfStockError) -> JSONResponse:
        return JSONResponse({"detail": "no voucher is left"}, status_code=409)

    @app.exception_handler(RateLimitError)
    async def rate_limited(request: Request, exc: RateLimitError) -> JSONResponse:
        wait_s = math.ceil(exc.retry_after_s or 5)
        return JSONResponse(
            {"detail": "try again later"}, status_code=503, headers={"Retry-After": str(wait_s)}
        )

    @app.exception_handler(VoucherError)
    async def failed(request: Request, exc: VoucherError) -> JSONResponse:
        log.error("member %d: %s", request.path_params["member_id"], exc)
        return JSONResponse({"detail": "no voucher was issued"}, status_code=502)

    return app
