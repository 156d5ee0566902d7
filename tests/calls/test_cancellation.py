"""Cancelling a caller at every await: it takes effect, and leaves nothing behind."""

import asyncio
import fcntl
import os
from contextlib import asynccontextmanager

import pytest
from support.answers import THROTTLED, ok, payload, rm_error, voucher, voucher_item
from support.cancellation import (
    Places,
    SlowTokens,
    each_turn,
    is_cancelled_after,
    slow_server,
    tasks_left,
    turn,
)

from rm_voucher import (
    BulkIssue,
    BulkResult,
    ClientCredentialsToken,
    ClosedError,
    Environment,
    FileTokenStore,
    Request,
    Response,
    ResponseLostError,
    RetryPolicy,
    Timeout,
    bulk_issue,
)
from rm_voucher.transport.memory import MemoryTransport

CODES = [f"C{number}" for number in range(10)]


class Shop:
    """Answers every operation; of each change, and of an issue, the first attempt goes wrong."""

    def __init__(self):
        self.attempts = {}

    def __call__(self, request):
        operation = request.operation
        self.attempts[operation] = number = self.attempts.get(operation, 0) + 1
        match operation:
            case "issue":
                issued = ok({"item": {"code": f"CODE{number}"}, "code": "SUCCESS"})
                return THROTTLED if number == 1 else issued
            case "get" if request.method == "POST" and request.url.name == "OTHER":
                return Response(status=405)
            case "get":
                return voucher("ISSUED", code=request.url.name)
            case "void" if number > 1:
                return voucher("VOID")
            case "redeem" if number > 1:
                items = [voucher_item("REDEEMED", code) for code in CODES]
                return ok({"item": items, "code": "SUCCESS"})
            case "member get":
                return voucher("REDEEMED")
            case "member redeem" if number > 1:
                return voucher("VOID")
            case "vouchers":
                meta = {"cursor": "2"} if not request.url.query_string else {}
                items = [voucher_item("ISSUED")]
                return ok({"items": items, "meta": meta, "code": "SUCCESS"})
        raise ResponseLostError("x: lost")


async def list_all(client):
    return [v async for v in client.vouchers("K")]


CALLS = {
    "issue": (lambda c: c.issue("K"), {"token 1", "issue 1", "sleep 1", "issue 2"}),
    "get, by the other method": (
        lambda c: c.get("OTHER"),
        {"token 1", "get 1", "token 2", "get 2"},
    ),
    "void, read back": (
        lambda c: c.void("X"),
        {"token 1", "void 1", "token 2", "get 1", "sleep 1", "void 2"},
    ),
    "member's redeem, read back": (
        lambda c: c.member("60", "1").redeem("X"),
        *({"token 1", "member redeem 1", "token 2", "member get 1", "sleep 1", "member redeem 2"},),
    ),
    # Eight look-ups at once, then two: all that are inside are cancelled together.
    "redeem, looked up": (
        lambda c: c.redeem(CODES),
        {"token 1", "redeem 1", "token 9", "get 8", "token 11", "get 10", "sleep 1", "redeem 2"},
    ),
    "a listing": (list_all, {"token 1", "vouchers 1", "token 2", "vouchers 2"}),
}


@pytest.mark.parametrize("name", CALLS)
async def test_call_cancelled_at_each_await(make_client, name):
    """Wherever a call is suspended, cancelling ends it there and then: no task of it is left, and
    the client works on."""
    call, expected = CALLS[name]
    met = set()
    for turns in each_turn():
        places = Places()
        server = slow_server(places, Shop())
        client = make_client(server, token_source=SlowTokens(places), sleep=places.sleep)
        cancelled = await is_cancelled_after(turns, call(client))
        assert tasks_left() == set()
        met |= places.cancelled
        await asyncio.wait_for(call(client), 60)
        assert tasks_left() == set()
        if not cancelled:
            break
    assert met >= expected


@pytest.mark.parametrize("name", ["void, read back", "member's redeem, read back"])
async def test_call_cancelled_in_doubt_is_logged(make_client, caplog, name):
    """A change that was sent, its answer lost, and is cancelled before it is settled leaves the
    nonce of its unknown outcome in the log, as one that is cancelled in flight does."""
    for turns in each_turn():
        places = Places()
        client = make_client(
            slow_server(places, Shop()), token_source=SlowTokens(places), sleep=places.sleep
        )
        caplog.clear()
        if not await is_cancelled_after(turns, CALLS[name][0](client)):
            break
        was_sent = places.visits[name.partition(",")[0].replace("'s", "")] > 0
        assert ("outcome is unknown" in caplog.text) is was_sent


async def test_bulk_cancelled_at_each_await(make_client):
    """Wherever a run, or the leaving of it, is suspended: everybody who was taken has one result,
    no voucher is lost, no task is left, and the next run has all its places."""
    met = set()
    for turns in each_turn():
        places = Places()
        issued: list[str] = []
        runs: list[BulkIssue] = []
        delivered: list[BulkResult] = []

        def issue(request, issued=issued):
            issued.append(f"CODE{len(issued)}")
            return ok({"item": {"code": issued[-1]}, "code": "SUCCESS"})

        client = make_client(slow_server(places, issue), token_source=SlowTokens(places))

        async def campaign(client=client, runs=runs, delivered=delivered, at_most=3):
            async with bulk_issue(client, "K", range(9), concurrency=2) as run:
                runs.append(run)
                async for result in run:
                    delivered.append(result)
                    if len(delivered) == at_most:
                        break
            await turn(2)

        cancelled = await is_cancelled_after(turns, campaign())
        assert tasks_left() == set()
        for run in runs:
            results = delivered + run.undelivered
            assert sorted(result.recipient for result in results) == list(range(len(results)))
            codes = [result.voucher.code for result in results if result.voucher]
            assert sorted(codes) == sorted(issued)
            assert len(results) == run.summary.asked
            assert run.summary.in_flight == run.summary.unresolved == 0
        met.add(len(delivered))
        delivered.clear()
        await asyncio.wait_for(campaign(at_most=9), 60)
        assert len(delivered) == 9
        if not cancelled:
            break
    assert met >= {0, 2, 3}


