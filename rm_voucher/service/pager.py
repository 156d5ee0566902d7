"""A listing that is read a page at a time: await one page, or iterate over items or pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

from rm_voucher.exceptions import DecodeError
from rm_voucher.models import Page

T = TypeVar("T")


class Pager(Generic[T]):
    """A listing. Nothing is sent before it is awaited or iterated; each page is one request.

    ``await pager`` gives the first page, ``async for item in pager`` every item, ``async for page
    in pager.pages()`` every page. Leaving the loop sends nothing more. Iterating again begins
    again. RM does not document how far its listings lag, their order or their page size.
    """

    def __init__(
        self, fetch: Callable[[str | None], Awaitable[Page[T]]], cursor: str | None = None
    ) -> None:
        self._fetch = fetch
        self._cursor = cursor

    def __await__(self) -> Generator[Any, Any, Page[T]]:
        return self._fetch(self._cursor).__await__()

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for item in page.items:
                yield item

    async def pages(self) -> AsyncIterator[Page[T]]:
        """Iterate over the pages. Raises `DecodeError` when the server repeats a cursor."""
        cursor = self._cursor
        seen = {cursor}
        while True:
            page = await self._fetch(cursor)
            yield page
            cursor = page.cursor
            if cursor is None:
                return
            if cursor in seen:
                raise DecodeError("the listing repeats a cursor, so it would never end @ $.meta")
            seen.add(cursor)
