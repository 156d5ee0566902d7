"""The contract of every store of tokens: one renews at a time, and the others see what it saved."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from support.answers import ok, rm_error
from support.doubles import FakeTime
from support.scripted_server import ScriptedServer

from rm_voucher import (
    ClientCredentialsToken,
    Credentials,
    Environment,
    Response,
    RetryPolicy,
    Timeout,
    TokenStore,
)
from rm_voucher.transport.memory import MemoryTransport

Stores = Callable[[], TokenStore]


def token(name: str) -> Response:
    return ok({"accessToken": name, "expiresIn": 10_000, "refreshToken": f"refresh-{name}"})


def process(store: TokenStore, *answers: Response) -> tuple[ClientCredentialsToken, ScriptedServer]:
    """Return what stands for a process: a source on a server of its own, and that server."""
    server = ScriptedServer(answers)
    source = ClientCredentialsToken(
        Credentials("client-id", "client-secret", b""),
        Environment.SANDBOX,
        MemoryTransport(server),
        retry=RetryPolicy(max_attempts=1),
        timeout=Timeout(),
        runtime=FakeTime().runtime,
        store=store,
    )
    return source, server


async def test_what_was_saved_is_loaded(token_stores: Stores) -> None:
    """Nothing at first, then what was saved last, in each process."""
    one, other = token_stores(), token_stores()
    async with one.lock():
        assert await one.load() is None
        assert await one.save(b"first") is not False
    async with other.lock():
        assert await other.load() == b"first"
        assert await other.save(b"second") is not False
    assert await one.load() == b"second"


async def test_one_at_a_time(token_stores: Stores) -> None:
    """Of many that enter, one is inside; each sees what the last one saved."""
    inside = 0

    async def add_one(store: TokenStore) -> None:
        nonlocal inside
        async with store.lock():
            inside += 1
            assert inside == 1
            count = int(await store.load() or b"0")
            await asyncio.sleep(0)
            await store.save(b"%d" % (count + 1))
            inside -= 1

    stores = [token_stores() for _ in range(4)]
    await asyncio.gather(*(add_one(store) for store in stores * 2))
    assert await stores[0].load() == b"8"


async def test_lock_that_is_left_by_an_error_is_free(token_stores: Stores) -> None:
    one, other = token_stores(), token_stores()
    with pytest.raises(ZeroDivisionError):
        async with one.lock():
            raise ZeroDivisionError
    async with other.lock():
        assert await other.load() is None


async def test_many_processes_buy_one_token(token_stores: Stores) -> None:
    """And one more, by refresh, when it is refused. What is kept of it is the owner's alone."""
    buyer, *others = [
        process(token_stores(), token("a"), token("b")),
        *(process(token_stores()) for _ in range(3)),
    ]
    sources = [source for source, _ in (buyer, *others)]
    await sources[0].token()
    assert await asyncio.gather(*(source.token() for source in sources)) == ["a"] * 4
    for source in sources:
        source.refuse("a")
        assert await source.token() == "b"
    assert len(buyer[1].requests) == 2
    assert all(server.requests == [] for _, server in others)


async def test_refresh_token_that_a_dead_process_spent(token_stores: Stores) -> None:
    """It died before it saved what it had bought: the credentials serve, and that is saved."""
    first, _ = process(token_stores(), token("a"))
    await first.token()
    first.refuse("a")
    second, server = process(token_stores(), rm_error("InvalidGrant", 401), token("c"))
    await second.token()
    second.refuse("a")
    assert await second.token() == "c"
    assert len(server.requests) == 2
    third, _ = process(token_stores())
    assert await third.token() == "c"
