"""The client: every operation, every outcome, and what a lost answer may and may not do."""

import asyncio
import functools
import inspect
import logging
from datetime import UTC, datetime
from typing import Any

import pytest
from support.answers import ISSUED, LOST, NOT_SENT, THROTTLED, ok, payload, rm_error, voucher
from support.doubles import Tokens
from support.scripted_server import ScriptedServer
from yarl import URL

from rm_voucher import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    Credentials,
    Environment,
    InvalidRequestError,
    OutcomeUnknownError,
    Request,
    Response,
    ResponseLostError,
    RetryPolicy,
    SignatureError,
    Timeout,
    VoucherClient,
)
from rm_voucher.calls.call import Call
from rm_voucher.calls.outcomes import Safety
from rm_voucher.emulator import Emulator
from rm_voucher.service.client import ClientSettings
from rm_voucher.transport.aiohttp import AiohttpTransport
from rm_voucher.transport.base import Transport
from rm_voucher.wire import operations


async def test_issue_gives_code_and_url(make_client):
    """One POST, one voucher."""
    server = ScriptedServer([ISSUED])
    voucher = await make_client(server).issue("KEY")
    assert (voucher.code, voucher.qr_url) == ("NAklEfbVdV", "https://qr.invalid/1")
    assert server.paths == ["POST /v3/voucher-batch/KEY/issue"]


async def test_issue_unknown_says_all_that_is_known(make_client, time):
    """An outcome that is unknown names the operation, the batch, the nonce and the instant."""
    server = ScriptedServer([LOST])
    with pytest.raises(OutcomeUnknownError, match="do not repeat it") as caught:
        await make_client(server, make_nonce=lambda: "the-nonce").issue("KEY")
    error = caught.value
    assert (error.operation, error.batch_key, error.code) == ("issue", "KEY", None)
    assert (error.nonce, error.voucher) == ("the-nonce", None)
    assert error.sent_at == datetime.fromtimestamp(time.now, UTC)
    assert error.attempt_id is not None
    assert error.attempt_id in str(error)


async def test_issue_unknown_after_a_retry_is_unknown(make_client):
    """An attempt that was not sent does not make the next one's loss harmless."""
    server = ScriptedServer([NOT_SENT, THROTTLED, LOST])
    with pytest.raises(OutcomeUnknownError, match=r"after 3 attempt"):
        await make_client(server).issue("KEY")


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
    nonces = {client.caller.runtime.make_nonce() for _ in range(100)}
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


async def test_token_refused_to_the_last_attempt_is_raised(make_client, time):
    """The second refusal of a call, and each that follows, is waited out within the policy."""
    server = ScriptedServer([rm_error("TOKEN_INVALID", 401)] * 4)
    tokens = Tokens(*"abcde")
    policy = RetryPolicy(max_attempts=3)
    with pytest.raises(AuthenticationError):
        await make_client(server, token_source=tokens, retry=policy).issue("KEY")
    assert len(server.requests) == 4
    assert time.slept == [0.5, 1.0]


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
    assert (await make_client(server, token_source=Tokens("a", "b")).get("NAklEfbVdV")).code
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
    parse = functools.partial(operations.parse_void, code="NAklEfbVdV")
    call = Call(request, parse, Safety.READ, Timeout(), None, code="NAklEfbVdV", token="canary")
    assert "NAklEfbVdV" not in repr(call)
    assert "canary" not in repr(call)


async def test_token_error_sends_nothing_and_is_not_unknown(make_client):
    """A lost answer to a token request says nothing about an issue, which was never sent."""
    server = ScriptedServer([])
    with pytest.raises(ResponseLostError):
        await make_client(server, token_source=Tokens(LOST)).issue("KEY")


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
    await client.get("NAklEfbVdV")
    await client.get("NAklEfbVdV")
    assert server.paths == [
        "POST /v3/voucher/NAklEfbVdV",
        "GET /v3/voucher/NAklEfbVdV",
        "GET /v3/voucher/NAklEfbVdV",
    ]
    assert [request.body for request in server.requests] == [b"{}", b"", b""]
    assert time.slept == []


async def test_get_neither_method_is_raised_and_not_remembered(make_client):
    """When neither works, nothing is learned: the next call begins with POST again."""
    nothing = Response(status=404, body=b"<html>")
    server = ScriptedServer([nothing, nothing, ok(payload("get-voucher"))])
    client = make_client(server)
    with pytest.raises(APIError):
        await client.get("NAklEfbVdV")
    await client.get("NAklEfbVdV")
    assert server.paths[2] == "POST /v3/voucher/NAklEfbVdV"


async def test_get_switches_back(make_client):
    """A server that changes its mind is followed."""
    found = ok(payload("get-voucher"))
    server = ScriptedServer([OTHER_METHOD[0], found, OTHER_METHOD[0], found])
    client = make_client(server)
    await client.get("NAklEfbVdV")
    await client.get("NAklEfbVdV")
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


@pytest.mark.parametrize("timeout", [5, 0.5, "5", (1, 2)])
async def test_timeout_that_is_none_is_refused(make_client, timeout):
    """A number of seconds, which may be meant for an attempt or for all, is refused unsent."""
    client = make_client(ScriptedServer([]))
    for call in (client.issue, client.get, client.void):
        with pytest.raises(InvalidRequestError, match="must be a Timeout"):
            await call("X", timeout=timeout)


