"""The page over HTTP: its files, its safety, and the stream of what is new."""

import asyncio
import re
from pathlib import Path

import aiohttp
import orjson
import pytest
from support.files import KEY_FILE

import rm_voucher.emulator.page
from rm_voucher import Credentials
from rm_voucher.emulator import Emulator, pages
from rm_voucher.emulator.server import serve

ME = Credentials("client-id", "client-secret", KEY_FILE.read_bytes())
FOLDER = Path(rm_voucher.emulator.page.__file__).parent


@pytest.fixture
def emulator():
    return Emulator(credentials=ME, batches={"K": 5})


@pytest.fixture
async def session(emulator):
    async with serve(emulator) as server, aiohttp.ClientSession(server.url) as session:
        yield session


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/_emulator/", "text/html"),
        ("/_emulator/index.html", "text/html"),
        ("/_emulator/page.css?v=1", "text/css"),
        ("/_emulator/page.js", "text/javascript"),
        ("/_emulator/icon.svg", "image/svg+xml"),
    ],
)
async def test_files(session, path, kind):
    """Each comes with its kind, with the rules of what it may do, and not twice."""
    async with session.get(path) as answer:
        assert answer.status == 200
        assert answer.content_type == kind
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Set-Cookie" not in answer.headers
        tag = answer.headers["ETag"]
    async with session.get(path, headers={"If-None-Match": tag}) as again:
        assert again.status == 304


async def test_way_to_the_page(session):
    async with session.get("/_emulator") as answer:
        assert answer.status == 200
        assert answer.url.path == "/_emulator/"


@pytest.mark.parametrize("path", ["/_emulator/__init__.py", "/_emulator/../app.py", "/_emulator/x"])
async def test_what_is_no_file(session, path):
    async with session.get(path) as answer:
        assert answer.status == 404


@pytest.mark.parametrize("path", ["/_emulator/", "/_emulator/events", "/_emulator/summary"])
@pytest.mark.parametrize(
    "headers", [{"Origin": "https://other.example"}, {"Host": "other.example"}, {"Origin": "null"}]
)
async def test_strangers_are_refused(session, path, headers):
    """No page of another site, and no name that was made to lead here."""
    async with session.get(path, headers=headers) as answer:
        assert answer.status == 403


async def test_pages_files_are_read_only(session):
    async with session.post("/_emulator/page.js") as answer:
        assert answer.status == 404


async def told(answer):
    """Return the next event's data, past comments."""
    async for line in answer.content:
        if line.startswith(b"data: "):
            return orjson.loads(line.removeprefix(b"data: "))
    raise AssertionError("the stream ended")


async def test_stream(session, emulator, monkeypatch):
    """A page is told at once how things are, then when something changed."""
    monkeypatch.setattr(pages, "_SAMPLE_S", 0.001)
    async with asyncio.timeout(10), session.get("/_emulator/events") as answer:
        assert answer.content_type == "text/event-stream"
        assert (await told(answer))["requests"] == 0
        async with emulator.client() as client:
            await client.issue("K")
        assert (await told(answer))["requests"] in (1, 2)


async def test_quiet_stream_shows_that_it_lives(session, monkeypatch):
    monkeypatch.setattr(pages, "_SAMPLE_S", 0.001)
    monkeypatch.setattr(pages, "_HEARTBEAT_S", 0.005)
    async with asyncio.timeout(10), session.get("/_emulator/events") as answer:
        async for line in answer.content:
            if line.startswith(b": still here"):
                break


async def test_open_pages_are_bounded(session, monkeypatch):
    monkeypatch.setattr(pages, "_MAX_OPEN", 1)
    monkeypatch.setattr(pages, "_SAMPLE_S", 0.001)
    async with asyncio.timeout(10):
        async with session.get("/_emulator/events") as first:
            await told(first)
            async with session.get("/_emulator/events") as second:
                assert second.status == 503
            first.close()
        while True:  # its place is free again once the server has seen that it went
            async with session.get("/_emulator/events") as third:
                if third.status == 200:
                    break


async def test_server_ends_while_a_page_is_open(emulator):
    async with asyncio.timeout(10), aiohttp.ClientSession() as session:
        async with serve(emulator) as server:
            answer = await session.get(f"{server.url}/_emulator/events")
            await told(answer)
        answer.close()


def test_page_reads_nothing_as_markup():
    """What came over the network is put in as text, and the page has no script but its file."""
    script = (FOLDER / "page.js").read_text()
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
    ):
        assert word not in script
    html = (FOLDER / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", html)
    assert set(re.findall(r"https?://[^/\"' ]+", html + script)) == {"http://127.0.0.1:8000"}


def test_page_is_small():
    assert sum(file.stat().st_size for file in FOLDER.glob("*.*")) < 60_000
