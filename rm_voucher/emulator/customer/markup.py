"""HTML of templates. A value is text, whatever is in it, unless it is `Html` already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from importlib.resources import files


class Html(str):
    """Markup that was made here."""

    __slots__ = ()


def fill(template: str, **values: object) -> Html:
    """Put values into the ``{places}`` of a template; text is escaped."""
    return Html(
        template.format_map(
            {
                name: value if isinstance(value, Html) else escape(str(value))
                for name, value in values.items()
            }
        )
    )


def each(template: str, rows: Iterable[Mapping[str, object]]) -> Html:
    """Fill a template for each row, one after the other."""
    return Html("".join(fill(template, **row) for row in rows))


def when(text: str, template: str) -> Html:
    """Put a text into the ``{text}`` of a template; without one, return nothing."""
    return fill(template, text=text) if text else Html()


def read(name: str) -> str:
    """Return a template of this package."""
    return files("rm_voucher.emulator.customer").joinpath(name).read_text()
