"""Where processes of one application keep the access token that they share."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

__all__ = ["FileTokenStore", "TokenStore"]

_MAX_BYTES = 64 * 1024


class TokenStore(Protocol):
    """Keeps one token for several processes: a file, a row, a key in Redis.

    What it keeps is opaque and as secret as a password. What any method raises is logged, and the
    client then gets a token for itself alone. A store may be shared by several event loops.
    """

    def lock(self) -> AbstractAsyncContextManager[object]:
        """Return what is entered by one process at a time, while it renews the token.

        Entering waits, for as long as the store sees fit; the end of a process must release it.
        """

    async def load(self) -> bytes | None:
        """Return what was saved last, or None."""

    async def save(self, token: bytes) -> None:
        """Keep ``token`` in place of what there was."""


class FileTokenStore:
    """Keeps the token in a file that only its owner can read, for processes on one machine.

    Next to it stands ``NAME.lock``, which is never removed. ``sleep`` is the wait between two
    attempts to take the lock.
    """

    def __init__(
        self, path: Path, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._path = path
        self._lock_path = path.with_name(path.name + ".lock")
        self._sleep = sleep

    @contextlib.asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        """Hold the lock file. The system releases it when the process ends."""
        import fcntl  # not on every system

        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await self._sleep(0.05)
            yield
        finally:
            os.close(descriptor)

    # On the event loop: a kilobyte, once a token, is quicker than a thread, and a caller that is
    # cancelled can't leave a write behind that outlives the lock.

    async def load(self) -> bytes | None:
        """Return the file's content, or None if there is no such file."""
        try:
            with self._path.open("rb") as file:
                return file.read(_MAX_BYTES)
        except FileNotFoundError:
            return None

    async def save(self, token: bytes) -> None:
        """Replace the file; a reader sees the old content or the new, never a part."""
        new = self._path.with_name(self._path.name + ".new")
        new.unlink(missing_ok=True)  # of a process that was killed; the lock is ours
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(token)
        new.replace(self._path)
