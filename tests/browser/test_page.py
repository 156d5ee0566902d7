"""The emulator's page in a browser: each view is sound, each action has its effect."""

import asyncio
import os
from pathlib import Path

import pytest
from support.browsers import PHONE, WIDE, open_page
from support.files import KEY_FILE
from yarl import URL

from rm_voucher import Credentials, Request, VoucherClient, VoucherType
from rm_voucher.emulator import Emulator, Fault
from rm_voucher.emulator.server import serve

pytestmark = pytest.mark.long

ME = Credentials("client-id", "client-secret", KEY_FILE.read_bytes())
BAD = "<script>alert(1)</script>"
VIEWS = ("batches", "requests", "callbacks", "people", "server")
PICTURES = os.environ.get("BROWSER_PICTURES")
"""A folder for pictures of all views; none are made without it."""


@pytest.fixture
async def served():
    """An emulator with something of everything, and its server."""
    emulator = Emulator(seed=1, credentials=ME)
    emulator.add_batch(
        "Breakfast, RM 5 off",
        key="BREAKFAST",
        quantity=200,
        type=VoucherType.CASH,
        amount_sen=500,
        minimum_spend_sen=2000,
    )
    emulator.add_batch(
        "Raya 15 %", key="RAYA", quantity=1000, type=VoucherType.DISCOUNT, discount_rate_bp=1500
    )
    emulator.add_batch(BAD, key="GIFT", quantity=50)
    member = emulator.add_member("60", "123456789", name="Aminah")
    emulator.add_member("60", "198765432", name=BAD)
    emulator.callbacks.url = "http://127.0.0.1:9/callback"
    async with serve(emulator) as server:
        emulator.fail_next("issue", Fault.THROTTLE)
        async with VoucherClient(ME, environment=server.environment) as client:
            codes = [(await client.issue("BREAKFAST")).code for _ in range(20)]
            for code in codes[:9]:
                emulator.state.collect(code, member)
            for code in codes[:4]:
                await client.void(code)
            with pytest.raises(Exception, match="NOT_FOUND"):
                await client.get("NOSUCHCODE")
        url = URL("http://127.0.0.1/v3/voucher/<script>", encoded=True)
        emulator.reply(Request(operation="x", method="GET", url=url, headers={"X": BAD}))
        yield emulator, server


async def view(page, name):
    """Choose a view and wait until it is drawn."""
    await page.click(f"#tab-{name}")
    await page.wait_for_selector(f"#view-{name} .data > *")


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
async def test_each_view_is_sound(served, chromium, size, is_dark):
    """All can use it, nothing overflows, the console is empty, nothing comes from elsewhere."""
    _, server = served
    async with open_page(
        chromium, f"{server.url}/_emulator/", size=size, is_dark=is_dark
    ) as watched:
        page = watched.page

        async def look(name):
            await watched.check()
            if PICTURES:
                shade = "dark" if is_dark else "light"
                await page.screenshot(path=Path(PICTURES, f"{name}-{size[0]}-{shade}.png"))

        for name in VIEWS:
            await view(page, name)
            await look(name)
        await view(page, "batches")
        await page.click("text=Show the vouchers of BREAKFAST")
        await page.click("#view-batches td button >> nth=0")
        await page.wait_for_selector("dialog[open]")
        await look("voucher")
        await page.keyboard.press("Escape")
        await view(page, "requests")
        await page.click("td.path button >> nth=0")
        await page.wait_for_selector("dialog[open]")
        await look("request")
        await page.keyboard.press("Escape")
        await view(page, "server")
        await page.click("text=Reset")
        await page.wait_for_selector("dialog[open]")
        await look("reset")
        text = await page.content()
    assert "&lt;script&gt;" in text
    assert BAD not in text


@pytest.fixture
async def watched(served, chromium):
    _, server = served
    async with open_page(chromium, f"{server.url}/_emulator/") as watched:
        await watched.page.wait_for_selector(".batch")
        yield watched


@pytest.fixture
async def page(watched):
    return watched.page