class SlowStore:
    """A store of which every step takes some turns."""

    def __init__(self, places):
        self.places = places
        self.saved = None
        self.locked = False

    @asynccontextmanager
    async def lock(self):
        async with self.places.at("lock"):
            assert not self.locked
            self.locked = True
            try:
                yield
            finally:
                self.locked = False

    async def load(self):
        async with self.places.at("load"):
            return self.saved

    async def save(self, token):
        async with self.places.at("save"):
            self.saved = token


@pytest.fixture
def make_source(credentials, time):
    def make(places, store, asked):
        def sell(request):
            asked.append(request)
            return ok(payload("token-client-credentials"))

        return ClientCredentialsToken(
            credentials,
            Environment.SANDBOX,
            MemoryTransport(slow_server(places, sell)),
            retry=RetryPolicy(),
            timeout=Timeout(),
            runtime=time.runtime,
            store=store,
        )

    return make


async def test_token_caller_cancelled_at_each_await(make_source):
    """A caller that leaves a renewal, at whatever step, does not abort it: the next one has the
    same token, bought once, and the store's lock is free."""
    for turns in each_turn():
        places = Places()
        asked: list[Request] = []
        store = SlowStore(places)
        source = make_source(places, store, asked)
        cancelled = await is_cancelled_after(turns, source.token())
        assert places.cancelled == set()
        assert await asyncio.wait_for(source.token(), 60) == "example-accesstoken"
        await turn(20)  # the token is there before it is saved
        assert tasks_left() == set()
        assert len(asked) == 1
        assert store.saved is not None
        assert not store.locked
        if not cancelled:
            break


async def test_token_renewal_closed_at_each_await(make_source):
    """A renewal that closing the source aborts, at whatever step, frees the store's lock, tells
    its caller that the client was closed, and harms no other process."""
    met = set()
    for turns in each_turn():
        places = Places()
        store = SlowStore(places)
        source = make_source(places, store, [])
        caller = asyncio.create_task(source.token())
        await turn(turns)
        ended = caller.done()
        await source.aclose()
        assert not store.locked
        met |= places.cancelled
        await asyncio.wait([caller])
        allowed = ClosedError if places.cancelled else ClosedError | None
        assert isinstance(caller.exception(), allowed)
        assert tasks_left() == set()
        other = make_source(Places(), store, [])
        assert await asyncio.wait_for(other.token(), 60) == "example-accesstoken"
        if ended:
            break
    assert met == {"lock 1", "load 1", "token 1", "save 1"}


def is_locked(path):
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@pytest.mark.parametrize("turns", range(12))
async def test_token_file_is_unlocked_after_a_cancellation(make_source, tmp_path, turns):
    """The lock file of a `FileTokenStore` is free after its renewal, whoever left it."""
    path = tmp_path / "token"
    source = make_source(Places(), FileTokenStore(path), [])
    await is_cancelled_after(turns, source.token())
    assert await source.token() == "example-accesstoken"
    await source.aclose()
    assert not is_locked(tmp_path / "token.lock")
    assert tasks_left() == set()


@pytest.mark.parametrize("turns", range(12))
async def test_token_file_is_unlocked_after_closing(make_source, tmp_path, turns):
    """A renewal that is aborted lets go of the lock file, and the next process gets a token."""
    path = tmp_path / "token"
    source = make_source(Places(), FileTokenStore(path), [])
    caller = asyncio.create_task(source.token())
    await turn(turns)
    await source.aclose()
    assert not is_locked(tmp_path / "token.lock")
    await asyncio.wait([caller])
    assert isinstance(caller.exception(), ClosedError | None)
    other = make_source(Places(), FileTokenStore(path), [])
    assert await other.token() == "example-accesstoken"
    await source.aclose()


async def test_call_cancelled_while_it_renews_its_token(make_client):
    """A call that is cancelled between a refusal and the new token sends nothing more, and the
    next caller has that token."""
    for turns in each_turn():
        places = Places()
        sold: list[str] = []
        sent: list[str] = []

        def serve(request, sold=sold, sent=sent):
            if request.operation == "token":
                sold.append(f"token-{len(sold)}")
                return ok({"accessToken": sold[-1], "expiresIn": 10_000})
            sent.append(request.headers["Authorization"])
            if sent[-1] == "Bearer token-0":
                return rm_error("TOKEN_EXPIRED", 401)
            return voucher("VOID")

        client = make_client(slow_server(places, serve), token_source=None)
        cancelled = await is_cancelled_after(turns, client.get("X"))
        await asyncio.wait_for(client.get("X"), 60)
        assert sent[-1] == "Bearer token-1"
        assert sold == ["token-0", "token-1"]
        await client.aclose()
        assert tasks_left() == set()
        if not cancelled:
            break
