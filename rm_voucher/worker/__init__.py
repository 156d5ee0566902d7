"""A worker for a queue: messages that ask for vouchers in, vouchers out. See `Worker`."""

from rm_voucher.extras import extra
from rm_voucher.worker.broker import Broker, Handler, QueueNames
from rm_voucher.worker.dispositions import Delivery, HandOn, Later, Leave, Park
from rm_voucher.worker.memory import MemoryBroker
from rm_voucher.worker.open import open_broker
from rm_voucher.worker.settings import WorkerSettings, prefetch_for
from rm_voucher.worker.worker import Worker

with extra("worker", __name__):
    from rm_voucher.worker.outbox import Outbox

__all__ = [
    "Broker",
    "Delivery",
    "HandOn",
    "Handler",
    "Later",
    "Leave",
    "MemoryBroker",
    "Outbox",
    "Park",
    "QueueNames",
    "Worker",
    "WorkerSettings",
    "open_broker",
    "prefetch_for",
]
