"""Where everything stands on a sheet of A4: cards, their QR codes and texts, cut marks. Pure.

Lengths are millimetres; a point is given from the sheet's upper left corner.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import attrs

from rm_voucher.exceptions import ConfigurationError

WIDTH_MM, HEIGHT_MM = 210.0, 297.0
SIDE_MM = 10.0
"""The margin at the left and the right, and at the top without a title."""
TITLE_MM = 8.0
MARK_MM = 4.0
"""How long a cut mark is."""
NARROWED = 0.66
"""A text that is too long for its line is drawn so much smaller before it is broken."""
LINE = 1.28
"""The height of a line, as a multiple of its letters' size."""
_PADDING_MM = 2.5
_LEAST_MODULE_MM = 0.33
"""What a telephone reads from paper at arm's length."""
_LARGEST, _SMALLEST, _STEP = 1.8, 0.35, 0.95
_WORD = re.compile(r"[^\s@/_.-]*[\s@/_.-]+|[^\s@/_.-]+")  # an address breaks after its marks
_GRID = re.compile(r"(\d{1,2})\s*[xX×*]\s*(\d{1,2})")

Style = Literal["text", "bold", "code"]
Measure = Callable[[str, Style], float]
"""The width of a text, as a multiple of its letters' size."""


@attrs.frozen
class Box:
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float


@attrs.frozen
class Text:
    """A text of a card. ``size_mm`` is that of its letters at the card's usual scale."""

    text: str
    size_mm: float
    style: Style = "text"
    most_lines: int = 2
    """What does not fit into so many ends in ``…``; 0 is for what may not be cut."""
    is_grey: bool = False


@attrs.frozen
class Lines:
    """A text in lines that fit, with its letters' size."""

    text: Text
    size_mm: float
    lines: tuple[str, ...]

    @property
    def height(self) -> float:
        """How high its lines are together."""
        return len(self.lines) * self.size_mm * LINE


@attrs.frozen(kw_only=True)
class Grid:
    """The cards of a page: how many beside and below each other. A title takes room."""

    columns: int
    rows: int
    has_title: bool = False

    @property
    def cards(self) -> int:
        """How many cards a page has."""
        return self.columns * self.rows

    @property
    def inner(self) -> Box:
        """The cards' part of the page."""
        top = SIDE_MM + TITLE_MM * self.has_title
        bottom = SIDE_MM + TITLE_MM
        return Box(SIDE_MM, top, WIDTH_MM - 2 * SIDE_MM, HEIGHT_MM - top - bottom)

    def card(self, number: int) -> Box:
        """Return where a card of a page is; the first has the number 0."""
        row, column = divmod(number, self.columns)
        inner = self.inner
        width, height = inner.width / self.columns, inner.height / self.rows
        return Box(inner.x + column * width, inner.y + row * height, width, height)

    def marks(self) -> Iterator[tuple[float, float, float, float]]:
        """Iterate over the cut marks, as lines from a point to another one.

        They stand in the margin, at the end of each cut.
        """
        inner = self.inner
        for column in range(self.columns + 1):
            x = inner.x + column * inner.width / self.columns
            for y in (inner.y - MARK_MM - 1, inner.y + inner.height + 1):
                yield x, y, x, y + MARK_MM
        for row in range(self.rows + 1):
            y = inner.y + row * inner.height / self.rows
            for x in (inner.x - MARK_MM - 1, inner.x + inner.width + 1):
                yield x, y, x + MARK_MM, y

    @property
    def title(self) -> Box:
        """Where the page's title is."""
        return Box(SIDE_MM, SIDE_MM / 2, WIDTH_MM - 2 * SIDE_MM, TITLE_MM - 1)

    @property
    def footer(self) -> Box:
        """Where the page's footer is."""
        return Box(SIDE_MM, HEIGHT_MM - SIDE_MM - 1.5, WIDTH_MM - 2 * SIDE_MM, TITLE_MM / 2)

    @property
    def is_beside(self) -> bool:
        """Whether a card has its texts beside its QR code, and not below."""
        card = self.card(0)
        return card.width >= 1.25 * card.height

    def qr(self, card: Box) -> Box:
        """Return where a card's QR code is, with its white margin."""
        width, height = card.width - 2 * _PADDING_MM, card.height - 2 * _PADDING_MM
        if self.is_beside:
            side = min(height, 0.48 * width)
            return Box(card.x + _PADDING_MM, card.y + (card.height - side) / 2, side, side)
        side = min(width, 0.52 * height)
        return Box(card.x + (card.width - side) / 2, card.y + _PADDING_MM, side, side)

    def texts(self, card: Box) -> Box:
        """Return where a card's texts are."""
        qr = self.qr(card)
        if self.is_beside:
            x = qr.x + qr.width + _PADDING_MM / 2
            return Box(
                x,
                card.y + _PADDING_MM,
                card.x + card.width - _PADDING_MM - x,
                card.height - 2 * _PADDING_MM,
            )
        y = qr.y + qr.height + _PADDING_MM / 2
        return Box(
            card.x + _PADDING_MM,
            y,
            card.width - 2 * _PADDING_MM,
            card.y + card.height - _PADDING_MM - y,
        )

    def parts(self, card: Box, *, has_logo: bool) -> tuple[Box | None, Box]:
        """Return where a card's logo is, and where its texts are."""
        texts = self.texts(card)
        if not has_logo:
            return None, texts
        high = texts.height * 0.24
        below = Box(texts.x, texts.y + high * 1.15, texts.width, texts.height - high * 1.15)
        return Box(texts.x, texts.y, texts.width, high), below

    def refuse_small(self, modules: int) -> None:
        """Raise `ConfigurationError` if a QR code of so many modules can't be read from paper.

        They are counted along a side, with the margin.
        """
        side = self.qr(self.card(0)).width
        if side < modules * _LEAST_MODULE_MM:
            raise ConfigurationError(
                f"--grid {self.columns}x{self.rows} leaves {max(side, 0):.0f} mm to a QR code, and "
                f"these need {modules * _LEAST_MODULE_MM:.0f} mm for a telephone to read them: "
                "take fewer cards a page."
            )


