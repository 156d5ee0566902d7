"""The voucher as its customer sees it: what it says in each status, and "add to my rewards"."""

import asyncio
import importlib.util
import re
from datetime import UTC, datetime

import aiohttp
import pytest
from support.pictures import codes_in_svg
from yarl import URL

from rm_voucher import Expiry, ExpiryType, VoucherStatus
from rm_voucher.emulator import Guesses
from rm_voucher.emulator.customer.phone import readings
from rm_voucher.emulator.customer.words import spelled

BAD = "<script>alert('1')</script>"
ADD = "Add to my rewards"


def issued(browser, key="B"):
    """Issue a voucher; return its code and the URL in its QR code."""
    return browser.emulator.state.issue(key)


async def test_page_shows_the_voucher(shop):
    """Label, worth, terms, expiry, status, the code in groups and spelled, and a QR code."""
    code, url = issued(shop)
    assert url == f"{shop.url}/qr/1/voucher/{code}"
    text = await shop.see(url)
    for words in (
        "Emulator: no real vouchers",
        "Breakfast RM 5.00 Minimum spend RM 20.00 Ready to use",
        "Valid for 30 days once it is in your rewards",
        f"{code[:4]} {code[4:8]} {code[8:]}",
        " ".join(spelled(code)),
        ADD,
        "there is no log-in here",
    ):
        assert words in text


async def test_qr_code_leads_to_its_own_page(shop):
    """What a telephone reads is the page's address."""
    _, url = issued(shop)
    _, html = await shop.ask("GET", url)
    (svg,) = re.findall(r"<svg.*?</svg>", html)
    assert codes_in_svg(svg) == [url]


async def test_no_qr_code_without_the_extra(shop, monkeypatch):
    """Without segno the code is text, and the page says what is missing."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, url = issued(shop)
    text = await shop.see(url)
    assert "install the extra cli" in text
    assert code[:4] in text


async def test_page_of_each_status(shop):
    """Ready, in somebody's rewards, used, expired, passed on: each in words, one can be added."""
    state = shop.emulator.state
    member = shop.emulator.add_member("60", "123456789", name="Ann")
    held, redeemed, used, gone, given = (issued(shop)[0] for _ in range(5))
    state.collect(held, member)
    state.redeem([redeemed])
    state.void(used)
    state.share(given)
    state.redeem([gone])
    state.expire(gone)
    for code, words in {
        held: "In your rewards Member +60 •••789 Valid until 30 Dec 2026, 12:00",
        redeemed: "Redeemed, not used yet Valid until 30 Dec 2026, 12:00",
        used: "Used on 30 Nov 2026, 12:00",
        gone: "Expired on 30 Nov 2026, 12:00",
        given: "Passed on to another shop",
    }.items():
        text = await shop.see(state.qr_url(code))
        assert words in text
        assert "123456789" not in text
        assert ADD not in text
        assert ("Valid" in text) == ("Valid" in words)


@pytest.mark.parametrize(
    ("expiry", "words"),
    [
        (Expiry(type=ExpiryType.PERMANENT), "Does not expire"),
        (
            Expiry(type=ExpiryType.FIXED, expires_at=datetime(2026, 12, 31, 15, 59, tzinfo=UTC)),
            "Valid until 31 Dec 2026 ",
        ),
        (
            Expiry(
                type=ExpiryType.FIXED, expires_at=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
            ),
            "Valid until 31 Dec 9999 ",
        ),
    ],
)
async def test_expiry(visit, expiry, words):
    """A date is Malaysia's, and what never expires says so."""
    browser = await visit()
    browser.emulator.add_batch("Tea", key="B", quantity=1, expiry=expiry)
    assert words in await browser.see(issued(browser)[1])


async def test_adding_redeems_and_calls_back(shop):
    """The engine's own work: REDEEMED, the member's, by hand, and told by a callback."""
    shop.emulator.callbacks.url = "http://127.0.0.1:9/"
    member = shop.emulator.add_member("60", "123456789")
    code, url = issued(shop)
    before = shop.emulator.site.changes
    assert (await shop.collect(url, "012-345 6789"))[0] == 303
    assert shop.headers["location"] == "?added"
    text = await shop.see(f"{url}?added")
    assert "Added to your rewards. Breakfast" in text
    assert "In your rewards" in text
    record = shop.emulator.state.get(code)
    assert record.member is member
    assert record.history[-2:] == (VoucherStatus.REDEEMED, 0)
    assert shop.emulator.site.changes == before + 1
    (delivery,) = shop.emulator.callbacks.newest()
    assert (delivery.code, delivery.status) == (code, VoucherStatus.REDEEMED)


async def test_new_number_becomes_a_member(shop):
    """As a customer who signs in for the first time."""
    code, url = issued(shop)
    assert (await shop.collect(url, "+65 9123 4567"))[0] == 303
    (member,) = shop.emulator.state.members()
    assert (member.country_code, member.phone_number) == ("65", "91234567")
    assert shop.emulator.state.get(code).member is member


