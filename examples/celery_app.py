"""Issue a voucher for each order in a Celery worker: exactly one, however often the task runs.

A worker's process has no event loop, so background.py keeps one in a thread. The order is the id of
the ledger's request: what repeats the task (a retry, a broker that delivers it again, a producer
that sends it twice) gets the code that the order has.

With the RM_… variables, BATCH_KEY, CELERY_BROKER_URL and LEDGER_URL (postgresql://…, or sqlite:///…
for one process) set: ``celery -A celery_app worker``. Needs the extra ``postgres`` or ``sql``.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from background import Background
from celery import Celery, Task
from celery.signals import worker_process_shutdown, worker_shutdown

from rm_voucher import (
    LedgerError,
    OutcomeUnknownError,
    RateLimitError,
    ServerError,
    TransportError,
    VoucherClient,
)
from rm_voucher.ledger import Ledger

LATER = (LedgerError, OutcomeUnknownError, RateLimitError, ServerError, TransportError)

app = Celery("celery_app", broker=os.environ["CELERY_BROKER_URL"])
app.conf.task_acks_late = True  # or a task would be lost with its worker
app.conf.task_reject_on_worker_lost = True
app.conf.broker_connection_retry_on_startup = True


class Ours(NamedTuple):
    client: VoucherClient
    ledger: Ledger


@asynccontextmanager
async def opened() -> AsyncGenerator[Ours]:
    ledger = Ledger.open(os.environ["LEDGER_URL"], sweeps=True)  # settles what is unknown
    async with VoucherClient.from_env() as client, ledger:
        yield Ours(client, ledger)


VOUCHERS = Background(opened)  # opened by the first task of each process


@worker_process_shutdown.connect  # of a process that was forked
@worker_shutdown.connect  # of a worker that is one process
def close(**_: Any) -> None:
    VOUCHERS.close()


@app.task(bind=True, ignore_result=True, max_retries=None)  # a result would keep the code
def issue(self: Task[[int], None], order_id: int) -> None:
    try:
        voucher = VOUCHERS.run(
            lambda ours: ours.ledger.issue(
                ours.client, os.environ["BATCH_KEY"], f"order {order_id}"
            )
        )
    except LATER as exc:  # the same id again, so it is safe, also after an unknown outcome
        raise self.retry(exc=exc, countdown=60) from None
    try:
        hand_on(order_id, voucher.qr_url or voucher.code)
    except Exception as exc:  # noqa: BLE001 - the task that ends with an error is not run again
        raise self.retry(exc=exc, countdown=60) from None


def hand_on(order_id: int, qr_url: str) -> None:
    """Write it beside the order, say. It may come again, with the same voucher."""
