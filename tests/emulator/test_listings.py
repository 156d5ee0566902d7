"""Listings: filters, cursors, pages, limits, and whose vouchers they show."""

import base64

import orjson
import pytest
from support.raw_requests import (
    BAD_PARAMETER,
    GOOD,
    INCOMPLETE,
    ROUTES,
    WHO,
    known,
    prepared,
    signed,
    stocked,
)

from rm_voucher.emulator import Guesses
from rm_voucher.models import BatchStatus


@pytest.fixture
def emulator():
    return stocked()


async def pages_of(pager):
    """Return all pages, which are never many here."""
    pages = []
    async for page in pager.pages():
        pages.append(page)
        assert len(pages) < 20
    return pages


async def items_of(pager):
    return [item for page in await pages_of(pager) for item in page.items]


@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        ({}, ["done", "static", "new"]),
        ({"status": "COMPLETED"}, ["done", "static"]),
        ({"status": "PROCESSING"}, ["new"]),
        ({"status": "FAILED"}, []),
        ({"is_static": True}, ["static"]),
        ({"is_static": False}, ["done", "new"]),
        ({"status": "PROCESSING", "is_static": True}, []),
        ({"status": "COMPLETED", "is_static": True}, ["static"]),
    ],
)
async def test_filter(wanted, keys):
    """Batches are filtered by either field or both; other merchants' are never shown."""
    emulator = known(guesses=Guesses(page_size=1))
    emulator.add_batch("x", key="done", quantity=1)
    emulator.add_batch("x", key="static", quantity=1, static_code="S")
    emulator.add_batch("x", key="new", quantity=1, status=BatchStatus("PROCESSING"))
    emulator.add_batch("x", key="others", quantity=1, is_ours=False)
    async with emulator.client() as client:
        assert [batch.key for batch in await items_of(client.batches(**wanted))] == keys


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", GOOD),
        ('{"status":null,"isStatic":null}', GOOD),
        ('{"unknown":1}', GOOD),
        ('{"status":["COMPLETED"]}', GOOD),
        ("", BAD_PARAMETER),
        ("x", BAD_PARAMETER),
        ("[]", BAD_PARAMETER),
        ("null", BAD_PARAMETER),
        ('"COMPLETED"', BAD_PARAMETER),
        ("5", BAD_PARAMETER),
        ("{", BAD_PARAMETER),
        ("%ff", BAD_PARAMETER),
        ("[" * 2000, BAD_PARAMETER),
    ],
)
def test_filter_is_an_object(emulator, text, expected):
    """A filter is a JSON object, whatever is in it."""
    assert signed(emulator, "GET", f"/v3/voucher-batches?filter={text}") == expected


def encoded(text):
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("cursor", "expected"),
    [
        ("", GOOD),
        (encoded("from 1"), GOOD),
        (encoded("from 10"), GOOD),
        (encoded("from 999999999999999999999999999999"), GOOD),
        ("x", BAD_PARAMETER),
        ("é", BAD_PARAMETER),
        ("eA==", BAD_PARAMETER),
        (base64.b64encode(b"from \xff").decode(), BAD_PARAMETER),
        (encoded("from"), BAD_PARAMETER),
        (encoded("from "), BAD_PARAMETER),
        (encoded("from 0"), BAD_PARAMETER),
        (encoded("from -1"), BAD_PARAMETER),
        (encoded("from +1"), BAD_PARAMETER),
        (encoded("from 01"), BAD_PARAMETER),
        (encoded("from 1_0"), BAD_PARAMETER),
        (encoded("from ١"), BAD_PARAMETER),
        (encoded("from 1.0"), BAD_PARAMETER),
        (encoded("from 1 "), BAD_PARAMETER),
        (encoded("from  1"), BAD_PARAMETER),
        (encoded("From 1"), BAD_PARAMETER),
        (encoded("to 1"), BAD_PARAMETER),
        (encoded("from " + "9" * 5000), BAD_PARAMETER),
        (encoded("from 1") + "=", BAD_PARAMETER),
        (encoded("from 10").rstrip("="), BAD_PARAMETER),
        (encoded("from 10").replace("A=", "B="), BAD_PARAMETER),
        (encoded("from 10") + "%0A", BAD_PARAMETER),
    ],
)
@pytest.mark.parametrize(
    "target",
    ["/v3/voucher-batches?", "/v3/voucher-batch/K/vouchers?", f"/v3/loyalty/me/vouchers{WHO}&"],
)
def test_cursors(emulator, target, cursor, expected):
    """A cursor is one that a page gives, in the page's own spelling; beyond the end is nothing."""
    assert signed(emulator, "GET", f"{target}cursor={cursor}") == expected