async def test_second_click_does_no_harm(shop):
    """One redemption, one callback; both are told that it was done."""
    shop.emulator.callbacks.url = "http://127.0.0.1:9/"
    code, url = issued(shop)
    answers = await asyncio.gather(*(shop.collect(url, "0123456789") for _ in range(4)))
    assert [status for status, _ in answers] == [303] * 4
    assert len(shop.emulator.callbacks.newest()) == 1
    assert len(shop.emulator.state.get(code).history) == 6


async def test_others_voucher_is_refused(shop):
    """Who comes second is told so, and becomes no member."""
    _, url = issued(shop)
    await shop.collect(url, "0123456789")
    status, text = await shop.collect(url, "0199999999")
    assert status == 422
    assert "Somebody has added this voucher to their rewards already." in text
    assert len(shop.emulator.state.members()) == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("void", "This voucher has been used."),
        ("expire", "This voucher has expired."),
        ("share", "This voucher was passed on to another shop."),
    ],
)
async def test_voucher_that_changed_meanwhile(shop, change, sentence):
    """The page was open; what happened since is told as a sentence."""
    code, url = issued(shop)
    getattr(shop.emulator.state, change)(code)
    status, text = await shop.collect(url, "0123456789")
    assert status == 422
    assert sentence in text
    assert shop.emulator.state.members() == []


async def test_member_of_another_merchant(shop):
    """A number that another merchant has is refused, and the form keeps it."""
    shop.emulator.add_member("60", "123456789", is_ours=False)
    code, url = issued(shop)
    status, text = await shop.collect(url, "0123456789")
    assert (status, "member of another shop" in text, ADD in text) == (422, True, True)
    assert shop.emulator.state.get(code).member is None


@pytest.mark.parametrize("phone", ["", "abc", "+", "1" * 16, f"{BAD}", "+60", "٣٣"])
async def test_number_that_is_none(shop, phone):
    """A sentence, with what was written still in the field, as text."""
    code, url = issued(shop)
    status, html = await shop.ask("POST", url, data={"phone": phone})
    assert status == 422
    assert 'id="problem" role="alert">' in html
    assert "<script>" not in html
    assert shop.emulator.state.get(code).member is None


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("012-345 6789", ("60", "123456789")),
        ("12 345 6789", ("60", "123456789")),
        ("+60 12-345 6789", ("60", "123456789")),
        ("0060123456789", ("60", "123456789")),
        ("+1 (202) 555.0100", ("1", "2025550100")),
        ("+852 2345 6789", ("852", "23456789")),
        ("0", ("60", "0")),
    ],
)
def test_phone_numbers(text, first):
    """As people write them: with or without country code, spaces and dashes."""
    assert readings(text)[0] == first


async def test_number_with_its_country_code_alone(shop):
    """Without a plus sign, it is the member's who has it."""
    member = shop.emulator.add_member("65", "91234567")
    code, url = issued(shop)
    await shop.collect(url, "6591234567")
    assert shop.emulator.state.get(code).member is member


async def test_members_are_offered(shop):
    """To whom may see them in the control API: not by a name that leads here from elsewhere."""
    shop.emulator.add_member("60", "123456789", name=BAD)
    _, url = issued(shop)
    _, html = await shop.ask("GET", url)
    assert '<option value="+60 123456789">&lt;script&gt;' in html
    _, html = await shop.ask("GET", url, headers={"Host": "phones.example"})
    assert ADD in html
    assert "123456789" not in html.replace("12-345 6789", "")


async def test_static_code_is_for_everybody(visit):
    """Each member gets one of it, until none is left."""
    browser = await visit()
    browser.emulator.add_batch("Raya", key="R", quantity=2, static_code="RAYA")
    url = browser.emulator.state.qr_url("RAYA")
    for phone in ("0111111111", "0111111111", "0122222222"):
        assert (await browser.collect(url, phone))[0] == 303
        assert "Added to your rewards." in await browser.see(f"{url}?added")
    assert [len(member.vouchers) for member in browser.emulator.state.members()] == [1, 1]
    status, text = await browser.collect(url, "0133333333")
    assert (status, "already" in text, len(browser.emulator.state.members())) == (422, True, 2)


async def test_batch_with_nothing_left(visit):
    """A code that was never issued, of a batch that has ended before it."""
    browser = await visit(guesses=Guesses(redeems_valid=False))
    browser.emulator.add_batch("Tea", key="B", quantity=1, codes=["NEVER"])
    status, text = await browser.collect(browser.emulator.state.qr_url("NEVER"), "0123456789")
    assert (status, "There is none left to add." in text) == (422, True)


async def test_text_is_never_markup(visit):
    """Labels, merchants' names and members' are text on the page."""
    browser = await visit()
    merchant = browser.emulator.merchant("other")
    merchant.name = BAD
    merchant.add_batch(f"{BAD}{{code}}\x1b", key="B", quantity=1)
    code, url = merchant.state.issue("B")
    assert "/qr/2/" in url
    _, html = await browser.ask("GET", url)
    assert html.count("&lt;script&gt;") == 2
    assert "<script" not in html
    assert "{code}\\x1b" in html
    assert code[:4] in html


