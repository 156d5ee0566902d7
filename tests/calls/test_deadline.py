"""`Timeout.total_s`: the deadline of a whole call, with its token, attempts, waits and looks."""

import asyncio
import math

import pytest
from support.answers import ISSUED, ok, payload, rm_error
from support.doubles import FakeTime
from support.scripted_server import ScriptedServer

from rm_voucher import (
    AuthenticationError,
    BulkStatus,
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    OutcomeUnknownError,
    Response,
    ResponseLostError,
    ResponseTimeoutError,
    RetryPolicy,
    ServerError,
    Timeout,
    TokenSource,
    Voucher,
    bulk_issue,
)

FOUND = ok(payload("get-voucher"))
TIMEOUT = Timeout(connect_s=10, attempt_s=30, total_s=60)
HASTE = Timeout(connect_s=0.001, attempt_s=0.01, total_s=0.02)
NOT_SENT = ConnectError("x: no connection")
LOST = ResponseLostError("x: the server closed the connection")
TOKEN = ok({"accessToken": "token", "expiresIn": 10_000})


class Slow(ScriptedServer):
    """Answers after a time on the injected clock: a script of (seconds, answer)."""

    def __init__(self, time, *script):
        super().__init__([answer for _, answer in script])
        self.time = time
        self.takes = [seconds for seconds, _ in script]

    def __call__(self, request):
        self.time.now += self.takes.pop(0)
        return super().__call__(request)

    @property
    def limits(self):
        """How long each attempt was allowed to take."""
        return [request.timeout.attempt_s for request in self.requests]


@pytest.fixture
def patient():
    """Waits 1, 2, 4… seconds."""
    return RetryPolicy(initial_wait_s=1, max_attempts=6)


@pytest.mark.parametrize("total_s", [0, -1, math.nan, math.inf, 29.999])
def test_total_that_makes_no_sense(total_s):
    """A deadline is positive and finite, and leaves room for one whole attempt."""
    with pytest.raises(ConfigurationError, match="total_s"):
        Timeout(attempt_s=30, total_s=total_s)


def test_total_of_one_attempt():
    """As long as one attempt is long enough; none is the default."""
    assert Timeout(total_s=30).total_s == 30
    assert Timeout().total_s is None


async def test_deadline_cuts_the_last_attempt(make_client, time, patient):
    """An attempt has what is left, if that is less than an attempt may take."""
    server = Slow(time, (25, NOT_SENT), (8, NOT_SENT), (0, ISSUED))
    await make_client(server, timeout=TIMEOUT, retry=patient).issue("KEY")
    assert time.slept == [1, 2]
    assert server.limits == [30, 30, 60 - 25 - 1 - 8 - 2]
    assert [request.timeout.connect_s for request in server.requests] == [10, 10, 10]


@pytest.mark.parametrize(("took", "attempts"), [(48.9, 2), (49, 1), (55, 1), (70, 1)])
async def test_deadline_too_near_for_another_attempt(make_client, time, patient, took, attempts):
    """After 1 s of waiting there must be more than connect_s left, or no wait is begun."""
    server = Slow(time, (took, NOT_SENT), (0, ISSUED))
    client = make_client(server, timeout=TIMEOUT, retry=patient)
    if attempts == 1:
        with pytest.raises(ConnectError) as caught:
            await client.issue("KEY")
        assert caught.value is NOT_SENT
        assert time.slept == []
    else:
        await client.issue("KEY")
        assert time.slept == [1]
        assert server.limits[1] == pytest.approx(10.1)
    assert len(server.requests) == attempts


async def test_deadline_is_of_the_monotonic_clock(make_client, time):
    """A clock that somebody sets right in the middle of a call moves no deadline."""
    server = Slow(time, (-3600, NOT_SENT), (7200, NOT_SENT), (0, ISSUED))
    steady = FakeTime(5.0)
    client = make_client(server, timeout=TIMEOUT, monotonic=steady.clock, sleep=steady.sleep)
    await client.issue("KEY")
    assert server.limits == [30, 30, 30]


async def test_deadline_keeps_the_servers_wait(make_client, time):
    """A wait that the server asks for and that would end too late is not begun either."""
    throttled = rm_error("OVERLOAD", 503, retry_after="51")
    server = Slow(time, (0, throttled))
    with pytest.raises(ServerError):
        await make_client(server, timeout=TIMEOUT).issue("KEY")
    assert time.slept == []


async def test_deadline_that_a_long_wait_has_passed(make_client, time, patient):
    """A sleep that takes longer than asked is followed by no attempt: provably not sent."""
    server = Slow(time, (0, NOT_SENT))

    async def oversleep(seconds):
        time.now += 55

    client = make_client(server, timeout=TIMEOUT, retry=patient, sleep=oversleep)
    with pytest.raises(ConnectTimeoutError, match="deadline is too near"):
        await client.issue("KEY")
    assert len(server.requests) == 1