def parse_grid(text: str, *, has_title: bool) -> Grid:
    """Return the grid that is written like ``3x8``. Raises `ConfigurationError`."""
    match = _GRID.fullmatch(text.strip())
    columns, rows = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (columns and rows):
        raise ConfigurationError(f"--grid {text!r}: write columns x rows, like 3x8.")
    return Grid(columns=columns, rows=rows, has_title=has_title)


@attrs.frozen
class Fit:
    """How the texts of all cards stand in their box: alike, but where one is unusually long."""

    box: Box
    measure: Measure
    scale: float
    indent_mm: float
    """How far below the box's top the first text stands."""

    @classmethod
    def of(cls, sample: Sequence[Text], box: Box, measure: Measure) -> Fit:
        """Return it for cards like a sample, as large as they can be within reason."""
        scale, lines = _fitted(sample, box, measure, _LARGEST)
        return cls(box, measure, scale, max(0.0, box.height - _height(lines)) / 2)

    def lines(self, texts: Sequence[Text]) -> tuple[float, tuple[Lines, ...]]:
        """Return how far below the top a card's texts begin, and their lines."""
        _, lines = _fitted(texts, self.box, self.measure, self.scale)
        return max(0.0, min(self.indent_mm, self.box.height - _height(lines))), lines


def _fitted(
    texts: Sequence[Text], box: Box, measure: Measure, scale: float
) -> tuple[float, tuple[Lines, ...]]:
    while True:
        fitted = tuple(_lines(text, text.size_mm * scale, box.width, measure) for text in texts)
        if _height(fitted) <= box.height + 0.001 or scale < _SMALLEST:
            return scale, fitted
        scale *= _STEP


def _height(lines: Sequence[Lines]) -> float:
    return sum(each.height for each in lines)


def _lines(text: Text, size: float, width: float, measure: Measure) -> Lines:
    """Return a text in lines; first its letters become up to a third smaller."""
    wide = measure(text.text, text.style) * size
    if wide > width:
        size = max(size * width / wide, size * NARROWED)
    room = width / size * 1.0001
    lines = list(_wrapped(text.text, text.style, room, measure))
    if text.most_lines and len(lines) > text.most_lines:
        last = lines[text.most_lines - 1]
        while last and measure(f"{last}…", text.style) > room:
            last = last[: -len(_clusters(last)[-1])]
        lines[text.most_lines - 1 :] = [f"{last.rstrip()}…"]
    return Lines(text, size, tuple(lines))


def _wrapped(text: str, style: Style, room: float, measure: Measure) -> Iterator[str]:
    """Iterate over the lines of a text, broken between words where that is possible."""
    line = ""
    for word in _WORD.findall(text):
        if measure((line + word).rstrip(), style) <= room:
            line += word
            continue
        if line:
            yield line.rstrip()
        line = ""
        for cluster in _clusters(word):
            if line and measure((line + cluster).rstrip(), style) > room:
                yield line
                line = ""
            line += cluster
    if line.strip():
        yield line.rstrip()


def _clusters(text: str) -> list[str]:
    """Return what is not broken: a character with the marks and joiners that belong to it."""
    clusters: list[str] = []
    for char in text:
        joins = unicodedata.category(char)[0] == "M" or char == "\u200d"
        if clusters and (joins or clusters[-1].endswith("\u200d")):
            clusters[-1] += char
        else:
            clusters.append(char)
    return clusters
