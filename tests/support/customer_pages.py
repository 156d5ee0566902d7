"""The pages of customers and of the till, as a browser without script has them."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import aiohttp

from rm_voucher.emulator import Emulator


class Browser:
    """Asks a served emulator for pages, and sends their forms."""

    def __init__(self, emulator: Emulator, url: str, session: aiohttp.ClientSession) -> None:
        self.emulator = emulator
        self.url = url
        self._session = session
        self.headers: dict[str, str] = {}
        """Of the last answer, by lower-case name."""

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, str]:
        """Return the status and the HTML of an answer."""
        path = path.removeprefix(self.url)
        async with self._session.request(
            method, f"{self.url}{path}", allow_redirects=False, **options
        ) as answer:
            self.headers = {name.lower(): value for name, value in answer.headers.items()}
            return answer.status, await answer.text()

    async def see(self, path: str) -> str:
        """Return the text of a page that is there."""
        status, html = await self.ask("GET", path)
        assert status == 200
        return text_of(html)

    async def collect(self, path: str, phone: str, **options: Any) -> tuple[int, str]:
        """Add a voucher to the rewards of a phone number; return the status and the text."""
        status, html = await self.ask("POST", path, data={"phone": phone}, **options)
        return status, text_of(html)

    async def till(self, code: str, **fields: str) -> str:
        """Look a voucher up at the till; return the page's HTML."""
        data = {"do": "look", "code": code, **fields}
        status, html = await self.ask("POST", "/_emulator/till", data=data)
        assert status == 200
        return html

    async def sell(self, html: str) -> str:
        """Press the button of a page of the till; return the next page's HTML."""
        form = html.partition('class="sell"')[2]
        fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form)
        assert fields
        data = {name: unescape(value) for name, value in fields}
        return (await self.ask("POST", "/_emulator/till", data=data))[1]


def text_of(html: str) -> str:
    """Return the text that a page shows, with single spaces."""
    body = html.partition("<body")[2]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", f"<{body}")).split())


def verdict_of(html: str) -> tuple[str, str]:
    """Return the till's verdict: its kind (ready, done or gone), and its text."""
    (found,) = re.findall(r'<section class="card verdict (\w+)"(.*?)</section>', html, re.S)
    return found[0], text_of(f"<body{found[1]}")
