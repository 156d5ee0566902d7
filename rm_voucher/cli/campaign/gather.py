"""Gathers what a campaign's commands look at: our list, RM's, and the two beside each other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import attrs

from rm_voucher import ConfigurationError, LedgerError
from rm_voucher.cli.campaign.figures import Figures, collect
from rm_voucher.cli.campaign.join import Join, Overlap
from rm_voucher.cli.campaign.sources import (
    Listing,
    know_strangers,
    read_ledger,
    read_listing,
    read_recipients,
    read_results,
    refuse_partial,
)
from rm_voucher.cli.connect import is_memory, make_client
from rm_voucher.cli.interrupts import run_until_interrupted
from rm_voucher.cli.options import open_ledger, without_password
from rm_voucher.cli.screen import note
from rm_voucher.cli.tables.columns import RECIPIENT_NAMES
from rm_voucher.cli.tables.read import Table, open_table
from rm_voucher.cli.tables.write import harmless
from rm_voucher.text import counted

DEFAULT_ZONE = "Asia/Kuala_Lumpur"


@attrs.frozen(kw_only=True)
class Sources:
    """What a person named: exactly one of ``ledger`` and ``results``."""

    batch: str
    ledger: str | None
    results: Path | None
    recipients: Path | None
    column: str | None
    encoding: str | None
    sheet: str | None = None
    namespace: str | None
    environment: str | None
    other_people: bool = False
    """Whether the list may be about others than those that were asked for."""

    def __attrs_post_init__(self) -> None:
        if (self.ledger is None) == (self.results is None):
            raise ConfigurationError(
                "Give one of --ledger and --results: what the campaign was issued with, or the "
                "file that 'rm-voucher issue' wrote."
            )
        if self.ledger is None and self.namespace is not None:
            raise ConfigurationError("--namespace is about a ledger: give --ledger.")
        if self.results is not None:
            refuse_partial(self.results)

    @property
    def in_words(self) -> str:
        """What our list is, in words."""
        ours = f"the ledger {without_password(self.ledger)}" if self.ledger else str(self.results)
        return f"{ours}, beside {self.recipients}" if self.recipients else ours


@attrs.frozen(kw_only=True)
class Campaign:
    """Both lists, beside each other.

    ``table`` has the person's own columns: the recipients' file, or the file of results.
    """

    sources: Sources
    join: Join
    table: Table | None
    listing: Listing | None
    again: int

    def figures(self, zone_name: str) -> Figures:
        """Count everything; a day is one of that time zone. Raises `ConfigurationError`."""
        assert self.listing is not None  # noqa: S101 - it was read
        figures = Figures(
            listing=self.listing,
            made_at=datetime.now(UTC),
            zone=named_zone(zone_name),
            zone_name=zone_name,
            source=self.sources.in_words,
            again=self.again,
        )
        return collect(self.join, figures)


@contextlib.contextmanager
def gathered(sources: Sources, *, with_listing: bool = True) -> Iterator[Campaign]:
    """Read both lists. Only reads, and it may be repeated, also during a run.

    Our list is read first: a code that it has was issued before RM's is read. Raises
    `ConfigurationError`, `LedgerError`, and what the client's reads raise.
    """
    with contextlib.ExitStack() as stack:
        people = results = None
        if sources.recipients is not None:
            people = stack.enter_context(_open(sources.recipients, sources))
        if sources.results is not None:
            results = stack.enter_context(_open_results(sources.results, sources, people))
        join = stack.enter_context(Join())
        listing, again = _read(sources, join, people, results, with_listing=with_listing)
        yield Campaign(
            sources=sources,
            join=join,
            table=people if people is not None else results,
            listing=listing,
            again=again,
        )


def _open(path: Path, sources: Sources) -> Table:
    table = open_table(path, column=sources.column, encoding=sources.encoding, sheet=sources.sheet)
    table.refuse_problems()
    for each in table.notes:
        note(each)
    return table


def _open_results(path: Path, sources: Sources, people: Table | None) -> Table:
    """Open the file of results. Beside a list, its rows are known by the column of the list.

    ``--column``, ``--encoding`` and ``--sheet`` are the list's, where there is one.
    """
    if people is None or people.column is None:
        return _open(path, sources)
    table = open_table(path, names=())
    try:
        name = people.header[people.column]
        there = next((each for each in (name, harmless(name)) if each in table.header), None)
        table.choose(there, RECIPIENT_NAMES, "recipient")
        table.refuse_problems()
    except ConfigurationError:
        table.close()
        raise
    for each in table.notes:
        note(each)
    return table


def _read(
    sources: Sources, join: Join, people: Table | None, results: Table | None, *, with_listing: bool
) -> tuple[Listing | None, int]:
    batch_key, listing, again = sources.batch, None, 0
    if with_listing and is_memory(sources.environment):
        raise ConfigurationError(
            "This asks the server, and the environment is 'memory', which knows nothing of the "
            "campaign: set the RM_… variables."
        )
    client = make_client(sources.environment) if with_listing else None
    ledger = None
    if sources.ledger is not None:
        ledger = open_ledger(
            sources.ledger, namespace=sources.namespace, read_only=True, must_exist=True
        )

    async def read() -> None:
        nonlocal listing, again
        async with client or contextlib.nullcontext(), ledger or contextlib.nullcontext():
            if ledger is not None:
                if client is not None and await ledger.account() not in (None, client.account):
                    raise LedgerError(
                        "The ledger belongs to another account than these credentials: the two "
                        "lists would not be of one campaign."
                    )
                await read_ledger(ledger, batch_key, join)
            if results is not None:
                read_results(results, join)
            if people is not None:
                again = read_recipients(people, join)
            join.match()
            if people is not None and not sources.other_people:
                _refuse_others(join.overlap(), sources)
            if client is not None:
                listing = await read_listing(client, batch_key, join)
                if ledger is not None:
                    await know_strangers(ledger, batch_key, join)

    run_until_interrupted(read())
    return listing, again


def _refuse_others(overlap: Overlap, sources: Sources) -> None:
    """Raise `ConfigurationError` where everybody of a list would count as never asked."""
    if not overlap.is_odd:
        return
    ours = f"the ledger {without_password(sources.ledger)}" if sources.ledger else sources.results
    found = f"only {overlap.found:,}" if overlap.found else "none"
    raise ConfigurationError(
        f"{counted(overlap.held, 'recipient')} in {ours} have a voucher or may have one, and "
        f"{found} of the {overlap.people:,} in {sources.recipients} is among them. Who has one "
        "under another name would count as never asked, and get a second one: is it the column "
        "that they were issued by (--column), and the same campaign? --other-people says that they "
        "are others."
    )


def named_zone(name: str) -> tzinfo:
    """Return a time zone by its name. Raises `ConfigurationError`."""
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, ZoneInfoNotFoundError):
        if name == DEFAULT_ZONE:  # since 1982, also where no time zones are installed
            return timezone(timedelta(hours=8), name)
        raise ConfigurationError(
            f"--timezone {name!r} is not known here: name one such as Asia/Kuala_Lumpur or UTC. "
            "Where none is known, install the package tzdata."
        ) from None
