"""A sheet as PDF, with its fonts in it. QR codes are drawn as lines, sharp at any size."""

from __future__ import annotations

import functools
import io
import logging
from collections.abc import Iterator, Sequence

# fpdf shapes texts with it, and says late if it is not there.
from rm_voucher.cli.prints.fonts import Face, bold_of, fixed_width
from rm_voucher.cli.prints.layout import (
    LINE,
    Box,
    Fit,
    Lines,
    Style,
)
from rm_voucher.cli.prints.sheet import Design, Logo, Sheet
from rm_voucher.cli.prints.source import Slip
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.extras import extra
from rm_voucher.qr import QUIET_MODULES, modules_of

with extra("print", "A PDF"):
    import uharfbuzz  # type: ignore[import-untyped] # noqa: F401 - it has no types
    from fpdf import FPDF, FPDFException
    from fpdf.enums import Align
    from PIL import Image

_POINTS_PER_MM = 72 / 25.4
_MEASURED_PT = 100.0
_MARK_MM = 0.15
_GREY = 90
_SMALL_MM = 2.6
_TITLE_SIZE_MM = 4.5
_LOGO_PIXELS = 800
_MOST_PIXELS = 50_000_000
# Each file's fonts are subset at its end, and what can't be kept of a table is logged.
logging.getLogger("fontTools").setLevel(logging.ERROR)


class PdfSheet(Sheet):
    """A sheet that becomes a PDF. ``faces`` draw its texts, the first one what it can.

    Without any, Latin letters are drawn with the fonts that each reader of PDFs has.
    """

    def __init__(self, design: Design, faces: Sequence[Face]) -> None:
        self._design = design
        self._logo = None if design.logo is None else _picture(design.logo)
        self._pdf = _Document(faces)  # it opens files, and closes them when it is finished
        _, box = design.grid.parts(design.grid.card(0), has_logo=design.logo is not None)
        self._fit = Fit.of(design.sample, box, self._pdf.measured)
        self._pdf.set_title(design.title or design.words.label or "Vouchers")

    def add_page(self, slips: Sequence[Slip], footer: str) -> None:
        """Draw a page, with as many cards as there are slips."""
        pdf, design = self._pdf, self._design
        pdf.add_page()
        pdf.set_line_width(_MARK_MM)
        if design.has_marks:
            for mark in design.grid.marks():
                pdf.line(*mark)
        pdf.draw_line(design.title, design.grid.title, _TITLE_SIZE_MM, "bold")
        pdf.draw_line(footer, design.grid.footer, _SMALL_MM, "text", grey=_GREY)
        for number, slip in enumerate(slips):
            self._draw_card(design.grid.card(number), slip)

    def _draw_card(self, card: Box, slip: Slip) -> None:
        pdf, design = self._pdf, self._design
        pdf.draw_code(modules_of(slip.qr_url), design.grid.qr(card))
        logo_box, box = design.grid.parts(card, has_logo=design.logo is not None)
        align = Align.L if design.grid.is_beside else Align.C
        if logo_box is not None and self._logo is not None:
            pdf.draw_logo(self._logo, logo_box, align)
        indent, texts = self._fit.lines(design.texts(slip))
        pdf.draw_texts(texts, Box(box.x, box.y + indent, box.width, box.height), align)

    def finish(self) -> bytes:
        """Return the document."""
        return bytes(self._pdf.output())


