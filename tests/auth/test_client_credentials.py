"""Tokens: one request for all who wait, renewed early, by rotation, and never in a log."""

import asyncio
import logging

import orjson
import pytest
from support.answers import ok, rm_error
from support.scripted_server import ScriptedServer
from yarl import URL

from rm_voucher import (
    AuthenticationError,
    ClientCredentialsToken,
    ConfigurationError,
    ConnectError,
    DecodeError,
    Environment,
    Response,
    ResponseLostError,
    RetryPolicy,
    StaticToken,
    Timeout,
)
from rm_voucher.transport.memory import MemoryTransport


def token(name, life_s=10_000, refresh="refresh", refresh_life_s=100_000):
    return ok(
        {
            "accessToken": name,
            "tokenType": "Bearer",
            "expiresIn": life_s,
            "refreshToken": refresh and f"{refresh}-{name}",
            "refreshTokenExpiresIn": refresh_life_s,
        }
    )


@pytest.fixture
def make_source(credentials, time):
    def make(handler, **options):
        return ClientCredentialsToken(
            credentials,
            Environment.SANDBOX,
            MemoryTransport(handler),
            retry=RetryPolicy(max_attempts=2),
            timeout=Timeout(),
            runtime=time.runtime,
            **options,
        )

    return make


def grants(server):
    return [orjson.loads(request.body) for request in server.requests]


async def renewed(source):
    """Return the token after the renewal that asking for one began."""
    await source.token()
    assert source._renewal is not None
    await asyncio.wait([source._renewal])
    return await source.token()


FIRST = {"grantType": "client_credentials"}


def refresh_of(name):
    return {"grantType": "refresh_token", "refreshToken": f"refresh-{name}"}


async def test_token_is_asked_for_once(make_source):
    """A token is kept as long as it lives."""
    server = ScriptedServer([token("a")])
    source = make_source(server)
    assert [await source.token() for _ in range(3)] == ["a", "a", "a"]
    assert grants(server) == [FIRST]
    assert server.requests[0].url == URL("https://sb-oauth.revenuemonster.my/v1/token")


async def test_token_200_first_callers_share_one_request(make_source):
    """200 concurrent first calls make one token request."""
    arrived, answer = asyncio.Event(), asyncio.Event()
    requests = []

    async def handler(request):
        requests.append(request)
        arrived.set()
        await answer.wait()
        return token("a")

    source = make_source(handler)
    callers = [asyncio.create_task(source.token()) for _ in range(200)]
    await arrived.wait()
    answer.set()
    assert set(await asyncio.gather(*callers)) == {"a"}
    assert len(requests) == 1


async def test_token_cancelling_the_first_caller_harms_nobody(make_source):
    """The request belongs to all who wait: cancelling the one who began it fails no other."""
    arrived, answer = asyncio.Event(), asyncio.Event()

    async def handler(request):
        arrived.set()
        await answer.wait()
        return token("a")

    source = make_source(handler)
    first, second = (asyncio.create_task(source.token()) for _ in range(2))
    await arrived.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    answer.set()
    assert await second == "a"


@pytest.mark.parametrize(("life_s", "renewed_at"), [(10_000, 6_400), (100, 50)])
async def test_token_is_renewed_early_by_rotation(make_source, time, life_s, renewed_at):
    """An hour before the end, or at half of a short life, the refresh token buys the next one."""
    server = ScriptedServer([token("a", life_s), token("b", life_s), token("c", life_s)])
    source = make_source(server)
    await source.token()
    time.now += renewed_at - 1
    assert await source.token() == "a"
    time.now += 1
    assert await renewed(source) == "b"
    time.now += renewed_at
    assert await renewed(source) == "c"
    assert grants(server) == [FIRST, refresh_of("a"), refresh_of("b")]


@pytest.mark.parametrize("answers", [[rm_error("InvalidGrant", 401)], [ok({}), ok({})]])
async def test_token_refresh_refused_falls_back_to_credentials(make_source, time, answers):
    """A refresh that is refused, or answered with nonsense: the credentials, once."""
    server = ScriptedServer([token("a"), *answers, token("b")])
    source = make_source(server)
    await source.token()
    time.now += 10_000
    assert await source.token() == "b"
    assert grants(server) == [FIRST, *[refresh_of("a")] * len(answers), FIRST]


@pytest.mark.parametrize("first", [token("a", refresh=None), token("a", refresh_life_s=5_000)])
async def test_token_without_a_refresh_token_that_lives(make_source, time, first):
    """No refresh token, or one that has expired: the credentials at once."""
    server = ScriptedServer([first, token("b")])
    source = make_source(server)
    await source.token()
    time.now += 9_000
    assert await renewed(source) == "b"
    assert grants(server) == [FIRST, FIRST]


async def test_token_renewal_is_waited_for_by_nobody(make_source, time):
    """While the token lives, a renewal that hangs holds up no call."""
    arrived = asyncio.Event()
    requests = []

    async def handler(request):
        requests.append(request)
        if len(requests) == 1:
            return token("a")
        arrived.set()
        return await asyncio.Future()

    source = make_source(handler)
    await source.token()
    time.now += 9_000
    assert [await source.token() for _ in range(3)] == ["a"] * 3
    await arrived.wait()
    assert len(requests) == 2
    await source.aclose()


