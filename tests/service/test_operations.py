"""Every operation over every transport: what arrives, byte for byte, and what the answer becomes.

The table that both are held against is `operations`.
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager

import pytest
from support.files import DOCS, PAYLOADS, PUBLIC_KEY_FILE
from support.http_servers import http, raw_server
from support.operations import ROWS, TOKEN_ROWS, Sent
from support.rm_signature import expected_text, public_numbers, verifies
from support.scripted_server import ScriptedServer

from rm_voucher import Environment, Response, StaticToken
from rm_voucher.transport.aiohttp import AiohttpTransport
from rm_voucher.transport.memory import MemoryTransport

NONCE = "0123456789abcdef0123456789abcdef"


async def twice(client, time, seconds):
    """Call again when the first token has come to its end."""
    await client.get("NAklEfbVdV")
    time.now += seconds
    return await client.get("NAklEfbVdV")


def answer_of(script: str | Response) -> Response:
    if isinstance(script, Response):
        return script
    return Response(status=200, body=(PAYLOADS / f"{script}.json").read_bytes())


@asynccontextmanager
async def over_memory(answers):
    """Yield an environment, a transport, and what gives URL, headers and body as they came."""
    server = ScriptedServer(answers)

    def seen():
        for request in server.requests:
            headers = {name.lower(): value for name, value in request.headers.items()}
            yield request.method, str(request.url), headers, request.body

    api, oauth = "https://sb-open.revenuemonster.my", "https://sb-oauth.revenuemonster.my"
    yield Environment.SANDBOX, MemoryTransport(server), {"API": api, "OAUTH": oauth}, seen, set()


@asynccontextmanager
async def over_http(answers):
    def seen():
        for got in server.received:
            yield got.method, got.url, got.headers, got.body

    transport = AiohttpTransport()
    async with raw_server(*(http(answer.status, answer.body) for answer in answers)) as server:
        # Two names of one server, so that its record shows the order of all requests.
        hosts = {"API": server.url, "OAUTH": server.url.replace("127.0.0.1", "localhost")}
        added = {"accept", "accept-encoding", "content-length", "host", "user-agent"}
        yield Environment(hosts["API"], hosts["OAUTH"]), transport, hosts, seen, added
        await transport.aclose()


@pytest.fixture(scope="module")
def numbers():
    return public_numbers(PUBLIC_KEY_FILE)


def check(seen, expected: list[Sent], hosts, added, numbers, timestamps):
    assert len(seen) == len(expected)
    for (method, url, headers, body), sent, timestamp in zip(
        seen, expected, timestamps, strict=True
    ):
        host, _, target = sent.url.partition(":")
        assert (method, url, body) == (sent.method, hosts[host] + target, sent.body)
        assert headers["content-type"] == "application/json"
        assert headers["authorization"] == sent.authorization
        signed = set() if host == "OAUTH" else {"x-nonce-str", "x-timestamp", "x-signature"}
        # What aiohttp adds describes the connection and the length of the body.
        assert headers.keys() - {"content-length"} == (
            {"content-type", "authorization"} | signed | (added - {"content-length"})
        )
        if added:
            assert headers.get("content-length", "0") == str(len(body))
        if signed:
            assert (headers["x-nonce-str"], headers["x-timestamp"]) == (NONCE, timestamp)
            text = expected_text(method, url, NONCE, timestamp, sent.body)
            assert verifies(numbers, text, headers["x-signature"])


@pytest.mark.parametrize("over", [over_memory, over_http])
@pytest.mark.parametrize("name", ROWS)
async def test_operation_sends_and_returns(make_client, signer, numbers, over, name):
    """Method, whole URL, headers, signature and body arrive as the API page has them, and the
    result is what the page's example answers, over each transport."""
    row = ROWS[name]
    answers = [answer_of(answer) for answer in row.answers]
    async with over(answers) as (environment, transport, hosts, seen, added):
        client = make_client(
            None,
            environment=environment,
            transport=transport,
            signer=signer,
            make_nonce=lambda: NONCE,
        )
        result = await row.call(client)
        assert row.shown(result) == row.returned
        timestamps = ["1700000000"] * len(row.sent)
        check(list(seen()), row.sent, hosts, added, numbers, timestamps)


@pytest.mark.parametrize("over", [over_memory, over_http])
@pytest.mark.parametrize("name", TOKEN_ROWS)
async def test_operation_buys_its_token(make_client, time, signer, numbers, over, name):
    """A token is bought from the OAuth host with the client's credentials, and renewed with the
    refresh token; neither request is signed, and each call carries the token that was answered."""
    row = TOKEN_ROWS[name]
    answers = [answer_of(answer) for answer in row.answers]
    async with over(answers) as (environment, transport, hosts, seen, added):
        client = make_client(
            None,
            environment=environment,
            transport=transport,
            token_source=None,
            signer=signer,
            make_nonce=lambda: NONCE,
        )
        # 2591999 s is what the example's expiresIn says.
        result = await (twice(client, time, 2_591_999) if name == "refresh" else row.call(client))
        assert row.shown(result) == row.returned
        timestamps = ["1700000000"] * 2 + ["1702591999"] * 2
        check(list(seen()), row.sent, hosts, added, numbers, timestamps[: len(row.sent)])
        await client.aclose()


async def test_operation_static_token_is_sent_as_it_is(make_client):
    """A token of the caller's own stands behind Bearer, and nothing else is asked for."""
    server = ScriptedServer([answer_of("get-voucher")])
    await make_client(server, token_source=StaticToken("a.b-c")).get("NAklEfbVdV")
    assert [request.headers["Authorization"] for request in server.requests] == ["Bearer a.b-c"]


def test_operations_of_the_page_are_all_here():
    """Each operation that docs/api.md lists has a row here, and each row is listed there."""
    page = (DOCS / "api.md").read_text()
    table = page.split("## Operations")[1].split("\n## ")[0]
    listed = set(re.findall(r"\| `([^`]+)` \|$", table, re.MULTILINE))
    rows = {row.here for row in (ROWS | TOKEN_ROWS).values()}
    assert listed == rows - {"client.request"}