def test_cursor_beyond_the_end(emulator):
    """There is nothing beyond the end, and no further page."""
    for number in ("5", "9" * 30):
        target = f"/v3/voucher-batch/K/vouchers?cursor={encoded(f'from {number}')}"
        wire = orjson.loads(emulator.handle(prepared(emulator, "GET", target)).body)
        assert wire == {"items": [], "meta": {"count": 0}, "code": "SUCCESS"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?x=1", GOOD),
        ("?" + "&".join(["x=1"] * 20), GOOD),
        ("?" + "&".join(["x=1"] * 21), BAD_PARAMETER),
        ("?" + "&" * 20, BAD_PARAMETER),
        ("?%ff=%ff", GOOD),
        ("?cursor", GOOD),
    ],
)
def test_queries(emulator, query, expected):
    """What is unknown in a query is ignored, within reason."""
    assert signed(emulator, "GET", f"/v3/voucher-batches{query}") == expected


async def test_cursor_is_stable():
    """What is issued while a listing is read does not move what was there: nothing comes twice."""
    emulator = stocked(guesses=Guesses(page_size=2))
    emulator.add_batch("new", key="N", quantity=10)
    codes = [emulator.state.issue("N")[0] for _ in range(4)]
    seen: list[str | None] = []
    async with emulator.client() as client:
        async for page in client.vouchers("N").pages():
            assert len(seen) <= len(codes)
            assert page.count == len(page.items)
            seen += [voucher.code for voucher in page.items]
            if len(codes) < 6:
                codes.append(emulator.state.issue("N")[0])
                emulator.state.void(codes[len(codes) - 5])
    assert seen == codes


@pytest.mark.parametrize("count", [0, 1, 3, 4, 6, 7])
async def test_listing_pages(count):
    """A listing of any length has every voucher once, in the order of issue, on full pages."""
    emulator = stocked(guesses=Guesses(page_size=3))
    emulator.add_batch("new", key="N", quantity=10)
    codes = [emulator.state.issue("N")[0] for _ in range(count)]
    async with emulator.client() as client:
        pages = await pages_of(client.vouchers("N"))
    assert [voucher.code for page in pages for voucher in page.items] == codes
    assert [len(page.items) for page in pages[:-1]] == [3] * (len(pages) - 1)
    assert len(pages) == max(1, -(-count // 3))


async def test_page_size_is_for_every_listing():
    """By default 100 are on a page; the option is for all three listings."""
    emulator = known()
    assert emulator.guesses.page_size == 100
    member = emulator.add_member("60", "1")
    codes = [f"C{number}" for number in range(101)]
    emulator.add_batch("x", key="K", codes=codes)
    for code in codes:
        emulator.state.collect(code, member)
    for _ in range(100):
        emulator.add_batch("x", quantity=1)
    async with emulator.client() as client:
        pagers = client.vouchers("K"), client.batches(), client.member("60", "1").vouchers()
        for pager in pagers:
            assert [len(page.items) for page in await pages_of(pager)] == [100, 1]


@pytest.mark.parametrize(
    ("limit", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (3, [3, 2]), (9, [3, 2])]
)
async def test_limit(limit, sizes):
    """A member's listing takes a limit, up to the size of a page."""
    emulator = stocked(guesses=Guesses(page_size=3))
    member = emulator.add_member("60", "2")
    emulator.add_batch("x", codes=list("12345"))
    for code in "12345":
        emulator.state.collect(code, member)
    async with emulator.client() as client:
        pager = client.member("60", "2").vouchers(limit=limit)
        assert [len(page.items) for page in await pages_of(pager)] == sizes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", GOOD),
        ("999999999", GOOD),
        ("01", GOOD),
        ("0", BAD_PARAMETER),
        ("000", BAD_PARAMETER),
        ("", BAD_PARAMETER),
        ("-1", BAD_PARAMETER),
        ("%2B1", BAD_PARAMETER),
        ("1.0", BAD_PARAMETER),
        ("x", BAD_PARAMETER),
        ("١", BAD_PARAMETER),
        ("²", BAD_PARAMETER),
        ("1000000000", BAD_PARAMETER),
        ("9" * 5000, BAD_PARAMETER),
    ],
)
def test_limit_is_a_number(emulator, text, expected):
    """A limit is a whole number, 1 or more."""
    target = f"/v3/loyalty/me/vouchers{WHO}&limit={text}"
    assert signed(emulator, "GET", target) == expected


@pytest.mark.parametrize("operation", ["member vouchers", "member get", "member redeem"])
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", INCOMPLETE),
        ("?countryCode=60", INCOMPLETE),
        ("?phoneNumber=1", INCOMPLETE),
        ("?countrycode=60&phonenumber=1", INCOMPLETE),
        ("?countryCode=60&phoneNumber=", (404, "MEMBER_NOT_FOUND")),
        ("?countryCode=%2B60&phoneNumber=1", (404, "MEMBER_NOT_FOUND")),
        ("?countryCode=60&phoneNumber=%2531", (404, "MEMBER_NOT_FOUND")),
        ("?phoneNumber=1&countryCode=60&x=", GOOD),
    ],
)
def test_member_is_told_by_the_query(emulator, operation, query, expected):
    """A member is a country code and a phone number, exactly as they were given."""
    (method,), target, body = ROUTES[operation]
    target = target.removesuffix(WHO) + query
    assert signed(emulator, method, target, body) == expected
