"""The client: every operation, every outcome, and what a lost answer may and may not do."""

import asyncio
import functools
import logging
import traceback
from datetime import UTC, datetime

import pytest
from conftest import ISSUED, ScriptedServer, ok, payload, rm_error
from yarl import URL

from rm_voucher import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    Credentials,
    DecodeError,
    Environment,
    NotFoundError,
    OutcomeUnknownError,
    OutOfStockError,
    RateLimitError,
    Request,
    Response,
    ResponseLostError,
    ResponseTimeoutError,
    RetryPolicy,
    ServerError,
    Timeout,
    TokenSource,
    VoucherClient,
    VoucherError,
    VoucherStateError,
    protocol,
)
from rm_voucher.caller import Call
from rm_voucher.retry import Safety
from rm_voucher.transport.aiohttp import AiohttpTransport
from rm_voucher.transport.base import Transport

NOT_SENT = ConnectError("x: no connection")
LOST = ResponseLostError("x: the server closed the connection")
HTML = Response(status=502, body=b"<html>Bad Gateway</html>")
THROTTLED = rm_error("TOO_MANY_REQUEST_PER_SECOND", 429)


async def test_issue_gives_code_and_url(make_client):
    """One POST, one voucher."""
    server = ScriptedServer([ISSUED])
    voucher = await make_client(server).issue("KEY")
    assert (voucher.code, voucher.qr_url) == ("NAklEfbVdV", "https://qr.invalid/1")
    assert server.paths == ["POST /v3/voucher-batch/KEY/issue"]


@pytest.mark.parametrize(
    "nothing_done",
    [
        NOT_SENT,
        ConnectTimeoutError("x"),
        THROTTLED,
        rm_error("TOO_MANY_REQUEST_PER_SECOND", 200),
        rm_error("TOO_MANY_REQUEST_PER_SECOND", 400),
        rm_error("TOO_MANY_REQUEST_PER_SECOND", 500),
        rm_error("EXCEEDED_LIMIT", 403),
        rm_error("OVERLOAD", 503),
        rm_error("TemporaryUnAvailable", 503),
        Response(status=429, body=b"<html>"),
        Response(status=429),
    ],
    ids=lambda a: getattr(a, "body", repr(a)),
)
async def test_issue_waits_and_retries_what_was_not_done(make_client, time, nothing_done):
    """Only an outcome that proves that nothing was done is followed by another POST."""
    server = ScriptedServer([nothing_done, nothing_done, ISSUED])
    voucher = await make_client(server).issue("KEY")
    assert voucher.code == "NAklEfbVdV"
    assert len(server.requests) == 3
    assert time.slept == [0.5, 1.0]


@pytest.mark.parametrize(
    "unknown",
    [
        LOST,
        ResponseTimeoutError("x"),
        rm_error("INTERNAL_ERROR", 500),
        rm_error("INTERNAL_ERROR", 200),
        rm_error("SYSTEM_ERROR", 400),
        rm_error("NEW_CODE", 500),
        rm_error("NEW_CODE", 200),
        rm_error("NEW_CODE", 409),
        Response(status=500),
        HTML,
        Response(status=503, headers={"retry-after": "1"}),
        Response(status=301, headers={"location": "/"}),
        Response(status=400, body=b"<html>"),
        Response(status=401),
        Response(status=404, body=b"404 page not found"),
        Response(status=408),
        Response(status=409),
        Response(status=200),
        Response(status=204),
        ok({}),
        ok({"code": "SUCCESS"}),
        ok({"code": "SUCCESS", "item": {"qrUrl": "x"}}),
        ok({"code": "SUCCESS", "item": {"code": ""}}),
        ok({"code": "SUCCESS", "item": {"code": "X"}}, 500),
    ],
    ids=lambda a: f"{a.status} {a.body!r}" if isinstance(a, Response) else repr(a),
)
async def test_issue_unknown_outcome_is_one_post(make_client, time, unknown):
    """Whatever may have been executed is not sent again, and says all that is known of it."""
    server = ScriptedServer([unknown])
    with pytest.raises(OutcomeUnknownError, match="do not repeat it") as caught:
        await make_client(server, make_nonce=lambda: "the-nonce").issue("KEY")
    error = caught.value
    assert len(server.requests) == 1
    assert time.slept == []
    assert (error.operation, error.batch_key, error.code) == ("issue", "KEY", None)
    assert (error.nonce, error.voucher) == ("the-nonce", None)
    assert error.sent_at == datetime.fromtimestamp(time.now, UTC)
    assert error.attempt_id in str(error)
    assert isinstance(error.__cause__, VoucherError)


