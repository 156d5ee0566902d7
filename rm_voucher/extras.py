"""The extras: what is not installed with the package itself, and the sentence that says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str, what: str, error: type[BaseException] = ModuleNotFoundError) -> Iterator[None]:
    """Around imports: say which extra ``what`` needs, where one of the modules is missing.

    Of several, one in the other, the outermost speaks.
    """
    try:
        yield
    except ImportError as exc:
        text = f"{what} needs the extra '{name}': pip install 'rm-voucher[{name}]'."
        raise error(text) from exc


def extra_of(database: object) -> str:
    """Return the extra that a database at a URL needs."""
    return "postgres" if str(database).startswith("postgres") else "sql"
