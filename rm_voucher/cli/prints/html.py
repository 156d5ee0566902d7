"""A sheet as one file of HTML that a browser prints: it brings all but the fonts."""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Sequence
from html import escape

from rm_voucher.cli.prints.layout import (
    HEIGHT_MM,
    LINE,
    WIDTH_MM,
    Box,
    Fit,
    Grid,
    Lines,
    Style,
)
from rm_voucher.cli.prints.sheet import Design, Sheet
from rm_voucher.cli.prints.source import Slip
from rm_voucher.qr import svg_of

# A browser's font is not known: letters are taken for somewhat wider than most.
_RESERVE = 1.06
_CODE = 0.605
_WIDTHS = {
    0.3: " .,:;!|'`ijlItfr()[]/-",
    0.58: "0123456789",
    0.94: "mwMW@%",
}
_BY_CHAR = {char: width for width, chars in _WIDTHS.items() for char in chars}

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="robots" content="noindex">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>
@page {{ size: A4; margin: 0 }}
* {{ box-sizing: border-box; margin: 0; padding: 0 }}
body {{ background: #ddd; color: #000; font-family: "Noto Sans", "Segoe UI", Roboto,
 "Helvetica Neue", Arial, "Noto Sans Tamil", "Nirmala UI", "Noto Sans CJK SC", "PingFang SC",
 "Microsoft YaHei", sans-serif; line-height: {line} }}
.page {{ position: relative; width: {width}mm; height: {height}mm; margin: 4mm auto;
 background: #fff; overflow: hidden; break-after: page }}
.page:last-of-type {{ break-after: auto }}
.marks {{ position: absolute; inset: 0; width: 100%; height: 100%; stroke: #000;
 stroke-width: .15 }}
h1, footer {{ position: absolute; text-align: center; white-space: nowrap; overflow: hidden;
 text-overflow: ellipsis }}
h1 {{ {title_place}; font-size: 4.5mm }}
footer {{ {footer_place}; font-size: 2.6mm; color: #5a5a5a }}
.card, .qr, .logo, .texts {{ position: absolute }}
.card {{ overflow: hidden; break-inside: avoid; list-style: none }}
.qr svg {{ display: block; width: 100%; height: 100%; shape-rendering: crispEdges }}
.texts {{ overflow: hidden; text-align: {align} }}
.texts p {{ overflow-wrap: anywhere }}
.bold {{ font-weight: 700 }}
.code {{ font-family: "DejaVu Sans Mono", "Noto Sans Mono", Consolas, Menlo, monospace }}
.grey {{ color: #5a5a5a }}
{places}
@media print {{ body {{ background: none }} .page {{ margin: 0 }} }}
</style>
</head>
<body>
<svg width="0" height="0" style="position:absolute" aria-hidden="true">{symbols}</svg>
"""


class HtmlSheet(Sheet):
    """A sheet that becomes HTML: without a script, and nothing in it is fetched."""

    def __init__(self, design: Design) -> None:
        self._design = design
        self._boxes = design.grid.parts(design.grid.card(0), has_logo=design.logo is not None)
        self._fit = Fit.of(design.sample, self._boxes[1], _measure)
        self._parts = [self._head()]

    def add_page(self, slips: Sequence[Slip], footer: str) -> None:
        """Draw a page, with as many cards as there are slips."""
        add, design = self._parts.append, self._design
        add('<section class="page">\n')
        if design.has_marks:
            add('<svg class="marks" aria-hidden="true"><use href="#marks"/></svg>\n')
        if design.title:
            add(f"<h1>{escape(design.title)}</h1>\n")
        for number, slip in enumerate(slips):
            add(self._card(number, slip))
        add(f"<footer>{escape(footer)}</footer>\n</section>\n")

    def _card(self, number: int, slip: Slip) -> str:
        design = self._design
        indent, texts = self._fit.lines(design.texts(slip))
        logo = '<svg class="logo"><use href="#logo"/></svg>' if design.logo else ""
        words = "".join(map(_paragraph, texts))
        return (
            f'<article class="card c{number}"><div class="qr">{svg_of(slip.qr_url)}</div>{logo}'
            f'<div class="texts" style="padding-top:{indent:.2f}mm">{words}</div></article>\n'
        )

    def finish(self) -> bytes:
        """Return the document."""
        return "".join([*self._parts, "</body>\n</html>\n"]).encode(errors="replace")

    def _head(self) -> str:
        design = self._design
        return _HEAD.format(
            title=escape(design.title or design.words.label or "Vouchers"),
            line=LINE,
            width=WIDTH_MM,
            height=HEIGHT_MM,
            title_place=_place(design.grid.title),
            footer_place=_place(design.grid.footer),
            align="left" if design.grid.is_beside else "center",
            places=self._places(design.grid),
            symbols=self._symbols(),
        )

    def _places(self, grid: Grid) -> str:
        card = grid.card(0)
        logo, texts = self._boxes
        inside = {".qr": grid.qr(card), ".texts": texts, ".logo": logo}
        rules = [f".c{number} {{ {_place(grid.card(number))} }}" for number in range(grid.cards)]
        for name, box in inside.items():
            if box is not None:
                inner = Box(box.x - card.x, box.y - card.y, box.width, box.height)
                rules.append(f"{name} {{ {_place(inner)} }}")
        return "\n".join(rules)

    def _symbols(self) -> str:
        design, symbols = self._design, ""
        if design.has_marks:
            lines = "".join(
                f'<line x1="{a:.2f}" y1="{b:.2f}" x2="{c:.2f}" y2="{d:.2f}"/>'
                for a, b, c, d in design.grid.marks()
            )
            symbols += (
                f'<symbol id="marks" viewBox="0 0 {WIDTH_MM:g} {HEIGHT_MM:g}">{lines}</symbol>'
            )
        if design.logo is not None and (box := self._boxes[0]) is not None:
            data = base64.b64encode(design.logo.content).decode()
            where = "xMinYMid" if design.grid.is_beside else "xMidYMid"
            symbols += (
                f'<symbol id="logo" viewBox="0 0 {box.width:.2f} {box.height:.2f}">'
                f'<image width="{box.width:.2f}" height="{box.height:.2f}" '
                f'preserveAspectRatio="{where} meet" '
                f'href="data:{design.logo.kind};base64,{data}"/></symbol>'
            )
        return symbols


def _place(box: Box) -> str:
    return (
        f"left: {box.x:.3f}mm; top: {box.y:.3f}mm; "
        f"width: {box.width:.3f}mm; height: {box.height:.3f}mm"
    )


def _paragraph(lines: Lines) -> str:
    classes: list[str] = [lines.text.style] if lines.text.style != "text" else []
    if lines.text.is_grey:
        classes.append("grey")
    named = f' class="{" ".join(classes)}"' if classes else ""
    text = "<br>".join(map(escape, lines.lines))
    return f'<p dir="auto"{named} style="font-size:{lines.size_mm:.2f}mm">{text}</p>'


def _measure(text: str, style: Style) -> float:
    if style == "code":
        return len(text) * _CODE * _RESERVE
    width = sum(map(_width, text)) * _RESERVE
    return width * 1.07 if style == "bold" else width


def _width(char: str) -> float:
    if (known := _BY_CHAR.get(char)) is not None:
        return known
    if unicodedata.category(char) in {"Mn", "Me", "Cf"}:
        return 0.0
    if unicodedata.east_asian_width(char) in "WF":
        return 1.0
    if ord(char) > 0x590:  # beyond Latin, Greek and Cyrillic
        return 0.9
    return 0.66 if char.isupper() else 0.57
