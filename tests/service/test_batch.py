"""One batch: by its own path, and where a server does not know it, by the list of batches."""

from __future__ import annotations

import pytest
from support.answers import ok, payload, rm_error
from support.scripted_server import ScriptedServer

from rm_voucher import APIError, ConnectTimeoutError, DecodeError, NotFoundError, Response, Timeout
from rm_voucher.emulator import Emulator

ITEMS = payload("list-batches")["items"]
KEY = ITEMS[1]["key"]
UNKNOWN_PATH = [
    Response(status=404, body=b"404 page not found"),
    rm_error("PAGE_NOT_FOUND", 404),
    rm_error("API_ENDPOINT_NOT_FOUND", 404),
    rm_error("METHOD_NOT_ALLOWED", 405),
]


def page(*items, cursor=None):
    return ok({"items": items, "meta": {"cursor": cursor}, "code": "SUCCESS"})


async def test_batch_of_the_emulator():
    """The emulator has the path; another key is refused by RM's own code."""
    async with Emulator(batches={"TEA": 5, "COFFEE": 7}).client() as client:
        await client.issue("COFFEE")
        batch = await client.batch("COFFEE")
        assert (batch.key, batch.quantity) == ("COFFEE", 7)
        with pytest.raises(NotFoundError, match="VOUCHER_BATCH_NOT_FOUND"):
            await client.batch("MILK")


@pytest.mark.parametrize("refusal", UNKNOWN_PATH, ids=lambda answer: answer.body)
async def test_list_is_read_and_remembered(make_client, refusal):
    """Where the path is unknown, the list answers, page by page, and the path is asked no more."""
    server = ScriptedServer(
        [refusal, page(ITEMS[0], cursor="2"), page(*ITEMS[1:]), page(*ITEMS[:2], cursor="2")]
    )
    client = make_client(server)
    assert (await client.batch(KEY)).label == "Wedding"
    assert (await client.batch(KEY)).label == "Wedding"
    assert [path.split("?")[0] for path in server.paths] == [
        f"GET /v3/voucher-batch/{KEY}",
        *["GET /v3/voucher-batches"] * 3,
    ]


async def test_batch_that_is_not_listed_is_not_found(make_client):
    """It is the error that the path would give; nothing was refused by RM."""
    client = make_client(ScriptedServer([UNKNOWN_PATH[0], page(*ITEMS)]))
    with pytest.raises(NotFoundError, match="No such batch") as caught:
        await client.batch("MILK")
    assert (caught.value.code, caught.value.http_status) == ("VOUCHER_BATCH_NOT_FOUND", None)


@pytest.mark.parametrize("odd", [{**ITEMS[0], "key": 5}, "no object"])
async def test_batch_whose_key_can_not_be_read_may_be_it(make_client, odd):
    """Then it is not known that there is none."""
    client = make_client(ScriptedServer([UNKNOWN_PATH[0], page(odd)]))
    with pytest.raises(DecodeError, match="expected a batch with its key"):
        await client.batch("MILK")


async def test_refusal_of_another_kind_is_raised(make_client):
    """RM's own refusal is no unknown path."""
    server = ScriptedServer([rm_error("VOUCHER_BATCH_NOT_FOUND", 404)])
    with pytest.raises(NotFoundError):
        await make_client(server).batch(KEY)
    assert len(server.paths) == 1


async def test_list_that_fails_is_not_remembered(make_client):
    """Nothing was learned: the next look-up asks the path again."""
    found = ok({"item": ITEMS[1], "code": "SUCCESS"})
    server = ScriptedServer([UNKNOWN_PATH[0], UNKNOWN_PATH[0], found])
    client = make_client(server)
    with pytest.raises(APIError):
        await client.batch(KEY)
    assert (await client.batch(KEY)).key == KEY


async def test_another_batch_is_no_answer(make_client):
    """The answer must show the key that was asked for."""
    server = ScriptedServer([ok({"item": ITEMS[0], "code": "SUCCESS"})] * 6)
    with pytest.raises(DecodeError, match="expected the batch that was asked for"):
        await make_client(server).batch(KEY)


async def test_path_and_list_have_one_deadline(make_client, time):
    """The list of batches has what the path left of the call's time."""

    def late(answer):
        def respond(request):
            time.now += 4
            return answer

        return respond

    server = ScriptedServer([late(UNKNOWN_PATH[0]), late(page(ITEMS[0], cursor="2"))])
    with pytest.raises(ConnectTimeoutError, match="not sent"):
        await make_client(server).batch(KEY, timeout=Timeout(connect_s=3, total_s=10))
    assert len(server.paths) == 2
