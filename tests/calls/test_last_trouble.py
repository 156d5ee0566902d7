"""The error that ends a call says what the call, or those that wait as it does, met last."""

import asyncio

import pytest
from simulation.clock import VirtualClock
from support.answers import HTML, LOST, ok, rm_error, voucher
from support.limited_server import client_at, in_virtual_time

from rm_voucher import (
    BulkStatus,
    ConnectError,
    ConnectTimeoutError,
    FlowPolicy,
    OutcomeUnknownError,
    RetryPolicy,
    ServerError,
    Timeout,
    bulk_issue,
)
from rm_voucher.ledger import Ledger
from rm_voucher.runtime import Runtime

SHORT = Timeout(connect_s=1, attempt_s=5, total_s=10)
HASTY = RetryPolicy(max_attempts=1)
REFUSED = "no connection (ClientConnectorError: Connection refused)"
LAST = f"(last: {{}}: {REFUSED})"


def refuse(request):
    raise ConnectError(f"{request.operation}: {REFUSED}")


def error_of(call, handler=refuse, **options):
    """Return what a call raises in virtual time, and when."""

    async def main(clock: VirtualClock):
        async with client_at(clock, handler, **options) as client:
            with pytest.raises(Exception) as caught:
                await call(client)
        return caught.value

    return in_virtual_time(main)


async def outage(client):
    """Let the server be taken for one that fails."""
    calls = [client.issue("B") for _ in range(40)]
    await asyncio.gather(*calls, return_exceptions=True)


def test_turn_that_comes_after_the_deadline():
    """A call that was never sent says what another one met."""

    async def call(client):
        with pytest.raises(ServerError):
            await client.issue("B")
        await client.get("X", timeout=SHORT)

    error = error_of(call, lambda _: rm_error("OVERLOAD", 503, retry_after="60"), retry=HASTY)
    assert type(error) is ConnectTimeoutError
    assert str(error).startswith(
        "get: not sent, because its turn would come after its deadline (last: OVERLOAD (HTTP 503)"
    )


def test_server_that_keeps_failing():
    """So does one that waits until nobody waits any longer."""

    async def call(client):
        await outage(client)
        await client.issue("B")

    error = error_of(call, flow=FlowPolicy(max_outage_wait_s=30))
    assert str(error) == (
        f"issue: not sent, because the server keeps failing {LAST.format('issue')}"
    )


def test_turn_that_does_not_come():
    """Behind others, the deadline ends the wait."""

    async def call(client):
        refused = asyncio.create_task(client.issue("B"))
        await asyncio.sleep(0.5)
        waiting = [asyncio.create_task(client.issue("B")) for _ in range(30)]
        await asyncio.sleep(0)
        try:
            await client.get("X", timeout=SHORT)
        finally:
            for task in [refused, *waiting]:
                task.cancel()

    error = error_of(call, retry=HASTY, flow=FlowPolicy(rate_per_s=1))
    assert str(error) == (
        f"get: not sent, because its turn did not come before its deadline {LAST.format('issue')}"
    )


def test_trouble_that_is_over_is_not_told():
    """An answer ends it."""

    async def main(clock: VirtualClock):
        answers = [refuse, lambda _: voucher("ISSUED")]
        async with client_at(
            clock, lambda request: answers.pop(0)(request), flow=FlowPolicy(rate_per_s=0.1)
        ) as client:
            await client.get("X")
            with pytest.raises(ConnectTimeoutError, match=r"after its deadline$"):
                await client.get("X", timeout=SHORT)

    in_virtual_time(main)


def test_deadline_that_a_wait_has_passed():
    """The attempt before says why there was a wait."""

    async def oversleep(_):
        await asyncio.sleep(9.5)

    error = error_of(lambda client: client.get("X", timeout=SHORT), sleep=oversleep)
    assert str(error) == (f"get: not sent, because its deadline is too near {LAST.format('get')}")


def test_token_that_does_not_come():
    """Its server can't be reached, and what buys tokens tries on by itself."""
    error = error_of(lambda client: client.get("X", timeout=SHORT), token_source=None)
    assert str(error) == (f"get: not sent, because no token came in time {LAST.format('token')}")