async def test_token_that_a_call_waits_for_fails_once(make_source, caplog):
    """The call is told by the error; a warning beside it would say it twice."""
    source = make_source(ScriptedServer([ConnectError("token: no connection")] * 9))
    with pytest.raises(ConnectError):
        await source.token()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_token_renewal_that_fails_early_harms_nobody(make_source, time, caplog):
    """While the old token lives, it is used, and renewing is tried again a minute later."""
    lost = [ConnectError("token: no connection")] * 2
    server = ScriptedServer([token("a"), *lost, token("b")])
    source = make_source(server)
    await source.token()
    time.now += 9_000
    assert await renewed(source) == "a"
    assert "the request failed" in caplog.text
    assert (await source.token(), source._renewal) == ("a", None)
    assert len(server.requests) == 3
    time.now += 60
    assert await renewed(source) == "b"


@pytest.mark.parametrize("is_refused", [False, True])
async def test_token_renewal_that_fails_late_is_raised(make_source, time, is_refused):
    """A token that has expired, or was refused, is not used again."""
    lost = [ConnectError("token: no connection")] * 2
    server = ScriptedServer([token("a"), *lost])
    source = make_source(server)
    await source.token()
    if is_refused:
        assert source.refuse("a")
    else:
        time.now += 10_000
    with pytest.raises(ConnectError):
        await source.token()


async def test_refuse_an_old_token_keeps_the_new_one(make_source):
    """A call that was slow to be refused does not throw away the token that came since."""
    server = ScriptedServer([token("a"), token("b")])
    source = make_source(server)
    assert source.refuse("early")
    await source.token()
    source.refuse("a")
    assert await source.token() == "b"
    source.refuse("a")
    assert await source.token() == "b"


@pytest.mark.parametrize(
    "trouble",
    [ConnectError("x"), ResponseLostError("x"), Response(status=502), rm_error("OVERLOAD", 503)],
)
async def test_token_request_is_retried(make_source, time, trouble):
    """Asking twice gives two tokens at most, which harms nobody."""
    server = ScriptedServer([trouble, token("a")])
    assert await make_source(server).token() == "a"
    assert time.slept == [0.5]


async def test_token_refused_credentials_are_not_retried(make_source, time):
    """Wrong credentials are wrong the second time, too; the next caller asks anew."""
    server = ScriptedServer([rm_error("InvalidClient", 401), token("a")])
    source = make_source(server)
    with pytest.raises(AuthenticationError, match="client id or secret"):
        await source.token()
    assert time.slept == []
    assert await source.token() == "a"


async def test_token_answer_without_a_token(make_source):
    """An answer that is no token is an error with its place."""
    with pytest.raises(DecodeError, match="access_token"):
        await make_source(ScriptedServer([ok({}), ok({"tokenType": "Bearer"})])).token()


async def test_token_without_lifetime_is_renewed_within_the_hour(make_source, time):
    """A token that does not say how long it lives is not trusted for long."""
    server = ScriptedServer([ok({"accessToken": "a"}), ok({"accessToken": "b"})])
    source = make_source(server)
    assert await source.token() == "a"
    time.now += 3_600
    assert await source.token() == "b"


async def test_aclose_ends_a_renewal_in_flight(make_source):
    """Closing leaves no task behind, and may be repeated."""
    arrived = asyncio.Event()

    async def handler(request):
        arrived.set()
        await asyncio.Event().wait()

    source = make_source(handler)
    caller = asyncio.create_task(source.token())
    await arrived.wait()
    await source.aclose()
    await source.aclose()
    with pytest.raises(ConnectError, match="closed"):
        await caller
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_aclose_after_all_callers_left(make_source):
    """A renewal that nobody waits for any more fails without a word."""
    arrived, answer = asyncio.Event(), asyncio.Event()

    async def handler(request):
        arrived.set()
        await answer.wait()
        return rm_error("InvalidClient", 401)

    source = make_source(handler)
    caller = asyncio.create_task(source.token())
    await arrived.wait()
    caller.cancel()
    await asyncio.wait([caller])
    answer.set()
    await asyncio.sleep(0)
    await source.aclose()


async def test_log_has_no_secret(make_source, time, caplog):
    """Neither tokens nor the client's secret are logged."""
    caplog.set_level(logging.DEBUG, logger="rm_voucher")
    server = ScriptedServer([token("canary-a"), rm_error("InvalidGrant"), token("canary-b")])
    source = make_source(server)
    await source.token()
    time.now += 10_000
    await source.token()
    assert "refresh refused" in caplog.text
    assert "canary" not in caplog.text
    assert "client-secret" not in caplog.text


def test_source_over_several_event_loops(make_source):
    """A renewal that an event loop left unfinished binds nobody in the next."""
    requests = []

    async def handler(request):
        requests.append(request)
        if len(requests) == 1:
            await asyncio.Event().wait()
        return token("a")

    source = make_source(handler)
    loop = asyncio.new_event_loop()
    left = loop.create_task(source.token())
    for _ in range(5):
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert asyncio.run(source.token()) == "a"
    assert len(requests) == 2
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.wait([left]))
    loop.close()


@pytest.mark.parametrize("text", ["a\n", "é", "a\x00", "", " ", "a b"])
def test_static_token_that_fits_no_header(text):
    """A token with a line break is a copying mistake, found when the source is made."""
    with pytest.raises(ConfigurationError, match="ASCII"):
        StaticToken(text)


async def test_static_token_has_no_other():
    """A token that somebody else looks after is given as it is."""
    source = StaticToken("t")
    assert (await source.token(), source.refuse("t")) == ("t", False)
    assert "'t'" not in repr(source)
    await source.aclose()
