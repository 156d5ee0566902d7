"""Tokens that are shared: what another process saved is taken, renewed for all, or ignored."""

import asyncio
import contextlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.answers import ok, rm_error
from support.doubles import FakeTime
from support.scripted_server import ScriptedServer

from rm_voucher import (
    AuthenticationError,
    ClientCredentialsToken,
    ConnectError,
    Credentials,
    Environment,
    RetryPolicy,
    Timeout,
)
from rm_voucher.transport.memory import MemoryTransport

FIRST = {"grantType": "client_credentials"}


def token(name, life_s=10_000, refresh_life_s=100_000):
    return ok(
        {
            "accessToken": name,
            "expiresIn": life_s,
            "refreshToken": f"refresh-{name}",
            "refreshTokenExpiresIn": refresh_life_s,
        }
    )


def refresh_of(name):
    return {"grantType": "refresh_token", "refreshToken": f"refresh-{name}"}


class Store:
    """A store in memory. ``failing`` names a method that raises."""

    def __init__(self, kept=None):
        self.kept = kept
        self.failing = None
        self.calls = []
        self._mutex = asyncio.Lock()

    def _call(self, method):
        self.calls.append(method)
        if self.failing == method:
            raise OSError(f"canary of {method}")

    @contextlib.asynccontextmanager
    async def lock(self):
        self._call("lock")
        async with self._mutex:
            yield
        self._call("unlock")

    async def load(self):
        self._call("load")
        return self.kept

    async def save(self, content):
        self._call("save")
        self.kept = content


def source_of(handler, store, time, **options):
    return ClientCredentialsToken(
        **{
            "credentials": Credentials("client-id", "client-secret", b""),
            "environment": Environment.SANDBOX,
            "transport": MemoryTransport(handler),
            "retry": RetryPolicy(max_attempts=2),
            "timeout": Timeout(),
            "runtime": time.runtime,
            "store": store,
            **options,
        }
    )


@pytest.fixture
def process(time):
    """Make what stands for a process: a source on a server of its own, and that server."""

    def make(store, *answers, **options):
        server = ScriptedServer(answers)
        return source_of(server, store, time, **options), server

    return make


def grants(server):
    return [orjson.loads(request.body) for request in server.requests]


@pytest.fixture
def store():
    return Store()


async def test_first_saves_and_second_adopts(process, store):
    """One process buys, under the lock; the other takes what it saved, without a request."""
    (a, a_server), (b, b_server) = process(store, token("a")), process(store)
    assert await a.token() == "a"
    assert store.calls == ["lock", "load", "save", "unlock"]
    for _ in range(3):  # only the first asks the store
        assert await b.token() == "a"
    assert (grants(a_server), grants(b_server)) == ([FIRST], [])
    assert store.calls[4:] == ["lock", "load", "unlock"]


async def test_refused_token_adopts_the_news(process, store):
    """After a refusal, what another process has saved meanwhile is taken without a request."""
    (a, a_server), (b, _) = process(store, token("a")), process(store, token("b"))
    await a.token()
    await b.token()
    assert b.refuse("a")
    assert await b.token() == "b"
    assert a.refuse("a")
    assert await a.token() == "b"
    assert grants(a_server) == [FIRST]


async def test_refused_token_is_refreshed_for_all(process, store):
    """Without news it is refreshed with the shared refresh token, and saved for the others."""
    (a, _), (b, b_server), (c, _) = (
        process(store, token("a")),
        process(store, token("b")),
        process(store),
    )
    await a.token()
    await b.token()
    b.refuse("a")
    assert await b.token() == "b"
    assert grants(b_server) == [refresh_of("a")]
    assert await c.token() == "b"


async def test_refresh_uses_the_latest_refresh_token(process, store, time):
    """A refresh token that another process spent is not used: the one that it saved is."""
    (a, a_server), (b, _) = (
        process(store, token("a"), token("c")),
        process(store, token("b", life_s=10)),
    )
    await a.token()
    await b.token()
    b.refuse("a")
    await b.token()
    time.now += 20
    a.refuse("a")
    assert await a.token() == "c"
    assert grants(a_server) == [FIRST, refresh_of("b")]


async def test_refresh_refused_falls_back_to_the_credentials(process, store):
    """A shared refresh token that is spent: the credentials, and the result is saved."""
    (a, _), (b, b_server) = (
        process(store, token("a")),
        process(store, rm_error("InvalidGrant", 401), token("b")),
    )
    await a.token()
    await b.token()
    b.refuse("a")
    assert await b.token() == "b"
    assert grants(b_server) == [refresh_of("a"), FIRST]
    assert b'"b"' in store.kept


