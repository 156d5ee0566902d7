"""The recipients of a bulk issue, one at a time, from an iterable of either kind."""

from __future__ import annotations

import enum
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Generator,
    Iterable,
    Iterator,
)
from typing import Generic, TypeVar

R = TypeVar("R")


class Nobody(enum.Enum):
    """Stands beside recipients, which may be anything, None too."""

    NOBODY = enum.auto()


NOBODY = Nobody.NOBODY


class Recipients(Generic[R]):
    """Reads recipients, and no further once the source has raised an error."""

    def __init__(self, source: Iterable[R] | AsyncIterable[R]) -> None:
        self._async_source: AsyncIterator[R] | None = None
        self._sync_source: Iterator[R] = iter(())
        if isinstance(source, AsyncIterable):
            self._async_source = aiter(source)
        else:
            self._sync_source = iter(source)

    async def next(self) -> R | Nobody:
        """Return the next recipient, or NOBODY at the end. Raises what the source raises."""
        if self._async_source is None:
            return self.next_at_once()
        return await anext(self._async_source, NOBODY)

    def next_at_once(self) -> R | Nobody:
        """Return the next recipient if it needs no wait: an async source has none of those."""
        try:
            return next(self._sync_source, NOBODY)
        except BaseException:
            self._sync_source = iter(())  # whoever comes after an error gets nothing
            raise

    async def aclose(self) -> None:
        """Let a generator run its ``finally``. What else a source holds, its owner closes.

        Raises what the source raises.
        """
        if isinstance(self._async_source, AsyncGenerator):
            await self._async_source.aclose()
        if isinstance(self._sync_source, Generator):
            self._sync_source.close()
