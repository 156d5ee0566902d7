"""Reads what was drawn, as a telephone or a reader of PDFs does."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pypdfium2  # type: ignore[import-untyped] # it has no types
import zxingcpp
from PIL import Image

_DPI = 144


def codes_in(picture: Image.Image) -> list[str]:
    """Return what the QR codes of a picture say. At times zxing sees bars in their modules, too."""
    found = zxingcpp.read_barcodes(picture.convert("L"))
    return [code.text for code in found if code.format == zxingcpp.BarcodeFormat.QRCode]


def codes_in_png(content: bytes) -> list[str]:
    return codes_in(Image.open(io.BytesIO(content)))


def codes_in_svg(text: str) -> list[str]:
    """Return likewise what an SVG of segno's says, whose dark modules are lines of height 1."""
    (side,) = re.findall(r'viewBox="0 0 ([\d.]+) \1"', text)
    side = int(float(side))
    (path,) = re.findall(r'class="qrline"[^>]* d="([^"]+)"', text)
    picture = Image.new("L", (side, side), 255)
    x = y = 0.0
    for kind, first, second in re.findall(r"([Mmh])(-?[\d.]+)(?: (-?[\d.]+))?", path):
        if kind == "h":
            for column in range(int(first)):
                picture.putpixel((int(x) + column, int(y)), 0)
            x += float(first)
        elif kind == "M":
            x, y = float(first), float(second)
        else:
            x, y = x + float(first), y + float(second)
    return codes_in(picture.resize((side * 4, side * 4), Image.Resampling.NEAREST))


class Pdf:
    """A PDF, with the text and the picture of each page."""

    def __init__(self, path: Path) -> None:
        self._document: Any = pypdfium2.PdfDocument(path.read_bytes())

    def __len__(self) -> int:
        return len(self._document)

    def texts(self) -> list[str]:
        return [page.get_textpage().get_text_range() for page in self._document]

    def pictures(self) -> Iterator[Image.Image]:
        for page in self._document:
            yield page.render(scale=_DPI / 72).to_pil()

    def sizes_mm(self) -> set[tuple[int, int]]:
        return {
            (round(page.get_width() * 25.4 / 72), round(page.get_height() * 25.4 / 72))
            for page in self._document
        }