async def test_issue_unknown_after_a_retry_is_unknown(make_client):
    """An attempt that was not sent does not make the next one's loss harmless."""
    server = ScriptedServer([NOT_SENT, THROTTLED, LOST])
    with pytest.raises(OutcomeUnknownError, match=r"after 3 attempt"):
        await make_client(server).issue("KEY")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (rm_error("VOUCHER_BATCH_NOT_FOUND", 404), NotFoundError),
        (rm_error("VOUCHER_BATCH_NOT_ENOUGH_QUANTITY", 500), OutOfStockError),
        (rm_error("INVALID_SIGNATURE", 401), APIError),
        (rm_error("NEW_CODE", 400), APIError),
    ],
)
async def test_issue_definite_refusal_is_raised_once(make_client, answer, error):
    """A refusal of RM's own is final and proves that nothing was issued."""
    server = ScriptedServer([answer])
    with pytest.raises(error):
        await make_client(server).issue("KEY")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "error"), [(NOT_SENT, ConnectError), (THROTTLED, RateLimitError)]
)
async def test_issue_gives_up_with_the_last_error(make_client, time, answer, error):
    """When the attempts are spent on what was never done, the end is definite."""
    server = ScriptedServer([answer] * 6)
    with pytest.raises(error):
        await make_client(server).issue("KEY")
    assert len(time.slept) == 5


async def test_issue_each_attempt_is_signed_anew(make_client, time):
    """Each attempt has a nonce and a timestamp of its own."""
    server = ScriptedServer([THROTTLED, NOT_SENT, ISSUED])
    await make_client(server).issue("KEY")
    assert len({r.headers["X-Nonce-Str"] for r in server.requests}) == 3
    assert [r.headers["X-Timestamp"] for r in server.requests] == [
        "1700000000",
        "1700000000",
        "1700000001",
    ]


def test_nonce_has_32_characters(make_client):
    """X-Nonce-Str is 32 random characters."""
    client = make_client(ScriptedServer([]))
    nonces = {client._caller.make_nonce() for _ in range(100)}
    assert len(nonces) == 100
    assert all(len(nonce) == 32 and nonce.isalnum() for nonce in nonces)


async def test_issue_cancelled_in_flight_is_logged(make_client, caplog):
    """A cancelled issue leaves the nonce of its unknown outcome in the log; a read says nothing."""
    arrived = asyncio.Event()

    async def hang(request):
        arrived.set()
        await asyncio.Event().wait()

    client = make_client(hang, make_nonce=lambda: "the-nonce")
    for call in (client.issue("KEY"), client.get("NAklEfbVdV")):
        task = asyncio.create_task(call)
        await arrived.wait()
        arrived.clear()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "issue" in record.message
    assert "the-nonce" in record.message


class Tokens(TokenSource):
    def __init__(self, *tokens):
        self.tokens = list(tokens)
        self.refused = []

    async def token(self):
        token = self.tokens[0]
        if isinstance(token, Exception):
            raise token
        return token

    def refuse(self, token):
        self.refused.append(token)
        self.tokens.pop(0)
        return bool(self.tokens)


@pytest.mark.parametrize("refusal", [rm_error("TOKEN_EXPIRED", 401), rm_error("UNAUTHORIZED", 200)])
@pytest.mark.parametrize("operation", ["issue", "get"])
async def test_token_refused_is_renewed_once(make_client, time, operation, refusal):
    """An auth code proves that nothing was done: one new token, one re-signed attempt, no wait."""
    done = ISSUED if operation == "issue" else ok(payload("get-voucher"))
    server = ScriptedServer([refusal, done])
    tokens = Tokens("old", "new")
    client = make_client(server, token_source=tokens)
    assert (await getattr(client, operation)("X")).code == "NAklEfbVdV"
    assert [r.headers["Authorization"] for r in server.requests] == ["Bearer old", "Bearer new"]
    assert (tokens.refused, time.slept) == (["old"], [])


