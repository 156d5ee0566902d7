"""The site in a browser: every page can be read at both widths, and every link leads somewhere."""

import subprocess
import sys

import pytest
from support.files import DOCS
from support.site_pages import broken_links, unreadable, wrong_address

pytestmark = pytest.mark.long

BUILD = ("-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    doctrees = tmp_path_factory.mktemp("doctrees")
    command = [sys.executable, *BUILD, "--doctree-dir", doctrees, DOCS, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


async def test_site_is_sound(site, chromium):
    """No link is broken, nothing is cut off, nothing overflows, and nothing fails in silence."""
    assert broken_links(site) == []
    assert await unreadable(site, chromium) == []


def page(body):
    return f"<!doctype html><title>A page</title><article style='width:300px'>{body}</article>"


CASES: dict[str, list[str]] = {  # what a page has, and what is to be found on it
    "<p>A word <a href='#here' id='here'>and</a> a <a href='b.html#there'>link</a>.": [],
    "<a href='c.html'>c</a>": ["c.html: there is no such file"],
    "<a href='b.html#c'>c</a>": ["b.html#c: there is no such place"],
    "<a href='https://a b'>c</a>": ["it has no host, or marks that no address has"],
    "<p style='width:2000px'>" + "word " * 300: ["the page is", "leaves its column by"],
    "<pre style='overflow-x:auto'>" + "word " * 99 + "</pre>": [],
    "<img src='none.png' alt='none'>": ["no such file", "missing: ", "Failed to load resource"],
    "<img src='a.svg'>": ["says nothing to the blind: "],
    "<img src='a.svg' alt='a' width=50>": ["letters of 5.0 pixels: "],
    "<div><table class=docutils><td>" + "word" * 400 + "</table></div>": [
        "a table is",
        "a table is cut off",
        "leaves its column by",
        "the page is",
    ],
    "<script>console.error('no')</script>": ["error: no"],
}


async def test_what_is_wrong_is_found(tmp_path, chromium):
    """A checker that finds nothing may be blind: it sees each thing that it is for, and no more."""
    for name in ("index", "b"):
        (tmp_path / f"{name}.html").write_text(page("<p id='there'>There."))
    for number, body in enumerate(CASES):
        (tmp_path / f"case-{number}.html").write_text(page(body))
    (tmp_path / "a.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 9" width="100" height="9">'
        '<text font-size="10">A</text></svg>'
    )
    (tmp_path / "favicon.ico").write_bytes(b"")
    found = broken_links(tmp_path) + await unreadable(tmp_path, chromium)
    assert [one for one in found if not one.startswith("case-")] == []
    for number, wanted in enumerate(CASES.values()):
        here = [one for one in found if one.startswith(f"case-{number}.html")]
        assert [what for what in wanted if not any(what in one for one in here)] == []
        assert [one for one in here if not any(what in one for what in wanted)] == []


def test_addresses_of_other_sites():
    """They can't be tried here; their form can."""
    assert wrong_address("https://doc.revenuemonster.my/#get-voucher-by-batches") is None
    assert wrong_address("ftp://doc.revenuemonster.my/") is not None
    assert wrong_address("https://user:secret@shop.example/") is not None
    assert wrong_address("https://{host}/x") is not None
