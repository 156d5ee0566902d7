"""What is wrong with the pages of a built site: links that lead nowhere, and what nobody can read.

``python tests/support/site_pages.py site`` says it of the site in that folder.
"""

from __future__ import annotations

import asyncio
import functools
import posixpath
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from playwright.async_api import Browser

try:
    from support.browsers import PHONE, WIDE, browser, open_page
except ModuleNotFoundError:  # run as a program
    from browsers import PHONE, WIDE, browser, open_page  # type: ignore[no-redef,import-not-found]

# Returns a sentence for each thing that a reader can't see, or can't reach.
LOOK = """
async () => {
  const wrong = [], width = document.documentElement.clientWidth;
  const short = text => text.trim().replace(/\\s+/g, " ").slice(0, 60);
  const style = node => getComputedStyle(node);
  const scrolls = node => ["auto", "scroll"].includes(style(node).overflowX);
  const article = document.querySelector("article") || document.body;
  const column = article.getBoundingClientRect();
  if (document.documentElement.scrollWidth > width)
    wrong.push(`the page is ${document.documentElement.scrollWidth} wide`);

  const holders = new Set();
  const outside = (node, box, what) => {
    let holder = node;
    while (holder !== article && !scrolls(holder)) {
      if (style(holder).position === "absolute" || style(holder).visibility === "hidden") return;
      holder = holder.parentElement;
    }
    const edge = holder === article ? column : holder.parentElement.getBoundingClientRect();
    if (holder !== article) {
      if (holders.has(holder)) return;
      holders.add(holder);
      box = holder.getBoundingClientRect();
    }
    if (box.width && (box.right > Math.min(edge.right, width) + 1 || box.left < edge.left - 1))
      wrong.push(`leaves its column by ${Math.round(box.right - edge.right)}: ${what}`);
  };
  const texts = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  const seen = new Range();
  while (texts.nextNode()) {
    const node = texts.currentNode;
    if (!node.data.trim() || node.parentElement.closest("script, style")) continue;
    seen.selectNodeContents(node);
    outside(node.parentElement, seen.getBoundingClientRect(), short(node.data));
  }
  for (const image of article.querySelectorAll("img"))
    outside(image.parentElement, image.getBoundingClientRect(), image.src);

  for (const table of article.querySelectorAll("table.docutils")) {
    const holder = table.parentElement, name = short(table.innerText);
    const extra = holder.scrollWidth - holder.clientWidth;
    if (extra > 1 && width > 1000) wrong.push(`a table is ${extra} too wide: ${name}`);
    if (extra > 1 && !scrolls(holder)) wrong.push(`a table is cut off: ${name}`);
  }
  for (const image of document.querySelectorAll("img")) {
    if (!image.naturalWidth) wrong.push(`missing: ${image.src}`);
    if (!image.alt.trim()) wrong.push(`says nothing to the blind: ${image.src}`);
    if (!image.src.endsWith(".svg")) continue;
    const text = await (await fetch(image.src)).text(), holder = document.createElement("div");
    const drawn = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
    holder.attachShadow({mode: "open"}).append(document.importNode(drawn, true));
    document.body.append(holder);
    const sizes = [...holder.shadowRoot.querySelectorAll("text")].map(
      node => parseFloat(style(node).fontSize));
    holder.remove();
    const scale = image.getBoundingClientRect().width / drawn.viewBox.baseVal.width;
    const size = Math.min(...sizes) * scale;
    if (!(size >= 9)) wrong.push(`letters of ${size.toFixed(1)} pixels: ${image.src}`);
  }
  return wrong;
}
"""


class Links(HTMLParser):
    """The names in a page, and where it leads to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.names = {"", "top"}
        self.targets: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.names.add(value)
            elif name in ("href", "src") and value is not None:
                self.targets.append(value)


def broken_links(site: Path) -> list[str]:
    """Return a sentence for each link that leads to no file, or to no place in it."""
    pages = {path: Links(path) for path in sorted(site.rglob("*.html"))}
    wrong = []
    for page, links in pages.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if trouble := wrong_address(target):
                    wrong.append(f"{page.relative_to(site)}: {target}: {trouble}")
                continue
            path = posixpath.normpath(
                posixpath.join(page.parent.relative_to(site), unquote(parts.path))
            )
            file = site / path if parts.path else page
            if not file.is_file():
                wrong.append(f"{page.relative_to(site)}: {target}: there is no such file")
            elif file in pages and unquote(parts.fragment) not in pages[file].names:
                wrong.append(f"{page.relative_to(site)}: {target}: there is no such place")
    return wrong


def wrong_address(target: str) -> str | None:
    """Return what is wrong with the form of an address outside the site."""
    parts = urlsplit(target)
    if parts.scheme in ("data", "mailto"):
        return None
    if parts.scheme not in ("http", "https"):
        return "it is no address of the web"
    host = parts.hostname or ""
    if "." not in host or any(mark in target for mark in "<>{} "):
        return "it has no host, or marks that no address has"
    if parts.username or parts.password:
        return "it has a user"
    return None


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes to the next page leaves."""


@contextmanager
def served(site: Path) -> Iterator[str]:
    """Serve a folder on loopback. The URL ends with its port."""
    handler = functools.partial(_Quiet, directory=str(site))
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


async def unreadable(site: Path, chromium: Browser) -> list[str]:
    """Open every page at both widths; return a sentence for each thing that is wrong there."""
    wrong = []
    pages = sorted(site.rglob("*.html"))
    sources = [path for path in pages if "_modules" in path.parts]  # alike: the longest is enough
    pages = [path for path in pages if path not in sources]
    pages += sorted(sources, key=lambda path: path.stat().st_size)[-1:]
    names = [str(path.relative_to(site)) for path in pages]
    with served(site) as url:
        for size in (WIDE, PHONE):
            async with open_page(chromium, f"{url}/index.html", size=size) as watched:
                for name in names:
                    await watched.page.goto(f"{url}/{name}")
                    found = await watched.page.evaluate(LOOK)
                    wrong += [f"{name} at {size[0]}: {what}" for what in found + watched.wrong]
                    watched.wrong.clear()
    return wrong


async def _main(site: Path) -> list[str]:
    async with browser() as chromium:
        return broken_links(site) + await unreadable(site, chromium)


if __name__ == "__main__":
    troubles = asyncio.run(_main(Path(sys.argv[1]).resolve()))
    sys.stdout.writelines(f"{trouble}\n" for trouble in troubles)
    sys.exit(bool(troubles))