async def test_token_refused_twice_is_raised(make_client):
    """A second refusal is the answer."""
    server = ScriptedServer([rm_error("TOKEN_INVALID", 401)] * 2)
    with pytest.raises(AuthenticationError):
        await make_client(server, token_source=Tokens("a", "b", "c")).issue("KEY")
    assert len(server.requests) == 2


async def test_token_static_refused_is_raised(make_client):
    """Where no other token can be had, the refusal is raised at once."""
    server = ScriptedServer([rm_error("TOKEN_INVALID", 401)])
    with pytest.raises(AuthenticationError):
        await make_client(server).issue("KEY")


async def test_token_renewal_fails_the_refusal_is_raised(make_client, caplog):
    """When no new token comes, the caller learns that the old one was refused."""
    server = ScriptedServer([rm_error("TOKEN_INVALID", 401)])
    with pytest.raises(AuthenticationError):
        await make_client(server, token_source=Tokens("a", NOT_SENT)).issue("KEY")
    assert "no new one can be had" in caplog.text


async def test_token_401_without_rm_body_is_no_proof(make_client):
    """A bare 401 renews the token for a read; an issue may have been executed behind it."""
    bare = Response(status=401, body=b"<html>")
    server = ScriptedServer([bare, ok(payload("get-voucher"))])
    assert (await make_client(server, token_source=Tokens("a", "b")).get("X")).code
    with pytest.raises(OutcomeUnknownError):
        await make_client(ScriptedServer([bare]), token_source=Tokens("a", "b")).issue("KEY")


async def test_signer_that_fails_sends_nothing(make_client):
    """A signer of the caller's own may fail: an error of ours, and provably nothing was sent."""

    class Broken:
        def sign(self, text):
            raise ZeroDivisionError

    server = ScriptedServer([])
    for call in (
        make_client(server, signer=Broken()).issue,
        make_client(server, signer=Broken()).void,
    ):
        with pytest.raises(ConfigurationError, match="nothing was sent"):
            await call("KEY")


def test_call_repr_hides_token_and_code():
    """A call is a local of every traceback."""
    request = Request(operation="get", method="POST", url=URL("https://x.invalid/CODE"))
    parse = functools.partial(protocol.parse_void, code="NAklEfbVdV")
    call = Call(request, parse, Safety.READ, Timeout(), None, code="NAklEfbVdV", token="canary")
    assert "NAklEfbVdV" not in repr(call)
    assert "canary" not in repr(call)


async def test_token_error_sends_nothing_and_is_not_unknown(make_client):
    """A lost answer to a token request says nothing about an issue, which was never sent."""
    server = ScriptedServer([])
    with pytest.raises(ResponseLostError):
        await make_client(server, token_source=Tokens(LOST)).issue("KEY")


@pytest.mark.parametrize(
    "trouble",
    [
        NOT_SENT,
        LOST,
        HTML,
        THROTTLED,
        rm_error("INTERNAL_ERROR", 500),
        ok({}),
        Response(status=200),
    ],
    ids=lambda a: getattr(a, "body", repr(a)),
)
async def test_get_is_retried_freely(make_client, time, trouble):
    """A read is retried after whatever waiting may mend."""
    server = ScriptedServer([trouble, ok(payload("get-voucher"))])
    assert (await make_client(server).get("NAklEfbVdV")).status == "VOID"
    assert time.slept == [0.5]


@pytest.mark.parametrize(
    ("answer", "error", "requests"),
    [
        (rm_error("VOUCHER_NOT_FOUND", 404), NotFoundError, 1),
        (rm_error("NEW_CODE", 422), APIError, 1),
        (Response(status=301), APIError, 1),
        (Response(status=403, body=b"<html>"), APIError, 1),
        (LOST, ResponseLostError, 6),
        (rm_error("INTERNAL_ERROR", 500), ServerError, 6),
        (ok([]), DecodeError, 6),
    ],
    ids=lambda a: getattr(a, "body", repr(a)),
)
async def test_get_raises_what_it_met(make_client, answer, error, requests):
    """A read never ends in an unknown outcome: it raises what the last attempt met."""
    server = ScriptedServer([answer] * requests)
    with pytest.raises(error):
        await make_client(server).get("X")
    assert len(server.requests) == requests


OTHER_METHOD = [
    Response(status=405),
    Response(status=404, body=b"404 page not found"),
    rm_error("METHOD_NOT_ALLOWED", 405),
    rm_error("API_ENDPOINT_NOT_FOUND", 404),
]