async def test_expired_token_with_a_living_refresh_token(process, store, time):
    """A saved token that has expired is not taken, but its refresh token is."""
    (a, _), (b, b_server) = process(store, token("a")), process(store, token("b"))
    await a.token()
    time.now += 10_000
    assert await b.token() == "b"
    assert grants(b_server) == [refresh_of("a")]


async def test_early_renewal_is_shared(process, store, time):
    """The first process to renew early does so for all; the next one takes it in passing."""
    (a, _), (b, b_server) = process(store, token("a"), token("b")), process(store)
    await a.token()
    await b.token()
    time.now += 6_500
    for source in (a, b):
        assert await source.token() == "a"
        await asyncio.wait([source._renewal])
        assert await source.token() == "b"
    assert grants(b_server) == []


async def test_older_token_is_no_news(process, store, time):
    """A token that is older than the own one (the store could not be read) is not taken."""
    (a, _), (b, b_server) = (
        process(store, token("a")),
        process(store, token("b"), token("c")),
    )
    await a.token()
    store.failing = "load"
    time.now += 100
    assert await b.token() == "b"
    store.failing = None
    b.refuse("b")
    assert await b.token() == "c"
    assert len(b_server.requests) == 2


async def test_adopted_token_expires_with_the_original(store, time):
    """Who takes a token over knows the same end of it as who bought it."""

    def slow(request):
        time.now += 25
        return token("a")

    a, b = source_of(slow, store, time), source_of(ScriptedServer([]), store, time)
    await a.token()
    await b.token()
    assert b._held.expires_at == a._held.expires_at


async def test_adopted_token_of_a_clock_ahead_lives_no_longer(store, time):
    """A process whose clock is ahead does not make the others keep its token for longer."""
    a = source_of(ScriptedServer([token("a")]), store, FakeTime(time.now + 86_400))
    b = source_of(ScriptedServer([]), store, time)
    await a.token()
    assert await b.token() == "a"
    assert b._held.expires_at == time.now + 10_000


async def saved_by(process, store, **changes):
    """Return what a process saves, changed."""
    source, _ = process(store, token("a"))
    await source.token()
    kept = orjson.loads(store.kept)
    kept["token"].update(changes.pop("token", {}))
    return orjson.dumps({**kept, **changes})


UNUSABLE: dict[str, dict[str, object]] = {
    "another application": {"application": "another"},
    "no application": {"application": None},
    "no time": {"obtained_at": None},
    "time of text": {"obtained_at": "2026-01-01"},
    "token that fits no header": {"token": {"accessToken": "a\nX-Evil: 1"}},
    "token of another kind": {"token": {"accessToken": 7}},
    "long expired": {"obtained_at": 1.0},
}


@pytest.mark.parametrize("name", UNUSABLE)
async def test_saved_token_that_is_unusable(process, caplog, name):
    """What is another's, or makes no sense, is ignored without a word and replaced."""
    store = Store(await saved_by(process, Store(), **UNUSABLE[name]))
    source, server = process(store, token("b"))
    assert await source.token() == "b"
    assert grants(server) == [FIRST]
    assert orjson.loads(store.kept)["token"]["accessToken"] == "b"
    assert caplog.text == ""


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"7", b"[]", b"{}", b"{", b"\xff\xfe", b'{"token": {}}', b"[" * 5000],
)
async def test_saved_token_that_is_damaged(process, content):
    """A file that somebody cut off or filled with something else costs one request."""
    store = Store(content)
    source, server = process(store, token("b"))
    assert await source.token() == "b"
    assert grants(server) == [FIRST]


@pytest.mark.parametrize(
    "changed",
    [
        {"credentials": Credentials("another-id", "client-secret", b"")},
        {"environment": Environment.PRODUCTION},
    ],
)
async def test_saved_token_of_another_application(process, store, changed):
    """Neither another client id nor another environment shares the token; a new secret does."""
    a, _ = process(store, token("a"))
    await a.token()
    other, server = process(store, token("b"), **changed)
    assert await other.token() == "b"
    assert grants(server) == [FIRST]
    fresh = Store(await saved_by(process, Store()))
    same, _ = process(fresh, credentials=Credentials("client-id", "another-secret", b""))
    assert await same.token() == "a"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
fields = st.sampled_from(
    ["accessToken", "expiresIn", "refreshToken", "refreshTokenExpiresIn", "tokenType"]
)


