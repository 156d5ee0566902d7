"""A token in a shared store: what a lease adds to the contract of `test_token_stores`."""

from __future__ import annotations

import asyncio

import pytest
from simulation.clock import VirtualClock
from support.limited_server import in_virtual_time

from rm_voucher import ConfigurationError, Runtime, SharedTokenStore
from rm_voucher.exceptions import SharedStoreError
from rm_voucher.shared import Lease, MemorySharedStore, Snapshot


def runtime_of(clock: VirtualClock) -> Runtime:
    return Runtime(clock=clock.wall, monotonic=clock.monotonic, sleep=asyncio.sleep)


class Troubled(MemorySharedStore):
    """Loses the answers to swaps, or is away."""

    loses_answers = False
    is_away = False

    async def _load(self, key: str) -> Snapshot:
        if self.is_away:
            raise SharedStoreError("away")
        return await super()._load(key)

    async def _swap(self, key: str, version: int, content: bytes) -> Snapshot | None:
        swapped = await super()._swap(key, version, content)
        return None if self.loses_answers else swapped


def test_save_whose_answer_was_lost() -> None:
    """What is there is what was to be saved: it is saved."""

    async def main(clock: VirtualClock) -> None:
        documents = Troubled(runtime=runtime_of(clock))
        store = SharedTokenStore(documents, "account", runtime=runtime_of(clock))
        async with store.lock():
            await store.load()
            documents.loses_answers = True
            assert await store.save(b"token") is True
            documents.loses_answers = False
        assert await store.load() == b"token"

    in_virtual_time(main)


def test_renewal_that_another_does_not_end() -> None:
    """Who waits for it does so for `lock_wait_s`."""

    async def main(clock: VirtualClock) -> None:
        documents = MemorySharedStore(runtime=runtime_of(clock))
        one = SharedTokenStore(documents, "account", runtime=runtime_of(clock))
        other = SharedTokenStore(documents, "account", lock_wait_s=7, runtime=runtime_of(clock))
        async with one.lock():
            begun = clock.now
            with pytest.raises(TimeoutError, match="does not end"):
                async with other.lock():
                    pass
            assert clock.now - begun == pytest.approx(7, abs=0.3)

    in_virtual_time(main)


def test_store_that_goes_away_under_the_lease() -> None:
    """It can't be given back, and runs out by itself: the next one waits ten seconds at most."""

    async def main(clock: VirtualClock) -> None:
        documents = Troubled(runtime=runtime_of(clock))
        one = SharedTokenStore(documents, "account", runtime=runtime_of(clock))
        async with one.lock():
            documents.is_away = True
            await asyncio.sleep(5)
        documents.is_away = False
        begun = clock.now
        async with SharedTokenStore(documents, "account", runtime=runtime_of(clock)).lock():
            assert clock.now - begun <= 10

    in_virtual_time(main)


def test_accounts_are_apart() -> None:
    """Each has a token and a lease of its own, in one store."""

    async def main(clock: VirtualClock) -> None:
        documents = MemorySharedStore(runtime=runtime_of(clock))
        one, other = (
            SharedTokenStore(documents, name, runtime=runtime_of(clock)) for name in ("a", "b")
        )
        async with one.lock(), other.lock():
            await other.load()
            await other.save(b"b")
            assert await one.load() is None
        lease = Lease(documents, "b/token/renewal", duration_s=1, runtime=runtime_of(clock))
        assert await lease.acquire()

    in_virtual_time(main)


@pytest.mark.parametrize("lock_wait_s", [0, -1.0, float("inf")])
def test_wait_that_is_none(lock_wait_s: float) -> None:
    with pytest.raises(ConfigurationError, match="lock_wait_s"):
        SharedTokenStore(MemorySharedStore(), "account", lock_wait_s=lock_wait_s)
