"""The report: strict, self-contained, and all that strangers wrote escaped."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rm_voucher import VoucherBatch
from rm_voucher.cli.campaign import page
from rm_voucher.cli.campaign.chart import Axis, day_bars, nice_top, part_bar
from rm_voucher.cli.campaign.figures import SHOWN, Figures, collect, day_of, to_json
from rm_voucher.cli.campaign.join import Join
from rm_voucher.cli.campaign.sources import Listing, from_micros, to_micros
from rm_voucher.cli.campaign.standing import Kept, Listed, Mark, Standing
from rm_voucher.models import Expiry, ExpiryType, VoucherType

EVIL = "<script>alert('x')</script>\"&'\x1b[2J\u202e"
KL = timezone(timedelta(hours=8))


def figures_of(
    kept: list[Kept], listed: list[Listed], *, known: Sequence[tuple[str, str]] = (), **batch: Any
) -> Figures:
    shown = {"key": "B", "label": "Breakfast", "type": VoucherType.CASH, **batch}
    with Join() as join:
        join.add_entries((each, None) for each in kept)
        join.match()
        join.list_vouchers(listed)
        join.know(known)
        figures = Figures(
            listing=Listing(batch=VoucherBatch(**shown), unreadable=0),
            made_at=datetime(2026, 11, 30, 16, 30, tzinfo=UTC),
            zone=KL,
            zone_name="Asia/Kuala_Lumpur",
            source="the ledger sqlite:///campaign.db",
        )
        return collect(join, figures)


class Strict(HTMLParser):
    """Collects tags with their attributes, and refuses a tag that is not closed in its turn."""

    VOID = ("meta",)

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def parsed(html: str) -> Strict:
    parser = Strict()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


def full(*, evil: str = "name") -> Figures:
    """A campaign with something of everything."""
    now = to_micros(datetime(2026, 11, 27, 15, 59, 59, 999_999, tzinfo=UTC))
    marks = [Mark.ISSUED] * 6 + [Mark.UNRESOLVED, Mark.FAILED, Mark.GIVEN_UP, Mark.NOT_ASKED]
    kept = [
        Kept(
            recipient=f"{evil}{n}",
            mark=mark,
            code=f"SECRET{n}" if mark is Mark.ISSUED else None,
            error="" if mark is Mark.ISSUED else evil,
            sent_at=now if mark is Mark.UNRESOLVED else None,
            attempt=evil if mark is Mark.UNRESOLVED else None,
        )
        for n, mark in enumerate(marks)
    ]
    kept.append(Kept(recipient="twice", mark=Mark.ISSUED, code="SECRET0"))
    listed = [
        Listed(code="SECRET0", status="ISSUED", assigned_at=now, amount_sen=1000),
        Listed(code="SECRET1", status="REDEEMED", assigned_at=now, redeemed_at=now + 1),
        Listed(code="SECRET2", status="VOID", assigned_at=now, used_at=now + 1, amount_sen=1000),
        Listed(code="SECRET3", status="VOID", amount_sen=1000),
        Listed(code="SECRET4", status=evil, amount_sen=1000),
        Listed(code="SECRETX", status="ISSUED", assigned_at=now),
        Listed(code="SECRETY", status="ISSUED", assigned_at=now),
        Listed(code="SECRETZ", status="VALID"),
    ]
    return figures_of(
        kept,
        listed,
        known=[("SECRETY", "baseline")],
        label=evil,
        amount_sen=1000,
        minimum_spend_sen=2050,
        quantity=20,
        balance_quantity=5,
        expiry=Expiry(type=ExpiryType.DYNAMIC, days=7),
    )


def test_page_is_whole_and_needs_nothing():
    """It is well formed, loads nothing, runs nothing, and its style is the one that is allowed."""
    parser = parsed(page.render(full()))
    tags = {tag for tag, _ in parser.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "form", "a", "base"}
    attributes = {name for _, given in parser.tags for name in given}
    assert not [name for name in attributes if name.startswith("on")]
    assert not attributes & {"src", "href", "style", "xlink:href"}
    (policy,) = [
        given["content"]
        for _, given in parser.tags
        if given.get("http-equiv") == "Content-Security-Policy"
    ]
    html = page.render(full())
    style = html[html.index("<style>") + 7 : html.index("</style>")]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in str(policy)
    assert "url(" not in style
    assert "@import" not in style
    assert "://" not in html.replace("sqlite:///", "")


@pytest.mark.parametrize("reveal", [False, True])
def test_strangers_texts_are_texts(reveal):
    """Whatever a label, a name, an error or a status says, no tag and no control comes of it."""
    html = page.render(full(evil=EVIL), reveal=reveal)
    plain = parsed(page.render(full(), reveal=reveal))
    parser = parsed(html)
    assert [tag for tag, _ in parser.tags] == [tag for tag, _ in plain.tags]
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert any("<script>alert('x')</script>\"&'\\x1b[2J\\u202e" in words for words in parser.words)


def test_codes_are_masked_unless_they_are_to_be_seen():
    """A report goes to people who are no owners of the codes."""
    figures = full()
    assert "SECRETX" not in page.render(figures)
    assert "SECRETX" in page.render(figures, reveal=True)
    assert "SECRETX" not in str(to_json(figures))
    assert "SECRETX" in str(to_json(figures, reveal=True))


def test_every_figure_is_on_the_page():
    """The page says what JSON says."""
    figures = full()
    words = " ".join(" ".join(parsed(page.render(figures)).words).split())
    shown = to_json(figures)
    assert shown["standings"] == {
        **dict.fromkeys((each.value for each in Standing), 1),
        "served": 2,
        "expired": 0,
    }
    assert (shown["recipients"], shown["with_code"]) == (11, 7)
    assert shown["amount_sen"] == {"issued": None, "used": 1000}  # one shows no amount
    assert shown["days"] == [
        {"day": "2026-11-27", "issued": 4, "redeemed": 0, "used": 0},
        {"day": "2026-11-28", "issued": 0, "redeemed": 1, "used": 1},
    ]
    assert shown["undated"] == {"issued": 3, "redeemed": 0, "used": 1}
    assert shown["differences"] == {
        "unknown_to_us": 1,
        "not_listed": 1,
        "status_differs": 1,
        "same_code": 2,
    }
    for text in (
        "11 recipients",
        "7 have a code",
        "RM 10.00, from RM 20.50 spent · ends 7 days after it is redeemed · batch B",
        "As of 1 Dec 2026, 00:30 (Asia/Kuala_Lumpur)",
        "A day begins at midnight in Asia/Kuala_Lumpur.",
        "Without a day, because RM shows none: 3 issued, 1 used.",
        "27 Nov 2026, 23:59",
        "28 Nov 2026 0 1 1",
        "Held: 1",
        "Refused: 1",
        "RM lists these, and our list does not have them: 1",
        "Our list has these, and RM does not list them: 1",
        "Two recipients have the same code: 2",
        "issued before the ledger began 1",
        "8 vouchers of the batch, 7 of them issued.",
        "The batch: 20 vouchers, 5 of them left.",
        "By its balance 15 are issued, so the listing may not be complete",
    ):
        assert text in words, text


def test_long_lists_are_cut():
    """A page has the first rows, and says how many there are."""
    held = [Kept(recipient=f"h{n}", mark=Mark.UNRESOLVED) for n in range(SHOWN + 5)]
    listed = [Listed(code=f"code{n:05}", status="ISSUED") for n in range(SHOWN + 7)]
    html = page.render(figures_of(held, listed))
    assert f"The first {SHOWN} of {SHOWN + 5}." in html
    assert f"The first {SHOWN} of {SHOWN + 7}." in html
    assert html.count("<tr>") < 2 * SHOWN + 20


def test_reasons_are_counted_together_where_there_are_many():
    """A server that words each refusal anew fills no page."""
    kept = [Kept(recipient=f"r{n}", mark=Mark.FAILED, error=f"reason {n}") for n in range(90)]
    refused = figures_of(kept, []).refused
    assert (len(refused), refused.total(), refused["other reasons"]) == (51, 90, 40)


def test_empty_campaign():
    """Nobody and nothing: a page all the same."""
    words = " ".join(parsed(page.render(figures_of([], [], label=None, key=None))).words)
    assert "0" in words
    assert "By day" not in words


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({"type": VoucherType.CASH, "amount_sen": 1_234_567}, "RM 12,345.67"),
        ({"type": VoucherType.DISCOUNT, "discount_rate_bp": 1250}, "12.5 % off"),
        ({"type": VoucherType.GIFT, "amount_sen": 0}, "Gift"),
        ({"type": None}, ""),
    ],
)
def test_worth(batch, words):
    """In words, as on a voucher."""
    assert page.worth(VoucherBatch(**batch)) == words


def numbers_in(svg: str) -> list[float]:
    root = ET.fromstring(svg)
    return [
        float(each.get(name) or "nan")
        for each in root.iter()
        for name in ("x", "y", "width", "height")
        if each.get(name) is not None
    ]


@given(st.dictionaries(st.dates(), st.integers(min_value=1, max_value=10**6), min_size=1))
def test_bars_of_any_days(days):
    """Every voucher is in a bar, there are not too many of those, and all are in the picture."""
    axis = Axis.over(list(days))
    assert 1 <= axis.bars <= 62
    assert {axis.place(day) for day in days} <= set(range(axis.bars))
    svg = day_bars("Issued", "f-issued", days, axis)
    assert all(-0.1 <= number <= 360 and math.isfinite(number) for number in numbers_in(svg))
    titles = [each.text or "" for each in ET.fromstring(svg).iter() if "title" in each.tag]
    counted = [int(title.rpartition(": ")[2].replace(",", "")) for title in titles]
    assert sum(counted) == sum(days.values())


@pytest.mark.parametrize(
    ("most", "top"), [(0, 1), (1, 1), (2, 2), (3, 4), (7, 8), (9, 10), (11, 20), (64, 80)]
)
def test_scale(most, top):
    """It ends at a number that people can halve."""
    assert nice_top(most) == top


def test_parts_are_the_whole():
    """The bar's parts are as wide as it is, and name themselves."""
    svg = part_bar({"f-a": (1, "a"), "f-b": (0, "b"), "f-c": (2, "c")})
    rects = list(ET.fromstring(svg))
    assert [rect[0].text for rect in rects] == ["a: 1", "c: 2"]
    assert sum(float(rect.get("width") or 0) for rect in rects) == pytest.approx(1000, abs=0.02)
    assert "3 recipients" in svg


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_are_exact(instant):
    """To the microsecond, and a day is that of the time zone, at the ends of time too."""
    assert from_micros(to_micros(instant)) == instant
    day = day_of(to_micros(instant), KL)
    assert day in (
        instant.date(),
        instant.date() + (timedelta(days=1) if day != date.max else timedelta()),
    )


def test_midnight():
    """A day begins at midnight of the time zone, and not of UTC."""
    at = to_micros(datetime(2026, 11, 27, 16, 0, tzinfo=UTC))
    assert (day_of(at - 1, KL), day_of(at, KL)) == (date(2026, 11, 27), date(2026, 11, 28))


def test_style_has_a_colour_for_each_standing():
    """One that were added without it would be black."""
    style = (Path(page.__file__).parent / "report.css").read_text()
    for each in Standing:
        assert len(re.findall(rf"--{each.value}: #", style)) == 2, each
        assert f".f-{each.value} {{" in style or f".f-{each.value} {{ fill" in style
        assert f".b-{each.value} {{" in style
