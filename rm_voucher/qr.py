"""QR codes: the modules of one, and its picture. It needs segno, of the extra ``cli``."""

from __future__ import annotations

import io
from typing import Literal

from rm_voucher.extras import extra

with extra("cli", __name__):
    import segno


Format = Literal["png", "svg"]
QUIET_MODULES = 4
"""The white margin that a reader needs, as the standard has it."""


def modules_of(text: str) -> tuple[bytearray, ...]:
    """Return the rows of a QR code without its margin; 1 is dark."""
    return _encoded(text).matrix


def svg_of(text: str) -> str:
    """Return a QR code as an element of HTML, with its margin, as large as its place."""
    return _encoded(text).svg_inline(border=QUIET_MODULES, omitsize=True, light="#fff")


def image_of(text: str, kind: Format, *, scale: int) -> bytes:
    """Return a QR code as a picture, with its margin.

    ``scale`` is how wide a module is: in pixels, and in an SVG in tenths of a millimetre.
    """
    out = io.BytesIO()
    code = _encoded(text)
    if kind == "png":
        code.save(out, kind=kind, scale=scale, border=QUIET_MODULES)
    else:
        code.save(
            out,
            kind=kind,
            scale=scale / 10,
            unit="mm",
            border=QUIET_MODULES,
            light="#fff",
            nl=False,
        )
    return out.getvalue()


def _encoded(text: str) -> segno.QRCode:
    if not text:
        raise ValueError("a QR code of nothing")
    # 15 % of it may be torn or dirty.
    return segno.make(text, error="m", micro=False)
