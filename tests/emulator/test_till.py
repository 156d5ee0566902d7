"""The till: what it says of a voucher, and the sale."""

import asyncio
import re

import pytest
from support.customer_pages import text_of, verdict_of

from rm_voucher import VoucherStatus, VoucherType
from rm_voucher.emulator import Guesses

BAD = "<script>alert('1')</script>"


def issued(browser, key="B"):
    return browser.emulator.state.issue(key)


def has_focus(html, what):
    """Return whether a part of the page takes the keyboard, and nothing else does."""
    (found,) = re.findall(r"<(?:input|section)[^>]* autofocus", html)
    return f'id="{what}"' in found


async def test_empty_till(shop):
    """It waits for a code; one merchant and no store need no choice."""
    status, html = await shop.ask("GET", "/_emulator/till")
    assert status == 200
    assert has_focus(html, "code")
    assert 'id="live"></div>' in html
    assert "<select" not in html
    assert 'id="scan" hidden' in html
    _, same = await shop.ask("POST", "/_emulator/till", data={"do": "look", "code": "  "})
    assert same == html


async def test_look_changes_nothing(shop):
    """Worth, minimum spend, until when; the button is next for the keyboard."""
    code, _ = issued(shop)
    html = await shop.till(code)
    mood, text = verdict_of(html)
    assert mood == "ready"
    assert "Can be used RM 5.00 Minimum spend RM 20.00 Voucher Breakfast" in text
    assert "Until no date yet" in text
    assert has_focus(html, "verdict")
    assert shop.emulator.state.get(code).kept is VoucherStatus.ISSUED
    shop.emulator.state.redeem([code])
    assert "Until 30 Dec 2026, 12:00" in verdict_of(await shop.till(code))[1]


async def test_sale(shop):
    """The engine's own void, by hand, told by a callback; the keyboard is back at the code."""
    shop.emulator.callbacks.url = "http://127.0.0.1:9/"
    code, url = issued(shop)
    before = shop.emulator.site.changes
    html = await shop.sell(await shop.till(f" {url}?added ", store="Bangsar"))
    mood, text = verdict_of(html)
    assert mood == "done"
    assert "used up RM 5.00" in text
    assert "Used 30 Nov 2026, 12:00 Store Bangsar" in text
    assert has_focus(html, "code")
    assert f'value="{code}"' not in html
    assert 'name="store" maxlength="100" autocomplete="off" value="Bangsar"' in html
    record = shop.emulator.state.get(code)
    assert record.history[-2:] == (VoucherStatus.VOID, 0)
    assert shop.emulator.site.changes == before + 1
    (delivery,) = shop.emulator.callbacks.newest()
    assert (delivery.code, delivery.status) == (code, VoucherStatus.VOID)


async def test_second_click_is_no_second_sale(shop):
    """All clicks on a button get the same answer; a new look is told that it was used."""
    code, _ = issued(shop)
    look = await shop.till(code)
    pages = await asyncio.gather(*(shop.sell(look) for _ in range(4)))
    assert [verdict_of(page)[0] for page in pages] == ["done"] * 4
    assert len(shop.emulator.state.get(code).history) == 6
    mood, text = verdict_of(await shop.till(code))
    assert (mood, "Already used on 30 Nov 2026, 12:00." in text) == ("gone", True)
    assert "VOUCHER_NOT_ALLOW_VOID" in text
    shop.emulator.state.reinstate(code)
    assert verdict_of(await shop.till(code))[0] == "ready"
    assert verdict_of(await shop.sell(look))[0] == "done"
    assert shop.emulator.state.get(code).kept is VoucherStatus.VOID


async def test_two_tills(shop):
    """Of two cashiers who look at the same voucher, one sells it, and the other is told."""
    code, _ = issued(shop)
    first, second = await shop.till(code), await shop.till(code)
    assert verdict_of(await shop.sell(first))[0] == "done"
    html = await shop.sell(second)
    assert verdict_of(html)[0] == "gone"
    assert has_focus(html, "code")


async def test_static_code_is_sold_once_a_look(visit):
    """Each look at a static code sells one of its vouchers."""
    browser = await visit()
    browser.emulator.add_batch("Raya", key="R", quantity=2, static_code="RAYA")
    for _ in range(2):
        browser.emulator.state.issue("R")
    for _ in range(2):
        look = await browser.till("RAYA")
        assert [verdict_of(await browser.sell(look))[0] for _ in range(2)] == ["done", "done"]
    assert verdict_of(await browser.till("RAYA"))[0] == "gone"
    status, html = await browser.ask("POST", "/_emulator/till", data={"do": "void", "code": "RAYA"})
    assert (status, verdict_of(html)[0]) == (200, "gone")


@pytest.mark.parametrize(
    ("change", "sentence", "code"),
    [
        ("void", "Already used on 30 Nov 2026, 12:00.", "VOUCHER_NOT_ALLOW_VOID"),
        ("expire", "It expired on 30 Nov 2026, 12:00.", "VOUCHER_NOT_ALLOW_VOID"),
        ("share", "It was passed on to another shop.", "VOUCHER_NOT_ALLOW_VOID"),
    ],
)
async def test_why_not(shop, change, sentence, code):
    """A sentence for each status that can't be used, and the code that the API refuses with."""
    voucher, _ = issued(shop)
    getattr(shop.emulator.state, change)(voucher)
    mood, text = verdict_of(await shop.till(voucher))
    assert mood == "gone"
    for words in (sentence, code, "Voucher Breakfast", voucher):
        assert words in text
    assert "RM 5.00" not in text


