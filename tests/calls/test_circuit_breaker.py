"""The pause while the server fails: what begins it, how it is probed, what ends it."""

import asyncio
import itertools

import pytest
from simulation.clock import VirtualClock
from support.answers import HTML, LOST, NOT_SENT, ok, rm_error
from support.limited_server import bulk_for, client_at, in_virtual_time

from rm_voucher import (
    BulkStatus,
    ClosedError,
    ConnectTimeoutError,
    FlowPolicy,
    OutcomeUnknownError,
    PoolTimeoutError,
    Response,
    RetryPolicy,
    VoucherClient,
    VoucherError,
    bulk_issue,
)

FOUND = ok({"item": {"code": "X", "status": "ISSUED"}, "code": "SUCCESS"})
ONCE = RetryPolicy(max_attempts=1)


class Server:
    """Gives what is set, and keeps when requests came."""

    def __init__(self, clock: VirtualClock, answer: Response | Exception = NOT_SENT) -> None:
        self.clock = clock
        self.answer = answer
        self.came: list[float] = []
        self.issued = 0

    async def __call__(self, request):
        self.came.append(self.clock.now)
        await asyncio.sleep(0.01)
        if isinstance(self.answer, Exception):
            raise type(self.answer)(*self.answer.args)
        if request.operation == "issue" and self.answer is FOUND:
            self.issued += 1
            return ok({"item": {"code": f"C{self.issued}"}, "code": "SUCCESS"})
        return self.answer


async def fail(client: VoucherClient, calls: int) -> None:
    for _ in range(calls):
        with pytest.raises(VoucherError):
            await client.get("X")


@pytest.mark.parametrize(
    "answer",
    [NOT_SENT, LOST, HTML, Response(status=503), rm_error("INTERNAL_ERROR", 500)],
    ids=["not sent", "lost", "gateway's page", "503", "RM's error"],
)
def test_pause_begins_with_the_twentieth_failing_call(answer):
    """So many calls in a row that fail, of which each counts, begin a pause; one fewer do not."""

    async def main(clock: VirtualClock) -> None:
        async with client_at(clock, Server(clock, answer), retry=ONCE) as client:
            await fail(client, 19)
            assert client.flow.outage_s is None
            await fail(client, 1)
            assert client.flow.outage_s == 0
            await asyncio.sleep(0.25)
            assert client.flow.outage_s == 0.25

    in_virtual_time(main)


def test_repeats_of_one_call_count_once():
    """A call that fails again and again is one; the others before it were one each."""

    async def main(clock: VirtualClock) -> None:
        server = Server(clock)
        retry = RetryPolicy(max_attempts=100, initial_wait_s=0.1, max_wait_s=0.1)
        async with client_at(clock, server, retry=retry) as client:
            await fail(client, 19)
            assert len(server.came) == 1900
            assert client.flow.outage_s is None

    in_virtual_time(main)


@pytest.mark.parametrize(
    "answer",
    [
        FOUND,
        rm_error("VOUCHER_NOT_FOUND", 404),
        rm_error("INVALID_PARAMETER", 400),
        rm_error("TOO_MANY_REQUEST_PER_SECOND", 429),
    ],
    ids=["success", "404", "400", "429"],
)
def test_answer_in_between_begins_the_count_anew(answer):
    """An answer shows that the server works, also a refusal."""

    async def main(clock: VirtualClock) -> None:
        server = Server(clock)
        async with client_at(clock, server, retry=ONCE) as client:
            for _ in range(3):
                server.answer = NOT_SENT
                await fail(client, 19)
                server.answer = answer
                await asyncio.gather(client.get("X"), return_exceptions=True)
                assert client.flow.outage_s is None

    in_virtual_time(main)


def test_refusals_never_pause():
    """However many calls are refused, nobody waits."""

    async def main(clock: VirtualClock) -> None:
        server = Server(clock, rm_error("VOUCHER_NOT_FOUND", 404))
        async with client_at(clock, server, retry=ONCE) as client:
            await fail(client, 50)
            assert client.flow.outage_s is None
            assert client.caller.flow.unlimited

    in_virtual_time(main)


