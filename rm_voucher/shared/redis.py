"""A shared store in Redis. Needs the extra ``redis``.

What Redis loses, by a failover or without persistence, is gone: a rate is then learned anew, a
lease may be had twice for its time. A version never comes again, because it begins with the time.
"""

from __future__ import annotations

import os
from typing import Any

from rm_voucher.exceptions import ConfigurationError, SharedStoreError
from rm_voucher.extras import extra
from rm_voucher.shared.store import SharedStore, Snapshot

with extra("redis", __name__):
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.commands.core import AsyncScript
    from redis.exceptions import RedisError

_TIMEOUT_S = 2.0
_PREFIX = "rm_voucher:"

_LOAD = """
local time = redis.call('TIME')
local found = redis.call('HMGET', KEYS[1], 'version', 'content')
return {time[1], time[2], found[1] or '0', found[2]}
"""
_SWAP = """
local time = redis.call('TIME')
local version = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
if version ~= tonumber(ARGV[1]) then return nil end
if version == 0 then version = time[1] * 1000 + math.floor(time[2] / 1000) end
version = string.format('%.0f', version + 1)
redis.call('HSET', KEYS[1], 'version', version, 'content', ARGV[2])
return {time[1], time[2], version}
"""


class RedisSharedStore(SharedStore):
    """See `open_shared_store`. It belongs to the event loop and process that first use it."""

    def __init__(self, url: str) -> None:
        try:
            self._redis = Redis.from_url(
                url,
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
                retry=Retry(NoBackoff(), 1),  # the server may have closed an idle connection
            )
        except ValueError:
            raise ConfigurationError("The URL of Redis is redis://user@host:6379/0.") from None
        self._process: int | None = None
        self._load_script = self._redis.register_script(_LOAD)
        self._swap_script = self._redis.register_script(_SWAP)

    async def aclose(self) -> None:
        """Close its connections. It may be called more than once."""
        if self._process in (None, os.getpid()):  # a parent's are its own
            await self._redis.aclose()

    async def _load(self, key: str) -> Snapshot:
        seconds, microseconds, version, content = await self._run(self._load_script, key)
        now = _seconds(seconds, microseconds)
        return Snapshot(version=int(version), content=content, now=now)

    async def _swap(self, key: str, version: int, content: bytes) -> Snapshot | None:
        swapped = await self._run(self._swap_script, key, version, content)
        if swapped is None:
            return None
        seconds, microseconds, new = swapped
        return Snapshot(version=int(new), content=content, now=_seconds(seconds, microseconds))

    async def _run(self, script: AsyncScript, key: str, *values: bytes | int) -> Any:
        self._process = self._process or os.getpid()
        if self._process != os.getpid():  # two processes would read each other's answers
            raise SharedStoreError(
                "The store was used before a fork: make one in each process.", is_final=True
            )
        try:
            return await script(keys=[_PREFIX + key], args=values)
        except (RedisError, OSError) as exc:
            kind = type(exc).__name__
        # Raised outside the handler: the driver's words may hold what was sent.
        raise SharedStoreError(f"Redis can't be used ({kind}).")


def _seconds(seconds: bytes, microseconds: bytes) -> float:
    return int(seconds) + int(microseconds) / 1e6