@pytest.mark.parametrize("refusal", OTHER_METHOD, ids=lambda a: a.body)
async def test_get_falls_back_to_the_other_method_and_remembers(make_client, time, refusal):
    """POST first; where the server wants GET, that is kept for the life of the client."""
    found = ok(payload("get-voucher"))
    server = ScriptedServer([refusal, found, found])
    client = make_client(server)
    await client.get("X")
    await client.get("X")
    assert server.paths == ["POST /v3/voucher/X", "GET /v3/voucher/X", "GET /v3/voucher/X"]
    assert [request.body for request in server.requests] == [b"{}", b"", b""]
    assert time.slept == []


async def test_get_neither_method_is_raised_and_not_remembered(make_client):
    """When neither works, nothing is learned: the next call begins with POST again."""
    nothing = Response(status=404, body=b"<html>")
    server = ScriptedServer([nothing, nothing, ok(payload("get-voucher"))])
    client = make_client(server)
    with pytest.raises(APIError):
        await client.get("X")
    await client.get("X")
    assert server.paths[2] == "POST /v3/voucher/X"


async def test_get_switches_back(make_client):
    """A server that changes its mind is followed."""
    found = ok(payload("get-voucher"))
    server = ScriptedServer([OTHER_METHOD[0], found, OTHER_METHOD[0], found])
    client = make_client(server)
    await client.get("X")
    await client.get("X")
    assert [path.split()[0] for path in server.paths] == ["POST", "GET", "GET", "POST"]


async def test_vouchers_lists_pages(make_client):
    """A listing follows its cursors, each page a read of its own."""
    item = payload("get-voucher")["item"]
    server = ScriptedServer(
        [
            ok({"items": [item, item], "meta": {"cursor": "a=b"}, "code": "SUCCESS"}),
            LOST,
            ok({"items": [item], "meta": {"count": 1}, "code": "SUCCESS"}),
        ]
    )
    listing = make_client(server).vouchers("KEY")
    assert [voucher.code async for voucher in listing] == ["NAklEfbVdV"] * 3
    queries = [request.url.raw_query_string for request in server.requests]
    assert queries == ["", "cursor=a%3Db", "cursor=a%3Db"]


async def test_batches_filters(make_client):
    """The filter goes along with every page."""
    batches = payload("list-batches")
    server = ScriptedServer([ok({**batches, "meta": {"cursor": "2"}}), ok(batches)])
    listing = make_client(server).batches(status="COMPLETED", is_static=True)
    assert len([batch async for batch in listing]) == 6
    wanted = "filter=%7B%22isStatic%22%3Atrue%2C%22status%22%3A%22COMPLETED%22%7D"
    assert [r.url.raw_query_string for r in server.requests] == [wanted, f"{wanted}&cursor=2"]


async def test_listing_begins_at_a_cursor(make_client):
    """A listing can be resumed."""
    server = ScriptedServer([ok(payload("list-batches"))])
    await make_client(server).batches(cursor="7")
    assert server.requests[0].url.raw_query_string == "cursor=7"


OURS = datetime(2026, 11, 20, 10, 0, 0, 123456, UTC)


def voucher(status, used_at="0001-01-01T00:00:00Z"):
    item = payload("get-voucher")["item"]
    shown = {**item, "code": "X", "status": status, "usedAt": used_at}
    return ok({"item": shown, "code": "SUCCESS"})


VOID_BY_US = voucher("VOID", "2026-11-20T10:00:00.123456Z")
VOID_BY_ANOTHER = voucher("VOID", "2026-11-20T10:00:00.123457Z")
STILL_ISSUED = voucher("ISSUED")
ALREADY_VOID = rm_error("VOUCHER_NOT_ALLOW_VOID", 400)
VOID, GET = "POST /v3/voucher/X/void", "POST /v3/voucher/X"


async def void(make_client, *answers, used_at=OURS, **options):
    server = ScriptedServer(answers)
    client = make_client(server, **options)
    try:
        return await client.void("X", store_id="7", used_at=used_at), server
    except VoucherError as exc:
        return exc, server


async def test_void_sends_store_and_instant(make_client):
    """The body has what was given, each time it is sent."""
    result, server = await void(make_client, THROTTLED, VOID_BY_US)
    assert result.status == "VOID"
    body = b'{"storeId":"7","usedAt":"2026-11-20T10:00:00.123456Z"}'
    assert [request.body for request in server.requests] == [body, body]


