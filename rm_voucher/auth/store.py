"""Where processes of one application keep the access token that they share."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.files import open_private

_MAX_BYTES = 64 * 1024
_POLL_S = 0.05


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

    async def save(self, token: bytes) -> bool | None:
        """Keep ``token`` in place of what there was.

        A store that can tell returns False, and keeps what there is, when another process has saved
        since `load`: one that was stopped may go on after its lock was given to another.
        """


class FileTokenStore:
    """Keeps the token in a file that only its owner can read, for processes on one machine.

    Next to it stands ``NAME.lock``, which is never removed. A lock that is not free within
    ``lock_wait_s`` raises `TimeoutError`: another process may be stopped, and the client goes on
    with a token of its own. So it does where either name is a link, or no plain file. Needs a
    POSIX system, else raises `ConfigurationError`.
    """

    def __init__(
        self,
        path: Path,
        *,
        lock_wait_s: float = 60.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if importlib.util.find_spec("fcntl") is None:
            raise ConfigurationError("FileTokenStore needs a POSIX system: fcntl is not there.")
        if not isinstance(path, Path):
            raise ConfigurationError("A token's file is named by a pathlib.Path.")
        self._path = path
        if not 0 <= lock_wait_s < math.inf:
            raise ConfigurationError("lock_wait_s must be 0 or more, and finite.")
        self._attempts = math.ceil(lock_wait_s / _POLL_S) + 1
        self._lock_path = path.with_name(path.name + ".lock")
        self._sleep = sleep

    @contextlib.asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        """Hold the lock file. The system releases it when the process ends."""
        import fcntl  # not on every system

        owner = os.getpid()
        descriptor = open_private(self._lock_path, os.O_RDWR | os.O_CREAT)
        try:
            left = self._attempts
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    left -= 1
                    if not left:
                        raise TimeoutError("the token's lock is not free") from None
                    await self._sleep(_POLL_S)
            yield
        finally:
            if os.getpid() == owner:  # not in a process that was forked meanwhile
                # Closing alone would leave the lock to such a one.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    # On the event loop: a kilobyte, once a token, is quicker than a thread, and a caller that is
    # cancelled can't leave a write behind that outlives the lock.

    async def load(self) -> bytes | None:
        """Return the file's content, or None if there is no such file."""
        try:
            descriptor = open_private(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            return file.read(_MAX_BYTES)

    async def save(self, token: bytes) -> None:
        """Replace the file; a reader sees the old content or the new, never a part."""
        new = self._path.with_name(self._path.name + ".new")
        new.unlink(missing_ok=True)  # of a process that was killed; the lock is ours
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(token)
        new.replace(self._path)