def test_token_of_an_outage():
    """So it is for a call that waits for its turn to ask for one."""

    async def call(client):
        await outage(client)
        await client.get("X", timeout=SHORT)

    error = error_of(call, token_source=None, retry=HASTY)
    assert LAST.format("token") in str(error)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (LOST, "answer lost after 1 attempt"),
        (HTML, "server failed after 1 attempt"),
    ],
)
def test_unknown_outcome(answer, words):
    """It says why the answer did not come, and the error that is its cause is still there."""

    def serve(_):
        if isinstance(answer, Exception):
            raise answer
        return answer

    error = error_of(lambda client: client.issue("B"), serve)
    assert isinstance(error, OutcomeUnknownError)
    assert str(error).startswith(f"issue: {words}, so whether")
    assert str(error).endswith(f"(attempt {error.attempt_id}; last: {error.__cause__})")


def test_unknown_outcome_that_can_not_be_read_back():
    """Both are told: the lost answer, and why nothing tells of the voucher."""
    answers = []

    def serve(request):
        answers.append(request)
        if len(answers) == 1:
            raise LOST
        return refuse(request)

    error = error_of(lambda client: client.void("X"), serve)
    assert isinstance(error, OutcomeUnknownError)
    assert str(error).endswith(f"; last: {LOST}; not read back: get: {REFUSED})")


def test_run_that_never_had_a_token_says_why():
    """The one sentence of a run that nothing ever answers."""

    async def main(clock: VirtualClock):
        async with (
            client_at(clock, refuse, token_source=None) as client,
            bulk_issue(client, "B", range(3)) as run,
        ):
            return [result async for result in run]

    results = in_virtual_time(main)
    assert {result.status for result in results} == {BulkStatus.FAILED}
    for result in results:
        assert f"token: {REFUSED}" in str(result.error)


def test_run_that_is_left_says_what_a_call_waited_for():
    """Who was given up while it waited to be sent again had met something."""

    async def main(clock: VirtualClock):
        async with client_at(clock, refuse, sleep=asyncio.sleep) as client:
            async with bulk_issue(client, "B", range(1)) as run:
                await asyncio.sleep(0.01)
            (result,) = run.undelivered
            return result

    result = in_virtual_time(main)
    assert str(result.error) == (
        f"issue: given up while it waited; nothing had been done {LAST.format('issue')}"
    )


def with_ledger(call, **options):
    async def main(clock: VirtualClock):
        runtime = Runtime(clock=clock.wall, monotonic=clock.monotonic)
        serving = Serving()
        async with (
            client_at(clock, serving, **{"sleep": asyncio.sleep, **options}) as client,
            Ledger.in_memory(runtime=runtime) as ledger,
        ):
            await ledger.prepare(client, "B")
            with pytest.raises(Exception) as caught:
                await call(client, ledger, serving)
        return caught.value

    return in_virtual_time(main)


class Serving:
    """Answers the listing, and refuses connections, or loses answers, of all else."""

    lost = False

    def __call__(self, request):
        if request.operation != "issue":
            return ok({"items": [], "code": "SUCCESS"})
        if self.lost:
            raise LOST
        return refuse(request)


def test_ledger_whose_caller_waits_no_longer():
    """The call goes on, and its caller is told what it waited for."""

    async def oversleep(seconds):
        await asyncio.sleep(seconds + 100)

    async def call(client, ledger, serving):
        await ledger.issue(client, "B", "r", timeout=SHORT)

    error = with_ledger(call, sleep=oversleep)
    assert type(error) is ConnectTimeoutError
    assert str(error).startswith("issue: not sent before its deadline; ask again")
    assert str(error).endswith(LAST.format("issue"))


def test_ledger_that_is_closed_while_a_call_waits():
    """It says why the call was still waiting."""

    async def call(client, ledger, serving):
        issuing = asyncio.create_task(ledger.issue(client, "B", "r"))
        await asyncio.sleep(0.1)
        await ledger.aclose()
        await issuing

    error = with_ledger(call)
    assert str(error) == f"issue: given up, because the ledger was closed {LAST.format('issue')}"


def test_ledger_of_unknown_outcome():
    """It is to be settled; the lost answer is told all the same."""

    async def call(client, ledger, serving):
        serving.lost = True
        await ledger.issue(client, "B", "r")

    error = with_ledger(call)
    assert isinstance(error, OutcomeUnknownError)
    assert str(error).endswith(f"(attempt {error.attempt_id}; last: {LOST})")
