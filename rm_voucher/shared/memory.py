"""A shared store in an object: for tests, and for several clients of one process."""

from __future__ import annotations

from rm_voucher.runtime import Runtime
from rm_voucher.shared.store import SharedStore, Snapshot


class MemorySharedStore(SharedStore):
    """Keeps documents as long as it lives. The clients of one process share a rate through it."""

    def __init__(self, *, runtime: Runtime | None = None) -> None:
        self._clock = (runtime or Runtime()).clock
        self._documents: dict[str, tuple[int, bytes]] = {}

    async def _load(self, key: str) -> Snapshot:
        version, content = self._documents.get(key, (0, None))
        return Snapshot(version=version, content=content, now=self._clock())

    async def _swap(self, key: str, version: int, content: bytes) -> Snapshot | None:
        found, _ = self._documents.get(key, (0, None))
        if found != version:
            return None
        self._documents[key] = version + 1, content
        return Snapshot(version=version + 1, content=content, now=self._clock())
