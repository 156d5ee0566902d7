"""Callbacks: verified, acted on once, and found again when they never came (RM's page "Voucher").

`CallbackVerifier` says whether a delivery is RM's, `WebhookRouter` hands its event to a handler
once, `CallbackPoller` finds what was not delivered. The adapters are imported by name:
`rm_voucher.webhooks.aiohttp` and `rm_voucher.webhooks.asgi`.
"""

from rm_voucher.webhooks.events import VoucherEvent
from rm_voucher.webhooks.memory import MemoryEventStore
from rm_voucher.webhooks.poller import CallbackPoller
from rm_voucher.webhooks.router import Outcome, WebhookRouter
from rm_voucher.webhooks.store import EventCounts, EventState, EventStore
from rm_voucher.webhooks.verify import CallbackStep, CallbackVerifier

__all__ = [
    "CallbackPoller",
    "CallbackStep",
    "CallbackVerifier",
    "EventCounts",
    "EventState",
    "EventStore",
    "MemoryEventStore",
    "Outcome",
    "VoucherEvent",
    "WebhookRouter",
]