@pytest.mark.parametrize("unknown", [LOST, HTML, ok({}), rm_error("INTERNAL_ERROR", 500)])
async def test_void_lost_done_by_us(make_client, time, unknown):
    """The answer was lost, and the voucher carries our instant: a success."""
    result, server = await void(make_client, unknown, VOID_BY_US)
    assert result.used_at == OURS
    assert (server.paths, time.slept) == ([VOID, GET], [])


@pytest.mark.parametrize("used_at", [OURS, None])
async def test_void_lost_done_by_another_till(make_client, used_at):
    """Void, but not provably by us: unknown, with the voucher. Honouring it twice is a loss."""
    result, server = await void(make_client, LOST, VOID_BY_ANOTHER, used_at=used_at)
    assert isinstance(result, OutcomeUnknownError)
    assert result.voucher.status == "VOID"
    assert (result.operation, result.code) == ("void", "X")
    assert server.paths == [VOID, GET]


async def test_void_lost_not_done_is_sent_again(make_client, time):
    """The voucher is unchanged: sent again, after a wait."""
    result, server = await void(make_client, LOST, STILL_ISSUED, VOID_BY_US)
    assert result.status == "VOID"
    assert (server.paths, time.slept) == ([VOID, GET, VOID], [0.5])


async def test_void_lost_done_late(make_client):
    """The first request arrives after the look: the repeat is refused, and a second look proves
    that it was ours."""
    result, server = await void(make_client, LOST, STILL_ISSUED, ALREADY_VOID, VOID_BY_US)
    assert result.used_at == OURS
    assert server.paths == [VOID, GET, VOID, GET]


async def test_void_lost_then_another_till(make_client):
    """The repeat is refused because another till was quicker: unknown, not ours."""
    result, _ = await void(make_client, LOST, STILL_ISSUED, ALREADY_VOID, VOID_BY_ANOTHER)
    assert isinstance(result, OutcomeUnknownError)
    assert isinstance(result.__cause__, VoucherStateError)


@pytest.mark.parametrize(
    "code", ["VOUCHER_NOT_REDEEMED", "VOUCHER_NOT_ALLOW_VOID", "INVALID_TIMESTAMP"]
)
async def test_void_lost_then_refused_stays_in_doubt(make_client, code):
    """A refusal is of the repeat; the first request may still arrive, so the doubt stays."""
    answers = LOST, STILL_ISSUED, rm_error(code, 400), STILL_ISSUED
    result, server = await void(make_client, *answers)
    assert type(result) is OutcomeUnknownError
    assert result.voucher.status == "ISSUED"
    assert server.paths == [VOID, GET, VOID, GET]


async def test_void_lost_unchanged_then_unreadable(make_client):
    """What an earlier look showed says nothing of a later attempt."""
    policy = RetryPolicy(max_attempts=3)
    answers = LOST, STILL_ISSUED, LOST, rm_error("VOUCHER_NOT_FOUND", 404)
    result, server = await void(make_client, *answers, retry=policy)
    assert type(result) is OutcomeUnknownError
    assert server.paths == [VOID, GET, VOID, GET]


@pytest.mark.parametrize("answer", [STILL_ISSUED, ok({"item": {}, "code": "SUCCESS"})])
async def test_void_success_without_a_void_voucher_is_read_back(make_client, answer):
    """A success that does not show the voucher void is no proof."""
    result, server = await void(make_client, answer, VOID_BY_US)
    assert result.used_at == OURS
    assert server.paths == [VOID, GET]


async def test_void_lost_and_unreadable(make_client):
    """When the voucher can't be read back either, the outcome is unknown, without a voucher."""
    policy = RetryPolicy(max_attempts=2)
    result, _ = await void(make_client, LOST, LOST, LOST, retry=policy)
    assert isinstance(result, OutcomeUnknownError)
    assert result.voucher is None


async def test_void_lost_again_and_again(make_client):
    """Lost and unchanged to the last attempt: it may still arrive, so it is unknown."""
    policy = RetryPolicy(max_attempts=2)
    result, server = await void(make_client, LOST, STILL_ISSUED, LOST, STILL_ISSUED, retry=policy)
    assert isinstance(result, OutcomeUnknownError)
    assert result.voucher.status == "ISSUED"
    assert server.paths == [VOID, GET, VOID, GET]


