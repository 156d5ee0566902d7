"""A browser for tests: Chromium, watched for all that a page must not do."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, Page, async_playwright
from yarl import URL

CHROMIUM = shutil.which("chromium")
WIDE, PHONE = (1280, 900), (390, 844)


class Watched:
    """A page, and what went wrong on it: errors, warnings, requests that go elsewhere."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.wrong: list[str] = []
        self._origin = URL(origin).origin()
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("request", self._asked)

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"{message.type}: {message.text}")

    def _asked(self, request: Any) -> None:
        url = URL(request.url)
        if url.scheme not in ("blob", "data") and url.origin() != self._origin:
            self.wrong.append(f"asked elsewhere: {url.origin()}")

    async def check(self) -> None:
        """Raise unless the page is sound: nothing went wrong, all can use it, nothing overflows."""
        assert self.wrong == []
        overflow = await self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert overflow <= 0
        found = await Axe().run(self.page)
        assert found.response["violations"] == [], found.generate_report()


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Start Chromium."""
    async with async_playwright() as playwright:
        # As root, as in containers, it has no sandbox of its own.
        started = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield started
        finally:
            await started.close()


@asynccontextmanager
async def open_page(
    browser: Browser,
    url: str,
    *,
    size: tuple[int, int] = WIDE,
    is_dark: bool = False,
    **options: Any,
) -> AsyncIterator[Watched]:
    """Open a page of a size and a colour scheme; it must be sound to the end."""
    context: BrowserContext = await browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if is_dark else "light",
        reduced_motion="reduce",
        **options,
    )
    context.set_default_timeout(15_000)
    page = await context.new_page()
    watched = Watched(page, url)
    try:
        await page.goto(url)
        yield watched
        assert watched.wrong == []
    finally:
        await context.close()
