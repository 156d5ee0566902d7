"""What a sheet is, however it is drawn: its cards, its texts, its logo."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from rm_voucher.cli.prints.layout import NARROWED, Grid, Text
from rm_voucher.cli.prints.source import Slip
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.files import open_plain
from rm_voucher.text import printable
from rm_voucher.worth import Words

_NAME_MM = 2.4
_JOINERS = "\u200c\u200d"
_MAX_LOGO_BYTES = 5_000_000
_KINDS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


@attrs.frozen
class Logo:
    """A picture that stands on each card."""

    kind: str
    """Its MIME type."""
    content: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Design:
    """What all pages of a sheet have in common."""

    grid: Grid
    words: Words
    title: str = ""
    footer: str = ""
    logo: Logo | None = None
    has_marks: bool = True
    has_recipient: bool = True

    longest_code: str = attrs.field(default="", repr=False)

    def texts(self, slip: Slip) -> tuple[Text, ...]:
        """Return the texts of a card, from its top to its bottom."""
        name = drawable(slip.recipient)
        return (*self._words(slip.code), *([Text(name, _NAME_MM, is_grey=True)] if name else ()))

    @property
    def sample(self) -> tuple[Text, ...]:
        """The texts of a card that most others fit into: a name in two lines, somewhat smaller."""
        name = Text("M", _NAME_MM * NARROWED) if self.has_recipient else None
        return (*self._words(self.longest_code), *((name, name) if name else ()))

    def _words(self, code: str) -> Iterator[Text]:
        words = self.words
        for text in (
            Text(words.label, 3.2, "bold"),
            Text(words.worth, 4.6, "bold"),
            Text(printable(code), 3.4, "code", most_lines=0),
            Text(words.terms, 2.4),
            Text(words.expiry, 2.4),
        ):
            if text.text.strip():
                yield text

    def footer_of(self, page: int, pages: int) -> str:
        """Return what stands at the foot of a page."""
        number = f"Page {page:,} of {pages:,}"
        return f"{self.footer} · {number}" if self.footer else number


def drawable(text: str) -> str:
    """Return a text as it may be drawn: on one line, without what nobody sees.

    Joiners stay, by which a font shapes some scripts.
    """
    seen = (" " if char.isspace() else char for char in text)
    return "".join(char for char in seen if char.isprintable() or char in _JOINERS).strip()


class Sheet(ABC):
    """A document that is drawn page by page."""

    @abstractmethod
    def add_page(self, slips: Sequence[Slip], footer: str) -> None:
        """Draw a page, with as many cards as there are slips."""

    @abstractmethod
    def finish(self) -> bytes:
        """Return the document."""


def read_logo(path: Path) -> Logo:
    """Return the logo of a file. Raises `ConfigurationError`."""
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            content = file.read(_MAX_LOGO_BYTES + 1)
    except OSError as exc:
        raise ConfigurationError(f"{path} can't be read: {exc.strerror}.") from exc
    if len(content) > _MAX_LOGO_BYTES:
        raise ConfigurationError(
            f"{path} has more than {_MAX_LOGO_BYTES // 1_000_000} MB: make the logo smaller."
        )
    for start, kind in _KINDS.items():
        if content.startswith(start):
            return Logo(kind, content)
    raise ConfigurationError(f"{path} is neither a PNG nor a JPEG: save the logo as one of them.")
