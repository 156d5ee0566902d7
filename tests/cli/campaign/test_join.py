"""Our list and RM's beside each other: each recipient once, and what is paired with whom."""

from __future__ import annotations

from collections import Counter

import attrs
import pytest
from hypothesis import given
from support.campaign_lists import LISTINGS, PEOPLE, entries

from rm_voucher import ConfigurationError
from rm_voucher.cli.campaign.join import UNCLEAR, Join, Overlap, Row
from rm_voucher.cli.campaign.standing import (
    RESENT,
    WITH_CODE,
    Difference,
    Kept,
    Listed,
    Mark,
    Standing,
    difference_of,
    standing_of,
)
from rm_voucher.text import comparable


def joined(
    kept: list[Kept], people: list[str] | None, listed: list[Listed]
) -> tuple[list[Row], set[str], int]:
    with Join() as join:
        join.add_entries((each, place) for place, each in enumerate(kept))
        again = 0 if people is None else join.add_people((p, n) for n, p in enumerate(people))
        join.match()
        join.list_vouchers(listed)
        rows = list(join.rows())
        assert list(join.rows()) == rows  # as often as one likes
        strangers = {each.listed.code for each in join.strangers()}
        assert set(join.strange_codes()) == strangers
        return rows, strangers, again


def expected(kept: list[Kept], people: list[str] | None) -> list[tuple[str, Mark, str | None]]:
    """The same by hand, of small lists."""
    if people is None:
        return [(each.recipient, each.mark, each.code) for each in kept]
    rows, taken = [], set[int]()
    forms = Counter(comparable(name) for name in dict.fromkeys(people))
    for name in dict.fromkeys(people):
        form = comparable(name)
        exact = [n for n, each in enumerate(kept) if each.recipient == name]
        alike = [n for n, each in enumerate(kept) if comparable(each.recipient) == form]
        found = exact if len(exact) == 1 else alike if len(alike) == 1 == forms[form] else []
        if found:
            taken.add(found[0])
            rows.append((name, kept[found[0]].mark, kept[found[0]].code))
        else:
            rows.append((name, Mark.UNRESOLVED if alike else Mark.NOT_ASKED, None))
    rest = [each for n, each in enumerate(kept) if n not in taken]
    return rows + [(each.recipient, each.mark, each.code) for each in rest]


@given(entries(), PEOPLE, LISTINGS)
def test_join_is_what_one_would_do_by_hand(kept, people, listed):
    """Each person has the one thing that was asked for them; each other entry follows, once."""
    rows, strangers, again = joined(kept, people, listed)
    assert [(row.kept.recipient, row.kept.mark, row.kept.code) for row in rows] == expected(
        kept, people
    )
    assert again == (0 if people is None else len(people) - len(set(people)))
    last = {each.code: each for each in listed}
    for row in rows:
        assert row.listed == last.get(row.kept.code or "")
        holders = sum(each.mark is Mark.ISSUED and each.code == row.kept.code for each in kept)
        assert row.holders == min(holders, 2)
    ours = {each.code for each in kept}
    assert strangers == {code for code, each in last.items() if each.was_issued} - ours


@given(entries(), PEOPLE, LISTINGS)
def test_nobody_who_may_have_a_voucher_is_asked_for_again(kept, people, listed):
    """Neither those who are held, nor who has a code, nor who may be one of several."""
    rows, _, _ = joined(kept, people, listed)
    for row in rows:
        if row.standing in RESENT:
            assert row.kept.mark in (Mark.FAILED, Mark.NOT_ASKED)
            assert row.kept.code is None
        assert (row.standing in WITH_CODE) == (row.kept.mark is Mark.ISSUED)


def test_two_spellings_of_one_name():
    """One that is the only one alike is theirs; of several, none is, and the person is held."""
    kept = [Kept(recipient="José", mark=Mark.ISSUED, code="c1")]
    (row,), _, _ = joined(kept, ["Jose\u0301"], [])
    assert (row.kept.recipient, row.kept.code, row.place) == ("Jose\u0301", "c1", 0)
    kept.append(Kept(recipient="José\u200b", mark=Mark.FAILED))
    first, *rest = joined(kept, ["Jose\u0301"], [])[0]
    assert (first.kept.mark, first.kept.error, first.kept.code) == (Mark.UNRESOLVED, UNCLEAR, None)
    assert [row.place for row in rest] == [None, None]


LISTED = Listed(code="c", status="ISSUED")
ISSUED = Kept(recipient="a", mark=Mark.ISSUED, code="c")


