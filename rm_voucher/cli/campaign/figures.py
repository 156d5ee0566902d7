"""The figures of a campaign: counted once, in one pass, for the table, the report and JSON.

Of whatever may be as long as the campaign, only the first rows are kept, and the rest is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import date, datetime, tzinfo
from typing import Any

import attrs

from rm_voucher.cli.campaign.join import Join, Row, Stranger
from rm_voucher.cli.campaign.sources import Listing, from_micros
from rm_voucher.cli.campaign.standing import (
    WITH_CODE,
    Difference,
    Kept,
    Listed,
    Mark,
    Standing,
    difference_of,
)
from rm_voucher.converters import format_time
from rm_voucher.models import VoucherType, mask

SHOWN = 200
"""Of rows that a report shows one by one, so many."""
_REASONS = 50
_MANY_REASONS = "other reasons"

EVENTS = ("issued", "redeemed", "used")
"""What is counted by day."""
UNKNOWN = "unknown"
"""Of a stranger: nobody knows whose it is."""
_OURS_SINCE = "assigned"


@attrs.frozen
class Differing:
    """A voucher about which our list and RM's differ."""

    difference: Difference
    kept: Kept | None
    listed: Listed | None

    @property
    def code(self) -> str:
        """The voucher's code."""
        return (self.kept and self.kept.code) or (self.listed.code if self.listed else "")


@attrs.define(kw_only=True)
class Figures:
    """All figures of a campaign.

    Attributes:
        listing: what RM says of the batch.
        made_at: when they were counted.
        zone: the time zone that a day begins in.
        zone_name: its name.
        source: what our list was read from, in words.
        again: how many rows of the list of recipients name somebody a second time.
        listed: how many vouchers RM lists.
        issued: how many of them left the batch.
        standings: the number of recipients that stand so.
        sen: what their vouchers are worth together, where each has an amount.
        days: the number of our vouchers that were issued, redeemed and used, by day.
        undated: those whose day RM doesn't show.
        by_ledger: those that count as issued when our ledger was asked, for want of RM's time.
        held: the first of those who are held.
        refused: the number of refused recipients by reason.
        strangers: issued vouchers that nobody on our list has, by what the ledger knows of them.
        differences: the number of each kind.
        differing: the first of them.
    """

    listing: Listing
    made_at: datetime
    zone: tzinfo
    zone_name: str
    source: str
    again: int = 0
    listed: int = 0
    issued: int = 0
    standings: Counter[Standing] = attrs.field(factory=Counter)
    sen: dict[Standing, int | None] = attrs.field(factory=dict)
    days: dict[str, Counter[date]] = attrs.field(
        factory=lambda: {event: Counter() for event in EVENTS}
    )
    undated: Counter[str] = attrs.field(factory=Counter)
    by_ledger: int = 0
    held: list[Kept] = attrs.field(factory=list)
    refused: Counter[str] = attrs.field(factory=Counter)
    strangers: Counter[str] = attrs.field(factory=Counter)
    differences: Counter[Difference] = attrs.field(factory=Counter)
    differing: list[Differing] = attrs.field(factory=list)

    @property
    def recipients(self) -> int:
        """How many recipients there are: the sum of all standings."""
        return self.standings.total()

    @property
    def with_code(self) -> int:
        """How many of them have a code."""
        return sum(self.standings[standing] for standing in WITH_CODE)

    @property
    def is_short(self) -> bool:
        """Whether RM's listing has fewer issued vouchers than the batch's balance tells of."""
        by_balance = self.listing.issued_by_balance
        return by_balance is not None and self.issued + self.listing.unreadable < by_balance

    def sen_of(self, standings: Iterable[Standing]) -> int | None:
        """Return what the vouchers of those who stand so are worth together, if that is known."""
        if self.listing.batch.type is not VoucherType.CASH:
            return None
        total = 0
        for standing in standings:
            if (part := self.sen.get(standing, 0)) is None:
                return None
            total += part
        return total


def collect(join: Join, figures: Figures) -> Figures:
    """Count all rows of a join. May be called once for each `Figures`."""
    figures.listed, figures.issued = join.count_listed()
    for row in join.rows():
        _count(row, figures)
    for stranger in join.strangers():
        _count_stranger(stranger, figures)
    return figures


def _count(row: Row, figures: Figures) -> None:
    kept, listed, standing = row.kept, row.listed, row.standing
    figures.standings[standing] += 1
    if standing is Standing.HELD and len(figures.held) < SHOWN:
        figures.held.append(kept)
    if standing is Standing.REFUSED:
        known = kept.error in figures.refused or len(figures.refused) < _REASONS
        figures.refused[kept.error if known else _MANY_REASONS] += 1
    if standing in WITH_CODE:
        _count_days(kept, listed, standing, figures)
        worth = None if listed is None else listed.amount_sen
        before = figures.sen.get(standing, 0)
        figures.sen[standing] = None if worth is None or before is None else before + worth
    for difference in difference_of(kept, listed, holders=row.holders):
        _note(Differing(difference, kept, listed), figures)


