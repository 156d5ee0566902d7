"""The rule: what tells processes, calls or attempts apart is never made before a fork.

A counter or a name that is made at import, or when a store is constructed, is the same in every
child of a server that loads the application first and forks then. Two children then share the ids
of attempts, and each takes the other's lease or attempt for its own.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import pytest
from support.answers import ISSUED

from rm_voucher.calls.hooks import Attempt
from rm_voucher.ledger.memory import MemoryLedgerStore
from rm_voucher.webhooks import MemoryEventStore


def in_a_child(tell: Callable[[], str]) -> str:
    """Return what a forked child tells."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        try:
            os.write(writable, tell().encode())
        finally:
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as told:
        text = told.read()
    os.waitpid(child, 0)
    return text


@pytest.mark.parametrize("make", [MemoryLedgerStore, MemoryEventStore], ids=["ledger", "callbacks"])
def test_forked_children_have_owners_of_their_own(make):
    store = make()
    owners = {in_a_child(lambda: store.owner) for _ in range(2)} | {store.owner}
    assert len(owners) == 3
    assert "" not in owners


@pytest.mark.parametrize("make", [MemoryLedgerStore, MemoryEventStore], ids=["ledger", "callbacks"])
def test_an_owner_stays_the_same(make):
    store, other = make(), make()
    assert store.owner == store.owner != other.owner


async def test_attempt_ids_are_64_random_bits(make_client):
    seen: list[Attempt] = []
    client = make_client(lambda _: ISSUED, hooks=[seen.append])
    for _ in range(40):
        await client.issue("K")
    ids = [attempt.attempt_id for attempt in seen]
    assert len(set(ids)) == 40
    assert {len(each) for each in ids} == {16}
    gaps = {int(later, 16) - int(earlier, 16) for earlier, later in itertools.pairwise(ids)}
    assert len(gaps) == 39