async def until(page, expression):
    """Wait until an expression holds: the page's policy forbids Playwright to wait for one."""
    async with asyncio.timeout(15):
        while not await page.evaluate(expression):
            await asyncio.sleep(0.02)  # the browser is another process


async def said(page, words):
    await page.wait_for_selector(f"#said:has-text('{words}')")


async def test_batches_are_added(served, watched):
    emulator, _ = served
    page = watched.page
    await page.click("text=Add a batch")
    await page.fill("[name=key]", "NEW")
    await page.fill("[name=label]", "New one")
    await page.fill("[name=quantity]", "7")
    await page.fill("[name=worth]", "2.50")
    await page.click("text=Add the batch")
    await said(page, "NEW was added")
    batch = emulator.batch("NEW")
    assert (batch.label, batch.quantity, batch.amount_sen) == ("New one", 7, 250)
    await page.fill("[name=key]", "NEW")
    await page.click("text=Add the batch")
    await said(page, "already")
    (wrong,) = watched.wrong  # the browser itself writes what was refused into its console
    assert "400" in wrong
    watched.wrong.clear()


async def test_vouchers_are_used(served, page):
    emulator, _ = served
    await page.click("text=Show the vouchers of BREAKFAST")
    await page.wait_for_selector("text=no. 20")
    assert "NOSUCH" not in await page.content()
    code = emulator.issued("BREAKFAST")[19]
    assert code not in await page.content()
    await page.check("#reveal")
    await page.click(f"text={code}")
    for action, status in (("Redeem", "REDEEMED"), ("Void", "VOID")):
        await page.click(f"dialog >> text='{action}'")
        await page.wait_for_selector(f"dialog p:has-text('{status}')")
        assert emulator.voucher(code).status == status
    await page.click("dialog >> text=Close")
    other = emulator.issued("BREAKFAST")[18]
    await page.fill("#search", other[:6])
    await page.click(f"text={other}")
    await page.click("dialog >> text='Expire'")
    await page.wait_for_selector("dialog p:has-text('EXPIRED')")
    assert emulator.voucher(other).status == "EXPIRED"


async def test_next_call_fails(served, page):
    emulator, _ = served
    await view(page, "requests")
    await page.click("text=Let the next call fail")
    await page.select_option("#view-requests form [name=operation]", "get")
    await page.fill("[name=code]", "VOUCHER_NOT_MERCHANT")
    await page.click("text='Let it fail'")
    await said(page, "The next get fails")
    with pytest.raises(Exception, match="VOUCHER_NOT_MERCHANT"):
        async with emulator.client() as client:
            await client.get(emulator.issued("BREAKFAST")[0])
    await page.wait_for_selector("td:has-text('VOUCHER_NOT_MERCHANT')")
    await page.check("text=only what went wrong")
    await page.wait_for_selector("td.path >> nth=0")
    assert "good" not in (await page.locator("#view-requests td.good").all_inner_texts())


async def test_server_is_steered(served, page):
    emulator, _ = served
    await view(page, "server")
    await page.fill("[name=rate]", "30")
    await page.select_option("[name=kind]", "throttle")
    await page.click("text=Turn on")
    await said(page, "faults are on")
    assert emulator.faults.rate == 0.3
    assert list(emulator.faults.kinds) == [Fault.THROTTLE]
    await page.click("text=Turn off")
    await said(page, "faults are off")
    assert emulator.faults.rate == 0
    await page.fill("[name=per_s]", "12.5")
    await page.click("form:has([name=per_s]) >> text=Set it")
    await said(page, "limit is set")
    assert emulator.rate_limit == 12.5
    await page.fill("[name=amount]", "2")
    await page.click("text=Set it ahead")
    await said(page, "set ahead")
    assert emulator.virtual_clock.ahead_s == 2 * 86_400
    await page.click("text=Revoke all tokens")
    await said(page, "No access token")
    assert not any(token["is_good"] for token in emulator.authenticator.tokens())
    await page.click("text='Reset'")
    await page.click("text=Reset it")
    await said(page, "begins anew")
    assert list(emulator.state.stock.ours()) == []
    assert emulator.virtual_clock.ahead_s == 0


