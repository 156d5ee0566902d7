"""The rule: where RM refuses a token, another is had, and a new one is given time to be known.

The code decides where it is listed, the status (401, 403) where it is not. A second refusal right
after a renewal waits and tries again within the policy, and does not buy a token for each refusal.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from support.answers import ISSUED, ok, rm_error
from support.doubles import Tokens
from support.scripted_server import ScriptedServer
from support.virtual_runs import run

from rm_voucher import (
    AuthenticationError,
    BulkStatus,
    ConfigurationError,
    OutcomeUnknownError,
    PermissionDeniedError,
    Response,
    RetryPolicy,
)
from rm_voucher.emulator import Emulator, Guesses

UNLISTED = [("ACCESS_TOKEN_REVOKED", 401), ("ACCESS_TOKEN_REVOKED", 403), ("TokenBlocked", 401)]


class TokenServer:
    """Grants numbered tokens, and refuses each for a time after it was granted, and for good once
    it is revoked."""

    def __init__(self, time, *, delay_s=0.0, refusal=None):
        self.time = time
        self.delay_s = delay_s
        self.refusal = refusal or rm_error("TOKEN_INVALID", 401)
        self.granted: dict[str, float] = {}
        self.revoked: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.codes = itertools.count()

    def __call__(self, request):
        self.counts[request.operation] += 1
        if request.operation == "token":
            token = f"token-{len(self.granted)}"
            self.granted[token] = self.time.now
            return ok({"accessToken": token, "expiresIn": 100_000})
        token = request.headers["Authorization"].removeprefix("Bearer ")
        if token in self.revoked or self.time.now < self.granted[token] + self.delay_s:
            return self.refusal
        return ok({"item": {"code": f"CODE{next(self.codes)}"}, "code": "SUCCESS"})


@pytest.mark.parametrize(("code", "status"), UNLISTED)
async def test_unlisted_refusal_of_a_token_is_met_with_another(make_client, code, status):
    server = ScriptedServer([rm_error(code, status), ISSUED])
    client = make_client(server, token_source=Tokens("old", "new"))
    await client.issue("K")
    bearers = [request.headers["Authorization"] for request in server.requests]
    assert bearers == ["Bearer old", "Bearer new"]


@pytest.mark.parametrize(("code", "status"), UNLISTED)
async def test_client_outlives_a_revoked_token(make_client, time, code, status):
    """Today and tomorrow: the token is renewed each time that it is refused for good."""
    server = TokenServer(time, refusal=rm_error(code, status))
    async with make_client(server, token_source=None) as client:
        for number in range(3):
            await client.issue("K")
            server.revoked.add(f"token-{number}")
            time.now += 60
        await client.issue("K")
    assert server.counts["token"] == 4
    assert time.slept == []


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [("NEW_CODE", 401, AuthenticationError), ("NEW_CODE", 403, PermissionDeniedError)],
)
async def test_refusal_that_no_token_mends_is_raised(make_client, time, code, status, error):
    """A status can be wrong about what helps. That costs the policy's patience, and few tokens."""
    server = TokenServer(time, delay_s=1e9, refusal=rm_error(code, status))
    async with make_client(server, token_source=None) as client:
        for _ in range(20):
            with pytest.raises(error):
                await client.issue("K")
    assert server.counts["token"] <= 2 + sum(time.slept) / 3


@pytest.mark.parametrize("status", [401, 403])
async def test_refusal_by_a_gateway_stays_unknown(make_client, status):
    """Without RM's own words it is no proof that nothing was done."""
    server = ScriptedServer([Response(status=status, body=b"<html>")])
    with pytest.raises(OutcomeUnknownError):
        await make_client(server, token_source=Tokens("old", "new")).issue("K")


@pytest.mark.parametrize("delay_s", [0.1, 0.7, 3.0])
async def test_token_that_is_not_known_yet_is_waited_for(make_client, time, delay_s):
    server = TokenServer(time, delay_s=delay_s)
    async with make_client(server, token_source=None) as client:
        await client.issue("K")
    assert sum(time.slept) >= delay_s
    assert server.counts["token"] <= 3


@pytest.mark.parametrize("name", ["get", "void", "vouchers"])
async def test_other_operations_wait_for_it_too(make_client, time, name):
    server = TokenServer(time, delay_s=0.7)
    answers: dict[str, dict[str, Any]] = {
        "get": {"item": {"code": "X", "status": "ISSUED"}},
        "void": {"item": {"code": "X", "status": "VOID"}},
        "vouchers": {"items": []},
    }

    def serve(request):
        answer = server(request)
        done = answer.status == 200 and request.operation != "token"
        return ok({**answers[name], "code": "SUCCESS"}) if done else answer

    async with make_client(serve, token_source=None) as client:
        await getattr(client, name)("X")


@pytest.mark.parametrize("delay_s", [0.1, 0.7, 2.0])
def test_bulk_run_pauses_and_fails_nobody(credentials, signer, delay_s):
    """600 recipients, and a server that knows each token some time after it granted it; one is
    revoked in the middle."""
    servers: list[TokenServer] = []

    def meet(network, request):
        if not servers:
            servers.append(TokenServer(network.clock, delay_s=delay_s))
        (server,) = servers
        if server.counts["issue"] == 400:
            server.revoked |= set(server.granted)
        return 0.01, server(request)

    results, _, _ = run(credentials, signer, meet, range(600))
    assert Counter(result.status for result in results) == {BulkStatus.ISSUED: 600}
    assert servers[0].counts["token"] <= 4


async def test_token_that_is_revoked_in_its_first_seconds(make_client, time):
    """It is kept for a moment, then given up like any other."""
    server = TokenServer(time)
    async with make_client(server, token_source=None) as client:
        await client.issue("K")
        server.revoked |= {"token-0", "token-1"}
        await client.issue("K")
    assert server.counts["token"] == 3
    assert 3 <= sum(time.slept) < 8


async def test_policy_of_one_attempt_does_not_wait(make_client, time):
    server = TokenServer(time, delay_s=0.7)
    policy = RetryPolicy(max_attempts=1)
    async with make_client(server, token_source=None, retry=policy) as client:
        with pytest.raises(AuthenticationError):
            await client.issue("K")
    assert time.slept == []


async def test_emulator_knows_a_token_late(time):
    emulator = Emulator(batches={"K": 5}, clock=time.clock, guesses=Guesses(token_delay_s=0.7))
    async with emulator.client(runtime=time.runtime) as client:
        await client.issue("K")
    assert sum(time.slept) >= 0.7


async def test_another_token_can_not_be_had(make_client, time):
    """While it waits, the server that gives tokens fails: the refusal is raised."""
    server = TokenServer(time, delay_s=1e9)

    def serve(request):
        if request.operation == "token" and len(server.granted) == 2:
            return rm_error("CLIENT_INVALID", 401)
        return server(request)

    async with make_client(serve, token_source=None) as client:
        with pytest.raises(AuthenticationError) as caught:
            await client.issue("K")
    assert caught.value.code == "TOKEN_INVALID"


async def test_source_without_another_token(make_client, time):
    """A source that has none after the wait: the refusal is raised, at once."""
    server = ScriptedServer([rm_error("TOKEN_INVALID", 401)] * 2)
    tokens = Tokens("old", "new", ConfigurationError("no other"))
    with pytest.raises(AuthenticationError):
        await make_client(server, token_source=tokens).issue("K")
    assert time.slept == [0.5]