@pytest.mark.parametrize("wanted", [{"status": 5}, {"is_static": "yes"}, {"is_static": 1}])
async def test_batches_filter_of_another_type_is_refused(make_client, wanted):
    """A filter that RM could not understand is refused unsent."""
    with pytest.raises(InvalidRequestError, match="status must be text"):
        await make_client(ScriptedServer([])).batches(**wanted)


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
    assert isinstance(client.caller.transport, AiohttpTransport)
    session, _ = await client.caller.transport._session()
    await client.aclose()
    await client.aclose()
    assert session.closed


def test_construction_parses_the_key_once(monkeypatch):
    """A key that can't be used is refused when the client is made, not at the first call."""
    with pytest.raises(ConfigurationError, match="not PEM"):
        VoucherClient(Credentials("id", "hush", "private.pem"))


@pytest.mark.parametrize(
    ("setting", "kind"),
    [
        ({"environment": 5}, "Environment or text"),
        ({"retry": 3}, "RetryPolicy"),
        ({"timeout": 5.0}, "Timeout"),
        ({"limits": 10}, "Limits"),
        ({"flow": 50}, "FlowPolicy"),
    ],
)
def test_setting_of_another_type_is_refused(credentials, setting, kind):
    """What is no setting of the kind is refused when the client is made, with its name."""
    (name,) = setting
    with pytest.raises(ConfigurationError, match=f"^{name} must be of type {kind}"):
        VoucherClient(credentials, **setting)


def test_from_env(monkeypatch, credentials):
    """A client can be made from the environment alone."""
    monkeypatch.setenv("RM_CLIENT_ID", "id")
    monkeypatch.setenv("RM_CLIENT_SECRET", "hush")
    monkeypatch.setenv("RM_PRIVATE_KEY", credentials.private_key.decode())
    monkeypatch.setenv("RM_ENVIRONMENT", "production")
    assert VoucherClient.from_env().caller.environment == Environment.PRODUCTION
    assert VoucherClient.from_env(environment=Environment.SANDBOX).caller.environment == (
        Environment.SANDBOX
    )
    transport = Emulator().transport()
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")  # for a transport of its own alone
    client = VoucherClient.from_env(transport=transport, timeout=Timeout(total_s=3), retry=None)
    assert client.caller.transport is transport
    wrong: Any = 50
    with pytest.raises(ConfigurationError, match="flow must be of type FlowPolicy"):
        VoucherClient.from_env(flow=wrong)


def test_settings_of_from_env_are_all_of_the_client():
    """What a variable gives is no setting; everything else that the client takes is."""
    taken = inspect.signature(VoucherClient).parameters.keys()
    assert ClientSettings.__annotations__.keys() | {"credentials", "environment", "proxy"} == taken


async def test_log_at_debug_has_no_secret(make_client, caplog):
    """DEBUG says what each attempt met, without token, signature or code."""
    caplog.set_level(logging.DEBUG, logger="rm_voucher")
    server = ScriptedServer([LOST, rm_error("TOKEN_INVALID", 401, "NAklEfbVdV"), voucher("ISSUED")])
    with pytest.raises(AuthenticationError):
        await make_client(server).get("NAklEfbVdV")
    assert "answer lost" in caplog.text
    for secret in ("NAklEfbVdV", "Bearer", "sha256"):
        assert secret not in caplog.text


async def test_credentials_of_another_environment_get_a_sentence(make_client, credentials):
    """Sandbox credentials on production: what to check is said, and nothing but the token asked."""
    server = ScriptedServer([rm_error("InvalidClient", 401)])
    client = make_client(server, environment=Environment.PRODUCTION, token_source=None)
    with pytest.raises(AuthenticationError, match="sandbox or production"):
        await client.issue("KEY")
    assert server.paths == ["POST /v1/token"]
    await client.aclose()


async def test_clock_that_is_off_gets_a_sentence(make_client, time):
    """A clock ten minutes off: RM's refusal says to check it, and is not retried."""
    time.now -= 600
    server = ScriptedServer([rm_error("INVALID_TIMESTAMP", 400)])
    with pytest.raises(SignatureError, match="clock"):
        await make_client(server).issue("KEY")
    assert time.slept == []


async def test_issue_after_a_bare_401_has_another_token(make_client):
    """A bare 401 leaves an issue in doubt, and its token is not used for the next one."""
    server = ScriptedServer([Response(status=401), ISSUED])
    client = make_client(server, token_source=Tokens("old", "new"))
    with pytest.raises(OutcomeUnknownError):
        await client.issue("KEY")
    await client.issue("KEY")
    assert [r.headers["Authorization"] for r in server.requests] == ["Bearer old", "Bearer new"]


async def test_member_redeem_and_another_voucher_read_back(make_client):
    """A look at another voucher, unchanged, is no reason to send a member's redeem again."""
    server = ScriptedServer([LOST, *[voucher("ISSUED", code="ANOTHER")] * 6])
    with pytest.raises(OutcomeUnknownError):
        await make_client(server).member("60", "1").redeem("X")
    assert [request.operation for request in server.requests] == [
        "member redeem",
        *["member get"] * 6,
    ]


@pytest.mark.parametrize("when", ["read back", "renewed"])
async def test_doubt_survives_a_token_source_that_breaks(make_client, when):
    """After a change was sent, an error of a token source's own does not hide the doubt."""

    class Breaking(Tokens):
        async def token(self):
            if self.asked:
                raise OSError("canary")
            self.asked = True
            return "token"

        asked = False

    answer = LOST if when == "read back" else Response(status=401)
    tokens = Breaking("a", "b")
    with pytest.raises(OutcomeUnknownError) as caught:
        await make_client(ScriptedServer([answer]), token_source=tokens).void("X")
    assert "canary" not in str(caught.value)