async def test_deadline_of_a_call_wins(make_client, time):
    """A call's own time-out wins, and its deadline counts from the call, not from the client."""
    server = Slow(time, (0, ISSUED), (55, ISSUED), (0, ISSUED))
    client = make_client(server, timeout=TIMEOUT)
    own = Timeout(connect_s=1, attempt_s=5, total_s=5)
    await client.issue("KEY", timeout=own)
    await client.issue("KEY")
    await client.issue("KEY")
    assert server.limits == [5, 30, 30]


async def test_without_a_deadline_nothing_changes(make_client, time):
    """Without total_s, attempts go on for as long as the policy says, each with all its time."""
    server = Slow(time, *[(1000, NOT_SENT)] * 5, (0, ISSUED))
    await make_client(server, timeout=Timeout()).issue("KEY")
    assert len(time.slept) == 5
    assert server.limits == [60] * 6


async def test_deadline_of_an_issue_in_doubt(make_client, time):
    """What may have been executed is unknown, whatever the deadline says."""
    server = Slow(time, (55, LOST))
    with pytest.raises(OutcomeUnknownError):
        await make_client(server, timeout=TIMEOUT).issue("KEY")


async def test_deadline_of_a_read(make_client, time, patient):
    """A read raises its last error at once when no time is left for another attempt."""
    server = Slow(time, (30, LOST), (25, LOST))
    with pytest.raises(ResponseLostError) as caught:
        await make_client(server, timeout=TIMEOUT, retry=patient).get("X")
    assert caught.value is LOST
    assert time.slept == [1]
    assert server.limits == [30, 29]


async def test_deadline_counts_over_the_fallback_of_get(make_client, time):
    """The other method has what the first one left."""
    server = Slow(time, (35, Response(status=405)), (0, FOUND))
    await make_client(server, timeout=TIMEOUT).get("NAklEfbVdV")
    assert server.limits == [30, 25]


async def test_deadline_too_near_for_the_fallback_of_get(make_client, time):
    """The other method is not tried when there is no time for it, and nothing is learned."""
    server = Slow(time, (50, Response(status=405)), (0, FOUND))
    client = make_client(server, timeout=TIMEOUT)
    with pytest.raises(ConnectTimeoutError, match="deadline is too near"):
        await client.get("NAklEfbVdV")
    await client.get("NAklEfbVdV")
    assert [request.method for request in server.requests] == ["POST", "POST"]


CHANGES = {
    "void": lambda client: client.void("NAklEfbVdV"),
    "reinstate": lambda client: client.reinstate("NAklEfbVdV", pin="1"),
    "redeem": lambda client: client.redeem(["NAklEfbVdV"]),
    "member redeem": lambda client: client.member("60", "1").redeem("NAklEfbVdV"),
}


@pytest.mark.parametrize("operation", CHANGES)
async def test_deadline_counts_over_the_read_back(make_client, time, operation):
    """What is read back after a lost answer has what is left of the call."""
    server = Slow(time, (40, LOST), (15, LOST))
    with pytest.raises(OutcomeUnknownError):
        await CHANGES[operation](make_client(server, timeout=TIMEOUT))
    assert server.limits[:2] == [30, 20]
    assert len(server.limits) == 2


@pytest.mark.parametrize("operation", CHANGES)
async def test_deadline_too_near_to_read_back(make_client, time, operation):
    """Without time to read it back, the outcome is unknown, without a voucher."""
    server = Slow(time, (50, LOST))
    with pytest.raises(OutcomeUnknownError) as caught:
        await CHANGES[operation](make_client(server, timeout=TIMEOUT))
    assert (caught.value.voucher, caught.value.vouchers) == (None, ())
    assert time.slept == []


@pytest.mark.parametrize("operation", CHANGES)
async def test_deadline_too_near_to_send_again(make_client, time, operation, patient):
    """Read back unchanged, with no time to send it again: unknown at once, with the voucher."""
    status = "VOID" if operation == "reinstate" else "ISSUED"
    item = payload("get-voucher")["item"] | {"status": status, "redeemedAt": None}
    server = Slow(time, (30, LOST), (20, ok({"item": item, "code": "SUCCESS"})))
    with pytest.raises(OutcomeUnknownError) as caught:
        await CHANGES[operation](make_client(server, timeout=TIMEOUT, retry=patient))
    shown = caught.value.vouchers if operation == "redeem" else (caught.value.voucher,)
    (shown_voucher,) = shown
    assert isinstance(shown_voucher, Voucher)
    assert shown_voucher.status == status
    assert (time.slept, server.limits) == ([], [30, 30])


async def test_deadline_of_each_page(make_client, time):
    """Each page of a listing is a call, with a deadline of its own."""
    batches = payload("list-batches")
    more = {**batches, "meta": {"cursor": "2"}}
    server = Slow(time, (55, ok(more)), (55, ok(batches)))
    client = make_client(server, timeout=TIMEOUT)
    assert len([page async for page in client.batches().pages()]) == 2
    assert server.limits == [30, 30]