@pytest.mark.parametrize("status", [200, 302, 401, 403])
def test_run_behind_a_page_leaves_few_in_doubt(status):
    """Where a page answers in the server's place, the outcome of an issue is unknown: all wait
    before a campaign of them is, and nobody is sent to it any more than to a server that fails."""

    async def main(clock: VirtualClock) -> None:
        server = Server(clock, Response(status=status, body=b"<html>"))
        async with client_at(clock, server, retry=ONCE) as client:
            async with bulk_issue(client, "B", range(3000), concurrency=8) as run:
                async for _ in run:
                    pass
            # To begin with, those that were out then, and one every few seconds.
            assert 20 <= run.summary.unresolved < 20 + 8 + 120 / 2.5 + 5
            assert run.summary.failed == 3000 - run.summary.unresolved

    in_virtual_time(main)


@pytest.mark.parametrize("answer", [rm_error("A_NEW_CODE", 409), Response(status=408)])
def test_answer_about_one_request_never_pauses(answer):
    """A conflict, or a request that took too long, is no failing server, however many say so."""

    async def main(clock: VirtualClock) -> None:
        async with client_at(clock, Server(clock, answer), retry=ONCE) as client:
            await fail(client, 50)
            assert client.flow.outage_s is None

    in_virtual_time(main)


def test_closed_transport_is_no_failing_server():
    """What the client itself refuses says nothing about the server."""

    async def main(clock: VirtualClock) -> None:
        server = Server(clock, ClosedError("x: closed"))
        async with client_at(clock, server, retry=ONCE) as client:
            await fail(client, 50)
            assert client.flow.outage_s is None

    in_virtual_time(main)


def test_full_pool_is_no_failing_server_and_no_sign_of_a_working_one():
    """Calls that wait in vain for a connection pause nobody, and end no pause."""

    async def main(clock: VirtualClock) -> None:
        server = Server(clock, PoolTimeoutError("x: full"))
        async with client_at(clock, server, retry=ONCE) as client:
            await fail(client, 50)
            assert client.flow.outage_s is None
            server.answer = NOT_SENT
            await fail(client, 20)
            assert client.flow.outage_s is not None
            server.answer = PoolTimeoutError("x: full")
            await fail(client, 1)
            assert client.flow.outage_s is not None

    in_virtual_time(main)


async def begin_pause(
    clock: VirtualClock, server: Server, handler=None, **options
) -> VoucherClient:
    """Return a client in its pause, which begins at once."""
    options = {"retry": ONCE, "random": lambda: 0.0, **options}
    client = client_at(clock, handler or server, **options)
    await asyncio.gather(*(client.get("X") for _ in range(20)), return_exceptions=True)
    assert client.flow.outage_s == 0
    server.came.clear()
    return client


@pytest.mark.parametrize(("luck", "share"), [(0.0, 1.0), (0.999, 0.5)])
def test_probes_one_at_a_time(luck, share):
    """In an outage one call is sent after 1 s, the next after 2 s, then 4 s, then one each
    `probe_interval_s`; each up to half of the wait earlier, by chance."""

    async def main(clock: VirtualClock) -> None:
        server = Server(clock)
        client = await begin_pause(clock, server, random=lambda: luck)
        begin = clock.now
        calls = [asyncio.create_task(client.get("X")) for _ in range(100)]
        await asyncio.sleep(25)
        times = [begin, *server.came]
        waits = [later - before for before, later in itertools.pairwise(times)]
        expected = [1, 2, 4, *[5] * 10][: len(waits)]
        assert len(waits) >= 5
        assert waits == pytest.approx([share * wait_s for wait_s in expected], rel=0.01)
        assert client.flow.waiting == 100 - len(waits)
        server.answer = FOUND
        await asyncio.gather(*calls, return_exceptions=True)

    in_virtual_time(main)


