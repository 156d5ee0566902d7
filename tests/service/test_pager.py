"""Pagers: a page, all items or all pages, and never an endless listing."""

import pytest

from rm_voucher import DecodeError, Page, Pager

PAGES = {
    None: Page(items=(1, 2), cursor="b"),
    "b": Page(items=(), cursor="c"),
    "c": Page(items=(3,)),
}


def pager(pages, cursor=None):
    asked = []

    async def fetch(cursor):
        asked.append(cursor)
        return pages[cursor]

    return Pager(fetch, cursor), asked


async def test_pager_awaited_is_the_first_page():
    """Awaiting gives one page, with one request."""
    listing, asked = pager(PAGES)
    assert asked == []
    assert await listing == PAGES[None]
    assert asked == [None]


async def test_pager_iterates_items_over_empty_pages():
    """Iterating gives every item; an empty page in the middle is not the end."""
    listing, asked = pager(PAGES)
    assert [item async for item in listing] == [1, 2, 3]
    assert asked == [None, "b", "c"]
    assert [item async for item in listing] == [1, 2, 3]


async def test_pager_iterates_pages():
    """Pages come as they are."""
    listing, _ = pager(PAGES)
    assert [page async for page in listing.pages()] == list(PAGES.values())


async def test_pager_begins_at_a_cursor():
    """A listing goes on where a cursor says."""
    listing, asked = pager(PAGES, "c")
    assert [item async for item in listing] == [3]
    assert asked == ["c"]


async def test_pager_break_sends_nothing_more():
    """Leaving the loop ends the requests."""
    listing, asked = pager(PAGES)
    async for _ in listing:
        break
    assert asked == [None]


@pytest.mark.parametrize("repeated", ["b", "c"])
async def test_pager_repeated_cursor_is_an_error(repeated):
    """A server that sends a cursor again would be listed for ever."""
    listing, asked = pager({**PAGES, "c": Page(items=(3,), cursor=repeated)})
    seen = []
    with pytest.raises(DecodeError, match="repeats a cursor"):
        async for item in listing:
            seen.append(item)
    assert (seen, asked) == ([1, 2, 3], [None, "b", "c"])


async def test_pager_repeated_first_cursor_is_an_error():
    """The cursor that a listing began at counts, too."""
    listing, _ = pager({"x": Page(items=(1,), cursor="x")}, "x")
    with pytest.raises(DecodeError):
        assert [item async for item in listing] == []
