"""Issue a voucher for each message of a RabbitMQ queue, with FastStream and its `Depends`.

For a service that has consumers of its own; `rm-voucher worker` does this without code, and waits
longer after each failure. With the RM_… variables, BATCH_KEY, LEDGER_URL and BROKER_URL set:
``faststream run faststream_app:app``. Needs the extra ``worker``, and ``postgres`` or ``sql``.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from faststream import AckPolicy, ContextRepo, Depends, FastStream
from faststream.rabbit import Channel, RabbitBroker
from pydantic import BaseModel

from rm_voucher import VoucherClient
from rm_voucher.ledger import Ledger


class Order(BaseModel):
    id: int


class Vouchers:
    def __init__(self, client: VoucherClient, ledger: Ledger) -> None:
        self.client, self.ledger = client, ledger

    async def issue(self, request_id: str) -> str:
        voucher = await self.ledger.issue(self.client, os.environ["BATCH_KEY"], request_id)
        return voucher.qr_url or voucher.code


async def get_vouchers(context: ContextRepo) -> Vouchers:
    found: Vouchers = context.get("vouchers")
    return found


@asynccontextmanager
async def lifespan(context: ContextRepo) -> AsyncGenerator[None]:
    ledger = Ledger.open(os.environ["LEDGER_URL"], sweeps=True)  # settles what is unknown
    async with VoucherClient.from_env() as client, ledger:  # one of each for the process
        context.set_global("vouchers", Vouchers(client, ledger))
        yield


# A voucher that no queue takes is an error, and its order is given back; else it would be lost.
broker = RabbitBroker(os.environ["BROKER_URL"], default_channel=Channel(on_return_raises=True))
app = FastStream(broker, lifespan=lifespan)


# What fails is given back. It may come twice: the ledger gives the order the code that it has.
@broker.subscriber("orders", ack_policy=AckPolicy.NACK_ON_ERROR)
@broker.publisher("vouchers", persist=True)
async def issue(
    order: Order, vouchers: Annotated[Vouchers, Depends(get_vouchers, cast=False)]
) -> dict[str, int | str]:
    return {"order": order.id, "qr_url": await vouchers.issue(f"order {order.id}")}