class _Document(FPDF):
    """A page of A4 on which boxes are filled."""

    def __init__(self, faces: Sequence[Face]) -> None:
        super().__init__(unit="mm", format="A4")
        self.set_auto_page_break(auto=False)
        self.set_margin(0)
        self.c_margin = 0
        self.core_fonts_encoding = "cp1252"
        self.set_creator("rm-voucher")
        self.render_color_fonts = False  # no more than 255 of their signs would be allowed
        self._has_fonts = bool(faces)
        names = [f"f{number}" for number, _ in enumerate(faces)]
        for name, face in zip(names, faces, strict=True):
            self._add(name, face)
            if (bold := bold_of(face)) is not None:
                self._add(name, bold, "B")
        self._family = names[0] if names else "helvetica"
        self._bold = "B" if not names or f"{names[0]}B" in self.fonts else ""
        self._code = "courier"
        if (fixed := fixed_width()) is not None:
            self._add("fixed", fixed)
            self._code = "fixed"
        if names:
            self.set_fallback_fonts(names, exact_match=False)
            self.set_text_shaping(use_shaping_engine=True)
        self.measured = functools.lru_cache(maxsize=50_000)(self._measure)

    def _add(self, name: str, face: Face, style: str = "") -> None:
        try:
            self.add_font(name, style, face.path, collection_font_number=face.number)
        except (FPDFException, ValueError, KeyError) as exc:
            raise ConfigurationError(f"{face.path} can't be put into a PDF: {exc}.") from exc

    def _set(self, style: Style, size_mm: float) -> None:
        family = self._code if style == "code" else self._family
        self.set_font(family, self._bold if style == "bold" else "", size_mm * _POINTS_PER_MM)

    def _measure(self, text: str, style: Style) -> float:
        size_mm = _MEASURED_PT / _POINTS_PER_MM
        self._set(style, size_mm)
        return self.get_string_width(text) / size_mm

    def draw_line(self, text: str, box: Box, size_mm: float, style: Style, grey: int = 0) -> None:
        """Draw a text in the middle of a box, smaller if it is too long."""
        if not text:
            return
        size_mm *= min(1.0, box.width / (self.measured(text, style) * size_mm))
        self._set(style, size_mm)
        self.set_text_color(grey)
        self.set_xy(box.x, box.y)
        self.cell(box.width, box.height, text, align=Align.C)

    def draw_texts(self, texts: Sequence[Lines], box: Box, align: Align) -> None:
        """Draw texts below each other, from a box's top."""
        y = box.y
        for each in texts:
            self._set(each.text.style, each.size_mm)
            self.set_text_color(_GREY if each.text.is_grey else 0)
            for line in each.lines:
                self.set_xy(box.x, y)
                self.cell(box.width, each.size_mm * LINE, line, align=align)
                y += each.size_mm * LINE

    def draw_logo(self, logo: Image.Image, box: Box, align: Align) -> None:
        """Draw a logo as large as its box allows."""
        width = min(box.width, box.height * logo.width / logo.height)
        height = width * logo.height / logo.width
        x = box.x if align is Align.L else box.x + (box.width - width) / 2
        self.image(logo, x, box.y + (box.height - height) / 2, width, height)

    def draw_code(self, modules: Sequence[Sequence[int]], box: Box) -> None:
        """Draw a QR code and leave its margin white.

        As one path: between areas that are filled one by one, readers of PDFs show hairlines.
        """
        module = box.width / (len(modules) + 2 * QUIET_MODULES) * _POINTS_PER_MM
        x = box.x * _POINTS_PER_MM + QUIET_MODULES * module
        y = self.h_pt - box.y * _POINTS_PER_MM - QUIET_MODULES * module
        areas = " ".join(f"{left} {top} {wide} 1 re" for left, top, wide in _dark(modules))
        self._out(f"q 0 g {module:.5f} 0 0 {-module:.5f} {x:.3f} {y:.3f} cm {areas} f Q")


def _picture(logo: Logo) -> Image.Image:
    """Return a logo with as many pixels as paper shows. Raises `ConfigurationError`."""
    try:
        with Image.open(io.BytesIO(logo.content), formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                raise ConfigurationError("The logo has too many pixels: make it smaller.")
            picture.thumbnail((_LOGO_PIXELS, _LOGO_PIXELS))
            return picture.copy()
    except (OSError, SyntaxError, ValueError) as exc:
        raise ConfigurationError(f"The logo can't be read: {exc}.") from exc


def _dark(modules: Sequence[Sequence[int]]) -> Iterator[tuple[int, int, int]]:
    """Iterate over the dark modules that stand beside each other: x, y and how many."""
    for top, row in enumerate(modules):
        begin = None
        for left, is_dark in enumerate((*row, 0)):
            if is_dark and begin is None:
                begin = left
            elif not is_dark and begin is not None:
                yield begin, top, left - begin
                begin = None
