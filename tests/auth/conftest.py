"""A store of tokens of each kind, as each of several processes has it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from support.redis import redis_url  # noqa: F401 - a fixture
from support.shared_stores import KINDS, stores_of

from rm_voucher import FileTokenStore, Runtime, SharedTokenStore, TokenStore


async def _soon(seconds: float) -> None:
    """Give others a turn; what would be awaited for longer never comes."""
    await (asyncio.sleep(0) if seconds < 1 else asyncio.Future())


@pytest.fixture(params=["file", *KINDS])
async def token_stores(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Callable[[], TokenStore]]:
    """What gives stores of one token, each as another process has it. None waits for long."""
    if request.param == "file":
        yield lambda: FileTokenStore(tmp_path / "token", sleep=_soon)
        return
    account = f"test:{secrets.token_hex(8)}"
    async with stores_of(request.param, request, tmp_path) as make:
        yield lambda: SharedTokenStore(make(), account, runtime=Runtime(sleep=_soon))
