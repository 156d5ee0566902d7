"""The shared pace of clients: what each knows of the others, of a store that is away, and of odd
documents."""

import asyncio
import json
import logging
import math

import attrs
import pytest
from simulation.clock import VirtualClock
from support.limited_server import LimitedServer, bulk_for, client_at, in_virtual_time

from rm_voucher import ConfigurationError, ConnectTimeoutError, FlowPolicy, Runtime
from rm_voucher.calls import pace_document, rate_limiter
from rm_voucher.calls.pace import Pace
from rm_voucher.calls.pace_document import PaceDocument
from rm_voucher.calls.shared_flow import SharedFlow
from rm_voucher.exceptions import SharedStoreError
from rm_voucher.shared import MemorySharedStore, Snapshot

INSTANTS = {
    "_last_at", "_since_at", "_cut_at", "_slow_start_at", "next_at", "_taken_at", "_probe_at",
    "_failed_at", "_worked_at", "opened_at", "paused_until", "written_at", "seen_at",
}  # fmt: skip


def new_pace(policy=None):
    return Pace.new(policy or FlowPolicy(), lambda: 0.5, rate_limiter.TOGETHER)


def used_pace():
    """Return a pace to which everything has happened once."""
    pace = new_pace()
    pace.rate.start_slowly(99.0)
    for number in range(600):
        pace.answered(100.0, 100.0 + number / 100)
    for number in range(10):
        pace.throttled(106.0 + number, 107.0 + number, cuts=True)
    for number in range(25):
        pace.failed(f"call {number}", 120.0, 121.0)
    pace.failed("another", 120.0, 122.0)
    pace.pause_until(130.0)
    pace.take(125.0)
    return pace


def flow_on(clock: VirtualClock, store, policy=None) -> SharedFlow:
    runtime = Runtime(clock=clock.wall, monotonic=clock.monotonic, random=lambda: 0.5)
    return SharedFlow(policy or FlowPolicy(), runtime, store, "rate")


def store_at(clock: VirtualClock) -> MemorySharedStore:
    return MemorySharedStore(runtime=Runtime(clock=clock.true_wall))


@pytest.mark.parametrize("ahead_s", [0.0, 1_700_000_000.0, -500.0])
def test_document_keeps_all_on_another_clock(ahead_s):
    """What one process writes another reads, on its own clock, but for what each has from its own
    settings."""
    written = PaceDocument(used_pace(), {"p": 124.0}, 125.0)
    content = written.dump(ahead_s=ahead_s)
    found = PaceDocument(new_pace())
    found.load(content, ahead_s=ahead_s, now=125.0)
    assert flat(found) == pytest.approx(flat(written), abs=1e-6)
    other = PaceDocument(new_pace())
    other.load(content, ahead_s=ahead_s + 1000, now=125.0)
    assert other.pace.paused_until == pytest.approx(130.0 - 1000)


def flat(document):
    """Return each number of a document by its path."""

    def walk(value, path):
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from walk(inner, f"{path}.{name}")
        elif isinstance(value, list):
            yield path, len(value)
        elif value is not None and abs(value) != math.inf:
            yield path, float(value)

    return dict(walk(pace_document._kept(document, 0.0), ""))


def test_instants_are_named_as_such():
    """Exactly the fields that are instants are moved to another clock: their names say so."""
    found = set()

    def walk(instance):
        for field in attrs.fields(type(instance)):
            value = getattr(instance, field.name)
            if attrs.has(type(value)) and field.name not in pace_document._OWN:
                walk(value)
            elif pace_document._is_time(field):
                found.add(field.name)

    walk(PaceDocument(new_pace()))
    assert found == INSTANTS


