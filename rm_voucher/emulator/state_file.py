"""Keeps an emulator in a file, so that a restart goes on where it ended, also after a kill.

What changed is written at least each second, off the event loop: of the vouchers those that
changed, of all the rest everything. Work that was to be done later (`Fault.LATE_COMMIT`), the
journal and nonces are not kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs

from rm_voucher.emulator.app import Emulator
from rm_voucher.emulator.merchant import Merchant
from rm_voucher.emulator.records import Record, Saved, save_record
from rm_voucher.emulator.saved import VERSION, save
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.files import open_private
from rm_voucher.jsontext import read_json, write_json

_log = logging.getLogger("rm_voucher.emulator")
_EVERY_S = 0.5
_APPLICATION_ID = 0x524D454D  # "RMEM"
_SCHEMA = """
CREATE TABLE document (content BLOB NOT NULL);
CREATE TABLE voucher (
    merchant TEXT NOT NULL, batch TEXT NOT NULL, place INTEGER NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (merchant, batch, place)
) WITHOUT ROWID;
"""
_Row = tuple[str, str, int, Saved]


@asynccontextmanager
async def kept_in(path: Path, emulator: Emulator) -> AsyncIterator[None]:
    """Let an emulator be what a file says, if it says anything, and keep it there in the block.

    Raises `ConfigurationError` for a file that another emulator uses, and for one that is none of
    an emulator's, or of a later version's.
    """
    # One thread, because a connection to SQLite belongs to one.
    with ThreadPoolExecutor(1, "rm-emulator-state") as thread:
        loop = asyncio.get_running_loop()
        file = await loop.run_in_executor(thread, _open, path)
        try:
            document = await loop.run_in_executor(thread, _read, file, path)
            if document is not None:
                emulator.restore(document)
            keeper = _Keeper(emulator)
            await loop.run_in_executor(thread, _write, file, *keeper.changes())
            writing = asyncio.create_task(_keep(keeper, file, thread))
            try:
                yield
            finally:
                writing.cancel()
                await asyncio.wait([writing])
                keeper.stop()
                keeper.write_all()  # the write that was under way may have failed
                try:
                    await loop.run_in_executor(thread, _write, file, *keeper.changes())
                except sqlite3.Error as exc:
                    raise ConfigurationError(f"{path} can't be written: {exc}.") from None
        finally:
            await loop.run_in_executor(thread, file.close)


async def _keep(keeper: _Keeper, file: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
    loop, is_said = asyncio.get_running_loop(), False
    while True:
        await asyncio.sleep(_EVERY_S)  # so much may be lost by a kill
        if not keeper.has_changed():
            continue
        try:
            await asyncio.shield(loop.run_in_executor(thread, _write, file, *keeper.changes()))
            is_said = False
        except sqlite3.Error as exc:  # the disk is full, say: it may have space again soon
            keeper.write_all()
            if not is_said:
                is_said = True
                _log.warning("the state can't be written (%s); it is tried again", exc)


@attrs.define(eq=False)
class _Keeper:
    """Knows which vouchers changed since they were written, and where in the file each is."""

    _emulator: Emulator
    _begun: dict[str, int] = attrs.field(factory=dict, init=False)
    """The beginning of each merchant's books that its vouchers were written of."""
    _places: dict[int, tuple[str, str, int]] = attrs.field(factory=dict, init=False)
    """Of a voucher, by its identity: it lives as long as its books."""
    _sizes: dict[tuple[str, str], int] = attrs.field(factory=dict, init=False)
    _changed: dict[int, tuple[Merchant, Record]] = attrs.field(factory=dict, init=False)
    _seen: tuple[int, ...] = attrs.field(default=(), init=False)

    def __attrs_post_init__(self) -> None:
        self._emulator.site.on_touch = self._touch

    def stop(self) -> None:
        """Listen no more."""
        self._emulator.site.on_touch = None

    def _touch(self, merchant: Merchant, record: Record) -> None:
        self._changed[id(record)] = merchant, record

    def has_changed(self) -> bool:
        """Return whether there may be something to write."""
        site, merchants = self._emulator.site, self._emulator.merchants
        seen = (
            site.journal.number,
            site.changes,
            *(each.begun for each in merchants),
            *(len(each.attempts) for one in merchants for each in one.callbacks.newest()),
        )
        changed = seen != self._seen or bool(self._changed)
        self._seen = seen
        return changed

    def write_all(self) -> None:
        """Let the next changes be everything."""
        self._begun.clear()
        self._seen = ()

    def changes(self) -> tuple[bytes, list[str], list[_Row]]:
        """Return all but vouchers, whose vouchers to forget, and the vouchers that changed."""
        merchants = {each.name: each for each in self._emulator.merchants}
        begun = {name: each.begun for name, each in merchants.items()}
        anew = [each for name, each in merchants.items() if self._begun.get(name) != begun[name]]
        gone = [name for name in self._begun if name not in merchants]
        self._forget({*gone, *(each.name for each in anew)})
        changed, self._changed = self._changed, {}
        rows = [row for merchant in anew for row in self._of(merchant)]
        for merchant in merchants.values():
            rows.extend(self._made(merchant))
        for merchant, record in changed.values():
            if merchants.get(merchant.name) is merchant and merchant not in anew:
                rows.append(self._row(merchant, record))
        self._begun = begun
        document = write_json(save(self._emulator.site, self._emulator.merchants))
        return document, [*gone, *(each.name for each in anew)], rows

    def _forget(self, names: set[str]) -> None:
        """Forget the places of merchants' vouchers: others may come to have their identity."""
        if names:
            self._sizes = {each: size for each, size in self._sizes.items() if each[0] not in names}
            self._places = {each: at for each, at in self._places.items() if at[0] not in names}

    def _of(self, merchant: Merchant) -> Iterable[_Row]:
        for batch in merchant.books.stock.all():
            for record in merchant.books.stock.rows(batch):
                yield self._row(merchant, record)

    def _made(self, merchant: Merchant) -> Iterable[_Row]:
        """Yield the rows of batches that are new, and whose vouchers were made up front."""
        for batch in merchant.books.stock.all():
            if batch.made and (merchant.name, batch.key) not in self._sizes:
                for record in batch.made:
                    yield self._row(merchant, record)

    def _row(self, merchant: Merchant, record: Record) -> _Row:
        place = self._places.get(id(record))
        if place is None:
            batch = merchant.name, record.batch.key
            size = self._sizes.get(batch, 0)
            place = self._places[id(record)] = (*batch, size)
            self._sizes[batch] = size + 1
        return (*place, save_record(record))


