"""Issue a voucher for each message of a RabbitMQ queue: exactly one code for each request id.

With the RM_… variables and BATCH_KEY set: ``python worker.py``. A message is JSON, say
``{"request_id": "order 1", "member": "42"}``; its voucher goes to the queue ``vouchers``.

An id has exactly one code, because the ledger keeps both. Messages are delivered at least once: a
message that is published twice, or again after a crash, brings the same code again. A reader of
``vouchers`` must take a second message with the same id for the same voucher.

The order makes that hold. The request is durable in the ledger before anything is sent to the
voucher API, and the code before it is handed on. The message is acknowledged last, when the broker
has confirmed the voucher. After a crash in between, the broker delivers the message again, and the
ledger answers it. An earlier acknowledgement could lose a code that was issued.

A message that can't be served now (an unknown outcome, a throttle, a batch that is sold out) comes
back after RETRY_S; meanwhile the ledger settles unknown outcomes. A message that never can (not
JSON, an id used for another member) is parked for a person, and so is one that was delivered 20
times in vain.
"""

import asyncio
import json
import logging
import os

from faststream import AckPolicy, FastStream
from faststream.exceptions import RejectMessage
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitMessage, RabbitQueue
from faststream.rabbit.schemas.queue import QuorumQueueArgs

from rm_voucher import (
    IdempotencyConflictError,
    InvalidRequestError,
    VoucherClient,
    VoucherError,
)
from rm_voucher.ledger import Ledger

log = logging.getLogger("worker")
BATCH_KEY = os.environ["BATCH_KEY"]
RETRY_S = float(os.environ.get("RETRY_S", "60"))


def queue(name: str, dead_letters_to: str | None = None) -> RabbitQueue:
    prefix = os.environ.get("QUEUE_PREFIX", "")
    arguments: QuorumQueueArgs = {}
    if dead_letters_to is not None:
        arguments = {
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": prefix + dead_letters_to,
            "x-dead-letter-strategy": "at-least-once",  # by default a dead letter can be lost
            "x-overflow": "reject-publish",  # which that asks for
            "x-delivery-limit": 20,
        }
    return RabbitQueue(prefix + name, QueueType.QUORUM, durable=True, arguments=arguments)


REQUESTS, LATER = queue("requests", "requests.parked"), queue("requests.later", "requests")
PARKED, VOUCHERS = queue("requests.parked"), queue("vouchers")


async def as_sent(message: RabbitMessage) -> bytes:
    return message.body


async def settle(client: VoucherClient, ledger: Ledger) -> None:
    while True:
        try:
            counts = await ledger.finish(client, BATCH_KEY)
            log.info("%d assigned, %d held for a person", counts.assigned, counts.unresolved)
        except VoucherError as exc:
            log.error("the waiting requests are not finished: %s", exc)
        await asyncio.sleep(RETRY_S)


def create_broker(client: VoucherClient, ledger: Ledger) -> RabbitBroker:
    url = os.environ.get("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672/")
    # A message that no queue takes must be an error, or it would count as handed on.
    broker = RabbitBroker(url, default_channel=Channel(on_return_raises=True))

    @broker.subscriber(
        REQUESTS,
        channel=Channel(prefetch_count=64),  # so many are issued at once
        ack_policy=AckPolicy.NACK_ON_ERROR,
        decoder=as_sent,
    )
    async def issue(body: bytes) -> None:
        try:
            message = json.loads(body)
            request_id, member = message["request_id"], str(message["member"])
            voucher = await ledger.issue(client, BATCH_KEY, request_id, content=member)
        except (ValueError, LookupError, TypeError) as exc:
            log.error("parked, no request: %s", type(exc).__name__)
            raise RejectMessage from None
        except (IdempotencyConflictError, InvalidRequestError) as exc:
            log.error("parked: %s", exc)
            raise RejectMessage from None
        except VoucherError as exc:
            log.warning("%r comes back in %g s: %s", request_id, RETRY_S, exc)
            await broker.publish(body, LATER, persist=True, expiration=RETRY_S)
        else:
            handed_on = {"request_id": request_id, "code": voucher.code, "qr_url": voucher.qr_url}
            await broker.publish(handed_on, VOUCHERS, persist=True)  # never log the code

    return broker


async def main() -> None:
    logging.basicConfig(level=logging.INFO)  # the broker's libraries log bodies at DEBUG
    url = os.environ.get("RM_LEDGER_URL", "sqlite:///ledger.db")
    settle_s = float(os.environ.get("RM_LEDGER_SETTLE_S", "300"))
    async with (
        VoucherClient.from_env() as client,
        Ledger.open(url, mode="exclusive", settle_s=settle_s) as ledger,
        create_broker(client, ledger) as broker,
        asyncio.TaskGroup() as tasks,
    ):
        for each in (PARKED, VOUCHERS, LATER):
            await broker.declare_queue(each)
        settling = tasks.create_task(settle(client, ledger))
        await FastStream(broker).run()
        settling.cancel()


if __name__ == "__main__":
    asyncio.run(main())
