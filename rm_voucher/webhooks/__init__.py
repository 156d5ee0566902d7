"""Callbacks: verified, acted on once, and found again when they never came (RM's page "Voucher").

`CallbackVerifier` says whether a delivery is RM's, `WebhookRouter` hands its event to a handler
once, `CallbackPoller` finds what was not delivered. The adapters are imported by name:
`rm_voucher.webhooks.aiohttp` and `rm_voucher.webhooks.asgi`.
"""

from rm_voucher.webhooks.events import VoucherEvent
from rm_voucher.webhooks.memory import MemoryEventStore
from rm_voucher.webhooks.open import open_event_store
from rm_voucher.webhooks.poller import CallbackPoller
from rm_voucher.webhooks.records import EventCounts, EventState
from rm_voucher.webhooks.router import EventOutcome, WebhookRouter
from rm_voucher.webhooks.store import EventStore
from rm_voucher.webhooks.verify import CallbackStep, CallbackVerifier

__all__ = [
    "CallbackPoller",
    "CallbackStep",
    "CallbackVerifier",
    "EventCounts",
    "EventOutcome",
    "EventState",
    "EventStore",
    "MemoryEventStore",
    "VoucherEvent",
    "WebhookRouter",
    "open_event_store",
]