@pytest.mark.parametrize(("luck", "most"), [(0.0, 95), (0.5, 125), (0.999, 190)])
def test_long_outage_costs_few_probes(luck, most):
    """Each may be an issue whose outcome nobody knows; so in an hour there are about a hundred, and
    a minute at most lies between two, a twelfth of the outage before that."""

    async def main(clock: VirtualClock) -> None:
        server = Server(clock)
        flow = FlowPolicy(max_outage_wait_s=7200)
        client = await begin_pause(clock, server, random=lambda: luck, flow=flow)
        begin = clock.now
        calls = [asyncio.create_task(client.get("X")) for _ in range(200)]
        await asyncio.sleep(3600)
        assert 10 <= sum(when < begin + 60 for when in server.came) <= 30
        assert most - 20 <= len(server.came) <= most
        for before, later in itertools.pairwise(server.came):
            assert later - before <= max(5, min((before - begin) / 12, 60)) + 1
        server.answer = FOUND
        await asyncio.gather(*calls, return_exceptions=True)

    in_virtual_time(main)


def test_probe_that_succeeds_ends_the_pause_slowly():
    """Once a probe succeeds, all that wait are sent, but not at once: 20 a second, then faster."""

    async def main(clock: VirtualClock) -> None:
        server = Server(clock)
        client = await begin_pause(clock, server)
        server.answer = FOUND
        calls = [asyncio.create_task(client.get("X")) for _ in range(300)]
        vouchers = await asyncio.gather(*calls)
        assert len(vouchers) == len(server.came) == 300
        probe, *others = server.came
        assert sum(when < probe + 0.5 for when in others) <= 25
        assert 60 <= sum(when < probe + 1.5 for when in others) <= 120
        assert others[-1] < probe + 5
        assert client.flow.outage_s is None
        await asyncio.sleep(10)
        await client.get("X")
        assert client.flow.rate_per_s is None
        assert client.caller.flow.unlimited

    in_virtual_time(main)


def test_answer_of_a_call_in_flight_ends_the_pause():
    """Not only probes show that the server is back."""

    async def main(clock: VirtualClock) -> None:
        server = Server(clock)

        async def serve(request):
            if "SLOW" in request.url.path:
                await asyncio.sleep(0.5)
                return ok({"item": {"code": "SLOW", "status": "ISSUED"}, "code": "SUCCESS"})
            return await server(request)

        client = client_at(clock, serve, retry=ONCE)
        slow = asyncio.create_task(client.get("SLOW"))
        await asyncio.sleep(0)
        await asyncio.gather(*(client.get("X") for _ in range(20)), return_exceptions=True)
        assert client.flow.outage_s == 0
        await slow
        assert client.flow.outage_s is None

    in_virtual_time(main)


def test_throttled_probe_ends_the_pause():
    """A server that throttles is there."""

    async def main(clock: VirtualClock) -> None:
        server = Server(clock)
        client = await begin_pause(clock, server)
        server.answer = rm_error("TOO_MANY_REQUEST_PER_SECOND", 429)
        await fail(client, 1)
        assert client.flow.outage_s is None
        assert client.flow.rate_per_s is not None

    in_virtual_time(main)


@pytest.mark.parametrize("adaptive", [True, False])
def test_throttled_probe_lets_nobody_stampede(adaptive):
    """Also where a throttle may be chance, after many answers, or lowers no rate at all, those that
    wait are sent slowly after a pause that a throttle ended."""

    async def main(clock: VirtualClock) -> None:
        server = Server(clock, FOUND)
        flow = FlowPolicy(adaptive=adaptive)
        client = client_at(clock, server, flow=flow, retry=ONCE, random=lambda: 0.0)
        for _ in range(300):
            await client.get("X")
        server.answer = NOT_SENT
        await asyncio.gather(*(client.get("X") for _ in range(20)), return_exceptions=True)
        assert client.flow.outage_s == 0
        server.answer = rm_error("TOO_MANY_REQUEST_PER_SECOND", 429)
        server.came.clear()
        calls = [asyncio.create_task(client.get("X")) for _ in range(300)]
        await asyncio.sleep(1.5)
        assert client.flow.outage_s is None
        assert 2 <= len(server.came) <= 25
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    in_virtual_time(main)


