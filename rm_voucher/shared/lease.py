"""A lease: what one process at a time has, until it gives it back or its time is over."""

from __future__ import annotations

import secrets

import attrs
import orjson

from rm_voucher.runtime import Runtime
from rm_voucher.settings import check_positive
from rm_voucher.shared.store import SharedStore, Snapshot


@attrs.frozen(kw_only=True)
class _Held:
    """The document of a lease. Its times are the store's."""

    holder: str = ""
    until: float = 0.0
    fence: int = 0

    @classmethod
    def of(cls, found: Snapshot) -> _Held:
        """Return what a document says. One that says nothing is nobody's lease."""
        try:
            match orjson.loads(found.content or b"null"):
                case {
                    "holder": str() as holder,
                    "until": int() | float() as until,
                    "fence": int() as fence,
                }:
                    return cls(holder=holder, until=until, fence=fence)
        except orjson.JSONDecodeError:
            pass
        return cls(fence=found.version)  # no fence so far was higher


class Lease:
    """Held by one of several processes at a time, for ``duration_s`` or until it is renewed.

    A process that was stopped may think that it still has it: ask `is_held` before each step, and
    give `fence` to what keeps the result, so that it can refuse one that has a lower number.

    Args:
        store: where all processes look.
        key: the document's; the same in each process.
        duration_s: after so many seconds without a renewal another may have it.
        holder: the name of this one, for people who look; it is made unique.
        runtime: the clock that counts down here.

    Every method raises `SharedStoreError`, may be repeated, and may be cancelled.
    """

    def __init__(
        self,
        store: SharedStore,
        key: str,
        *,
        duration_s: float,
        holder: str = "",
        runtime: Runtime | None = None,
    ) -> None:
        check_positive("duration_s", duration_s)
        self._store = store
        self._key = key
        self._duration_s = duration_s
        self._name = f"{holder}-{secrets.token_hex(8)}".lstrip("-")
        self._monotonic = (runtime or Runtime()).monotonic
        self._held_until = float("-inf")
        self.fence: int = 0
        """The number of this holding; each later holder has a higher one. 0: it never had it."""

    @property
    def is_held(self) -> bool:
        """Whether this one has it, as far as its own clock tells."""
        return self._monotonic() < self._held_until

    async def acquire(self) -> bool:
        """Take it if it is free, renew it if it is held; return whether this one has it."""
        return await self._take(may_be_free=True)

    async def renew(self) -> bool:
        """Prolong it; return whether this one still had it."""
        return await self._take(may_be_free=False)

    async def release(self) -> None:
        """Give it back, if this one has it."""
        self._held_until = float("-inf")

        def give_back(found: Snapshot) -> bytes | None:
            held = _Held.of(found)
            if held.holder != self._name:
                return None
            return orjson.dumps(attrs.asdict(attrs.evolve(held, holder="", until=found.now)))

        await self._store.update(self._key, give_back)

    async def _take(self, *, may_be_free: bool) -> bool:
        asked_at = self._monotonic()

        def take(found: Snapshot) -> bytes | None:
            held = _Held.of(found)
            is_mine = held.holder == self._name
            if not is_mine and not (may_be_free and held.until <= found.now):
                return None
            until = found.now + self._duration_s
            # One that ran out and is still mine was nobody else's meanwhile.
            fence = held.fence if is_mine else held.fence + 1
            return orjson.dumps(attrs.asdict(_Held(holder=self._name, until=until, fence=fence)))

        held = _Held.of(await self._store.update(self._key, take))
        if held.holder != self._name:
            self._held_until = float("-inf")
            return False
        self.fence = held.fence
        # Counted from before the request, so that it ends here first.
        self._held_until = asked_at + self._duration_s
        return True
