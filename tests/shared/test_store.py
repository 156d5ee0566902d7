"""The contract of every shared store: compare-and-swap of a document, on one clock."""

import asyncio

import pytest

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.shared import open_shared_store
from rm_voucher.shared.store import MAX_BYTES


async def test_nothing_is_there_at_first(store, key):
    """A document that was never written has version 0 and no content."""
    found = await store.load(key)
    assert (found.version, found.content) == (0, None)


async def test_swap_of_the_version_that_is_there(stores, key):
    """A swap replaces the version that it names; each process sees the result."""
    one, other = stores(), stores()
    first = await one.swap(key, 0, b"first")
    assert first is not None
    assert first.version > 0
    assert first.content == b"first"
    found = await other.load(key)
    assert (found.version, found.content) == (first.version, b"first")
    second = await other.swap(key, found.version, b"\0\xff" * 100)
    assert second is not None
    assert second.version > first.version
    assert (await one.load(key)).content == b"\0\xff" * 100


async def test_swap_of_another_version_does_nothing(stores, key):
    """A swap that names another version than the one there is changes nothing."""
    one, other = stores(), stores()
    first = await one.swap(key, 0, b"first")
    assert first is not None
    assert await other.swap(key, 0, b"late") is None
    assert await other.swap(key, first.version + 1, b"early") is None
    second = await other.swap(key, first.version, b"second")
    assert second is not None
    assert await one.swap(key, first.version, b"late") is None
    assert (await one.load(key)).content == b"second"


async def test_documents_are_apart(store, key):
    """Each key has a document of its own, and the empty one is one."""
    await store.swap(key, 0, b"")
    await store.swap(key + ".", 0, b"other")
    found = await store.load(key)
    assert found.content == b""
    assert found.version > 0


async def test_of_many_swaps_one_holds(stores, key):
    """Of swaps of one version that come at the same time, one holds."""
    made = [stores() for _ in range(4)]
    swapped = await asyncio.gather(
        *(made[number % 4].swap(key, 0, b"%d" % number) for number in range(12))
    )
    (winner,) = [snapshot for snapshot in swapped if snapshot is not None]
    assert (await made[0].load(key)).content == winner.content


async def test_updates_of_many_processes_all_count(stores, key):
    """An update is made on what stands, however many are made at the same time."""
    made = [stores() for _ in range(3)]

    def count(found):
        return b"%d" % (int(found.content or b"0") + 1)

    await asyncio.gather(*(made[number % 3].update(key, count) for number in range(30)))
    assert (await made[0].load(key)).content == b"30"


async def test_update_that_leaves_the_document(store, key):
    """An update whose change is None returns what stands, and writes nothing."""
    first = await store.swap(key, 0, b"first")
    assert first is not None
    left = await store.update(key, lambda found: None)
    assert (left.version, left.content) == (first.version, b"first")


async def test_clock_of_the_store_goes_on(stores, key):
    """All processes see one clock, which does not go back from one operation to the next."""
    one, other = stores(), stores()
    first = await one.load(key)
    second = await other.swap(key, 0, b"")
    assert second is not None
    third = await one.load(key)
    assert first.now <= second.now <= third.now
    assert abs(first.now - third.now) < 60


async def test_longest_document(store, key):
    """64 KiB are kept whole, a byte more is refused, and the sentence shows none of it."""
    assert (await store.swap(key, 0, b"x" * MAX_BYTES)) is not None
    assert (await store.load(key)).content == b"x" * MAX_BYTES
    with pytest.raises(ConfigurationError, match="65536 bytes at most"):
        await store.swap(key, 0, b"x" * (MAX_BYTES + 1))


@pytest.mark.parametrize("wrong", ["", "k" * 201, "ключ", "a\nb", "a\0b", None, b"key"])
async def test_key_that_is_none(store, wrong):
    """A key that some store could not keep is refused by all."""
    for asking in (store.load(wrong), store.swap(wrong, 0, b"")):
        with pytest.raises(ConfigurationError, match="key"):
            await asking


async def test_content_that_is_none(store, key):
    """Content is bytes."""
    with pytest.raises(ConfigurationError, match="content must be bytes"):
        await store.swap(key, 0, "text")


async def test_closing_twice(store):
    """A store may be closed more than once, and left after it was closed."""
    async with store:
        await store.aclose()


async def test_snapshot_shows_no_content(store, key):
    """The content may be a token: no repr shows it."""
    assert "secret" not in repr(await store.swap(key, 0, b"secret"))


@pytest.mark.parametrize(
    "url", ["", "mysql://host/x", "redis://host:none", "sqlite://", None, "http://host"]
)
def test_url_that_names_no_store(url):
    """A URL of another kind is refused with a sentence."""
    with pytest.raises(ConfigurationError):
        open_shared_store(url)


def test_url_of_an_unknown_kind():
    """The sentence names every kind."""
    with pytest.raises(ConfigurationError) as caught:
        open_shared_store("foo://me:hush@x")
    assert all(kind in str(caught.value) for kind in ("postgresql://", "redis://", "sqlite:///"))
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("redis://127.0.0.1", "rm_voucher.shared.redis", "redis"),
        ("sqlite:///x.db", "rm_voucher.shared.sql", "sql"),
        ("postgresql://127.0.0.1/x", "rm_voucher.shared.sql", "postgres"),
    ],
)
def test_extra_that_is_not_installed(url, module, extra, monkeypatch):
    """Without the driver, the sentence names the extra."""
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ConfigurationError, match=rf"rm-voucher\[{extra}\]"):
        open_shared_store(url)


async def test_first_uses_at_once(store, key):
    """Two tasks may be the first to use a store, at the same time."""
    found = await asyncio.gather(store.load(key), store.load(key))
    assert [snapshot.version for snapshot in found] == [0, 0]