async def test_void_lost_then_not_sent(make_client):
    """A doubt does not go away because a later attempt was not sent."""
    policy = RetryPolicy(max_attempts=2)
    result, _ = await void(make_client, LOST, STILL_ISSUED, NOT_SENT, STILL_ISSUED, retry=policy)
    assert isinstance(result, OutcomeUnknownError)


async def test_void_refused_at_once_is_definite(make_client):
    """A first refusal says that somebody else voided it: nothing is read back."""
    result, server = await void(make_client, ALREADY_VOID)
    assert type(result) is VoucherStateError
    assert server.paths == [VOID]


async def test_void_not_sent_gives_up_definitely(make_client):
    """Never sent: not unknown, and nothing is read back."""
    policy = RetryPolicy(max_attempts=2)
    result, server = await void(make_client, NOT_SENT, NOT_SENT, retry=policy)
    assert type(result) is ConnectError
    assert server.paths == [VOID, VOID]


async def test_void_unknown_hides_the_code(make_client):
    """The error names the operation, not the voucher."""
    result, _ = await void(make_client, LOST, VOID_BY_ANOTHER)
    assert "NAklEfbVdV" not in "".join(traceback.format_exception(result))


async def test_timeout_of_a_call_wins(make_client):
    """Each call may have a time-out of its own; else the client's is used."""
    server = ScriptedServer([ISSUED, ISSUED, voucher("VOID"), voucher("VOID")])
    client = make_client(server, timeout=Timeout(connect_s=1, attempt_s=2))
    quick = Timeout(connect_s=0.1, attempt_s=0.2)
    await client.issue("KEY", timeout=quick)
    await client.issue("KEY")
    await client.get("X", timeout=quick)
    await client.void("X", timeout=quick)
    assert [r.timeout.attempt_s for r in server.requests] == [0.2, 2, 0.2, 0.2]


class ClosingTransport(Transport):
    closed = False

    async def send(self, request):
        raise NotImplementedError

    async def aclose(self):
        self.closed = True


class ClosingTokens(Tokens):
    closed = False

    async def aclose(self):
        self.closed = True


async def test_aclose_leaves_alone_what_is_not_its_own(credentials):
    """A transport or token source that was passed in belongs to who made it."""
    transport, tokens = ClosingTransport(), ClosingTokens()
    async with VoucherClient(credentials, transport=transport, token_source=tokens):
        pass
    assert not transport.closed
    assert not tokens.closed


async def test_aclose_closes_its_own(credentials):
    """A client that made its transport closes it, as often as it is asked to."""
    client = VoucherClient(credentials)
    assert isinstance(client._caller.transport, AiohttpTransport)
    session = await client._caller.transport._session()
    await client.aclose()
    await client.aclose()
    assert session.closed


def test_construction_parses_the_key_once(monkeypatch):
    """A key that can't be used is refused when the client is made, not at the first call."""
    with pytest.raises(ConfigurationError, match="not PEM"):
        VoucherClient(Credentials("id", "hush", "private.pem"))


def test_from_env(monkeypatch, credentials):
    """A client can be made from the environment alone."""
    monkeypatch.setenv("RM_CLIENT_ID", "id")
    monkeypatch.setenv("RM_CLIENT_SECRET", "hush")
    monkeypatch.setenv("RM_PRIVATE_KEY", credentials.private_key.decode())
    monkeypatch.setenv("RM_ENVIRONMENT", "production")
    assert VoucherClient.from_env()._caller.environment == Environment.PRODUCTION
    assert VoucherClient.from_env(environment=Environment.SANDBOX)._caller.environment == (
        Environment.SANDBOX
    )


async def test_log_at_debug_has_no_secret(make_client, caplog):
    """DEBUG says what each attempt met, without token, signature or code."""
    caplog.set_level(logging.DEBUG, logger="rm_voucher")
    server = ScriptedServer([LOST, rm_error("TOKEN_INVALID", 401, "NAklEfbVdV"), STILL_ISSUED])
    with pytest.raises(AuthenticationError):
        await make_client(server).get("NAklEfbVdV")
    assert "answer lost" in caplog.text
    for secret in ("NAklEfbVdV", "Bearer", "sha256"):
        assert secret not in caplog.text
