"""A lease: one holder at a time, by the store's clock, whatever the processes do."""

import pytest

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.shared import Lease, MemorySharedStore
from rm_voucher.shared.lease import _Held


@pytest.fixture
def lease_of(time):
    """Make a lease of ten seconds on one document, in virtual time."""
    store = MemorySharedStore(runtime=time.runtime)
    return lambda holder="", store=store: Lease(
        store, "lease", duration_s=10, holder=holder, runtime=time.runtime
    )


async def test_one_holder_at_a_time(lease_of):
    """What one has, no other gets, until it is given back."""
    one, other = lease_of(), lease_of()
    assert await one.acquire()
    assert one.is_held
    assert not await other.acquire()
    assert not other.is_held
    await other.release()  # of one that it has not
    assert not await other.acquire()
    await one.release()
    assert not one.is_held
    assert await other.acquire()


async def test_time_gives_it_back(lease_of, time):
    """One that is not renewed is free after its time; its holder knows that by its own clock."""
    one, other = lease_of(), lease_of()
    assert await one.acquire()
    time.now += 9.9
    assert one.is_held
    assert not await other.acquire()
    time.now += 0.1
    assert not one.is_held
    assert await other.acquire()
    assert not await one.renew()
    assert not await one.acquire()


async def test_renewing_keeps_it(lease_of, time):
    """One that is renewed in time stays, with its number; acquiring what one has renews it."""
    one, other = lease_of(), lease_of()
    assert await one.acquire()
    for renew in (one.renew, one.acquire) * 3:
        time.now += 9
        assert await renew()
        assert one.is_held
        assert not await other.acquire()
    assert one.fence == 1


async def test_renewing_what_one_never_had(lease_of):
    """Renewing takes nothing that is free."""
    assert not await lease_of().renew()


async def test_late_renewal_where_nobody_came(lease_of, time):
    """One that ran out, and that nobody else took, is renewed, and its number stands."""
    one = lease_of()
    assert await one.acquire()
    time.now += 60
    assert not one.is_held
    assert await one.renew()
    assert one.is_held
    assert one.fence == 1


async def test_numbers_grow_with_the_holders(lease_of, time):
    """Each holder after another has a higher number, also after one that gave it back."""
    seen = []
    for _ in range(3):
        lease = lease_of()
        assert await lease.acquire()
        seen.append(lease.fence)
        time.now += 10
    given_back = lease_of()
    assert await given_back.acquire()
    seen.append(given_back.fence)
    await given_back.release()
    assert await given_back.acquire()
    seen.append(given_back.fence)
    assert seen == sorted(set(seen))


async def test_local_time_counts_from_before_the_request(time):
    """A slow answer does not prolong it here: it ends here no later than at the store."""

    class Slow(MemorySharedStore):
        async def _swap(self, *args):
            swapped = await super()._swap(*args)
            time.now += 4
            return swapped

    lease = Lease(Slow(runtime=time.runtime), "lease", duration_s=10, runtime=time.runtime)
    assert await lease.acquire()
    time.now += 5.9
    assert lease.is_held
    time.now += 0.1
    assert not lease.is_held


async def test_answer_that_was_lost(time):
    """A swap that was made, though its answer was lost, is found to be one's own."""

    class Deaf(MemorySharedStore):
        is_deaf = True

        async def _swap(self, *args):
            swapped = await super()._swap(*args)
            if self.is_deaf:
                self.is_deaf = False
                return None
            return swapped

    lease = Lease(Deaf(runtime=time.runtime), "lease", duration_s=10, runtime=time.runtime)
    assert await lease.acquire()
    assert lease.fence == 1


async def test_holders_of_one_name_are_two(lease_of, time):
    """The name is for people: two processes that are called alike are two."""
    one, other = lease_of("worker"), lease_of("worker")
    assert await one.acquire()
    assert not await other.acquire()


@pytest.mark.parametrize("wrong", [0, -1, float("inf"), "10", None])
def test_duration_that_is_none(wrong):
    """The duration is a number of seconds."""
    with pytest.raises(ConfigurationError, match="duration_s"):
        Lease(MemorySharedStore(), "lease", duration_s=wrong)


async def test_document_in_every_store(store, key):
    """A lease works on each kind of store."""
    one, other = (Lease(store, key, duration_s=60, holder="sweeper") for _ in range(2))
    assert await one.acquire()
    assert not await other.acquire()
    held = _Held.of(await store.load(key))
    assert held.holder.startswith("sweeper-")
    assert held.until > 60
    await one.release()
    assert await other.acquire()


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[]", b"7", b"{}", b"[" * 65_000,
     b'{"holder": "x", "until": "late", "fence": 1}',
     b'{"holder": "x", "until": 1, "fence": null}'],
)  # fmt: skip
async def test_document_that_says_nothing_is_nobody_s_lease(lease_of, time, content):
    """What is damaged keeps nobody out, and no fence is given twice."""
    store = MemorySharedStore(runtime=time.runtime)
    earlier = lease_of(store=store)
    assert await earlier.acquire()
    await store.swap("lease", 1, content)
    assert not await earlier.renew()
    later = lease_of(store=store)
    assert await later.acquire()
    assert later.fence > earlier.fence
    assert not await earlier.acquire()
    await later.release()


async def test_document_of_another_version(lease_of, time):
    """What a later version has more is left."""
    store = MemorySharedStore(runtime=time.runtime)
    await store.swap("lease", 0, b'{"holder": "x", "until": 1e12, "fence": 3, "new": 1}')
    assert not await lease_of(store=store).acquire()
