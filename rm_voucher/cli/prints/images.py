"""The folder that keeps pictures."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from rm_voucher.exceptions import ConfigurationError, VoucherError
from rm_voucher.files import open_plain

_PARTIAL = ".qr-", ".partial"


class Folder:
    """A folder of pictures, its owner's alone. One command at a time writes there.

    A picture appears whole or not at all, and takes no other file's name: whoever was sent another
    person's code would use it.
    """

    def __init__(self, path: Path, *, replace: bool = False) -> None:
        self.path = path
        self._replace = replace
        self._lock: int | None = None

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._take_alone(self._lock)
        except OSError as exc:
            raise ConfigurationError(
                f"{self.path} can't be used as a folder: {exc.strerror}."
            ) from exc
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let another command write there. May be repeated."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_alone(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"{self.path}: another command is writing there. Wait for its end, or name "
                "another folder."
            ) from None
        except OSError:  # not every file system can; names that nobody foresees protect as well
            return
        for left in self.path.glob("*".join(_PARTIAL)):  # of a command that was killed
            left.unlink(missing_ok=True)

    def add(self, name: str, content: bytes) -> Literal["new", "there", "taken"]:
        """Write a picture, unless it is there already or its name is another file's.

        Raises `VoucherError` when the disk is full or the like.
        """
        path = self.path / name
        try:
            found = _content(path)
            if found == content:
                return "there"
            if found is not None and not self._replace:
                return "taken"
            return self._write(path, content)
        except OSError as exc:
            raise VoucherError(f"{path} can't be written: {exc.strerror}.") from exc

    def _write(self, path: Path, content: bytes) -> Literal["new", "taken"]:
        with _new_file(self.path, content) as new:
            if self._replace:
                new.replace(path)
                return "new"
            try:
                os.link(new, path)
            except FileExistsError:
                return "taken"
            except OSError:  # FAT has no links
                if os.path.lexists(path):
                    return "taken"
                new.replace(path)
        return "new"


@contextlib.contextmanager
def _new_file(folder: Path, content: bytes) -> Iterator[Path]:
    """Give a file with this content, under a name that it loses at the end."""
    prefix, suffix = _PARTIAL
    descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=folder)
    new = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        yield new
    finally:
        new.unlink(missing_ok=True)


def _content(path: Path) -> bytes | None:
    """Return what a file holds; None if nothing has the name, and nothing for what is no file."""
    if not os.path.lexists(path):
        return None
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            return file.read(1 << 20)
    except OSError as exc:
        if exc.errno == errno.EACCES:
            raise
        return b""
