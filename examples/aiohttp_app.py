"""Issue a voucher to a member from an aiohttp server.

With the RM_… variables and BATCH_KEY set: ``python aiohttp_app.py``
"""

import logging
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from rm_voucher import (
    OutcomeUnknownError,
    OutOfStockError,
    RateLimitError,
    Timeout,
    VoucherClient,
    VoucherError,
)

log = logging.getLogger("aiohttp_app")

VOUCHERS = web.AppKey("VOUCHERS", VoucherClient)
BATCH_KEY = web.AppKey("BATCH_KEY", str)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def client_from_env() -> VoucherClient:
    # A person waits for the answer, so a call has a deadline.
    return VoucherClient.from_env(timeout=Timeout(connect_s=3, attempt_s=10, total_s=15))


async def issue(request: web.Request) -> web.Response:
    # The API knows no member and no idempotency key. Your database must see to it that a member
    # gets one voucher only, and keep which.
    voucher = await request.app[VOUCHERS].issue(request.app[BATCH_KEY])
    # Never its code: a reader could use it.
    log.info("member %s has a voucher", request.match_info["member_id"])
    return web.json_response(
        {"qr_url": voucher.qr_url or voucher.code},
        status=201,
        headers={"Cache-Control": "no-store"},
    )


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except OutcomeUnknownError as exc:
        # Not a 5xx: a proxy may repeat those, and a repeat may issue a second voucher.
        member_id = request.match_info["member_id"]
        log.error("member %s: %s; nonce %s, sent %s", member_id, exc, exc.nonce, exc.sent_at)
        return web.json_response({"status": "unknown", "reference": exc.attempt_id}, status=202)
    # After every other error of `issue` it is certain that there is no voucher.
    except OutOfStockError:
        return web.json_response({"detail": "no voucher is left"}, status=409)
    except RateLimitError as exc:
        wait_s = math.ceil(exc.retry_after_s or 5)
        return web.json_response(
            {"detail": "try again later"}, status=503, headers={"Retry-After": str(wait_s)}
        )
    except VoucherError as exc:
        log.error("member %s: %s", request.match_info["member_id"], exc)
        return web.json_response({"detail": "no voucher was issued"}, status=502)


def create_app(make_client: Callable[[], VoucherClient] = client_from_env) -> web.Application:
    async def vouchers(app: web.Application) -> AsyncIterator[None]:
        # One client for the process: it keeps connections, the token and the parsed key.
        app[BATCH_KEY] = os.environ["BATCH_KEY"]
        async with make_client() as app[VOUCHERS]:
            yield

    app = web.Application(middlewares=[answer_errors])
    app.cleanup_ctx.append(vouchers)
    app.router.add_post(r"/members/{member_id:\d+}/voucher", issue)
    return app


if __name__ == "__main__":
    web.run_app(create_app())
