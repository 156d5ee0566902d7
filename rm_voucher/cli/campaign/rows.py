"""The tables that a campaign's commands write: a person's own columns, and ours after them."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from rm_voucher import ConfigurationError
from rm_voucher.cli.campaign.figures import UNKNOWN, shown_time
from rm_voucher.cli.campaign.gather import Campaign
from rm_voucher.cli.campaign.join import Row
from rm_voucher.cli.campaign.standing import RESENT, Difference, Listed, Mark, difference_of
from rm_voucher.cli.tables.columns import name_ours
from rm_voucher.cli.tables.model import Cell
from rm_voucher.cli.tables.write import TableWriter, open_writer

RECIPIENT = "recipient"
ISSUED = ("code", "qr_url", "voucher_status", "error")
LISTED = ("status", "assigned_at", "redeemed_at", "used_at", "expires_at")
STANDING = "standing"
DIFFERING = ("difference", RECIPIENT, "code", "voucher_status", *LISTED)


def own_columns(campaign: Campaign) -> list[int]:
    """Return the columns of the person's own; those that a run of ours wrote are not."""
    if campaign.table is None:
        return []
    ours = campaign.table.results
    written = set() if ours is None else set(ours.columns)
    return [n for n in range(len(campaign.table.header)) if n not in written]


def own_header(campaign: Campaign) -> list[str]:
    """Return the names of the person's own columns; without a table, that of the recipients."""
    if campaign.table is None:
        return [RECIPIENT]
    return [campaign.table.header[n] for n in own_columns(campaign)]


def own_cells(row: Row, campaign: Campaign, columns: Sequence[int]) -> list[Cell]:
    """Return the cells of those columns; of who is not in the table, the recipient alone."""
    if campaign.table is None:
        return [row.kept.recipient]
    if row.place is None:
        at = campaign.table.column
        return [row.kept.recipient if n == at else None for n in columns]
    cells = campaign.table.row(row.place).cells
    return [cells[n] for n in columns]


def write_standings(campaign: Campaign, path: Path) -> None:
    """Write a row for each recipient, in the order of their list."""
    columns, header = own_columns(campaign), own_header(campaign)
    ours = name_ours((*ISSUED, STANDING, *LISTED), header)
    with _writing(path, [*header, *ours], {ours[0]}, campaign) as writer:
        for row in campaign.join.rows():
            kept, listed = row.kept, row.listed
            # A code that a ledger adopted came without its URL.
            qr_url = kept.qr_url or (listed.qr_url if listed and kept.mark is Mark.ISSUED else None)
            writer.add(
                [
                    *own_cells(row, campaign, columns),
                    kept.code,
                    qr_url,
                    kept.mark.voucher_status,
                    kept.error,
                    row.standing.value,
                    *_listed(listed),
                ]
            )


def _listed(listed: Listed | None) -> tuple[str | None, ...]:
    if listed is None:
        return (None,) * len(LISTED)
    times = (listed.assigned_at, listed.redeemed_at, listed.used_at, listed.expires_at)
    return (listed.status, *map(shown_time, times))


def to_resend(campaign: Campaign) -> Iterator[Row]:
    """Iterate over those who have no code, provably, and are in the person's list, if there is one.

    It may be called again.
    """
    for row in campaign.join.rows():
        if row.standing in RESENT and (campaign.table is None or row.place is not None):
            yield row


def write_resend(campaign: Campaign, path: Path) -> None:
    """Write them, with their own columns alone."""
    columns, table = own_columns(campaign), campaign.table
    # A recipient is what another run reads.
    exact = {RECIPIENT if table is None else table.header[table.column or 0]}
    with _writing(path, own_header(campaign), exact, campaign) as writer:
        for row in to_resend(campaign):
            writer.add(own_cells(row, campaign, columns))


def write_differences(campaign: Campaign, path: Path) -> None:
    """Write a row for each difference."""
    with _writing(path, DIFFERING, {"code"}) as writer:
        for row in campaign.join.rows():
            kept = row.kept
            for each in difference_of(kept, row.listed, holders=row.holders):
                ours = (kept.recipient, kept.code, kept.mark.voucher_status)
                writer.add([each.value, *ours, *_listed(row.listed)])
        for stranger in campaign.join.strangers():
            if (stranger.known or UNKNOWN) == UNKNOWN:
                theirs = (None, stranger.listed.code, None)
                writer.add([Difference.UNKNOWN.value, *theirs, *_listed(stranger.listed)])


@contextlib.contextmanager
def _writing(
    path: Path, columns: Sequence[str], exact: Collection[str], campaign: Campaign | None = None
) -> Iterator[TableWriter]:
    """Write like the person's own table, if there is one. Raises `ConfigurationError`."""
    table = None if campaign is None else campaign.table
    like = None if table is None else table.format
    try:
        with open_writer(path, columns, like=like, exact=exact) as writer:
            yield writer
    except OSError as exc:
        raise ConfigurationError(f"{path} can't be written: {exc.strerror}.") from exc
