"""A shared store in Redis that a parent used before a fork."""

import os

import pytest

from rm_voucher.shared.redis import RedisSharedStore


async def test_child_closes_no_connection_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the parent's own, which goes on with them."""
    store = RedisSharedStore("redis://127.0.0.1:1/0")
    closed: list[bool] = []

    async def close() -> None:
        closed.append(True)

    monkeypatch.setattr(store._redis, "aclose", close)
    store._process = os.getpid() + 1
    await store.aclose()
    assert closed == []
    store._process = os.getpid()
    await store.aclose()
    assert closed == [True]
