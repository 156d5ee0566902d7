"""Cancelling over a real socket, at each await and in each phase: no connection stays taken."""

import asyncio

import pytest
from support.cancellation import each_turn, is_cancelled_after, tasks_left, turn
from support.http_servers import http, raw_server

from rm_voucher import Environment, Limits, bulk_issue
from rm_voucher.transport.aiohttp import AiohttpTransport

VOUCHER = http(200, b'{"item":{"code":"X","status":"VOID"},"code":"SUCCESS"}')
ISSUED = http(200, b'{"item":{"code":"X"},"code":"SUCCESS"}')
BODY_AT = VOUCHER.index(b"{")


async def slowly(reader, writer):
    """Answer a part at a time, over some turns, and close."""
    for part in (VOUCHER[:5], VOUCHER[5 : BODY_AT + 3], VOUCHER[BODY_AT + 3 :]):
        await turn(3)
        writer.write(part)
        await writer.drain()


@pytest.fixture
async def make_narrow(make_client):
    """Make a client that has one connection, so that one that stays taken is missed at once."""
    made = []

    def make(url):
        transport = AiohttpTransport(limits=Limits(max_connections=1))
        made.append(transport)
        return make_client(None, environment=Environment.at(url), transport=transport)

    yield make
    for transport in made:
        await transport.aclose()


async def taken(client):
    """Return the connections that calls hold, after the loop has done what it was asked."""
    await turn(3)
    session, _ = await client.caller.transport._session()
    return set(session.connector._acquired)


CALLS = {
    "get": lambda client: client.get("X"),
    "void": lambda client: client.void("X"),
    "issue": lambda client: client.issue("K"),
}


@pytest.mark.parametrize("name", CALLS)
async def test_http_cancelled_at_each_await(make_narrow, name):
    """Wherever a call over a socket is suspended, cancelling gives its connection back: the only
    connection serves the next call."""
    cancelled_before = cancelled_after = 0
    async with raw_server(*[slowly] * 500, forever=VOUCHER) as server:
        client = make_narrow(server.url)
        for turns in each_turn():
            arrived = len(server.received)
            cancelled = await is_cancelled_after(turns, CALLS[name](client))
            was_sent = len(server.received) > arrived
            cancelled_after += cancelled and was_sent
            cancelled_before += cancelled and not was_sent
            assert await taken(client) == set()
            assert tasks_left() == set()
            if not cancelled:
                break
        assert (await asyncio.wait_for(client.get("X"), 60)).code == "X"
    assert cancelled_before > 3
    assert cancelled_after > 3


@pytest.mark.parametrize("name", CALLS)
async def test_http_cancelled_while_connecting(make_narrow, monkeypatch, name):
    """A connection that was not made yet is not kept."""
    begun = asyncio.Event()

    async def hang(sock, address):
        begun.set()
        await asyncio.Event().wait()

    async with raw_server(forever=VOUCHER) as server:
        client = make_narrow(server.url)
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "sock_connect", hang)
            task = asyncio.create_task(CALLS[name](client))
            await begun.wait()
            task.cancel()
            await asyncio.wait([task])
        assert task.cancelled()
        assert await taken(client) == set()
        assert tasks_left() == set()
        assert server.received == []
        assert (await client.get("X")).code == "X"


async def hang(reader, writer):
    await reader.read()


async def hang_in_body(reader, writer):
    writer.write(VOUCHER[: BODY_AT + 3])
    await reader.read()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("phase", [hang, hang_in_body], ids=["headers", "body"])
async def test_http_cancelled_while_it_waits_for_the_answer(make_narrow, monkeypatch, name, phase):
    """Half an answer is no answer: its connection is closed, not used for the next call."""
    reading = asyncio.Event()
    read = AiohttpTransport._read

    async def noted(self, answer, operation):
        reading.set()
        return await read(self, answer, operation)

    monkeypatch.setattr(AiohttpTransport, "_read", noted)
    async with raw_server(phase, forever=VOUCHER) as server:
        client = make_narrow(server.url)
        task = asyncio.create_task(CALLS[name](client))
        while not server.received:
            await turn()
        if phase is hang_in_body:
            await reading.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert reading.is_set() is (phase is hang_in_body)
        assert await taken(client) == set()
        assert tasks_left() == set()
        assert (await client.get("X")).code == "X"
        assert server.connections == 2


async def test_http_cancelled_while_it_waits_for_a_connection(make_narrow):
    """Who waits for the only connection and is cancelled was not sent, and takes nobody's turn."""
    async with raw_server(hang, forever=VOUCHER) as server:
        client = make_narrow(server.url)
        calls = [asyncio.create_task(client.get("X")) for _ in range(3)]
        while not server.received:
            await turn()
        calls[1].cancel()
        await asyncio.wait([calls[1]])
        calls[0].cancel()
        assert (await calls[2]).code == "X"
        assert [call.cancelled() for call in calls] == [True, True, False]
        assert await taken(client) == set()
        assert len(server.received) == 2


async def test_http_redeem_cancelled_while_it_looks_up(make_narrow):
    """Look-ups share the connections; when their redeem is cancelled, all are given back."""

    async def lose(reader, writer):
        writer.close()

    async with raw_server(lose, hang, forever=VOUCHER) as server:
        client = make_narrow(server.url)
        task = asyncio.create_task(client.redeem([f"C{number}" for number in range(20)]))
        while len(server.received) < 2:
            await turn()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert await taken(client) == set()
        assert tasks_left() == set()
        assert (await client.get("X")).code == "X"
        assert len(server.received) == 3


async def test_http_bulk_run_cancelled_leaves_the_pool_whole(make_narrow):
    """A run that is cancelled waits for the call in flight, and its connection serves the next."""
    async with raw_server(forever=ISSUED) as server:
        client = make_narrow(server.url)

        async def campaign(at_most):
            async with bulk_issue(client, "K", range(at_most), concurrency=4) as run:
                return [result.status async for result in run]

        for turns in (0, 1, 2, 5, 10, 15, 20, 30, 40):
            await is_cancelled_after(turns, campaign(50))
            assert await taken(client) == set()
            assert tasks_left() == set()
        assert await asyncio.wait_for(campaign(4), 60) == ["issued"] * 4


async def test_http_token_request_cancelled_by_its_callers(make_client):
    """A token request whose callers all left is finished, and its connection given back."""
    token = http(200, b'{"accessToken":"t","expiresIn":1000}')
    async with raw_server(token, forever=VOUCHER) as server:
        transport = AiohttpTransport(limits=Limits(max_connections=1))
        client = make_client(
            None,
            environment=Environment.at(server.url),
            transport=transport,
            token_source=None,
        )
        callers = [asyncio.create_task(client.get("X")) for _ in range(3)]
        await turn(2)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        assert [caller.cancelled() for caller in callers] == [True] * 3
        assert (await client.get("X")).code == "X"
        assert [received.target for received in server.received] == ["/v1/token", "/v3/voucher/X"]
        await client.aclose()
        await transport.aclose()
        assert tasks_left() == set()
