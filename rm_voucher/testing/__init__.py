"""For tests of your own code: an emulator, a client that never waits, callbacks, requests.

With pytest nothing is to be imported: `rm_voucher.testing.plugin` has the fixtures. With unittest,
with anyio's plugin, or without any, there is `emulated`.
"""

from rm_voucher.testing.emulated import Emulated, emulated
from rm_voucher.testing.receiver import CallbackReceiver
from rm_voucher.testing.requests import RecordedRequest, RecordedRequests

__all__ = ["CallbackReceiver", "Emulated", "RecordedRequest", "RecordedRequests", "emulated"]
