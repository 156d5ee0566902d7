"""What keeps the documents that processes share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import attrs

from rm_voucher.arguments import check_type
from rm_voucher.exceptions import ConfigurationError, SharedStoreError

MAX_BYTES = 64 * 1024
_MAX_KEY = 200
_MOST_SWAPS = 100  # of one update: so often another was quicker


@attrs.frozen(kw_only=True)
class Snapshot:
    """A document as it stands.

    Attributes:
        version: grows with each swap; 0 where there is no document.
        content: the bytes, None where there is no document. They may be a secret.
        now: the store's clock, in seconds since 1970, when it looked. Compare it with nothing but
            other times of the same store.
    """

    version: int
    content: bytes | None = attrs.field(repr=False)
    now: float


class SharedStore(ABC):
    """Keeps small documents for several processes, each under a key.

    Each operation is one step of the store: it holds no lock that could outlast a process, and one
    that gets no answer is given up after some two seconds. It connects with its first operation.
    Every trouble raises `SharedStoreError`; the store may be used on, and finds back by itself.
    Cancelling is safe, but a swap may then have been made.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:  # noqa: B027 - a store may need none
        """Close it. It may be called more than once."""

    async def load(self, key: str) -> Snapshot:
        """Return the document. A key is up to 200 printable ASCII characters.

        Raises `ConfigurationError` for another key.
        """
        _check_key(key)
        return await self._load(key)

    async def swap(self, key: str, version: int, content: bytes) -> Snapshot | None:
        """Put ``content`` in the place of that version; return the document that now stands.

        Return None where another version is there. After trouble that may be one's own, because
        then a swap is tried again: load it and look. Raises `ConfigurationError` for content over
        64 KiB.
        """
        _check_key(key)
        check_type("content", content, bytes)
        if len(content) > MAX_BYTES:
            raise ConfigurationError(f"A shared document has {MAX_BYTES} bytes at most.")
        return await self._swap(key, version, content)

    async def update(self, key: str, change: Callable[[Snapshot], bytes | None]) -> Snapshot:
        """Change the document, however many others do; return the one that now stands.

        ``change`` gets the document and returns its next content, None to leave it. It is called
        again when another process was quicker, so it must do nothing else.
        """
        for _ in range(_MOST_SWAPS):
            found = await self.load(key)
            content = change(found)
            if content is None:
                return found
            swapped = await self.swap(key, found.version, content)
            if swapped is not None:
                return swapped
        raise SharedStoreError("A shared document changes too fast: other processes are quicker.")

    @abstractmethod
    async def _load(self, key: str) -> Snapshot: ...

    @abstractmethod
    async def _swap(self, key: str, version: int, content: bytes) -> Snapshot | None: ...


def _check_key(key: object) -> None:
    check_type("key", key, str)
    text = str(key)
    if not (0 < len(text) <= _MAX_KEY and text.isascii() and text.isprintable()):
        raise ConfigurationError("The key of a shared document is 1 to 200 printable ASCII signs.")