@pytest.mark.parametrize(
    ("mark", "listed", "standing"),
    [
        (Mark.ISSUED, LISTED, Standing.SERVED),
        (Mark.ISSUED, attrs.evolve(LISTED, status="REDEEMED"), Standing.REDEEMED),
        (Mark.ISSUED, attrs.evolve(LISTED, status="REDEEMED", used_at=1), Standing.REDEEMED),
        (Mark.ISSUED, attrs.evolve(LISTED, status="VOID", used_at=1), Standing.USED),
        (Mark.ISSUED, attrs.evolve(LISTED, status="VOID"), Standing.VOID),
        (Mark.ISSUED, attrs.evolve(LISTED, status="EXPIRED"), Standing.EXPIRED),
        (Mark.ISSUED, attrs.evolve(LISTED, status="VALID"), Standing.OTHER),
        (Mark.ISSUED, attrs.evolve(LISTED, status="MARKET_PLACE"), Standing.OTHER),
        (Mark.ISSUED, attrs.evolve(LISTED, status=None), Standing.OTHER),
        (Mark.ISSUED, None, Standing.UNLISTED),
        (Mark.UNRESOLVED, None, Standing.HELD),
        (Mark.UNKEPT, LISTED, Standing.HELD),
        (Mark.FAILED, None, Standing.REFUSED),
        (Mark.GIVEN_UP, None, Standing.GIVEN_UP),
        (Mark.NOT_ASKED, None, Standing.NEVER_ASKED),
    ],
)
def test_standing(mark, listed, standing):
    """What our side says and what RM lists give one word."""
    assert standing_of(attrs.evolve(ISSUED, mark=mark), listed) is standing


@pytest.mark.parametrize(
    ("listed", "holders", "found"),
    [
        (LISTED, 1, []),
        (None, 1, [Difference.UNLISTED]),
        (attrs.evolve(LISTED, status="VALID"), 1, [Difference.STATUS]),
        (LISTED, 2, [Difference.TWICE]),
        (None, 2, [Difference.UNLISTED, Difference.TWICE]),
    ],
)
def test_differences(listed, holders, found):
    """A code of ours is listed, as one that was issued, and has one holder."""
    assert list(difference_of(ISSUED, listed, holders=holders)) == found
    held = attrs.evolve(ISSUED, mark=Mark.UNKEPT)
    assert list(difference_of(held, listed, holders=holders)) == []


def test_disk_that_is_full():
    """A join that can't be written says so, and names the way out."""
    with Join() as join:
        join._database.execute("PRAGMA max_page_count=20")
        many = ((Kept(recipient=f"person {n}", mark=Mark.FAILED), n) for n in range(10_000))
        with pytest.raises(ConfigurationError, match=r"is its disk full.*TMPDIR"):
            join.add_entries(many)


def test_reprs_hide_codes():
    """Neither a code nor its URL is in a repr."""
    kept = Kept(recipient="a", mark=Mark.ISSUED, code="SECRETCODE", qr_url="https://SECRETCODE")
    listed = Listed(code="SECRETCODE", status="VOID", qr_url="https://SECRETCODE")
    assert "RETCODE" not in repr(Row(kept, listed, None, 1))


def steps(kept: list[Kept], people: list[str]) -> int:
    """Return how much work the database has with two lists."""
    done = 0

    def step() -> None:
        nonlocal done
        done += 1

    with Join() as join:
        join._database.set_progress_handler(step, 100)
        join.add_entries((each, n) for n, each in enumerate(kept))
        join.add_people((name, n) for n, name in enumerate(people))
        join.match()
        join.overlap()
        assert len(list(join.rows())) >= len(kept)
    return done


@pytest.mark.parametrize(
    ("recipient", "code", "person"),
    [("r{}", "static", "r{}"), ("", "c{}", "r{}"), ("r" + "\u200b" * 9, "c", "r{}")],
    ids=["code", "recipient", "form"],
)
def test_work_does_not_grow_faster_than_the_list(recipient, code, person):
    """However many rows share a code, a recipient, or how that one looks."""

    def work(count: int) -> int:
        kept = [
            Kept(recipient=recipient.format(n), mark=Mark.ISSUED, code=code.format(n))
            for n in range(count)
        ]
        return steps(kept, [person.format(n) for n in range(count)])

    assert work(2_000) < 6 * work(500)


def test_spellings_of_one_name_in_thousands():
    """Nor where each row writes the name in another way."""

    def work(count: int) -> int:
        names = ["r" + "\u200b" * n for n in range(count)]
        return steps([Kept(recipient=name, mark=Mark.FAILED) for name in names], names[::-1])

    assert work(400) < 6 * work(100)


@given(entries(), PEOPLE)
def test_overlap(kept, people):
    """How many of the people were asked for, in whatever spelling."""
    with Join() as join:
        join.add_entries((each, n) for n, each in enumerate(kept))
        join.add_people((name, n) for n, name in enumerate(people or ()))
        join.match()
        found = join.overlap()
    held = {Mark.ISSUED, Mark.UNRESOLVED, Mark.UNKEPT}
    forms = {comparable(each.recipient) for each in kept}
    assert found.held == sum(each.mark in held for each in kept)
    assert found.people == len(set(people or ()))
    assert found.found == sum(comparable(name) in forms for name in set(people or ()))


@pytest.mark.parametrize(
    ("held", "people", "found", "is_odd"),
    [
        (0, 100, 0, False),
        (100, 0, 0, False),
        (100, 100, 0, True),
        (1, 100, 0, True),
        (1, 100, 1, False),
        (100, 5_000, 10, False),
        (100, 5_000, 9, True),
        (5_000, 20, 2, False),
    ],
)
def test_lists_that_may_be_of_others(held, people, found, is_odd):
    """By the shorter one: a run may have just begun, and a list may be of a few late people."""
    assert Overlap(held, people, found).is_odd is is_odd
