"""Where everything stands on a sheet."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rm_voucher import ConfigurationError
from rm_voucher.cli.prints.layout import (
    HEIGHT_MM,
    SIDE_MM,
    WIDTH_MM,
    Box,
    Fit,
    Grid,
    Text,
    parse_grid,
)

GRIDS = st.builds(Grid, columns=st.integers(1, 6), rows=st.integers(1, 14), has_title=st.booleans())
BOX = Box(0, 0, 30, 20)


def measure(text: str, _style: str) -> float:
    return len(text) * 0.5


def is_inside(inner: Box, outer: Box) -> bool:
    return (
        inner.x >= outer.x - 1e-6
        and inner.y >= outer.y - 1e-6
        and inner.x + inner.width <= outer.x + outer.width + 1e-6
        and inner.y + inner.height <= outer.y + outer.height + 1e-6
    )


def is_apart(one: Box, other: Box) -> bool:
    return (
        one.x + one.width <= other.x + 1e-6
        or other.x + other.width <= one.x + 1e-6
        or one.y + one.height <= other.y + 1e-6
        or other.y + other.height <= one.y + 1e-6
    )


@given(GRIDS, st.booleans())
def test_nothing_covers_anything(grid: Grid, has_logo: bool) -> None:
    """Cards are within the margins and apart; so are a card's code, logo and texts."""
    page = Box(SIDE_MM, SIDE_MM, WIDTH_MM - 2 * SIDE_MM, HEIGHT_MM - 2 * SIDE_MM)
    cards = [grid.card(number) for number in range(grid.cards)]
    assert all(is_inside(card, page) for card in cards)
    assert all(is_apart(one, other) for one, other in itertools.combinations(cards, 2))
    assert all(
        is_apart(card, box)
        for card in cards
        for box in (grid.title, grid.footer)[not grid.has_title :]
    )
    for card in (cards[0], cards[-1]):
        logo, texts = grid.parts(card, has_logo=has_logo)
        parts = [part for part in (grid.qr(card), logo, texts) if part is not None]
        assert all(is_inside(part, card) for part in parts)
        assert all(is_apart(one, other) for one, other in itertools.combinations(parts, 2))


@given(GRIDS)
def test_cut_marks_stand_in_the_margin(grid: Grid) -> None:
    """A mark at each end of each cut, none on a card, and none outside of what printers print."""
    marks = list(grid.marks())
    assert len(marks) == 2 * (grid.columns + 1) + 2 * (grid.rows + 1)
    cuts = {card.x for card in map(grid.card, range(grid.columns))} | {WIDTH_MM - SIDE_MM}
    assert {round(x1, 6) for x1, _, x2, _ in marks if x1 == x2} == {round(x, 6) for x in cuts}
    for x1, y1, x2, y2 in marks:
        mark = Box(x1, y1, x2 - x1, y2 - y1)
        assert is_apart(mark, grid.inner)
        assert is_inside(mark, Box(4.5, 4.5, WIDTH_MM - 9, HEIGHT_MM - 9))


@pytest.mark.parametrize(
    ("text", "size"), [("3x8", (3, 8)), (" 2 X 4 ", (2, 4)), ("2×5", (2, 5)), ("1x1", (1, 1))]
)
def test_grid(text: str, size: tuple[int, int]) -> None:
    """Columns first, as one says it."""
    grid = parse_grid(text, has_title=False)
    assert (grid.columns, grid.rows) == size


@pytest.mark.parametrize("text", ["", "3", "0x4", "3x0", "-1x2", "3x8x1", "100x1", "a", "3,8"])
def test_no_grid(text: str) -> None:
    """It is a sentence that says how a grid is written."""
    with pytest.raises(ConfigurationError, match="write columns x rows, like 3x8"):
        parse_grid(text, has_title=False)


def test_a_code_that_no_telephone_reads_is_refused() -> None:
    """The sentence says how large it would be, and must be."""
    Grid(columns=3, rows=8).refuse_small(41)
    with pytest.raises(
        ConfigurationError, match=r"--grid 9x24 leaves \d mm to a QR code, and these need 14 mm"
    ):
        Grid(columns=9, rows=24).refuse_small(41)


@given(
    st.lists(
        st.builds(
            Text,
            st.text("ab @த\u0bcd", min_size=1, max_size=80).filter(str.strip),
            st.floats(2, 6),
            st.just("text"),
            st.integers(0, 3),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_texts_fit(texts: list[Text]) -> None:
    """No line is wider than the box; what may not be cut is whole, however long it is."""
    fit = Fit.of(texts, BOX, measure)
    indent, lines = fit.lines(texts)
    assert indent >= 0
    for each in lines:
        assert all(
            measure(line, "text") * each.size_mm <= BOX.width * 1.001 or len(line) < 4
            for line in each.lines
        )
        if each.text.most_lines:
            assert len(each.lines) <= each.text.most_lines
        else:
            assert "".join(each.lines).replace(" ", "") == each.text.text.replace(" ", "")
    height = sum(each.height for each in lines)
    assert height + indent <= BOX.height * 1.01 or lines[0].size_mm < texts[0].size_mm * 0.4


def test_cards_look_alike() -> None:
    """A short name and one in two lines leave the other texts alike, and in their places."""
    words = [Text("Tea", 3), Text("RM 5", 5)]
    fit = Fit.of([*words, Text("M", 1.6), Text("M", 1.6)], BOX, measure)
    short, long = (
        fit.lines([*words, Text(name, 2.4)]) for name in ("Bo", "Nur Aisyah binti Abdullah")
    )
    assert short[0] == long[0]
    assert [each.size_mm for each in short[1][:2]] == [each.size_mm for each in long[1][:2]]


def test_an_address_breaks_after_its_marks() -> None:
    """Not in the middle of a word, if that can be helped."""
    fit = Fit(BOX, measure, 1.0, 0)
    _, (lines,) = fit.lines([Text("somebody.long@shop.example.com", 5, most_lines=3)])
    assert lines.lines == ("somebody.long@", "shop.example.com")
