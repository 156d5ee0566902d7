"""Files that hold codes and secrets: opened by what they are, not by what their name leads to.

A name may lead elsewhere than its user thinks: to a link that somebody laid, to a pipe that nobody
writes, to an old file that everybody may read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

_OWNERS_ALONE = 0o600
# To open a pipe waits for its other end. Not every system has each flag.
_AT_ONCE = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def open_plain(path: Path) -> int:
    """Return a descriptor to read a file that its user named; the name may be a link.

    Raises `OSError`, also for what is no plain file.
    """
    return _plain(os.open(path, os.O_RDONLY | _AT_ONCE))


def open_private(path: Path, flags: int, *, mends: bool = True) -> int:
    """Return a descriptor of a file of our own, and make the file its owner's alone.

    ``flags`` may have ``os.O_CREAT``. If it does not ``mends``, the file's mode stays as it is.
    Raises `OSError`, also for a link and for what is no plain file.
    """
    try:
        descriptor = os.open(path, flags | _AT_ONCE | _NO_LINK, _OWNERS_ALONE)
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link") from None
        raise
    _plain(descriptor)
    try:
        if mends and os.fstat(descriptor).st_mode & 0o077:
            os.fchmod(descriptor, _OWNERS_ALONE)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def replace_private(path: Path, content: bytes) -> None:
    """Write a file for its owner alone. Whoever reads it sees the old content or the new, whole.

    It is made under a name that nobody can foresee, and takes the place of a file or a link.
    Raises `OSError`, also for anything else that has the name, and leaves nothing behind.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISLNK(mode := path.lstat().st_mode):
            _refuse_unless_plain(mode)
    import tempfile  # with all compressors: to import the package stays quick

    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".new", dir=path.parent)
    new = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def free_name(path: Path) -> Path:
    """Return a name beside a file's that nothing has: ``NAME.1``, or the next."""
    number = 1
    while (free := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    return free


def keep_older(path: Path) -> Path:
    """Give a file a free name beside its own, which it has until another takes it.

    Return the free name. Raises `OSError`.
    """
    kept = free_name(path)
    os.link(path, kept)
    return kept


def _plain(descriptor: int) -> int:
    try:
        _refuse_unless_plain(os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _refuse_unless_plain(mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise OSError(errno.EINVAL, "it is no plain file")
