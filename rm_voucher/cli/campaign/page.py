"""The report of a campaign: one HTML file that needs no network and no script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from rm_voucher.cli.campaign.chart import Axis, day_bars, long_day, part_bar
from rm_voucher.cli.campaign.figures import (
    EVENTS,
    SHOWN,
    Differing,
    Figures,
    day_of,
    shown_code,
)
from rm_voucher.cli.campaign.sources import from_micros, to_micros
from rm_voucher.cli.campaign.standing import MEANINGS, WITH_CODE, Difference, Kept, Standing
from rm_voucher.models import VoucherBatch
from rm_voucher.text import counted, printable
from rm_voucher.wire.error_codes import ERROR_CODES

BEGINNING = "<!doctype html>\n<!-- rm-voucher campaign report -->\n"
"""Every report begins so."""
_STYLE = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
_MOST_DAYS = 400
DIFFERENCES = {
    Difference.UNKNOWN: "RM lists these, and our list does not have them",
    Difference.UNLISTED: "Our list has these, and RM does not list them",
    Difference.STATUS: "RM lists these in a way that does not fit a voucher that was issued",
    Difference.TWICE: "Two recipients have the same code",
}
STRANGERS = {
    "baseline": "issued before the ledger began",
    "foreign": "issued by somebody else, as the ledger found out",
    "spare": "issued to the ledger, and not given to anybody yet",
    "seen": "came with an error, for a recipient who is held",
}


def render(figures: Figures, *, reveal: bool = False) -> str:
    """Return the page. Codes are masked unless ``reveal``; all texts are escaped."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    batch = figures.listing.batch
    title = text(batch.label or batch.key or "Campaign")
    body = "\n".join(
        part
        for part in (
            _head(figures, title),
            _cards(figures),
            _standings(figures),
            _plots(figures),
            _held(figures),
            _refused(figures),
            _differences(figures, reveal=reveal),
            _sources(figures),
        )
        if part
    )
    return (
        f'{BEGINNING}<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{title}: report</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def text(value: object) -> str:
    """Return a text of a person's or a server's as a page may have it."""
    return escape(printable(str(value)))


def worth(batch: VoucherBatch) -> str:
    """Return what a voucher of a batch is worth, in words."""
    words = []
    if batch.amount_sen and batch.type == "CASH":
        words.append(ringgit(batch.amount_sen))
    if batch.discount_rate_bp and batch.type == "DISCOUNT":
        words.append(f"{batch.discount_rate_bp / 100:g} % off")
    if not words and batch.type is not None:
        words.append(text(batch.type.value.lower().capitalize()))
    if batch.minimum_spend_sen and batch.type in ("CASH", "DISCOUNT"):
        words.append(f"from {ringgit(batch.minimum_spend_sen)} spent")
    return ", ".join(words)


def ringgit(sen: int) -> str:
    """Return an amount of money, as people write it."""
    return f"RM {sen // 100:,}.{sen % 100:02}"


def reason_in_words(reason: str) -> str:
    """Return why somebody was refused: RM's code, which a ledger keeps, with what it means."""
    info = ERROR_CODES.get(reason)
    return f"{reason}: {info.hint}" if info else reason or "no reason was kept"


def _moment(micros: int | None, figures: Figures) -> str:
    if micros is None:
        return ""
    instant = from_micros(micros)
    try:
        local = instant.astimezone(figures.zone)
    except OverflowError:  # at the ends of time
        local = instant
    return f"{long_day(local.date())}, {local:%H:%M}"


def _head(figures: Figures, title: str) -> str:
    batch = figures.listing.batch
    made = figures.made_at.astimezone(figures.zone)
    expiry, facts = batch.expiry, [worth(batch)]
    if expiry is not None and expiry.days is not None:
        facts.append(f"ends {counted(expiry.days, 'day')} after it is redeemed")
    elif expiry is not None and expiry.expires_at is not None:
        day = day_of(to_micros(expiry.expires_at), figures.zone)
        facts.append(f"ends {long_day(day)}")
    facts.append(f"batch {text(batch.key)}")
    return (
        f"<header>\n<h1>{title}</h1>\n<p>{' · '.join(fact for fact in facts if fact)}</p>\n"
        f'<p class="note">As of {long_day(made.date())}, {made:%H:%M} '
        f"({text(figures.zone_name)})</p>\n</header>"
    )


def _cards(figures: Figures) -> str:
    standings = figures.standings
    cards = [
        ("recipients", figures.recipients, None),
        ("have a code", figures.with_code, figures.sen_of(WITH_CODE)),
        ("redeemed, not used", standings[Standing.REDEEMED], None),
        ("used", standings[Standing.USED], figures.sen_of([Standing.USED])),
    ]
    if standings[Standing.HELD]:
        cards.append(("held: may have one", standings[Standing.HELD], None))
    missing = standings[Standing.REFUSED] + standings[Standing.NEVER_ASKED]
    if missing:
        cards.append(("have none", missing, None))
    drawn = "".join(
        f'<div class="card"><b>{number:,}</b><span>{name}</span>'
        f"{'' if sen is None else f'<i>{ringgit(sen)}</i>'}</div>"
        for name, number, sen in cards
    )
    return f'<section class="cards">{drawn}</section>'


def _standings(figures: Figures) -> str:
    shown = {standing: figures.standings[standing] for standing in Standing}
    parts = {f"f-{each.value}": (number, _words(each)) for each, number in shown.items()}
    rows = "".join(
        f'<tr><td><i class="key b-{each.value}"></i>{_words(each)}</td>'
        f'<td class="number">{number:,}</td><td class="number">{_share(number, figures)}</td>'
        f'<td class="meaning">{MEANINGS[each]}</td></tr>'
        for each, number in shown.items()
        if number
    )
    return (
        f"<section>\n<h2>Where the recipients stand</h2>\n{part_bar(parts)}\n"
        f'<div class="wide"><table><tbody>{rows}</tbody></table></div>\n</section>'
    )


def _words(standing: Standing) -> str:
    return standing.value.replace("_", " ")


def _share(number: int, figures: Figures) -> str:
    return f"{100 * number / figures.recipients:.1f} %"


def _plots(figures: Figures) -> str:
    days = sorted(set().union(*figures.days.values()))
    if not days:
        return ""
    axis = Axis.over(days)
    span = "" if axis.step_days == 1 else f" A bar is {axis.step_days:,} days."
    plots = "".join(
        f"<figure><figcaption>{event.capitalize()} "
        f"<b>{figures.days[event].total():,}</b></figcaption>"
        f"{day_bars(event.capitalize(), f'f-{event}', figures.days[event], axis)}</figure>"
        for event in EVENTS
    )
    undated = [f"{figures.undated[event]:,} {event}" for event in EVENTS if figures.undated[event]]
    notes = [f"A day begins at midnight in {text(figures.zone_name)}.{span}"]
    if undated:
        notes.append(f"Without a day, because RM shows none: {', '.join(undated)}.")
    if figures.by_ledger:
        notes.append(
            f"RM shows no time of issue of {figures.by_ledger:,}: they count when they were asked "
            "for."
        )
    rows = [
        [long_day(day), *(f"{figures.days[event][day]:,}" for event in EVENTS)]
        for day in days[:_MOST_DAYS]
    ]
    left = (
        f"<p>{counted(len(days) - _MOST_DAYS, 'more day')}.</p>" if len(days) > _MOST_DAYS else ""
    )
    return (
        f'<section>\n<h2>By day</h2>\n<div class="plots">{plots}</div>\n'
        f'<p class="note">{" ".join(notes)}</p>\n'
        f"<details><summary>The same as a table</summary>"
        f"{_table(['day', *EVENTS], rows, numbers=True)}{left}</details>\n</section>"
    )


def _held(figures: Figures) -> str:
    number = figures.standings[Standing.HELD]
    if not number:
        return ""

    def cells(kept: Kept) -> list[str]:
        return [
            text(kept.recipient),
            _moment(kept.sent_at, figures),
            text(kept.error),
            f"<code>{text(kept.attempt)}</code>" if kept.attempt else "",
        ]

    table = _table(["recipient", "sent", "why", "attempt"], map(cells, figures.held))
    return (
        f"<section>\n<h2>Held: {number:,}</h2>\n<p>Each of them may have a voucher that nobody has "
        "seen. Nothing more is issued to them before that is settled.</p>\n"
        f"{table}{_more(number, len(figures.held))}\n</section>"
    )


def _refused(figures: Figures) -> str:
    number = figures.standings[Standing.REFUSED]
    if not number:
        return ""
    rows = [
        [text(reason_in_words(reason)), f"{times:,}"]
        for reason, times in figures.refused.most_common()
    ]
    return (
        f"<section>\n<h2>Refused: {number:,}</h2>\n"
        f"{_table(['why', 'recipients'], rows, numbers=True)}\n</section>"
    )


def _differences(figures: Figures, *, reveal: bool) -> str:
    parts = ["<section>\n<h2>Our list and RM's</h2>"]
    if not figures.differences.total():
        parts.append("<p>They are the same: RM lists each code of ours, and no other.</p>")
    if figures.differences[Difference.UNKNOWN] and figures.standings[Standing.HELD]:
        parts.append("<p>Some of those that we don't know may be theirs who are held.</p>")
    for kind, number in figures.differences.items():
        rows = [each for each in figures.differing if each.difference is kind]
        parts.append(f"<h3>{DIFFERENCES[kind]}: {number:,}</h3>")
        table = [_differing(each, figures, reveal=reveal) for each in rows]
        parts.append(_table(["code", "recipient", "RM's status", "issued"], table))
        parts.append(_more(number, len(rows)))
    known = [
        [STRANGERS[state], f"{number:,}"]
        for state, number in figures.strangers.items()
        if state in STRANGERS
    ]
    if known:
        parts.append("<h3>RM lists these as well; the ledger knows of them</h3>")
        parts.append(_table(["what they are", "vouchers"], known, numbers=True))
    return "\n".join([*(part for part in parts if part), "</section>"])


def _differing(each: Differing, figures: Figures, *, reveal: bool) -> list[str]:
    listed = each.listed
    return [
        f"<code>{text(shown_code(each.code, reveal=reveal))}</code>",
        text(each.kept.recipient) if each.kept else "",
        text(listed.status or "none that can be read") if listed else "",
        _moment(listed.assigned_at, figures) if listed else "",
    ]


def _sources(figures: Figures) -> str:
    listing, batch = figures.listing, figures.listing.batch
    listed = counted(figures.listed, "voucher")
    lines = [
        f"Our list: {text(figures.source)}.",
        f"RM's list: {listed} of the batch, {figures.issued:,} of them issued.",
    ]
    if batch.quantity is not None and batch.balance_quantity is not None:
        lines.append(
            f"The batch: {batch.quantity:,} vouchers, {batch.balance_quantity:,} of them left."
        )
    if figures.is_short:
        lines.append(
            f"By its balance {listing.issued_by_balance:,} are issued, so the listing may not be "
            "complete: make the report again later."
        )
    if listing.unreadable:
        lines.append(
            f"{counted(listing.unreadable, 'voucher')} of the listing can't be read: codes that "
            "are not listed may be theirs."
        )
    if figures.again:
        lines.append(f"{figures.again:,} rows name a recipient who stands there already.")
    lines.append(
        "RM has one word, VOID, for a voucher that was used and for one that was cancelled: with a "
        "time of use it counts as used."
    )
    items = "".join(f"<li>{line}</li>" for line in lines)
    return f'<section class="note">\n<h2>What this is made from</h2>\n<ul>{items}</ul>\n</section>'


def _more(number: int, shown: int) -> str:
    return f'<p class="note">The first {SHOWN:,} of {number:,}.</p>' if number > shown else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> str:
    kind = ' class="number"' if numbers else ""

    def line(tag: str, cells: Sequence[str]) -> str:
        drawn = (f"<{tag}{kind if n else ''}>{cell}</{tag}>" for n, cell in enumerate(cells))
        return f"<tr>{''.join(drawn)}</tr>"

    body = "".join(line("td", row) for row in rows)
    return (
        f'<div class="wide"><table{" class=narrow" if numbers else ""}>'
        f"<thead>{line('th', head)}</thead><tbody>{body}</tbody></table></div>"
    )
