"""Long pages of a listing are decoded in steps, between which everything else has its turn."""

import asyncio

import orjson
import pytest
from support.answers import ok, payload
from support.scripted_server import ScriptedServer

from rm_voucher import DecodeError, Response, Voucher
from rm_voucher.wire.operations import parse_vouchers
from rm_voucher.wire.responses import read_page

LONG = 2_000


def listing(name, count):
    """A page with so many of a payload's items, each with a key of its own."""
    (item, *_) = payload(name)["items"]
    items = [{**item, "key": f"{number}", "amount": number} for number in range(count)]
    return {"items": items, "code": "SUCCESS", "meta": {"count": count, "cursor": "next"}}


class Others:
    """A task that has nothing to do but to count its turns."""

    def __init__(self):
        self.turns = 0

    async def __aenter__(self):
        self._task = asyncio.create_task(self._count())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _count(self):
        while True:
            self.turns += 1
            await asyncio.sleep(0)


async def turns_during(awaitable):
    async with Others() as others:
        return await awaitable, others.turns


LISTINGS = {
    "list-batch-vouchers": lambda client: client.vouchers("KEY"),
    "list-batches": lambda client: client.batches(),
    "member-vouchers": lambda client: client.member("60", "123456789").vouchers(),
}


@pytest.mark.parametrize("name", LISTINGS)
async def test_long_page_leaves_the_loop_free(make_client, name):
    """Of a page of 2,000 another task has a turn after each hundred, in every listing."""
    server = ScriptedServer([ok(listing(name, 1)), ok(listing(name, LONG))])
    client = make_client(server)
    short, usual = await turns_during(LISTINGS[name](client))
    long, turns = await turns_during(LISTINGS[name](client))
    assert (len(short.items), len(long.items)) == (1, LONG)
    assert turns - usual == LONG // 100 - 1


@pytest.mark.parametrize(("count", "turns"), [(0, 0), (1, 0), (100, 0), (101, 1), (201, 2)])
async def test_short_page_takes_no_turns(count, turns):
    """Nobody waits for others who has no more than a hundred to decode."""
    response = ok(listing("list-batch-vouchers", count))
    found, had = await turns_during(parse_vouchers(response))
    assert (len(found.items), had) == (count, turns)


@pytest.mark.parametrize("count", [0, 1, 100, 101, 1_234, LONG])
async def test_page_in_turns_is_the_page(count):
    """However many steps a page takes, it is whole: items in order, cursor, count."""
    response = ok(listing("list-batch-vouchers", count))
    found = await parse_vouchers(response)
    assert [voucher.amount_sen for voucher in found.items] == list(range(count))
    assert (found.cursor, found.count) == ("next", count)


@pytest.mark.parametrize("index", [0, 99, 100, 1_234, LONG - 1])
async def test_misfit_deep_in_a_page_stays_in_its_place(make_client, index):
    """An odd voucher, whichever step meets it, is where it was, and the others are as they were."""
    wire = listing("list-batch-vouchers", LONG)
    wire["items"][index]["amount"] = "GIFT"
    client = make_client(ScriptedServer([ok(wire)]))
    page = await client.vouchers("KEY")
    assert page.items[index].misfits == {"amount_sen": "GIFT"}
    others = [voucher.amount_sen for voucher in page.items]
    assert others == [*range(index), None, *range(index + 1, LONG)]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"code": "SUCCESS"}, "$.items"),
        ({"code": "SUCCESS", "items": {}}, "$.items"),
        ({"code": "SUCCESS", "items": [], "meta": [1]}, "$.meta"),
        ({"code": "SUCCESS", "items": [], "meta": {"cursor": 5}}, "$.meta.cursor"),
        ({"items": []}, "$.code"),
    ],
)
async def test_what_is_no_page_is_refused_before_the_first_turn(body, where):
    """What a page must have is looked at before its items, so no step is done in vain."""
    response = Response(status=200, body=orjson.dumps(body))
    with pytest.raises(DecodeError, match=where.replace("$", r"\$")):
        read_page(response, Voucher).send(None)


async def test_cancelled_between_two_steps(make_client):
    """Who no longer wants a page stops its decoding at the next turn."""
    client = make_client(ScriptedServer([ok(listing("list-batch-vouchers", LONG))]))
    reading = asyncio.ensure_future(client.vouchers("KEY")._fetch(None))
    async with Others() as others:
        while others.turns < 10:
            await asyncio.sleep(0)
        assert not reading.done()
        reading.cancel()
        await asyncio.wait([reading])
    assert reading.cancelled()