async def test_unknown_codes(shop):
    """What no voucher has, what was never given out, and another merchant's."""
    shop.emulator.add_batch("Theirs", key="T", quantity=1, codes=["ANOTHERS"], is_ours=False)
    shop.emulator.add_batch("Stock", key="S", quantity=1, codes=["NEVER"])
    for code, sentence in {
        "NOSUCHCODE": "No voucher has this code.",
        BAD: "No voucher has this code.",
        "x" * 5_000: "No voucher has this code.",
        "http://a.example/qr/77/voucher/x%00y": "No voucher has this code.",
        "NEVER": "It was never given to a customer.",
        "ANOTHERS": "It is a voucher of another merchant.",
    }.items():
        html = await shop.till(code)
        mood, text = verdict_of(html)
        assert (mood, sentence in text) == ("gone", True)
        assert "<script>" not in html
        assert len(html) < 4_000


async def test_guesses_count_here_as_well(visit):
    """What the API would refuse, the till refuses: redeeming first, a store, known stores."""
    browser = await visit(guesses=Guesses(void_needs_redeem=True, void_needs_store=True))
    browser.emulator.add_batch("Tea", key="B", quantity=1)
    code, _ = issued(browser)
    assert "Say which store this is." in verdict_of(await browser.till(code))[1]
    text = verdict_of(await browser.till(code, store="S"))[1]
    assert "The customer must add it to their rewards first." in text
    browser.emulator.state.redeem([code])
    assert verdict_of(await browser.till(code, store="S"))[0] == "ready"


async def test_void_that_may_be_repeated(visit):
    """Where the API takes a second void, a cashier is still told that the voucher was used."""
    browser = await visit(guesses=Guesses(void_again_code=""))
    browser.emulator.add_batch("Tea", key="B", quantity=1)
    code, _ = issued(browser)
    browser.emulator.state.void(code)
    mood, text = verdict_of(await browser.till(code))
    assert (mood, "Already used" in text, "The API" in text) == ("gone", True, False)


async def test_stores(shop):
    """Where stores were made one chooses; the choice stays, and one not authorised is refused."""
    state = shop.emulator.state
    state.add_store("S1")
    state.add_store(BAD, is_authorised=False)
    code, _ = issued(shop)
    html = await shop.till(code, store="S1")
    assert '<option value="S1" selected>S1</option>' in html
    assert "<script>" not in html
    assert "not take vouchers at this store" in verdict_of(await shop.till(code, store=BAD))[1]
    assert "There is no such store." in verdict_of(await shop.till(code, store="S9"))[1]
    assert '<option value="S1" selected>' in await shop.sell(html)
    assert state.get(code).kept is VoucherStatus.VOID


async def test_guessed_code_of_a_store(visit):
    """The code for an unknown store is a guess; the sentence is the same."""
    browser = await visit(guesses=Guesses(unknown_store_code="VALIDATION_ERROR"))
    browser.emulator.add_batch("Tea", key="B", quantity=1)
    code, _ = issued(browser)
    assert "There is no such store." in verdict_of(await browser.till(code, store="S9"))[1]


async def test_several_merchants(shop):
    """A till is one merchant's; the address in another's QR code is told apart."""
    other = shop.emulator.merchant("other")
    other.add_batch("Lunch", key="L", quantity=1, type=VoucherType.DISCOUNT, discount_rate_bp=1250)
    code, url = other.state.issue("L")
    html = await shop.till(url)
    assert '<option value="main" selected>main</option>' in html
    assert "It is a voucher of another merchant." in verdict_of(html)[1]
    assert "It is a voucher of another merchant." in verdict_of(await shop.till(code))[1]
    html = await shop.till(url, merchant="other")
    assert "12.5 % off" in verdict_of(html)[1]
    html = await shop.sell(html)
    assert verdict_of(html)[0] == "done"
    assert '<option value="other" selected>' in html
    assert other.state.get(code).kept is VoucherStatus.VOID
    assert 'value="main" selected' in await shop.till(code, merchant="nobody")


async def test_till_has_no_guard_of_a_name(shop):
    """A till on another machine of the network reaches it, by any name of this one."""
    status, html = await shop.ask("GET", "/_emulator/till", headers={"Host": "10.0.0.5:8000"})
    assert (status, "Till" in text_of(html)) == (200, True)
    status, _ = await shop.ask("GET", "/_emulator/batches", headers={"Host": "10.0.0.5:8000"})
    assert status == 403


async def test_deleted_used_at(shop):
    """A used voucher always says when; one whose time is not kept says only that."""
    code, url = issued(shop)
    shop.emulator.state.void(code).used_at = None
    assert "Used." in verdict_of(await shop.till(code))[1]
    assert "Used Member" not in await shop.see(url)
