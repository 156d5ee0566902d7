"""Draw docs/images/emulator-*.png from the real page: ``python docs/emulator_pictures.py``.

It needs Playwright and Chromium. The vouchers are those of an emulator.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shutil
import time
from pathlib import Path

import aiohttp
from PIL import Image
from playwright.async_api import async_playwright

from rm_voucher import Credentials, NotFoundError, VoucherClient, VoucherType
from rm_voucher.emulator import Emulator, Fault
from rm_voucher.emulator.keys import new_private_key
from rm_voucher.emulator.server import Server, serve
from rm_voucher.signing.rsa import RsaSigner
from rm_voucher.signing.signature import format_signature

IMAGES = Path(__file__).parent / "images"
ME = Credentials("client", "a secret of an emulator's", new_private_key())
COLOURS = 96  # flat pages need no more, and are a third as large


async def use(emulator: Emulator, server: Server) -> None:
    """Let something of everything happen."""
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
    emulator.add_batch("A cup of tea", key="TEA", quantity=50)
    member = emulator.add_member("60", "123456789", name="Aminah")
    emulator.fail_next("issue", Fault.THROTTLE)
    async with VoucherClient(ME, environment=server.environment) as client:
        codes = [(await client.issue("BREAKFAST")).code for _ in range(63)]
        for _ in range(140):
            await client.issue("RAYA")
        for code in codes[30:]:
            emulator.state.collect(code, member)
        for code in codes[45:]:
            await client.void(code)
        with contextlib.suppress(NotFoundError):
            await client.get("NOSUCHCODE")


async def sign_wrongly(emulator: Emulator, server: Server) -> None:
    """Send a void that was signed with two mistakes."""
    signer = RsaSigner.from_pem(ME.private_key_pem())
    url = f"{server.url}/v3/voucher/{emulator.issued('BREAKFAST')[0]}/void"
    headers = next(reversed(list(emulator.journal))).request.headers
    timestamp, body = str(int(time.time())), b'{"usedAt": "2026-11-30T00:00:00Z", "storeId": "1"}'
    text = (
        f"data={base64.b64encode(body).decode()}&method=POST&nonceStr=Vf3x9&requestUrl={url}"
        f"&signType=sha256&timestamp={timestamp}"
    )
    sent = {
        "Authorization": headers["Authorization"],
        "Content-Type": "application/json",
        "X-Nonce-Str": "Vf3x9",
        "X-Signature": format_signature(signer.sign(text.encode())),
        "X-Timestamp": timestamp,
    }
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=sent):
        pass


def save(picture: bytes, name: str) -> None:
    """Write a picture with few colours."""
    path = IMAGES / f"emulator-{name}.png"
    path.write_bytes(picture)
    with Image.open(path) as image:
        image.convert("RGB").quantize(COLOURS).save(path, optimize=True)


async def main() -> None:
    """Draw the pictures."""
    emulator = Emulator(seed=1, credentials=ME)
    async with serve(emulator) as server, async_playwright() as playwright:
        await use(emulator, server)
        await sign_wrongly(emulator, server)
        chromium = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, is_dark in (("batches", False), ("signature", True)):
            context = await chromium.new_context(
                viewport={"width": 1120, "height": 720},
                color_scheme="dark" if is_dark else "light",
                reduced_motion="reduce",
            )
            page = await context.new_page()
            await page.goto(f"{server.url}/_emulator/")
            await page.click("text=Show the vouchers of BREAKFAST")
            await page.wait_for_selector("#view-batches td button")
            if name == "signature":
                await page.check("#reveal")
                await page.click("#tab-requests")
                await page.click("td.path button >> nth=0")
                await page.wait_for_selector("dialog mark")
            save(await page.screenshot(), name)
        await chromium.close()


if __name__ == "__main__":
    asyncio.run(main())
