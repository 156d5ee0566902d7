"""Hand vouchers on from a database of one's own: a row for each, and the message that tells of it.

With the RM_… variables, RM_WORKER_BROKER, RM_WORKER_LEDGER and BATCH_KEY set, and a table
``orders (id TEXT PRIMARY KEY, member TEXT, code TEXT)`` in the database: ``python worker.py``.

A message is JSON, ``{"request_id": "order 1", "content": {"member": "42"}}``. Its voucher becomes a
row of the shop's own table, and a message in the queue ``vouchers``. The two commit together, and
once for each id: see the outbox. Where a message is all that is needed, ``rm-voucher worker`` does
it without a program.
"""

import asyncio
import logging
import os
import signal

from sqlalchemy import text

from rm_voucher import IssuedVoucher, VoucherClient
from rm_voucher.ledger import Ledger
from rm_voucher.worker import Outbox, QueueNames, Worker, WorkerSettings, open_broker
from rm_voucher.worker.messages import VoucherRequest, voucher_message

log = logging.getLogger("worker")
INSERT = text("INSERT INTO orders (id, member, code) VALUES (:id, :member, :code)")


async def main() -> None:
    logging.basicConfig(level=logging.INFO)  # the broker's libraries log bodies at DEBUG
    url = os.environ["RM_WORKER_LEDGER"]  # the shop's own database: the ledger lives in it, too
    # Only whoever knows that nothing else issues from the batch may say so.
    is_exclusive = os.environ.get("RM_LEDGER_EXCLUSIVE") == "yes"
    settle_s = float(os.environ.get("RM_LEDGER_SETTLE_S", "300"))
    settings = WorkerSettings(first_delay_s=float(os.environ.get("FIRST_DELAY_S", "5")))
    names = QueueNames(
        requests=os.environ.get("RM_WORKER_REQUESTS", "requests"),
        vouchers=os.environ.get("RM_WORKER_VOUCHERS", "vouchers"),
    )
    broker = open_broker(os.environ["RM_WORKER_BROKER"], names=names, settings=settings)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)

    async with Outbox(url) as outbox:

        async def hand_on(request: VoucherRequest, voucher: IssuedVoucher) -> None:
            async with outbox.once(request.id, voucher_message(request, voucher)) as tx:
                if tx is not None:
                    order = {"id": request.id, "member": request.content["member"]}
                    await tx.execute(INSERT, {**order, "code": voucher.code})

        async with (
            VoucherClient.from_env() as client,
            Ledger.open(
                url,
                mode="exclusive" if is_exclusive else "shared",
                settle_s=settle_s,
                sweeps=True,
            ) as ledger,
        ):
            worker = Worker(
                client, ledger, os.environ["BATCH_KEY"], settings=settings, hand_on=hand_on
            )
            async with worker.working(broker), asyncio.TaskGroup() as tasks:
                relaying = tasks.create_task(outbox.run(broker.hand_on))
                log.info("Working on %s", names.requests)
                await stopping.wait()
                relaying.cancel()


if __name__ == "__main__":
    asyncio.run(main())