def test_clock_that_was_set_back():
    """Where the store's clock was set back by an hour, all instants of the document are."""
    content = PaceDocument(used_pace(), {"p": 124.0}, 125.0).dump(ahead_s=0.0)
    found = PaceDocument(new_pace())
    found.load(content, ahead_s=0.0, now=125.0 - 3600)
    assert found.pace.paused_until == pytest.approx(130.0 - 3600)
    assert found.pace.breaker.opened_at == pytest.approx(121.0 - 3600)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff", b"[]", b"{}", b"null", b'{"written_at": null}', b'{"written_at": "x"}',
        b'{"written_at": NaN}', b'{"written_at": Infinity}', b'{"written_at": 1, "pace": 7}',
        b'{"written_at": 1, "pace": {"paused_until": "late"}}',
        b'{"written_at": 1, "pace": {"rate": {"_curve": {"_target": []}}}}',
        b'{"written_at": 1, "seen_at": {"p": null}}', b'{"written_at": 1, "seen_at": [1]}',
        b'{"written_at": 1, "pace": {"breaker": {"_failed": 3}}}',
    ],
)  # fmt: skip
def test_document_that_is_none(content):
    """What nobody of us wrote is refused, however it looks."""
    with pytest.raises(ValueError, match="no pace"):
        PaceDocument(new_pace()).load(content, ahead_s=0.0, now=1.0)


def test_document_of_another_version():
    """Fields that are missing stay as they are, and those that are not known are left."""
    content = json.dumps({"written_at": 1.0, "new": 5, "pace": {"paused_until": 3.0}}).encode()
    found = PaceDocument(new_pace())
    found.load(content, ahead_s=0.0, now=1.0)
    assert found.pace.paused_until == 3.0
    assert found.seen_at == {}


def test_clients_of_one_process_share():
    """Two clients with one store in memory find the limit together, and each has half of it."""

    async def main(clock: VirtualClock) -> None:
        server = LimitedServer(clock, per_s=60)
        store = store_at(clock)
        clients = [client_at(clock, server, shared=store) for _ in range(2)]
        runs = [bulk_for(client, clock, 30, concurrency=20) for client in clients]
        results = await asyncio.gather(*runs)
        shares = [len(result) for result in results]
        assert max(shares) <= 1.1 * min(shares)
        assert server.throttled_share(clock.now - 10, clock.now) <= 0.02
        assert server.taken_per_s(1020, 1029) >= 0.9 * 60
        for client in clients:
            state = client.flow
            assert state.processes == 2
            assert state.store_away_s is None
            await client.aclose()
            await client.aclose()

    in_virtual_time(main)


def test_accounts_are_apart():
    """Clients of other accounts share nothing, though they share the store."""

    async def main(clock: VirtualClock) -> None:
        store = store_at(clock)
        one = client_at(clock, LimitedServer(clock, per_s=20), shared=store)
        async with one:
            await bulk_for(one, clock, 10, concurrency=20)
            assert store._documents.keys() == {f"{one.account}/rate"}

    in_virtual_time(main)


def test_store_of_another_kind_is_refused():
    """``shared`` is a store, and not its URL."""

    async def main(clock: VirtualClock) -> None:
        with pytest.raises(ConfigurationError, match="shared must be of type SharedStore, not str"):
            client_at(clock, LimitedServer(clock), shared="redis://127.0.0.1")

    in_virtual_time(main)


class Broken(MemorySharedStore):
    """A store that raises what it is told to."""

    error: Exception | None = None

    async def _load(self, key: str) -> Snapshot:
        if self.error is not None:
            raise self.error
        return await super()._load(key)


@pytest.mark.parametrize("error", [SharedStoreError("It is away."), RuntimeError("a bug")])
def test_store_is_away_from_the_beginning(error, caplog):
    """Without its store a client sends as one alone would; it says so once, also where the store is
    not ours and raises anything. It shares as soon as the store is there."""
    caplog.set_level(logging.INFO, "rm_voucher.flow")

    async def main(clock: VirtualClock) -> None:
        store = Broken(runtime=Runtime(clock=clock.true_wall))
        store.error = error
        async with client_at(clock, LimitedServer(clock, per_s=30), shared=store) as client:
            await bulk_for(client, clock, 10, concurrency=10)
            assert client.flow.store_away_s == pytest.approx(10, abs=1)
            store.error = None
            await bulk_for(client, clock, 5, concurrency=10)
            assert client.flow.store_away_s is None

    in_virtual_time(main)
    away, back = [record.getMessage() for record in caplog.records]
    assert "the shared rate can't be kept" in away
    assert "with no limit known" in away
    assert "kept again, after 1" in back