class Tokens(TokenSource):
    """Gives tokens in turn; None hangs, an exception is raised."""

    def __init__(self, *tokens):
        self.tokens = list(tokens)

    async def token(self):
        token = self.tokens.pop(0)
        if token is None:
            await asyncio.Future()
        if isinstance(token, Exception):
            raise token
        return token

    def refuse(self, token):
        return True


@pytest.mark.parametrize("operation", ["issue", *CHANGES])
async def test_deadline_without_a_token(make_client, operation):
    """A token that does not come in time: provably not sent, and never unknown."""
    client = make_client(ScriptedServer([]), timeout=HASTE, token_source=Tokens(None))
    call = client.issue("KEY") if operation == "issue" else CHANGES[operation](client)
    with pytest.raises(ConnectTimeoutError, match="no token came in time"):
        await call


async def test_deadline_without_a_new_token(make_client, caplog):
    """A token that was refused, and no new one in time: the refusal is raised."""
    server = ScriptedServer([rm_error("TOKEN_INVALID", 401)])
    client = make_client(server, timeout=HASTE, token_source=Tokens("old", None))
    with pytest.raises(AuthenticationError):
        await client.issue("KEY")
    assert "no token came in time" in caplog.text


async def test_deadline_counts_the_token(make_client, time):
    """The time that the token took is gone for the attempts."""
    server = Slow(time, (35, TOKEN), (0, ISSUED))
    await make_client(server, timeout=TIMEOUT, token_source=None).issue("KEY")
    assert server.limits == [30, 25]


async def test_deadline_passed_by_the_token(make_client, time):
    """A token that comes too late for an attempt: provably not sent."""
    server = Slow(time, (50, TOKEN))
    with pytest.raises(ConnectTimeoutError, match="deadline is too near"):
        await make_client(server, timeout=TIMEOUT, token_source=None).issue("KEY")
    assert [request.operation for request in server.requests] == ["token"]


async def test_deadline_is_not_a_sources_own_timeout(make_client):
    """A `TimeoutError` of the token source's own is passed on as it is."""
    own = TimeoutError("the source's own")
    client = make_client(ScriptedServer([]), timeout=TIMEOUT, token_source=Tokens(own))
    with pytest.raises(TimeoutError) as caught:
        await client.issue("KEY")
    assert caught.value is own


async def test_deadline_does_not_eat_a_cancellation(make_client):
    """Cancelling a call that waits for its token cancels it, with a deadline or without."""
    client = make_client(ScriptedServer([]), timeout=TIMEOUT, token_source=Tokens(None))
    task = asyncio.create_task(client.issue("KEY"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_deadline_leaves_a_shared_token_request_alone(make_client):
    """One call's deadline does not abort the token request that others wait for, too."""
    answer = asyncio.Event()

    async def handler(request):
        if request.operation == "token":
            await answer.wait()
            return TOKEN
        return ISSUED

    client = make_client(handler, token_source=None)
    other = asyncio.create_task(client.issue("KEY"))
    with pytest.raises(ConnectTimeoutError):
        await client.issue("KEY", timeout=HASTE)
    answer.set()
    assert (await other).code == "NAklEfbVdV"


async def test_deadline_of_the_transport_is_kept(make_client):
    """The cut attempt is cut by the transport: the outcome of what was sent is unknown."""

    async def hang(request):
        await asyncio.Future()

    with pytest.raises(OutcomeUnknownError) as caught:
        await make_client(hang, timeout=HASTE).issue("KEY")
    assert isinstance(caught.value.__cause__, ResponseTimeoutError)


async def test_deadline_in_a_bulk_run(make_client, time, patient):
    """Each recipient's call has a deadline of its own; one that passes is a definite failure."""
    server = Slow(time, (55, NOT_SENT), (55, ISSUED), (0, ISSUED))
    client = make_client(server, timeout=TIMEOUT, retry=patient)
    async with bulk_issue(client, "KEY", [1, 2, 3], concurrency=1) as run:
        results = [result async for result in run]
    assert [result.status for result in results] == [
        BulkStatus.FAILED,
        BulkStatus.ISSUED,
        BulkStatus.ISSUED,
    ]
    assert results[0].error is NOT_SENT
    assert server.limits == [30, 30, 30]


async def test_deadline_without_a_token_in_a_bulk_run(make_client):
    """Nothing was sent for whom no token came: failed, not unresolved, and asked for again."""
    tokens = Tokens(None, "token")
    client = make_client(ScriptedServer([ISSUED]), timeout=HASTE, token_source=tokens)
    async with bulk_issue(client, "KEY", [1, 2], concurrency=1) as run:
        results = [result async for result in run]
    assert [result.status for result in results] == [BulkStatus.FAILED, BulkStatus.ISSUED]
    assert [result.attempts for result in results] == [0, 1]
