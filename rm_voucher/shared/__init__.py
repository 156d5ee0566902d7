"""Small documents that processes share: kept by compare-and-swap, on the store's clock.

A pace, a token or a lease is one document. `open_shared_store` gives the store that its URL names.
"""

from rm_voucher.shared.lease import Lease
from rm_voucher.shared.memory import MemorySharedStore
from rm_voucher.shared.open import open_shared_store
from rm_voucher.shared.store import SharedStore, Snapshot

__all__ = ["Lease", "MemorySharedStore", "SharedStore", "Snapshot", "open_shared_store"]
