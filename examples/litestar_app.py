"""Issue a voucher to a member from Litestar.

With the RM_… variables and BATCH_KEY set: ``uvicorn --factory litestar_app:create_app``
"""

import logging
import math
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Annotated

from litestar import Litestar, Request, Response, post
from litestar.datastructures import CacheControlHeader, State
from litestar.params import Parameter

from rm_voucher import (
    OutcomeUnknownError,
    OutOfStockError,
    RateLimitError,
    Timeout,
    VoucherClient,
    VoucherError,
)

log = logging.getLogger("litestar_app")

# Litestar's {…:int} also takes "%0A42", which would forge a line of the log.
Member = Annotated[str, Parameter(pattern=r"\A[0-9]+\Z")]


def client_from_env() -> VoucherClient:
    # A person waits for the answer, so a call has a deadline.
    return VoucherClient.from_env(timeout=Timeout(connect_s=3, attempt_s=10, total_s=15))


@post("/members/{member_id:str}/voucher", cache_control=CacheControlHeader(no_store=True))
async def issue(member_id: Member, state: State) -> dict[str, str]:
    # The API knows no member and no idempotency key. Your database must see to it that a member
    # gets one voucher only, and keep which.
    client: VoucherClient = state.vouchers
    voucher = await client.issue(state.batch_key)
    log.info("member %s has a voucher", member_id)  # never its code: a reader could use it
    return {
        "qr_url": voucher.qr_url or voucher.code
    }  # never the voucher itself: Litestar would write its code


def answer_error(
    request: Request[object, object, State], exc: VoucherError
) -> Response[dict[str, str | None]]:
    member_id = request.path_params["member_id"]
    match exc:
        case OutcomeUnknownError():
            # Not a 5xx: a proxy may repeat those, and a repeat may issue a second voucher.
            log.error("member %s: %s; nonce %s, sent %s", member_id, exc, exc.nonce, exc.sent_at)
            return Response({"status": "unknown", "reference": exc.attempt_id}, status_code=202)
        # After every other error of `issue` it is certain that there is no voucher.
        case OutOfStockError():
            return Response({"detail": "no voucher is left"}, status_code=409)
        case RateLimitError():
            wait_s = math.ceil(exc.retry_after_s or 5)
            return Response(
                {"detail": "try again later"}, status_code=503, headers={"Retry-After": str(wait_s)}
            )
        case _:
            log.error("member %s: %s", member_id, exc)
            return Response({"detail": "no voucher was issued"}, status_code=502)


def create_app(make_client: Callable[[], VoucherClient] = client_from_env) -> Litestar:
    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncGenerator[None]:
        # One client for the process: it keeps connections, the token and the parsed key.
        app.state.batch_key = os.environ["BATCH_KEY"]
        async with make_client() as app.state.vouchers:
            yield

    return Litestar(
        [issue],
        lifespan=[lifespan],
        exception_handlers={VoucherError: answer_error},
        logging_config=None,  # logging stays as the process has it
    )
