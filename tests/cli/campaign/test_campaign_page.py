"""docs/campaign.md keeps up with the commands."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from support.files import DOCS

from rm_voucher import VoucherBatch
from rm_voucher.cli.campaign.figures import Figures, to_json
from rm_voucher.cli.campaign.rows import DIFFERING, ISSUED, LISTED, STANDING
from rm_voucher.cli.campaign.sources import Listing
from rm_voucher.cli.campaign.standing import RESENT, Difference, Standing
from rm_voucher.cli.decisions import ADOPT, COLUMNS, REISSUE, WRITE_OFF

PAGE = (DOCS / "campaign.md").read_text()


def table(title: str) -> list[list[str]]:
    """Return the cells of the table whose first heading is this."""
    lines = PAGE.partition(f"\n| {title} |")[2].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    assert rows, title
    return rows


def words(cell: str) -> list[str]:
    return re.findall(r"`(\w[\w-]*)`", cell)


def test_standings():
    """The page has each, in order, and whether it is asked again."""
    rows = table("`standing`")
    assert [words(row[0])[0] for row in rows] == [each.value for each in Standing]
    assert {words(row[0])[0] for row in rows if row[2] == "yes"} == {each.value for each in RESENT}


def test_keys_of_json():
    """The page has each key of the report's JSON, and what is in it."""
    figures = Figures(
        listing=Listing(batch=VoucherBatch(), unreadable=0),
        made_at=datetime.now(UTC),
        zone=UTC,
        zone_name="UTC",
        source="",
    )
    shown = to_json(figures)
    rows = table("key")
    assert [word for row in rows for word in words(row[0])] == list(shown)
    inside = {words(row[0])[0]: words(row[1]) for row in rows}
    assert inside["batch"] == list(shown["batch"])
    for key in ("amount_sen", "listing"):
        assert set(inside[key]) == set(shown[key])
    assert inside["days"] == list(shown["undated"])


def test_differences():
    """The page has each kind."""
    assert [words(row[0])[0] for row in table("`difference`")] == [
        each.value for each in Difference
    ]


@pytest.mark.parametrize("column", [*ISSUED, STANDING, *LISTED, *COLUMNS])
def test_columns(column):
    """The page names each column that is written."""
    assert f"`{column}`" in PAGE


def test_columns_of_differences():
    """They are those of the other tables."""
    assert set(DIFFERING) <= {"difference", "recipient", *ISSUED, *LISTED}


def test_decisions():
    """The page has each word that decides."""
    assert [word for row in table("`decision`") for word in words(row[0])] == [
        *(ADOPT, REISSUE, WRITE_OFF)
    ]
