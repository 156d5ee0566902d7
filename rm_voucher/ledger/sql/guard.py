"""The file beside a ledger's SQLite file: a lock for one process, and what the file must be.

Issuing from an older copy of the ledger would give a second voucher to everybody who got one since.
So the lock's file says how many commits the ledger has had, its id, and by their inodes which two
files these are: a copy of both is neither.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import secrets
import stat
import weakref
from pathlib import Path

import attrs

from rm_voucher.database.engine import create_file
from rm_voucher.database.group_commit import UnavailableError
from rm_voucher.exceptions import LedgerError

_DIGITS = 20
_LOOKING = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
# The number is blank until the ledger is made. Earlier versions wrote it alone.
_CONTENT = re.compile(rb"([0-9 ]{20})(?: ([0-9a-f]{32}) ([0-9]+/[0-9]+)\n)?")


@attrs.frozen
class Noted:
    """What a lock's file says: the ledger's commits, if it was ever made, and its id."""

    commits: int | None
    id: str | None
    is_of_these_files: bool


def look(database: Path) -> Noted | None:
    """Return what the lock's file beside a database says, and change nothing; None if none does.

    For who only looks at a ledger: another process may have the lock.
    """
    database = Path(os.path.realpath(database))
    path = _lock_file(database)
    try:
        content = path.read_bytes()[:200].strip(b"\0")
        inodes = f"{database.stat().st_ino}/{path.stat().st_ino}"
    except OSError:
        return None
    return _noted(content, inodes)


def is_locked(database: Path) -> bool:
    """Return whether a process uses a database as a ledger. Changes nothing.

    It takes the lock with others for a moment, in which a ledger that is opened just then is
    refused.
    """
    try:
        descriptor = os.open(_lock_file(Path(os.path.realpath(database))), _LOOKING)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


class FileGuard:
    """Holds ``NAME.lock``. The system lets go of it when the process ends, however it ends.

    A child that was forked does not have it, or it would hold it when its parent has ended.
    """

    def __init__(self, database: Path) -> None:
        # By another name it is the same file, with one lock.
        self._database = Path(os.path.realpath(database))
        self._path = _lock_file(self._database)
        self._descriptor: int | None = None
        self._held: list[tuple[int, int]] = []
        self._commits = 0
        self._noted = 0
        self.opening: asyncio.Lock = asyncio.Lock()
        """Held by who opens a ledger in the file, because several may share it."""
        _guards.add(self)

    @property
    def is_held(self) -> bool:
        """Whether this process has the lock."""
        return self._descriptor is not None

    def next_commit(self) -> int:
        """Return the number of the commit that is being made, in the thread that writes."""
        self._commits += 1
        return self._commits

    def acquire(self) -> Noted:
        """Take the lock; return what its file says. A new one is given an id.

        Creates the database's file. Both are made their owner's alone. Raises `LedgerError`.
        """
        try:
            self._descriptor = self._lock()
            content = os.pread(self._descriptor, 200, 0).strip(b"\0")  # a power cut may leave zeros
            found = _CONTENT.fullmatch(content)
            # One that says nothing may have said it before a power cut.
            is_made = bool(content.strip()) and not (found and found[1].isspace())
            self._make_private(is_made=is_made)
            self._held = self._identities()
            noted = _noted(content, self._inodes())
            if noted is None:
                new_id = secrets.token_hex(16)
                self.bind(None, new_id)
                return Noted(None, new_id, is_of_these_files=True)
        except OSError as exc:
            self.release()
            raise LedgerError(f"{self._database} can't be used: {exc.strerror}.") from None
        except BaseException:
            self.release()
            raise
        return noted

    def bind(self, commits: int | None, ledger_id: str) -> None:
        """Write what the file is to say of these two files. It is durable. Raises `LedgerError`."""
        self._commits = self._noted = commits or 0
        number = f"{'':{_DIGITS}}" if commits is None else f"{commits:0{_DIGITS}}"
        self._write(f"{number} {ledger_id} {self._inodes()}\n".encode(), durable=True)

    def note(self, commits: int) -> None:
        """Note the number of commits, and see that the file is still where it was.

        It survives a kill of the process. A power cut may lose the last numbers; one that is too
        low stops nothing. Raises `LedgerError`.
        """
        self._noted = max(self._noted, commits)  # of two ledgers, the later may be told first
        self._write(b"%0*d" % (_DIGITS, self._noted))
        try:
            is_there = self._identities() == self._held
        except OSError:
            is_there = False
        if not is_there:
            raise LedgerError(
                f"{self._database} or its .lock is not the file that was opened: it was moved, "
                "deleted or replaced. Nothing is issued until the ledger is opened anew.",
                is_final=True,
            ) from UnavailableError("FileGuard", may_pass=False)

    def release(self) -> None:
        """Let go of the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _lock(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(self._path, flags, 0o600)
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                raise LedgerError(
                    f"{self._path} can't be used: it is a link.", is_final=True
                ) from None
            raise
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise LedgerError(
                    f"{self._path} can't be used: it is no regular file.", is_final=True
                )
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise LedgerError(
                f"{self._database} is used by another process: a ledger in SQLite has one at a "
                "time. PostgreSQL allows several."
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _make_private(self, *, is_made: bool) -> None:
        """See that the file is there, or make it; it, its log and the lock are its owner's."""
        size = self._database.stat().st_size if self._database.exists() else None
        if is_made and not size:
            reason = "is gone" if size is None else "is empty"
            raise LedgerError(
                f"{self._database} {reason}, and {self._path.name} says that it was there: who was "
                f"issued to would get a second voucher. Remove {self._path.name} to begin anew.",
                is_final=True,
            )
        create_file(self._database)
        if self._database.stat().st_nlink > 1:  # SQLite, too, would take each for another file
            raise LedgerError(
                f"{self._database} has another name, a hard link, by which it would be another "
                "ledger: remove one of the two.",
                is_final=True,
            )
        logs = (self._database.with_name(f"{self._database.name}-{end}") for end in ("wal", "shm"))
        for path in (self._database, self._path, *logs):
            if path.exists() and path.stat().st_mode & 0o077:
                path.chmod(0o600)

    def _write(self, content: bytes, *, durable: bool = False) -> None:
        if self._descriptor is None:  # closed, while a commit ended
            return
        try:
            os.pwrite(self._descriptor, content, 0)
            if durable:
                os.fsync(self._descriptor)
        except OSError as exc:
            raise LedgerError(
                f"{self._path} can't be written: {exc.strerror}."
            ) from UnavailableError("FileGuard", may_pass=False)

    def _identities(self) -> list[tuple[int, int]]:
        """Return what the two names lead to now. It is asked for at each commit."""
        found = (self._database.stat(), self._path.stat())
        return [(each.st_dev, each.st_ino) for each in found]

    def _inodes(self) -> str:
        """Return the two files' inodes. Devices have other numbers when the machine starts anew."""
        return "/".join(str(inode) for _, inode in self._held)


_guards: weakref.WeakSet[FileGuard] = weakref.WeakSet()


def _release_in_child() -> None:
    for guard in list(_guards):
        guard.release()


os.register_at_fork(after_in_child=_release_in_child)


def _lock_file(database: Path) -> Path:
    return database.with_name(f"{database.name}.lock")


def _noted(content: bytes, inodes: str) -> Noted | None:
    """Return what a lock's file says by its content, if it says anything."""
    found = _CONTENT.fullmatch(content)
    if found is None:
        return None
    return Noted(
        None if found[1].isspace() else int(found[1]),
        found[2].decode() if found[2] else None,
        is_of_these_files=not found[3] or found[3].decode() == inodes,
    )
