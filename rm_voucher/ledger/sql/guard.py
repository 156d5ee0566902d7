"""The file beside a ledger's SQLite file: a lock for one process, and a counter of commits.

An older copy of the ledger, put back, is behind the counter. Issuing from it would give a second
voucher to everybody who got one since.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from rm_voucher.database.engine import create_file
from rm_voucher.exceptions import LedgerError

_DIGITS = 20


class FileGuard:
    """Holds ``NAME.lock``. The system lets go of it when the process ends, however it ends."""

    def __init__(self, database: Path) -> None:
        self._database = database.resolve()  # by another name it is the same file, with one lock
        self._path = self._database.with_name(self._database.name + ".lock")
        self._descriptor: int | None = None

    def acquire(self) -> int | None:
        """Take the lock; return the number of commits noted, or None for a new file.

        Creates the database's file, for its owner alone. Raises `LedgerError`.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A power failure may leave zeros, which say nothing.
                noted = os.pread(descriptor, _DIGITS, 0).strip(b"\0")
                if not noted.strip() or self._database.exists():
                    create_file(self._database)
            except BaseException:
                os.close(descriptor)
                raise
        except BlockingIOError:
            raise LedgerError(
                f"{self._database} is used by another process: a ledger in SQLite has one at a "
                "time. PostgreSQL allows several."
            ) from None
        except OSError as exc:
            raise LedgerError(f"{self._database} can't be used: {exc.strerror}.") from None
        self._descriptor = descriptor
        if not self._database.exists():
            self.release()
            raise LedgerError(
                f"{self._database} is gone, and {self._path.name} says that it was there: who was "
                f"issued to would get a second voucher. Remove {self._path.name} to begin anew."
            )
        return int(noted) if noted.strip() else None

    def note(self, commits: int, *, durable: bool = False) -> None:
        """Note the number of commits. It survives a kill of the process.

        A power cut may lose the last numbers, unless this one is ``durable``; a number that is
        too low stops nothing. Raises `LedgerError`.
        """
        if self._descriptor is not None:
            try:
                os.pwrite(self._descriptor, b"%0*d" % (_DIGITS, commits), 0)
                if durable:
                    os.fsync(self._descriptor)
            except OSError as exc:
                raise LedgerError(f"{self._path} can't be written: {exc.strerror}.") from None

    def release(self) -> None:
        """Let go of the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
