"""A wait that the server asks for holds back every caller of a client."""

import asyncio

import pytest
from simulation.clock import VirtualClock
from support.answers import ok
from support.limited_server import client_at, in_virtual_time

from rm_voucher import FlowPolicy, NotFoundError, Response, RetryPolicy, ServerError, VoucherClient

FOUND = ok({"item": {"code": "X", "status": "ISSUED"}, "code": "SUCCESS"})


class Asking:
    """Asks for a wait in its first answer, after 1 s; keeps when requests came."""

    def __init__(self, clock: VirtualClock, first: Response) -> None:
        self.clock = clock
        self.first: Response | None = first
        self.came: list[float] = []

    async def __call__(self, request):
        self.came.append(self.clock.now)
        first, self.first = self.first, None
        if first is None:
            return FOUND
        await asyncio.sleep(1)
        return first


def answer(status: int, **headers: str) -> Response:
    return Response(
        status=status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        body=b'{"error": {"code": "TOO_MANY_REQUEST_PER_SECOND"}}' if status == 429 else b"",
    )


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "retry_after_s"),
    [
        ({"retry_after": "30"}, 30),
        ({"retry_after": "2.5"}, 2.5),
        (
            {
                "date": "Tue, 14 Nov 2023 22:13:20 GMT",
                "retry_after": "Tue, 14 Nov 2023 22:14:05 GMT",
            },
            45,
        ),
        ({"retry_after": "9999"}, 60),
    ],
)
def test_every_caller_is_held_back(status, headers, retry_after_s):
    """``Retry-After``, in seconds or as a date, at most `RetryPolicy.max_retry_after_s`, holds
    back callers that never saw it; then all are sent."""

    async def main(clock: VirtualClock) -> None:
        server = Asking(clock, answer(status, **headers))
        retry = RetryPolicy(max_retry_after_s=60)
        async with client_at(clock, server, retry=retry) as client:
            first = asyncio.create_task(client.get("X"))
            await asyncio.sleep(1.5)
            others = [asyncio.create_task(client.get("X")) for _ in range(4)]
            last = asyncio.create_task(client.issue("B"))
            await asyncio.sleep(0.25)
            assert client.flow.retry_after_s == pytest.approx(retry_after_s - 0.75)
            assert client.flow.waiting == 5
            assert client.flow.throttled == (status == 429)
            await asyncio.gather(first, *others, last)
            assert client.flow.retry_after_s == 0
            assert client.flow.waiting == 0
        assert len(server.came) == 7
        assert min(server.came[1:]) >= 1001 + retry_after_s
        assert max(server.came) < 1001 + retry_after_s + 10

    in_virtual_time(main)


@pytest.mark.parametrize("text", ["0", "-5", "soon", "nan", "inf"])
def test_no_wait_that_is_none(text):
    """A ``Retry-After`` that asks for no wait, or makes no sense, holds nobody back."""

    async def main(clock: VirtualClock) -> None:
        server = Asking(clock, answer(503, retry_after=text))
        async with client_at(clock, server, retry=RetryPolicy(max_attempts=1)) as client:
            with pytest.raises(ServerError):
                await client.get("X")
            assert client.flow.retry_after_s == 0
            await client.get("X")
        assert server.came == [1000, 1001]

    in_virtual_time(main)


def test_refusal_holds_nobody_back():
    """A header on a refusal is not about waiting."""

    async def main(clock: VirtualClock) -> None:
        refusal = ok({"error": {"code": "VOUCHER_NOT_FOUND"}}, 404, retry_after="30")
        server = Asking(clock, refusal)
        async with client_at(clock, server) as client:
            with pytest.raises(NotFoundError):
                await client.get("X")
            await client.get("X")
        assert server.came == [1000, 1001]

    in_virtual_time(main)


def test_longest_wait_counts():
    """Of two waits that were asked for, the one that ends later counts."""

    async def main(clock: VirtualClock) -> None:
        waits = ["40", "5"]
        came = []

        async def server(request):
            came.append(clock.now)
            await asyncio.sleep(1)
            return answer(503, retry_after=waits.pop(0)) if waits else FOUND

        async with client_at(clock, server) as client:
            await asyncio.gather(client.get("X"), client.get("X"))
        assert came[:2] == [1000, 1000]
        assert came[2] >= 1041

    in_virtual_time(main)


def free(client: VoucherClient) -> bool:
    return client.caller.flow.unlimited


def test_free_again_after_a_hold():
    """After a hold calls are sent without asking again, also after one throttle, which may be
    chance; with a rate of the user's they ask."""

    async def main(clock: VirtualClock) -> None:
        for status, policy, unlimited in (
            (503, None, True),
            (429, None, True),
            (503, FlowPolicy(rate_per_s=1000), False),
        ):
            server = Asking(clock, answer(status, retry_after="5"))
            async with client_at(clock, server, flow=policy) as client:
                assert free(client) == (policy is None)
                await client.get("X")
                assert free(client) is unlimited

    in_virtual_time(main)


async def test_sleep_that_takes_no_time():
    """In tests a sleep may take no time and a clock stand still: a call waits its turn all the
    same, and ends."""
    answers = [answer(429, retry_after="30"), FOUND, answer(503, retry_after="9"), FOUND]
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    client = client_at(
        VirtualClock(), lambda request: answers.pop(0), sleep=sleep, random=lambda: 0.0
    )
    for _ in range(2):
        assert (await client.get("X")).code == "X"
    assert not answers
    assert sum(slept) >= 30 + 9
