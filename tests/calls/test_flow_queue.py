"""Waiting for a turn: deadlines, cancellation, who goes first, and several event loops."""

import asyncio
import gc
import weakref

import pytest
from simulation.clock import VirtualClock
from simulation.loop import VirtualLoop
from support.answers import LOST, ok, voucher
from support.cancellation import Places, each_turn, is_cancelled_after, turn
from support.limited_server import LimitedServer, bulk_for, client_at, in_virtual_time

from rm_voucher import (
    ConnectTimeoutError,
    FlowPolicy,
    OutcomeUnknownError,
    Request,
    RetryPolicy,
    Runtime,
    Timeout,
)
from rm_voucher.calls.flow import Flow
from rm_voucher.service.client import issue_call

FOUND = ok({"item": {"code": "X", "status": "ISSUED"}, "code": "SUCCESS"})
SHORT = Timeout(connect_s=1, attempt_s=5, total_s=10)


def test_turn_after_the_deadline_fails_at_once():
    """A call whose turn would come after its deadline does not wait for that: it fails at once,
    provably unsent, and is not repeated."""

    async def main(clock: VirtualClock) -> None:
        answers = [ok({}, 503, retry_after="60")]
        came = []

        def serve(request):
            came.append(clock.now)
            return answers.pop() if answers else FOUND

        async with client_at(clock, serve) as client:
            patient = asyncio.create_task(client.get("X"))
            await asyncio.sleep(1)
            with pytest.raises(ConnectTimeoutError, match="its turn would come after its deadline"):
                await client.issue("B", timeout=SHORT)
            assert clock.now == 1001
            assert len(came) == 1
            assert client.flow.waiting in (0, 1)
            await patient
        assert len(came) == 2

    in_virtual_time(main)


def test_turn_after_the_deadline_fails_at_once_behind_others():
    """So it does where those in front have the time: it does not wait behind them first."""

    async def main(clock: VirtualClock) -> None:
        answers = [ok({}, 503, retry_after="60")]
        async with client_at(clock, lambda _: answers.pop() if answers else FOUND) as client:
            patient = [asyncio.create_task(client.get("X"))]
            await asyncio.sleep(1)
            patient.append(asyncio.create_task(client.get("X")))
            await asyncio.sleep(0.1)
            assert client.flow.waiting == 1
            with pytest.raises(ConnectTimeoutError, match="its turn would come after its deadline"):
                await client.issue("B", timeout=SHORT)
            assert clock.now == 1001.1
            await asyncio.gather(*patient)

    in_virtual_time(main)


def test_deadline_while_others_are_in_front():
    """A call whose turn has not come fails at its deadline, less the time to connect, unsent; those
    in front and behind are not held up."""

    async def main(clock: VirtualClock) -> None:
        server = LimitedServer(clock, latency_s=0.01)
        async with client_at(clock, server, flow=FlowPolicy(rate_per_s=1)) as client:
            front = [asyncio.create_task(client.issue("B")) for _ in range(20)]
            await asyncio.sleep(0)
            call = asyncio.create_task(client.issue("B", timeout=SHORT))
            await asyncio.sleep(0)
            behind = asyncio.create_task(client.issue("B"))
            with pytest.raises(ConnectTimeoutError, match="did not come before its deadline"):
                await call
            assert clock.now == 1009
            await asyncio.gather(*front, behind)
            assert clock.now == pytest.approx(1020, abs=0.1)
            assert client.flow.waiting == 0
        assert len(server.codes) == 21

    in_virtual_time(main)


def test_deadline_in_a_pause():
    """While the server fails, a call with a deadline before the next probe fails at once; one that
    lasts until then is the probe."""

    async def main(clock: VirtualClock) -> None:
        came = []

        def serve(request):
            came.append(clock.now)
            if len(came) <= 20:
                raise type(LOST)(*LOST.args)
            return FOUND

        options = {"retry": RetryPolicy(max_attempts=1), "random": lambda: 0.0}
        async with client_at(clock, serve, **options) as client:
            lost = await asyncio.gather(
                *(client.get("X") for _ in range(20)), return_exceptions=True
            )
            assert {type(error) for error in lost} == {type(LOST)}
            with pytest.raises(ConnectTimeoutError):
                await client.get("X", timeout=Timeout(connect_s=0.1, attempt_s=0.5, total_s=0.9))
            assert clock.now == 1000
            assert len(came) == 20
            await client.get("X", timeout=SHORT)
            assert clock.now == 1001

    in_virtual_time(main)


def test_doubt_outlives_a_deadline_while_waiting():
    """A void that was lost, and found unchanged, and then has no turn in time, stays in doubt."""

    async def main(clock: VirtualClock) -> None:
        came = []

        def serve(request):
            came.append(request.operation)
            if request.operation == "void":
                raise type(LOST)(*LOST.args)
            return voucher("VALID")

        async with client_at(clock, serve, flow=FlowPolicy(rate_per_s=0.2)) as client:
            with pytest.raises(OutcomeUnknownError):
                await client.void("X", timeout=Timeout(connect_s=1, attempt_s=5, total_s=10.5))
            assert clock.now < 1010
        assert came == ["void", "get"]

    in_virtual_time(main)