@given(when=values, wire=values | st.dictionaries(fields, values), noise=st.binary(max_size=9))
def test_saved_token_never_crashes(when, wire, noise):
    """Whatever stands in the store, it is a token or nothing."""
    source = source_of(ScriptedServer([]), None, FakeTime())
    try:
        content = orjson.dumps(
            {"application": source._fingerprint(), "obtained_at": when, "token": wire}
        )
    except TypeError:  # an integer that JSON's writer has no form for
        content = b""
    for damaged in (content, content[:-1], noise, content + noise):
        held = source._from_bytes(damaged)
        assert held is None or source._is_newer(held) in (True, False)


@pytest.mark.parametrize("failing", ["lock", "load", "save", "unlock"])
async def test_store_that_raises(process, store, caplog, failing):
    """The class of what the store raised is logged, and the token is had, with one request."""
    store.failing = failing
    source, server = process(store, token("a"))
    assert await source.token() == "a"
    assert grants(server) == [FIRST]
    (record,) = caplog.records
    assert record.message == "token: the store failed (OSError); not shared"
    assert record.exc_info is None


async def test_store_that_raises_once(process, store, time):
    """A store that works again is used again: the next renewal is shared."""
    store.failing = "lock"
    source, _ = process(store, token("a"), token("b"))
    await source.token()
    store.failing = None
    source.refuse("a")
    assert await source.token() == "b"
    other, _ = process(store)
    assert await other.token() == "b"


async def test_store_that_raises_beside_the_server(process, store):
    """Neither store nor server: the server's error is what the caller is told."""
    store.failing = "load"
    source, server = process(store, rm_error("InvalidClient", 401))
    with pytest.raises(AuthenticationError):
        await source.token()
    assert len(server.requests) == 1


async def test_token_request_that_fails_saves_nothing(process, store):
    """The lock is let go, nothing is saved, and the error is the token request's own."""
    failure = ConnectError("token: no connection")
    source, _ = process(store, failure, failure)
    with pytest.raises(ConnectError) as caught:
        await source.token()
    assert str(caught.value) == str(failure)
    assert (store.kept, "save" in store.calls) == (None, False)
    assert not store._mutex.locked()


async def test_aclose_lets_the_lock_go(store, time):
    """Closing a client in the middle of a renewal leaves the lock to the others."""
    arrived = asyncio.Event()

    async def hang(request):
        arrived.set()
        await asyncio.Future()

    source = source_of(hang, store, time)
    caller = asyncio.create_task(source.token())
    await arrived.wait()
    assert store._mutex.locked()
    await source.aclose()
    assert not store._mutex.locked()
    with pytest.raises(ConnectError, match="closed"):
        await caller


async def test_cancelling_a_caller_saves_the_token_all_the_same(store, time):
    """A token that was bought is saved, though who asked for it has left."""
    arrived, answer = asyncio.Event(), asyncio.Event()

    async def handler(request):
        arrived.set()
        await answer.wait()
        return token("a")

    source = source_of(handler, store, time)
    caller = asyncio.create_task(source.token())
    await arrived.wait()
    caller.cancel()
    await asyncio.wait([caller])
    answer.set()
    await asyncio.wait([source._renewal])
    assert b'"a"' in store.kept


async def test_defect_of_a_transport_is_not_the_stores(store, time, caplog):
    """What a transport raises by mistake is raised, once, and not taken for a store that failed."""
    asked = []

    def broken(request):
        asked.append(request)
        raise KeyError

    with pytest.raises(KeyError):
        await source_of(broken, store, time).token()
    assert len(asked) == 1
    assert "the store failed" not in caplog.text


async def test_store_that_ends_in_a_cancellation_is_not_shared(store, time, caplog):
    """A store whose own time limit cancels something has failed; the client was not closed."""

    class Cancelling(Store):
        async def load(self):
            raise asyncio.CancelledError

    source = source_of(ScriptedServer([token("a")]), Cancelling(), time)
    assert await source.token() == "a"
    assert "the store failed (CancelledError)" in caplog.text


async def test_token_error_is_each_callers_own(store, time):
    """Who waits for one request has an error of its own, with its cause and its own context."""
    failure = ConnectError("token: no connection")
    failure.__cause__ = OSError("unreachable")
    source = source_of(ScriptedServer([failure] * 6), store, time)

    async def ask(handled):
        try:
            raise handled
        except KeyError:
            return await source.token()

    handled = KeyError("a"), KeyError("b")
    errors = await asyncio.gather(*map(ask, handled), return_exceptions=True)
    assert errors[0] is not errors[1]
    assert [
        error.__context__ in (None, own) for error, own in zip(errors, handled, strict=True)
    ] == [True] * 2
    assert all(isinstance(error.__cause__, OSError) for error in errors)
