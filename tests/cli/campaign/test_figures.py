"""The figures agree with one another, whatever both lists hold."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from support.campaign_lists import LISTINGS, PEOPLE, entries

from rm_voucher import VoucherBatch
from rm_voucher.cli.campaign.figures import Figures, collect, to_json
from rm_voucher.cli.campaign.join import Join
from rm_voucher.cli.campaign.page import render
from rm_voucher.cli.campaign.sources import Listing
from rm_voucher.cli.campaign.standing import WITH_CODE, Difference, Mark, Standing
from rm_voucher.models import VoucherType


@given(entries(), PEOPLE, LISTINGS)
def test_figures_add_up(kept, people, listed):
    """Each recipient, voucher, day and difference is counted once."""
    with Join() as join:
        join.add_entries((each, None) for each in kept)
        if people is not None:
            join.add_people((name, n) for n, name in enumerate(people))
        join.match()
        join.list_vouchers(listed)
        rows, strangers = list(join.rows()), list(join.strangers())
        figures = Figures(
            listing=Listing(batch=VoucherBatch(type=VoucherType.CASH), unreadable=0),
            made_at=datetime(2026, 11, 30, tzinfo=UTC),
            zone=UTC,
            zone_name="UTC",
            source="a list",
        )
        collect(join, figures)
    last = {each.code: each for each in listed}
    ours = {each.code for each in kept}
    standings, days, undated = figures.standings, figures.days, figures.undated
    assert figures.recipients == len(rows)
    assert figures.listed == len(last)
    assert figures.issued == sum(each.was_issued for each in last.values())
    assert figures.with_code == days["issued"].total() + undated["issued"]
    assert standings[Standing.USED] + standings[Standing.VOID] == (
        days["used"].total() + undated["used"]
    )
    assert undated["used"] == standings[Standing.VOID]
    assert days["redeemed"].total() == sum(
        row.listed is not None and row.listed.redeemed_at is not None
        for row in rows
        if row.kept.mark is Mark.ISSUED
    )
    assert len(figures.held) == standings[Standing.HELD]
    assert figures.refused.total() == standings[Standing.REFUSED]
    assert figures.strangers.total() == len(strangers)
    listed_of_ours = {code for code in ours if code in last and last[code].was_issued}
    assert figures.issued == len(listed_of_ours) + len(strangers)
    assert figures.differences[Difference.UNKNOWN] == len(strangers)
    assert figures.differences[Difference.UNLISTED] == standings[Standing.UNLISTED]
    assert figures.differences[Difference.STATUS] == standings[Standing.OTHER]
    worth = [row.listed and row.listed.amount_sen for row in rows if row.standing in WITH_CODE]
    assert figures.sen_of(WITH_CODE) == (None if None in worth else sum(w or 0 for w in worth))
    shown = to_json(figures)
    assert sum(shown["standings"].values()) == shown["recipients"]
    assert sum(day["issued"] for day in shown["days"]) == days["issued"].total()
    assert render(figures).startswith("<!doctype html>")