def _open(path: Path) -> sqlite3.Connection:
    try:
        os.close(open_private(path, os.O_RDWR | os.O_CREAT))
        file = sqlite3.connect(path, isolation_level=None, timeout=0.0)
    except OSError as exc:
        raise ConfigurationError(f"{path} can't be opened: {exc.strerror or exc}.") from None
    try:
        file.execute("PRAGMA locking_mode = EXCLUSIVE")
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        file.execute("BEGIN IMMEDIATE")
        file.execute("COMMIT")
    except sqlite3.DatabaseError as exc:
        file.close()
        if isinstance(exc, sqlite3.OperationalError) and "locked" in str(exc):
            raise ConfigurationError(f"{path} is used by another emulator.") from None
        raise ConfigurationError(f"{path} is no state of an emulator.") from None
    return file


def _read(file: sqlite3.Connection, path: Path) -> dict[str, Any] | None:
    """Return what a file says, None for a new one."""
    try:
        (tables,) = file.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (application_id,) = file.execute("PRAGMA application_id").fetchone()
        (version,) = file.execute("PRAGMA user_version").fetchone()
        if not tables:
            file.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA application_id = {_APPLICATION_ID};"
                f"PRAGMA user_version = {VERSION}; COMMIT;"
            )
            return None
        if application_id != _APPLICATION_ID:
            raise ConfigurationError(f"{path} is no state of an emulator.")
        if version != VERSION:
            raise ConfigurationError(f"{path} is of another version of rm-voucher.")
        found = file.execute("SELECT content FROM document").fetchone()
        document: dict[str, Any] | None = None if found is None else read_json(found[0])
        if document is None:
            return None
        vouchers: dict[str, dict[str, list[Any]]] = {}
        for merchant, batch, content in file.execute(
            "SELECT merchant, batch, content FROM voucher ORDER BY merchant, batch, place"
        ):
            vouchers.setdefault(merchant, {}).setdefault(batch, []).append(read_json(content))
    except (sqlite3.DatabaseError, ValueError):
        raise ConfigurationError(f"{path} is spoilt.") from None
    for each in document["merchants"]:
        each["vouchers"] = vouchers.get(each["name"], {})
    return document


def _write(file: sqlite3.Connection, document: bytes, anew: list[str], rows: list[_Row]) -> None:
    with contextlib.closing(file.cursor()) as cursor:
        cursor.execute("BEGIN IMMEDIATE")
        try:
            cursor.executemany("DELETE FROM voucher WHERE merchant = ?", [(name,) for name in anew])
            contents = ((*place, write_json(saved)) for *place, saved in rows)
            cursor.executemany("INSERT OR REPLACE INTO voucher VALUES (?, ?, ?, ?)", contents)
            cursor.execute("DELETE FROM document")
            cursor.execute("INSERT INTO document VALUES (?)", (document,))
            cursor.execute("COMMIT")
        except BaseException:
            if file.in_transaction:  # SQLite itself ends some, where the disk is full
                cursor.execute("ROLLBACK")
            raise
