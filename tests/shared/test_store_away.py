"""A shared store that is away: each operation says so, and the store finds back by itself."""

import socket

import pytest
from support.postgres import end_connections

from rm_voucher.exceptions import SharedStoreError
from rm_voucher.shared import MemorySharedStore, open_shared_store
from rm_voucher.shared import redis as redis_module
from rm_voucher.shared import sql as sql_module
from rm_voucher.shared import store as store_module

SECRET = b"a-token-that-nobody-sees"


@pytest.mark.parametrize("scheme", ["redis", "postgresql"])
async def test_nobody_is_there(scheme, unused_tcp_port, monkeypatch, caplog):
    """Where nothing listens, an operation raises, and no word shows the content or the password."""
    monkeypatch.setattr(sql_module, "_PATIENCE_S", 0.01)
    url = f"{scheme}://user:hidden-word@127.0.0.1:{unused_tcp_port}/0"
    async with open_shared_store(url) as store:
        for operation in (store.load("key"), store.swap("key", 0, SECRET)):
            with pytest.raises(SharedStoreError) as caught:
                await operation
            assert caught.value.__context__ is None or "UnavailableError" in repr(
                caught.value.__cause__
            )
            assert SECRET.decode() not in str(caught.value)
    assert SECRET.decode() not in caplog.text
    assert "hidden-word" not in caplog.text


@pytest.mark.parametrize("scheme", ["redis", "postgresql"])
async def test_silence_is_given_up(scheme, monkeypatch):
    """A server that takes the connection and says nothing is given up."""
    monkeypatch.setattr(sql_module, "_PATIENCE_S", 0.05)
    monkeypatch.setattr(redis_module, "_TIMEOUT_S", 0.05)
    # Nobody accepts: the connection is made, and nothing comes.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = open_shared_store(f"{scheme}://user@127.0.0.1:{silent.getsockname()[1]}/0")
        with pytest.raises(SharedStoreError):
            await store.load("key")
    await store.aclose()


async def test_connection_that_ends(postgres_url):
    """A connection that the server has ended meanwhile is made anew."""
    async with open_shared_store(postgres_url) as store:
        await store.swap("key", 0, b"first")
        assert await end_connections(postgres_url) > 0
        assert (await store.load("key")).content == b"first"


async def test_document_that_never_holds_still(monkeypatch):
    """An update whose document changes each time ends with an error, not never."""
    store = MemorySharedStore()
    monkeypatch.setattr(store_module, "_MOST_SWAPS", 3)

    def change(found):
        store._documents["key"] = found.version + 1, b"another was quicker"
        return b"mine"

    with pytest.raises(SharedStoreError, match="changes too fast"):
        await store.update("key", change)