class Slow(MemorySharedStore):
    """A store that takes its time."""

    takes_s = 0.0

    async def _load(self, key: str) -> Snapshot:
        found = await super()._load(key)
        await asyncio.sleep(self.takes_s)
        return found


def test_store_that_says_nothing_is_given_up(caplog):
    """A store that does not answer within half a second is one that is away; it is asked again by
    the calls that come, and kept to when it answers."""

    async def main(clock: VirtualClock) -> None:
        store = Slow(runtime=Runtime(clock=clock.true_wall))
        store.takes_s = 3.0
        flow = flow_on(clock, store)
        begun = clock.now
        await flow.acquire("issue", latest=None, is_bulk=False)
        assert clock.now - begun == pytest.approx(0.5, abs=0.01)
        assert flow.state.store_away_s == pytest.approx(0.0, abs=0.01)
        store.takes_s = 0.0
        await asyncio.sleep(10)
        await flow.acquire("issue", latest=None, is_bulk=False)
        await asyncio.sleep(0.1)
        assert flow.state.store_away_s is None
        await flow.aclose()

    in_virtual_time(main)
    assert "it does not answer" in caplog.text


def test_store_is_asked_again_by_the_next_call():
    """After a store was away, the next call asks it again, though nothing else happens."""

    async def main(clock: VirtualClock) -> None:
        store = Broken(runtime=Runtime(clock=clock.true_wall))
        store.error = SharedStoreError("It is away.")
        flow = flow_on(clock, store)
        await flow.acquire("issue", latest=None, is_bulk=False)
        assert flow.state.store_away_s is not None
        store.error = None
        await asyncio.sleep(5)
        await flow.acquire("issue", latest=None, is_bulk=False)
        await asyncio.sleep(0.1)
        assert flow.state.store_away_s is None
        await flow.aclose()

    in_virtual_time(main)


def test_clock_is_told_from_quick_answers():
    """A slow answer tells little about the store's clock, and moves nothing."""

    async def main(clock: VirtualClock) -> None:
        store = Slow(runtime=Runtime(clock=clock.true_wall))
        flow = flow_on(clock, store)
        await flow.acquire("issue", latest=None, is_bulk=False)
        ahead_s = flow._ahead_s
        store.takes_s = 0.3
        flow.pause_until(clock.now + 1)
        await asyncio.sleep(2)
        assert flow._ahead_s == ahead_s
        await flow.aclose()

    in_virtual_time(main)


def test_throttle_of_an_attempt_that_had_no_turn():
    """A throttle of an attempt that was never admitted here is told, and flows that did nothing
    close."""

    async def main(clock: VirtualClock) -> None:
        store = store_at(clock)
        flow = flow_on(clock, store)
        await flow.aclose()
        flow.throttled(clock.now - 5, clock.now)
        await asyncio.sleep(0.1)
        content = (await store.load("rate")).content
        assert content is not None
        assert json.loads(content)["pace"]["rate"]["_after_cut"] == 1
        await flow.aclose()

    in_virtual_time(main)


def test_process_that_was_stopped_blames_no_store(caplog):
    """A process that goes on after a stop finds its timers due before what the store said; it looks
    again, and does not go alone."""

    async def main(clock: VirtualClock) -> None:
        class Stopping(MemorySharedStore):
            async def _load(self, key: str) -> Snapshot:
                clock.now += 20.0
                await asyncio.sleep(0.01)
                return await super()._load(key)

        store = Stopping(runtime=Runtime(clock=clock.true_wall))
        flow = flow_on(clock, store)
        await flow.acquire("issue", latest=None, is_bulk=False)
        assert flow.state.store_away_s is None
        await flow.aclose()

    in_virtual_time(main)
    assert not caplog.records


