"""The customer's page and the till in a browser: sound in all schemes and widths, by keyboard."""

import os
from pathlib import Path

import pytest
from support.browsers import PHONE, WIDE, open_page
from support.files import KEY_FILE

from rm_voucher import Credentials, VoucherStatus, VoucherType
from rm_voucher.emulator import Emulator
from rm_voucher.emulator.server import serve

pytestmark = pytest.mark.long

ME = Credentials("client-id", "client-secret", KEY_FILE.read_bytes())
BAD = "<script>alert(1)</script>"
PICTURES = os.environ.get("BROWSER_PICTURES")
"""A folder for the two pictures of the docs; none are made without it."""
# A stand-in for what Chromium has on telephones and Macs: it reads a code at the third look.
DETECTOR = """
window.BarcodeDetector = class {
  static async getSupportedFormats() { return ["qr_code"]; }
  async detect(view) {
    window.looks = (window.looks || 0) + 1;
    window.sees = view.videoWidth;
    return window.looks < 3 ? [] : [{rawValue: %r}];
  }
};
const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async wish => {
  const canvas = document.createElement("canvas");
  canvas.getContext("2d").fillRect(0, 0, 9, 9);
  window.stream = canvas.captureStream(10);
  for (const track of window.stream.getTracks()) {
    const stop = track.stop.bind(track);
    track.stop = () => { localStorage.stopped = "yes"; stop(); };
  }
  return window.stream;
};
"""


@pytest.fixture
async def served():
    emulator = Emulator(seed=1, credentials=ME)
    emulator.add_batch(
        "Breakfast",
        key="B",
        quantity=9,
        type=VoucherType.CASH,
        amount_sen=500,
        minimum_spend_sen=2000,
    )
    emulator.add_batch(BAD, key="X", quantity=9)
    emulator.add_member("60", "198765432", name=BAD)
    async with serve(emulator) as server:
        yield emulator, f"{server.url}/_emulator/till"


async def look_up(page, code):
    await page.fill("#code", code)
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#verdict")


async def focus(page):
    return await page.evaluate("document.activeElement.id || document.activeElement.textContent")


async def picture(page, name, **options):
    if PICTURES:
        await page.screenshot(path=Path(PICTURES, f"{name}.png"), **options)


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
async def test_voucher_page_is_sound(served, chromium, size, is_dark):
    """In each status: ready, with its code spelled, in rewards, used, passed on; and 422, 404."""
    emulator, _ = served
    state = emulator.state
    code, url = state.issue("B")
    async with open_page(chromium, url, size=size, is_dark=is_dark) as watched:
        page = watched.page
        if size == PHONE and not is_dark:
            await picture(page, "voucher-page", full_page=True)
        await watched.check()
        await page.click("text=Read the code out")
        await watched.check()
        await page.fill("#phone", "012-345 6789")
        await page.keyboard.press("Enter")
        await page.wait_for_selector(".said")
        assert state.get(code).kept is VoucherStatus.REDEEMED
        await watched.check()
        state.void(code)
        await page.reload()
        assert "Used on" in await page.inner_text(".status")
        await watched.check()
        shared, url = state.issue("X")
        state.share(shared)
        await page.goto(url)
        assert await page.inner_text("h1") == BAD
        await watched.check()


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
async def test_till_is_sound(served, chromium, size, is_dark):
    """Empty, with what can be used, after the sale, and with what can't be used."""
    emulator, till = served
    code, url = emulator.state.issue("B")
    async with open_page(chromium, till, size=size, is_dark=is_dark) as watched:
        page = watched.page
        await watched.check()
        await look_up(page, url)
        if size == WIDE and not is_dark:
            clip = {"x": 290, "y": 0, "width": 700, "height": 690}
            await picture(page, "till", clip=clip)
        await watched.check()
        await page.click("text=Void this voucher >> visible=true >> nth=-1")
        await page.wait_for_selector(".verdict.done")
        assert emulator.state.get(code).kept is VoucherStatus.VOID
        await watched.check()
        await look_up(page, code)
        await page.wait_for_selector(".verdict.gone")
        await watched.check()
        emulator.state.add_store(BAD)
        emulator.merchant("another")
        await page.goto(till)
        await watched.check()
        assert await page.inner_text("#store option >> nth=1") == BAD


@pytest.mark.parametrize("has_script", [True, False])
async def test_till_by_keyboard(served, chromium, has_script):
    """Enter looks up, again and again; Tab and Enter sell; the keyboard is back at the code."""
    emulator, till = served
    codes = [emulator.state.issue("B")[0] for _ in range(3)]
    async with open_page(chromium, till, java_script_enabled=has_script) as watched:
        page = watched.page
        for code in codes:
            assert await page.locator("#code:focus").count() == 1
            await page.keyboard.type(code)
            await page.keyboard.press("Enter")
            await page.wait_for_selector(".verdict.ready:focus")
            await page.keyboard.press("Enter")  # a scanner that sends it twice sells nothing
            assert emulator.state.get(code).kept is VoucherStatus.ISSUED
            await page.keyboard.press("Tab")
            assert await page.locator(".sell button:focus").count() == 1
            await page.keyboard.press("Enter")
            await page.wait_for_selector(".verdict.done")
            assert emulator.state.get(code).kept is VoucherStatus.VOID
            assert await page.input_value("#code") == ""


async def test_double_click_on_void(served, chromium):
    """It sells once, and says that it was done."""
    emulator, till = served
    code, _ = emulator.state.issue("B")
    async with open_page(chromium, till) as watched:
        await look_up(watched.page, code)
        await watched.page.dblclick(".sell button")
        await watched.page.wait_for_selector(".verdict.done")
    assert len(emulator.state.get(code).history) == 6  # issued, and void


async def test_camera(served, chromium):
    """What the camera sees is looked up, and the camera is off again. Without it, no button."""
    emulator, till = served
    _, url = emulator.state.issue("B")
    async with open_page(chromium, till) as watched:
        page = watched.page
        assert not await page.is_visible("#scan")
        await page.add_init_script(DETECTOR % url)
        await page.reload()
        await page.click("#scan")
        await page.wait_for_selector(".verdict.ready")
        assert await page.evaluate("localStorage.stopped") == "yes"
        assert not await page.is_visible("#camera")


async def test_camera_that_is_refused(served, chromium):
    """A sentence says to type the code."""
    _, till = served
    async with open_page(chromium, till) as watched:
        page = watched.page
        await page.add_init_script(
            DETECTOR % "x"
            + 'navigator.mediaDevices.getUserMedia = async () => { throw new Error("no"); };'
        )
        await page.reload()
        await page.click("#scan")
        await page.wait_for_selector("text=Type the code instead.")
        await watched.check()
