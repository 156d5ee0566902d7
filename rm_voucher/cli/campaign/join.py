"""Our list and RM's beside each other, in a private file that ends with the command.

A campaign may have a million recipients, and memory has only a few pages of them: SQLite's
temporary file has no name, and is gone when it is closed.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import attrs

from rm_voucher.cli.campaign.standing import Kept, Listed, Mark, Standing, standing_of
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.text import comparable

UNCLEAR = "may be one of several that were asked, which look the same"
"""Why a person is held whose name is written in another way than any that was asked."""
_CACHE_KIB = 32_768
_FEW = 10  # one in so many
_SCHEMA = """
CREATE TABLE entries (
    n INTEGER PRIMARY KEY, recipient TEXT NOT NULL, form TEXT NOT NULL, mark TEXT NOT NULL,
    code TEXT, qr_url TEXT, error TEXT NOT NULL, asked_at INTEGER, sent_at INTEGER, attempt TEXT,
    place INTEGER
);
CREATE TABLE people (
    n INTEGER PRIMARY KEY, recipient TEXT NOT NULL UNIQUE, form TEXT NOT NULL,
    place INTEGER NOT NULL, entry INTEGER
);
CREATE TABLE listed (
    code TEXT PRIMARY KEY, status TEXT, assigned_at INTEGER, redeemed_at INTEGER, used_at INTEGER,
    expires_at INTEGER, amount_sen INTEGER, qr_url TEXT
) WITHOUT ROWID;
CREATE TABLE known (code TEXT PRIMARY KEY, state TEXT) WITHOUT ROWID;
"""
_MATCH = """
CREATE INDEX entries_code ON entries (code, mark);
CREATE INDEX entries_recipient ON entries (recipient);
CREATE INDEX entries_form ON entries (form);
CREATE INDEX people_form ON people (form);
-- Two are several: thousands may share one, and to count them for each would take an hour.
UPDATE people SET entry = (SELECT n FROM entries WHERE entries.recipient = people.recipient)
    WHERE (SELECT count(*) FROM (
        SELECT 1 FROM entries WHERE entries.recipient = people.recipient LIMIT 2)) = 1;
-- Another spelling, where it can be nobody else's.
UPDATE people SET entry = (SELECT n FROM entries WHERE entries.form = people.form)
    WHERE entry IS NULL
    AND (SELECT count(*) FROM (
        SELECT 1 FROM entries WHERE entries.form = people.form LIMIT 2)) = 1
    AND (SELECT count(*) FROM (
        SELECT 1 FROM people AS other WHERE other.form = people.form LIMIT 2)) = 1;
CREATE INDEX people_entry ON people (entry);
"""
_SIDE_BY_SIDE = """
    mark, entries.code, entries.qr_url, error, asked_at, sent_at, attempt,
    (SELECT count(*) FROM (SELECT 1 FROM entries AS other WHERE other.code = entries.code
        AND other.mark = 'issued' LIMIT 2)),
    listed.code, status, assigned_at, redeemed_at, used_at, expires_at, amount_sen, listed.qr_url
"""
_PEOPLE = f"""
SELECT people.place, people.recipient, entries.n IS NULL
        AND EXISTS (SELECT 1 FROM entries AS other WHERE other.form = people.form),
    {_SIDE_BY_SIDE}
FROM people LEFT JOIN entries ON entries.n = people.entry
    LEFT JOIN listed ON listed.code = entries.code ORDER BY people.n
"""  # noqa: S608 - of constants
_REST = f"""
SELECT NULL, entries.recipient, 0, {_SIDE_BY_SIDE}
FROM entries LEFT JOIN listed ON listed.code = entries.code
WHERE NOT EXISTS (SELECT 1 FROM people WHERE people.entry = entries.n) ORDER BY entries.n
"""  # noqa: S608
_ENTRIES = _REST.replace("NULL", "place", 1)
_OVERLAP = """
SELECT (SELECT count(*) FROM entries WHERE mark IN ('issued', 'unresolved', 'unkept')),
    (SELECT count(*) FROM people), (SELECT count(*) FROM people WHERE entry IS NOT NULL
        OR EXISTS (SELECT 1 FROM entries WHERE entries.form = people.form))
"""
_IS_STRANGE = """
status IS NOT 'VALID' AND NOT EXISTS (
    SELECT 1 FROM entries WHERE entries.code = listed.code)