async def test_merchants_don_t_meet(visit):
    """A code is its merchant's: under another's number there is nothing."""
    browser = await visit(batches={"B": 5})
    other = browser.emulator.merchant("other", batches={"B": 5})
    mine, theirs = issued(browser)[0], other.state.issue("B")[0]
    assert (await browser.collect(other.state.qr_url(theirs), "0123456789"))[0] == 303
    assert other.state.get(theirs).member is not None
    assert list(browser.emulator.state.members()) == []
    for number, code in ((2, mine), (1, theirs)):
        assert (await browser.ask("GET", f"/qr/{number}/voucher/{code}"))[0] == 404


@pytest.mark.parametrize(
    "path",
    ["1/voucher/NOSUCHCODE", "9/voucher/{code}", "01/voucher/", "x/voucher/{code}", "", "1", "..",
     "1/voucher/{code}/void", "1/voucher/%ff", "1/voucher/<b>", "1/voucher/ANOTHERS"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_nothing_there(shop, path, method):
    """An unknown code, merchant or path, another merchant's code: the same page tells nothing."""
    shop.emulator.add_batch("Theirs", key="T", quantity=1, codes=["ANOTHERS"], is_ours=False)
    path = path.format(code=issued(shop)[0])
    url = URL(f"{shop.url}/qr/{path}", encoded=True)
    data = {"phone": "0123456789"} if method == "POST" else None
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, data=data) as answer,
    ):
        assert answer.status == 404
        html = await answer.text()
    assert re.sub(r"\s+", " ", html).count("Nothing here") == 2
    assert "Breakfast" not in html
    assert "&lt;b&gt;" not in html
    assert shop.emulator.state.members() == []


@pytest.mark.parametrize("path", ["/_emulator/till", "/qr/1/voucher/{code}"])
async def test_form_of_another_site(shop, path):
    """Refused, whatever it would do; so are two origins, and the one of a hidden page."""
    code, _ = issued(shop)
    path, host = path.format(code=code), shop.url.removeprefix("http://")
    data = {"phone": "0123456789", "do": "void", "code": code}
    for origin in (
        "https://evil.example",
        "null",
        "",
        f"http://{host}.evil.example",
        "http://[::1",
    ):
        status, html = await shop.ask("POST", path, data=data, headers={"Origin": origin})
        assert (status, "another site" in html) == (403, True)
    async with aiohttp.ClientSession() as session:
        headers = [("Origin", shop.url), ("Origin", "https://evil.example")]
        async with session.post(f"{shop.url}{path}", data=data, headers=headers) as answer:
            assert answer.status == 403
    assert shop.emulator.state.get(code).kept is VoucherStatus.ISSUED
    for origin in (shop.url, f"https://{host}"):  # a proxy may speak TLS for it
        status, _ = await shop.ask("POST", path, data=data, headers={"Origin": origin})
        assert status in (200, 303)
    assert shop.emulator.state.get(code).kept is not VoucherStatus.ISSUED


@pytest.mark.parametrize("path", ["/_emulator/till", "/qr/1/voucher/{code}", "/qr/pages.css"])
async def test_other_methods_and_bodies(shop, path):
    """Only what the page sends is taken."""
    code, _ = issued(shop)
    path = path.format(code=code)
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
        status, _ = await shop.ask(method, path)
        assert (status, shop.headers["allow"]) == (405, "GET, HEAD, POST")
    assert await shop.ask("HEAD", path) == (200, "")
    if path != "/qr/pages.css":
        for body in ({"json": {"phone": "0123456789"}}, {"data": {"phone": "1" * 20_000}}):
            assert (await shop.ask("POST", path, **body))[0] == 400
    assert shop.emulator.state.get(code).kept is VoucherStatus.ISSUED


async def test_pages_are_safe(shop):
    """A strict policy, no frames, nothing cached, no address told to others."""
    _, url = issued(shop)
    for path in (url, "/_emulator/till", "/qr/1/voucher/x"):
        _, html = await shop.ask("GET", path)
        policy = shop.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert shop.headers["cache-control"] == "no-store"
        assert shop.headers["referrer-policy"] == "same-origin"
        assert shop.headers["content-type"] == "text/html; charset=utf-8"
        assert not re.findall(r"\sstyle=|\son\w+=|<style|<script>|https?://(?!www\.w3)", html)
        for file in re.findall(r'(?:href|src)="(/qr/[^"]+)"', html):
            assert (await shop.ask("GET", file))[0] == 200
    for template in ("frame.html", "till.html", "__init__.py", "till.py"):
        assert (await shop.ask("GET", f"/qr/{template}"))[0] == 404


def test_spelled():
    """Each character as one says it."""
    assert spelled("aB3-_é") == [
        "small A",
        "capital B",
        "3",
        "hyphen-minus",
        "low line",
        "latin small letter e with acute",
    ]