async def test_members_stores_and_callbacks(served, page):
    emulator, _ = served
    await view(page, "people")
    await page.click("summary:has-text('Add a member')")
    await page.fill("#view-people [name=name]", "Kumar")
    await page.fill("[name=phone_number]", "111")
    await page.click("text=Add the member")
    await said(page, "Kumar was added")
    assert emulator.state.member("60", "111").name == "Kumar"
    await page.click("summary:has-text('Add a store')")
    await page.fill("[name=id]", "S1")
    await page.click("text=Add the store")
    await said(page, "S1 was added")
    assert emulator.state.stores() == {"S1": True}
    await view(page, "callbacks")
    await page.click("text=Where they go")
    await page.fill("[name=url]", "")
    await page.click("#view-callbacks >> text=Set it")
    await said(page, "It is set")
    assert emulator.callbacks.url is None


async def test_callback_is_sent_again(served, page):
    emulator, _ = served
    for _ in range(6):
        await emulator.callbacks.deliver()
        emulator.advance(60)
        await asyncio.sleep(0)
    deliveries = "fetch('/_emulator/deliveries').then((answer) => answer.json())"
    await until(page, f"{deliveries}.then((all) => all.some((one) => !one.next_at))")
    emulator.callbacks.url = "http://127.0.0.1:9/other"
    await view(page, "callbacks")
    await page.click("text=Send again >> nth=0")
    await said(page, "is sent again")


async def test_another_merchant(served, page):
    emulator, _ = served
    emulator.merchant(
        "shop", credentials=Credentials("i", "s", KEY_FILE.read_bytes()), batches={"S": 3}
    )
    await page.wait_for_selector("#merchant option[value=shop]", state="attached")
    await page.select_option("#merchant", "shop")
    await page.wait_for_selector("text=Show the vouchers of S")
    assert await page.locator(".batch").count() == 1


async def test_by_keyboard_alone(served, page):
    """Tabs by arrows and numbers, search by a slash, a voucher by Enter; Esc gives focus back."""
    await page.keyboard.press("2")
    await page.wait_for_selector("#tab-requests[aria-selected=true]")
    await page.keyboard.press("ArrowRight")
    await page.wait_for_selector("#tab-callbacks[aria-selected=true]")
    await page.keyboard.press("End")
    await page.wait_for_selector("#tab-server[aria-selected=true]")
    await page.keyboard.press("Home")
    await page.wait_for_selector("#tab-batches[aria-selected=true]")
    await page.keyboard.press("/")
    await page.wait_for_selector("#search:focus")
    await page.focus("text=Show the vouchers of BREAKFAST")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("text=no. 20")
    await page.keyboard.press("Tab")
    await page.focus("#view-batches td button >> nth=0")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("dialog[open]")
    await page.keyboard.press("Escape")
    await page.wait_for_selector("dialog:not([open])", state="attached")
    await page.wait_for_selector("[data-key^='voucher ']:focus")


async def test_usable_while_much_arrives(served, page):
    """While 2,000 requests a second arrive the page answers, and does not grow."""
    emulator, _ = served
    await view(page, "requests")
    url = URL("http://127.0.0.1/v3/voucher/NOSUCHCODE", encoded=True)
    request = Request(operation="x", method="GET", url=url)
    before = emulator.journal.number

    async def much():
        while True:
            for _ in range(20):
                emulator.reply(request)
            await asyncio.sleep(0.01)  # 2,000 a second, as they come over a network

    arriving = asyncio.create_task(much())
    try:
        shown = "document.getElementById('fact-requests').textContent.replaceAll(',', '')"
        await until(page, f"Number({shown}) > {before + 3000}")
        for name in ("batches", "requests"):
            await view(page, name)
        assert await page.locator("#view-requests tbody tr").count() <= 100
        nodes = await page.evaluate("document.getElementsByTagName('*').length")
        assert nodes < 2_500
    finally:
        arriving.cancel()
        await asyncio.wait([arriving])