def test_document_that_cant_be_read_is_learned_anew(caplog):
    """A document that is spoilt is replaced, and a line says so."""

    async def main(clock: VirtualClock) -> None:
        store = store_at(clock)
        await store.swap("rate", 0, b"spoilt")
        flow = flow_on(clock, store)
        await flow.acquire("issue", latest=None, is_bulk=False)
        await flow.aclose()
        assert (await store.load("rate")).content != b"spoilt"

    in_virtual_time(main)
    assert "learned anew" in caplog.text


def test_turn_that_comes_too_late_is_refused():
    """A call whose turn comes after its deadline is refused, whatever keeps it: a pause of which
    another client was told, or the turns of others."""

    async def main(clock: VirtualClock) -> None:
        store = store_at(clock)
        told, other = flow_on(clock, store), flow_on(clock, store)
        await told.acquire("issue", latest=None, is_bulk=False)
        told.pause_until(clock.now + 60)
        await asyncio.sleep(0)
        await asyncio.sleep(1)
        with pytest.raises(ConnectTimeoutError, match="after its deadline"):
            await other.acquire("issue", latest=clock.now + 30, is_bulk=False)
        assert other.state.retry_after_s == pytest.approx(59, abs=0.5)
        begun = clock.now
        await other.acquire("issue", latest=None, is_bulk=False)
        assert clock.now - begun == pytest.approx(59, abs=1)
        for flow in (told, other):
            await flow.aclose()

    in_virtual_time(main)


def test_throttles_of_turns_before_a_cut_are_of_the_old_rate():
    """A throttle of an attempt that was admitted before all knew of the last cut cuts no more."""

    async def main(clock: VirtualClock) -> None:
        store = store_at(clock)
        flow = flow_on(clock, store)
        for _ in range(40):
            await flow.acquire("issue", latest=None, is_bulk=False)
            flow.answered(clock.now, clock.now)
        admitted_at = clock.now
        for _ in range(8):
            flow.throttled(admitted_at, clock.now)
            await asyncio.sleep(0.05)
        rate = flow.state.rate_per_s
        assert rate is not None
        for _ in range(20):
            flow.throttled(admitted_at, clock.now)
        await asyncio.sleep(0.05)
        assert flow.state.rate_per_s == pytest.approx(rate, rel=0.01)
        assert flow.state.throttled == 28
        await flow.aclose()

    in_virtual_time(main)


def test_only_so_much_is_remembered():
    """While the store is away, what a client keeps to tell is bounded, however much happens."""

    async def main(clock: VirtualClock) -> None:
        store = Broken()
        store.error = SharedStoreError("It is away.")
        flow = flow_on(clock, store)
        await flow.acquire("issue", latest=None, is_bulk=False)
        for number in range(3_000):
            flow.failed(("call", number), clock.now, clock.now)
            flow.throttled(clock.now, clock.now)
        assert len(flow._reports) <= 201
        assert len(flow._failing) <= 1_000
        await flow.aclose()

    in_virtual_time(main)


def test_client_in_one_loop_after_another():
    """A client that shares may be used in one event loop after another."""
    clock = VirtualClock()
    flow = flow_on(clock, MemorySharedStore())
    for _ in range(2):
        asyncio.run(flow.acquire("issue", latest=None, is_bulk=False))


def test_outage_of_all_gives_up():
    """When the server has failed for too long, calls of each client end, and say why."""

    async def main(clock: VirtualClock) -> None:
        store = store_at(clock)
        policy = FlowPolicy(max_outage_wait_s=5)
        failing, other = flow_on(clock, store, policy), flow_on(clock, store, policy)
        await failing.acquire("issue", latest=None, is_bulk=False)
        for number in range(20):
            failing.failed(number, clock.now, clock.now)
        await asyncio.sleep(0.1)
        assert failing.is_failing
        ended = 0
        for _ in range(20):
            try:
                await other.acquire("issue", latest=None, is_bulk=False)
            except ConnectTimeoutError:
                ended += 1
            other.failed("probe", clock.now, clock.now)
            await asyncio.sleep(0.3)
        assert other.is_failing
        assert ended > 0
        for flow in (failing, other):
            await flow.aclose()

    in_virtual_time(main)
