"""docs/try-it-all.md, step by step: its own commands in processes, its own words in a browser."""

import asyncio
import contextlib
import os
import re
import shlex
import socket
import sys
from pathlib import Path

import pytest
from support.browsers import PHONE, Watched, open_page
from support.command import PATIENCE_S, Emulating
from support.files import DOCS, EXAMPLES

pytestmark = pytest.mark.long

PAGE = (DOCS / "try-it-all.md").read_text()
EMULATOR, SHOP = re.findall(r"```sh\n(.*?)```", PAGE, re.S)
PORT = "8080"


@pytest.fixture
def shop_port():
    """A port that is free; the page's may be taken."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return str(listening.getsockname()[1])


@contextlib.asynccontextmanager
async def running(command, path, port, ready):
    """Run commands of the page until the block is left, from when one says that it is ready.

    They say the page's port and paths in the project's directory.
    """
    bin_dir = Path(sys.executable).parent
    command = command.replace(PORT, port).replace("--app-dir examples", f"--app-dir {EXAMPLES}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RM_")}
    environment["PATH"] = f"{bin_dir}:{environment['PATH']}"
    process = await asyncio.create_subprocess_exec(
        *("sh", "-euc", command),
        cwd=path,
        env=environment | {"no_proxy": "*"},
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stderr is not None
    said: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not (said and ready in said[-1]):
                line = (await process.stderr.readline()).decode()
                assert line, "".join(said)
                said.append(line)
        reading = asyncio.create_task(process.stderr.read())
        yield
        assert process.returncode is None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        await process.wait()
    assert b"Traceback" not in await reading


def words(number):
    """Return what a step of the page has in bold and in italics, without the words around them."""
    (step,) = re.findall(rf"^{number}\. (.*?)(?=^\d\.|^\[)", PAGE, re.M | re.S)
    return re.findall(r"\*\*(.+?)\*\*", step), re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", step)


async def test_from_an_order_to_the_till(tmp_path, chromium, shop_port):
    """Order, voucher, QR page, rewards, till, callbacks, and the shop's page says each change."""
    pip, serve = EMULATOR.strip().splitlines()
    assert shlex.split(pip)[:2] == ["pip", "install"]
    shop_url = f"http://127.0.0.1:{shop_port}/"
    async with (
        running(f"exec {serve}", tmp_path, shop_port, "Emulator at http://127.0.0.1:"),
        running(SHOP, tmp_path, shop_port, "Uvicorn running on"),
        open_page(chromium, shop_url) as shop,
    ):
        emulating = Emulating.at(tmp_path / "emulator.env")

        async def shop_says(status):
            await shop.page.wait_for_selector(f"[role=status] >> text={status}")

        (order,), (unused,) = words(1)
        await shop.page.click(f"text={order}")
        await shop_says(unused)
        await shop.check()

        (link,), _ = words(2)
        async with shop.page.context.expect_page() as opened:
            await shop.page.click(f"text={link}")
        page = await opened.value
        voucher = Watched(page, emulating.url)
        await page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
        await page.wait_for_load_state()
        assert "Breakfast" in await page.inner_text("h1")
        assert "RM 5.00" in await page.inner_text(".amount")
        await voucher.check()

        (add,), (held,) = words(3)
        await page.fill("#phone", "012-345 6789")
        await page.click(f"text={add}")
        await page.wait_for_selector("text=In your rewards")
        await voucher.check()
        await shop_says(held)

        _, (usable,) = words(4)
        async with open_page(chromium, f"{emulating.url}/_emulator/till") as till:
            await till.page.fill("#code", page.url)
            await till.page.keyboard.press("Enter")
            await till.page.wait_for_selector(f".verdict >> text={usable}")
            await till.check()

            (void,), (done, used) = words(5)
            await till.page.click(f".verdict button >> text={void}")
            await till.page.wait_for_selector(f".verdict >> text={done}")
            await till.check()
            await shop_says(used)
            await shop.check()

            _, (refused,) = words(6)
            await till.page.fill("#code", page.url)
            await till.page.keyboard.press("Enter")
            await till.page.wait_for_selector(f".verdict >> text={refused}")
            await till.check()
        await page.reload()
        assert "Used on" in await page.inner_text(".status")
        assert voucher.wrong == []
        (batch,) = emulating.control("batches")
        assert (batch["issued"], batch["void"]) == (1, 1)
        told = emulating.control("deliveries")
        assert "VOID" in str(told)
        assert emulating.control("callbacks")["delivered"] == 2