def test_end_of_a_pause_breaks_no_limit():
    """A limit of one request in a hundred seconds is kept when a pause ends."""

    async def main(clock: VirtualClock) -> None:
        server = Server(clock)
        flow = FlowPolicy(rate_per_s=0.01, max_outage_wait_s=1e5)
        client = client_at(clock, server, flow=flow, retry=ONCE)
        await asyncio.gather(*(client.get("X") for _ in range(20)), return_exceptions=True)
        assert client.flow.outage_s == 0
        server.answer = FOUND
        await asyncio.gather(client.get("X"), client.get("X"))
        assert all(later - before >= 99.9 for before, later in itertools.pairwise(server.came))

    in_virtual_time(main)


def test_probe_without_an_end_holds_up_no_other():
    """The next probe does not wait for one that hangs, is cancelled, or breaks a handler."""

    async def main(clock: VirtualClock) -> None:
        server = Server(clock)

        async def serve(request):
            if "HANG" in request.url.path:
                server.came.append(clock.now)
                await asyncio.sleep(1000)
            if "BUG" in request.url.path:
                server.came.append(clock.now)
                raise RuntimeError("a bug of the handler's")
            return await server(request)

        client = await begin_pause(clock, server, serve)
        begin = clock.now
        codes = ["HANG", "CANCEL HANG", "BUG", "X"]
        calls = [asyncio.create_task(client.get(code)) for code in codes]
        await asyncio.sleep(3.5)
        calls[1].cancel()
        server.answer = FOUND
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [round(when - begin) for when in server.came] == [1, 3, 7, 12]
        assert isinstance(results[0], VoucherError)
        assert isinstance(results[1], asyncio.CancelledError)
        assert isinstance(results[2], RuntimeError)
        assert getattr(results[3], "code", results[3]) == "X"

    in_virtual_time(main)


def test_patience_ends():
    """Calls that wait longer than `max_outage_wait_s` fail, and later ones fail at once, provably
    unsent and without a repeat; probes go on, and one that succeeds lets all pass."""

    async def main(clock: VirtualClock) -> None:
        server = Server(clock)
        client = client_at(clock, server, flow=FlowPolicy(max_outage_wait_s=30))
        calls = [asyncio.create_task(client.issue("B")) for _ in range(50)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(end) for end in ends} == {ConnectTimeoutError}
        assert all("not sent, because the server keeps failing" in str(end) for end in ends)
        assert 1030 <= clock.now <= 1030.5
        assert len(server.came) < 50 + 15

        asked, then = len(server.came), clock.now
        results = await bulk_for_count(client, 40)
        assert clock.now == then
        assert {(r.status, type(r.error), r.attempts) for r in results} == {
            (BulkStatus.FAILED, ConnectTimeoutError, 0)
        }
        assert len(server.came) == asked

        await asyncio.sleep(6)
        server.answer = FOUND
        await client.issue("B")
        assert len(server.came) == asked + 1
        assert client.flow.outage_s is None
        results = await bulk_for(client, clock, 2, concurrency=10)
        assert {result.status for result in results} == {BulkStatus.ISSUED}

    in_virtual_time(main)


async def bulk_for_count(client, count):
    async with bulk_issue(client, "B", range(count), concurrency=10) as run:
        return [result async for result in run]


def test_lost_change_is_in_doubt_when_it_cannot_be_read_back():
    """A void whose answer was lost, and whose reading back finds the server out of patience, is in
    doubt, not unsent."""

    async def main(clock: VirtualClock) -> None:
        server = Server(clock)
        client = await begin_pause(clock, server, flow=FlowPolicy(max_outage_wait_s=0.5))
        await asyncio.sleep(5)
        server.answer = LOST
        with pytest.raises(OutcomeUnknownError):
            await client.void("X")
        assert len(server.came) == 1

    in_virtual_time(main)