WHO = [False, True, True, False, True, False]  # is_bulk, in the order in which they come


@pytest.mark.parametrize("number", range(len(WHO)))
async def test_waiting_cancelled_at_each_await(number):
    """Whoever is cancelled, wherever they wait: the others get their turns, and nobody is left."""
    cancelled_at = set()
    for turns in each_turn():
        places = Places()
        flow = Flow(FlowPolicy(rate_per_s=10), Runtime(monotonic=lambda: 0.0, sleep=places.sleep))
        calls = [flow.acquire("x", latest=None, is_bulk=is_bulk) for is_bulk in WHO]
        tasks = [asyncio.ensure_future(call) for at, call in enumerate(calls) if at != number]
        was_cancelled = await is_cancelled_after(turns, calls[number])
        async with asyncio.timeout(30):
            await asyncio.gather(*tasks)
        assert flow.state.waiting == 0
        queues = [queue for pair in flow._queues.values() for queue in pair]
        assert not any(queue.locked() for queue in queues)
        cancelled_at |= places.cancelled
        if not was_cancelled:
            break
    assert turns > 2
    assert cancelled_at


@pytest.mark.parametrize("is_bulk", [False, True])
async def test_call_cancelled_while_it_waits_was_not_sent(is_bulk):
    """A call that is cancelled at any point of its wait was not sent, and the next one is."""
    for turns in each_turn():
        places = Places()
        came: list[Request] = []

        def serve(request, came=came):
            came.append(request)
            return FOUND

        client = client_at(
            VirtualClock(),
            serve,
            flow=FlowPolicy(rate_per_s=5),
            monotonic=lambda: 0.0,
            sleep=places.sleep,
        )
        await client.get("X")
        call = issue_call(client.caller, "B")
        call.is_bulk = is_bulk
        if not await is_cancelled_after(turns, client.caller.execute(call)):
            break
        if not call.in_flight:
            assert len(came) == 1
            assert call.attempts == 0
        await client.get("X")
        assert client.flow.waiting == 0
    assert turns > 3
    assert len(came) == 2


def test_single_call_waits_behind_few_of_a_run():
    """Beside a run of hundreds of waiting calls a single one waits for two turns, not for all."""

    async def main(clock: VirtualClock) -> None:
        server = LimitedServer(clock, latency_s=0.01)
        async with client_at(clock, server, flow=FlowPolicy(rate_per_s=20)) as client:
            run = asyncio.create_task(bulk_for(client, clock, 12, concurrency=300))
            await asyncio.sleep(5)
            assert client.flow.waiting >= 298
            for call in (client.issue, client.get, client.issue):
                begin, before = clock.now, len(server.log)
                await call("B")
                assert clock.now - begin <= 3 / 20
                assert len(server.log) - before <= 3
                await asyncio.sleep(1)
            await run

    in_virtual_time(main)


def test_turns_in_the_order_of_coming():
    """Calls are sent in the order in which they came."""

    async def main(clock: VirtualClock) -> None:
        came = []

        def serve(request):
            came.append(request.url.path.split("/")[-1])
            return ok({"item": {"code": came[-1], "status": "ISSUED"}, "code": "SUCCESS"})

        async with client_at(clock, serve, flow=FlowPolicy(rate_per_s=30)) as client:
            codes = [f"X{number}" for number in range(60)]
            await asyncio.gather(*(client.get(code) for code in codes))
        assert came == codes

    in_virtual_time(main)


def test_several_event_loops_in_a_row():
    """A client that was throttled in one event loop, and left while calls waited, sends in the next
    ones as well, and keeps no loop that has ended but the last."""
    clock = VirtualClock()
    server = LimitedServer(clock, per_s=20, latency_s=0.01)
    client = client_at(clock, server)

    async def main() -> None:
        left = [asyncio.create_task(client.issue("B")) for _ in range(30)]
        await asyncio.sleep(0.5)
        assert client.flow.waiting > 0
        assert not all(task.done() for task in left)

    async def last() -> None:
        assert client.flow.throttled > 0
        await asyncio.gather(*(client.issue("B") for _ in range(30)))

    loops = []
    for step in (main, main, main, last, last):
        loop = VirtualLoop(clock)
        loops.append(weakref.ref(loop))
        loop.run(step)
        assert client.flow.waiting == 0
        del loop
    gc.collect()
    assert sum(loop() is not None for loop in loops) <= 1
    assert len(set(server.codes)) == len(server.codes) >= 60


async def test_two_loops_at_once_have_queues_of_their_own():
    """A loop that still runs keeps its queue when another one comes."""
    flow = client_at(VirtualClock(), lambda request: FOUND).caller.flow
    await flow.acquire("x", latest=None, is_bulk=False)
    mine = flow._queues[asyncio.get_running_loop()]
    await asyncio.to_thread(asyncio.run, flow.acquire("x", latest=None, is_bulk=True))
    await turn()
    await flow.acquire("x", latest=None, is_bulk=False)
    assert flow._queues[asyncio.get_running_loop()] is mine