def _count_days(kept: Kept, listed: Listed | None, standing: Standing, figures: Figures) -> None:
    issued_at = None if listed is None else listed.assigned_at
    if issued_at is None and kept.asked_at is not None:
        figures.by_ledger += 1
        issued_at = kept.asked_at
    times: dict[str, int | None] = {"issued": issued_at}
    if listed is not None and listed.redeemed_at is not None:
        times["redeemed"] = listed.redeemed_at
    elif standing is Standing.REDEEMED:
        times["redeemed"] = None
    if standing in (Standing.USED, Standing.VOID):
        times["used"] = None if listed is None else listed.used_at
    for event, at in times.items():
        if at is None:
            figures.undated[event] += 1
        else:
            figures.days[event][day_of(at, figures.zone)] += 1


def day_of(micros: int, zone: tzinfo) -> date:
    """Return the day that an instant is on in a time zone; at the ends of time, in UTC."""
    instant = from_micros(micros)
    try:
        return instant.astimezone(zone).date()
    except OverflowError:
        return instant.date()


def _count_stranger(stranger: Stranger, figures: Figures) -> None:
    known = stranger.known or UNKNOWN
    if known == _OURS_SINCE:  # it was issued after our list was read
        return
    figures.strangers[known] += 1
    if known == UNKNOWN:
        _note(Differing(Difference.UNKNOWN, None, stranger.listed), figures)


def _note(differing: Differing, figures: Figures) -> None:
    figures.differences[differing.difference] += 1
    if figures.differences[differing.difference] <= SHOWN:
        figures.differing.append(differing)


def shown_code(code: str | None, *, reveal: bool) -> str:
    """Return a code as a report shows it."""
    return code or "" if reveal else mask(code).strip("'") if code else ""


def shown_time(micros: int | None) -> str | None:
    """Return an instant as RFC 3339."""
    return None if micros is None else format_time(from_micros(micros))


def to_json(figures: Figures, *, reveal: bool = False) -> dict[str, Any]:
    """Return the figures as JSON shows them: the report's own."""
    batch = figures.listing.batch
    expiry = batch.expiry
    days = sorted(set().union(*figures.days.values()))
    return {
        "batch": {
            "key": batch.key,
            "label": batch.label,
            "type": batch.type,
            "amount_sen": batch.amount_sen,
            "discount_rate_bp": batch.discount_rate_bp,
            "minimum_spend_sen": batch.minimum_spend_sen,
            "expires_at": expiry and expiry.expires_at and format_time(expiry.expires_at),
            "expires_days": expiry and expiry.days,
            "quantity": batch.quantity,
            "balance": batch.balance_quantity,
        },
        "made_at": format_time(figures.made_at),
        "timezone": figures.zone_name,
        "source": figures.source,
        "recipients": figures.recipients,
        "repeated_recipients": figures.again,
        "with_code": figures.with_code,
        "standings": {standing.value: figures.standings[standing] for standing in Standing},
        "amount_sen": {
            "issued": figures.sen_of(WITH_CODE),
            "used": figures.sen_of([Standing.USED]),
        },
        "days": [
            {"day": day.isoformat(), **{event: figures.days[event][day] for event in EVENTS}}
            for day in days
        ],
        "undated": {event: figures.undated[event] for event in EVENTS},
        "issued_by_our_clock": figures.by_ledger,
        "held": [
            {
                "recipient": kept.recipient,
                "attempt": kept.attempt,
                "sent_at": shown_time(kept.sent_at),
                "error": kept.error,
            }
            for kept in figures.held
        ],
        "refused": dict(figures.refused.most_common()),
        "listing": {
            "listed": figures.listed,
            "issued": figures.issued,
            "issued_by_balance": figures.listing.issued_by_balance,
            "unreadable": figures.listing.unreadable,
        },
        "strangers": dict(figures.strangers),
        "differences": {each.value: figures.differences[each] for each in Difference},
        "differing": [
            {
                "difference": each.difference.value,
                "recipient": each.kept and each.kept.recipient,
                "code": shown_code(each.code, reveal=reveal),
                "voucher_status": each.kept and each.kept.mark.voucher_status,
                "status": each.listed and each.listed.status,
                "assigned_at": each.listed and shown_time(each.listed.assigned_at),
            }
            for each in figures.differing
        ],
    }


def is_same(figures: Figures) -> bool:
    """Return whether our list and RM's are the same, as far as each can be read."""
    return not figures.differences.total()


def is_handed_on(kept: Kept) -> bool:
    """Return whether a recipient's code may be handed on."""
    return kept.mark is Mark.ISSUED and kept.code is not None
