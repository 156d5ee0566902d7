"""Keeps the access token in a `SharedStore`: one renewal at a time, on whatever machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from rm_voucher.exceptions import SharedStoreError
from rm_voucher.runtime import Runtime
from rm_voucher.settings import check_positive
from rm_voucher.shared.lease import Lease
from rm_voucher.shared.store import SharedStore

_LEASE_S = 10.0
_POLL_S = 0.2


class SharedTokenStore:
    """A `TokenStore` for processes on several machines; `VoucherClient(shared=…)` makes one.

    Who renews has a lease, and prolongs it meanwhile. A process that dies leaves it to the next in
    ten seconds. One that was stopped finds that out before it buys; if it had bought already, and
    another one has saved a token since, it takes that one and saves nothing.

    Args:
        store: where the token is kept, as it is: who can read it can use the token. It is not
            closed.
        account: whose token it is: `VoucherClient.account`.
        lock_wait_s: how long another process's renewal is waited for; then the client goes on with
            a token of its own.
        runtime: the clock that counts down the lease, and how it waits.

    It belongs to one event loop.
    """

    def __init__(
        self,
        store: SharedStore,
        account: str,
        *,
        lock_wait_s: float = 60.0,
        runtime: Runtime | None = None,
    ) -> None:
        check_positive("lock_wait_s", lock_wait_s)
        self._store = store
        self._key = f"{account}/token"
        self._lock_wait_s = lock_wait_s
        self._runtime = runtime or Runtime()
        self._mutex = asyncio.Lock()  # the clients of this process
        self._lease: Lease | None = None
        self._version = 0  # of the document that was loaded under the lease

    @contextlib.asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        """Hold the lease. Raises `TimeoutError`, and `SharedStoreError`."""
        async with self._mutex:
            lease = self._lease = Lease(
                self._store,
                f"{self._key}/renewal",
                duration_s=_LEASE_S,
                runtime=self._runtime,
            )
            await self._acquire(lease)
            prolonging = asyncio.create_task(self._prolong(lease), name="rm-voucher token lease")
            try:
                yield
            finally:
                prolonging.cancel()
                await asyncio.wait([prolonging])
                self._lease = None
                with contextlib.suppress(SharedStoreError):  # then it runs out by itself
                    await lease.release()

    async def load(self) -> bytes | None:
        """Return what was saved last. The lease is held then, however long the store took."""
        while True:
            found = await self._store.load(self._key)
            if self._lease is None or self._lease.is_held:
                self._version = found.version
                return found.content
            await self._acquire(self._lease)

    async def save(self, token: bytes) -> bool:
        """Keep the token, unless another process has saved one since `load`; then return False."""
        if await self._store.swap(self._key, self._version, token) is not None:
            return True
        # It may be this very one, whose swap was tried again because its answer was lost.
        return (await self._store.load(self._key)).content == token

    async def _acquire(self, lease: Lease) -> None:
        until = self._runtime.monotonic() + self._lock_wait_s
        while not await lease.acquire():
            if self._runtime.monotonic() >= until:
                raise TimeoutError("another process renews the token, and does not end")
            await self._runtime.sleep(_POLL_S)  # a store does not tell when a lease is free

    async def _prolong(self, lease: Lease) -> None:
        is_held = True
        while is_held:
            await self._runtime.sleep(_LEASE_S / 3)  # so that two renewals may fail
            with contextlib.suppress(SharedStoreError):
                is_held = await lease.renew()