"""
_STRANGERS = f"""
SELECT listed.*, state FROM listed LEFT JOIN known ON known.code = listed.code
WHERE {_IS_STRANGE} ORDER BY assigned_at, listed.code
"""  # noqa: S608


@attrs.frozen
class Row:
    """A recipient, and what RM lists under their code."""

    kept: Kept
    listed: Listed | None
    place: int | None
    """The row of the table of recipients, where there is one and it has them."""
    holders: int
    """How many recipients have this code; 2 stands for several."""

    @property
    def standing(self) -> Standing:
        """Where they stand."""
        return standing_of(self.kept, self.listed)


@attrs.frozen
class Overlap:
    """How far a list of people, and those that were asked for, are about the same."""

    held: int
    """How many of ours have a voucher, or may have one."""
    people: int
    found: int
    """How many of the people were asked for."""

    @property
    def is_odd(self) -> bool:
        """Whether hardly anybody of the shorter list is in the other: it may be another column."""
        return self.found * _FEW < min(self.held, self.people)


@attrs.frozen
class Stranger:
    """A voucher that RM lists as issued, and that nobody on our list has."""

    listed: Listed
    known: str | None
    """What the ledger knows of it, if it does."""


class Join:
    """The two lists. Fill it, `match` it, then read it as often as you like."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._has_people = False
        self._database.executescript(
            f"PRAGMA journal_mode=OFF; PRAGMA cache_size=-{_CACHE_KIB}; {_SCHEMA}"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add_entries(self, entries: Iterable[tuple[Kept, int | None]]) -> None:
        """Add those that were asked for, each with its row in the table it comes from."""
        self._write(
            "INSERT INTO entries VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    kept.recipient,
                    comparable(kept.recipient),
                    kept.mark.value,
                    kept.code,
                    kept.qr_url,
                    kept.error,
                    kept.asked_at,
                    kept.sent_at,
                    kept.attempt,
                    place,
                )
                for kept, place in entries
            ),
        )

    def add_people(self, people: Iterable[tuple[str, int]]) -> int:
        """Add the list of recipients, each with its row; return how many stand there again."""
        given = 0

        def rows() -> Iterator[tuple[str, str, int]]:
            nonlocal given
            for name, place in people:
                given += 1
                yield name, comparable(name), place

        self._has_people = True
        sql = "INSERT OR IGNORE INTO people (recipient, form, place) VALUES (?, ?, ?)"
        written = self._write(sql, rows())
        return given - written

    def list_vouchers(self, vouchers: Iterable[Listed]) -> None:
        """Add what RM lists. One that is listed again is as it is listed last."""
        self._write(
            "INSERT OR REPLACE INTO listed VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            map(attrs.astuple, vouchers),
        )

    def know(self, codes: Iterable[tuple[str, str]]) -> None:
        """Say what the ledger knows of codes that nobody on our list has."""
        self._write("INSERT OR REPLACE INTO known VALUES (?, ?)", codes)

    def strange_codes(self) -> Iterator[str]:
        """Iterate over the codes of `strangers`; `know` may be called meanwhile."""
        for (code,) in self._read(f"SELECT code FROM listed WHERE {_IS_STRANGE}"):  # noqa: S608
            yield code

    def match(self) -> None:
        """Find for each person what was asked for them; to be called once, when all is there."""
        with _explained():
            self._database.executescript(_MATCH)

    def overlap(self) -> Overlap:
        """Return how far the list is about those that were asked for; after `match`."""
        ((held, people, found),) = self._read(_OVERLAP)
        return Overlap(held, people, found)

    def rows(self) -> Iterator[Row]:
        """Iterate over the recipients: the list in its order, then others that were asked for."""
        for query in (_PEOPLE, _REST) if self._has_people else (_ENTRIES,):
            for cells in self._read(query):
                yield _row(cells)

    def strangers(self) -> Iterator[Stranger]:
        """Iterate over the issued vouchers that nobody on our list has, the oldest first."""
        for *cells, known in self._read(_STRANGERS):
            yield Stranger(_listed(cells), known)

    def count_listed(self) -> tuple[int, int]:
        """Return how many vouchers RM lists, and how many of them left the batch."""
        sql = "SELECT count(*), count(*) FILTER (WHERE status IS NOT 'VALID') FROM listed"
        ((listed, issued),) = self._read(sql)
        return listed, issued

    def _write(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> int:
        with _explained():
            self._database.execute("BEGIN")
            done = self._database.executemany(sql, rows).rowcount
            self._database.execute("COMMIT")
        return max(done, 0)

    def _read(self, sql: str) -> Iterator[tuple[Any, ...]]:
        with _explained():
            yield from self._database.execute(sql)


def _listed(cells: Sequence[Any]) -> Listed:
    code, status, assigned_at, redeemed_at, used_at, expires_at, amount_sen, qr_url = cells
    return Listed(
        code=code,
        status=status,
        assigned_at=assigned_at,
        redeemed_at=redeemed_at,
        used_at=used_at,
        expires_at=expires_at,
        amount_sen=amount_sen,
        qr_url=qr_url,
    )


def _row(cells: tuple[Any, ...]) -> Row:
    place, recipient, unclear, mark, code, qr_url, error, asked, sent, attempt, holders = cells[:11]
    if unclear:
        kept = Kept(recipient=recipient, mark=Mark.UNRESOLVED, error=UNCLEAR)
    else:
        kept = Kept(
            recipient=recipient,
            mark=Mark(mark) if mark else Mark.NOT_ASKED,
            code=code,
            qr_url=qr_url,
            error=error or "",
            asked_at=asked,
            sent_at=sent,
            attempt=attempt,
        )
    return Row(kept, None if cells[11] is None else _listed(cells[11:]), place, holders)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise ConfigurationError(
            f"The lists can't be compared: {exc}. They are put into a temporary file: is its disk "
            "full? TMPDIR names another folder."
        ) from exc
