"""Draws the sheets of an output file, page by page, and writes them: one document or several."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from rm_voucher.cli.prints.sheet import Design, Sheet, drawable
from rm_voucher.cli.prints.source import Results, Slip
from rm_voucher.exceptions import ConfigurationError, VoucherError
from rm_voucher.files import keep_older, replace_private
from rm_voucher.qr import QUIET_MODULES, modules_of
from rm_voucher.text import printable


@attrs.define
class Survey:
    """What a first look at an output file finds."""

    characters: set[str] = attrs.field(factory=set)
    longest_code: str = attrs.field(default="", repr=False)
    longest_url: str = attrs.field(default="", repr=False)

    @property
    def modules(self) -> int:
        """How many modules the largest QR code has along a side, with its margin."""
        return len(modules_of(self.longest_url)) + 2 * QUIET_MODULES


def survey(results: Results) -> Survey:
    """Look at all vouchers."""
    found = Survey()
    for slip in results:
        found.characters.update(printable(slip.code), drawable(slip.recipient))
        if len(slip.code) > len(found.longest_code):
            found.longest_code = slip.code
        if len(slip.qr_url.encode()) > len(found.longest_url.encode()):
            found.longest_url = slip.qr_url
    return found


def write_sheets(
    results: Results,
    design: Design,
    begin: Callable[[], Sheet],
    output: Path,
    *,
    pages: int,
    pages_per_file: int,
    replace: bool,
    done: Callable[[int], None],
) -> list[Path]:
    """Draw all vouchers, and return the documents. ``done`` is told how many are drawn.

    More pages than a document takes become several: ``sheet-1.pdf``, ``sheet-2.pdf``. Raises
    `ConfigurationError` where an older one is there that would be taken for one of these.
    """
    written = []
    drawn, page = 0, 0
    slips = iter(results)
    paths = names(output, -(-pages // pages_per_file))
    _refuse_stale(output, paths)
    for path in paths:
        sheet = begin()
        for cards in itertools.islice(_pages(slips, design.grid.cards), pages_per_file):
            page += 1
            sheet.add_page(cards, design.footer_of(page, pages))
            drawn += len(cards)
            done(drawn)
        _write(path, sheet.finish(), replace=replace)
        written.append(path)
    return written


def names(output: Path, documents: int) -> list[Path]:
    """Return the documents' names."""
    if documents == 1:
        return [output]
    digits = len(str(documents))
    return [
        output.with_name(f"{output.stem}-{number:0{digits}}{output.suffix}")
        for number in range(1, documents + 1)
    ]


def _refuse_stale(output: Path, paths: list[Path]) -> None:
    """Refuse documents of an older run that none of these takes the place of."""
    numbered = re.compile(rf"{re.escape(output.stem)}-0*(\d+){re.escape(output.suffix)}")
    found = {path: numbered.fullmatch(path.name) for path in output.parent.glob("*")}
    # Where one document has no number, those with one are a set only if it begins with the first.
    is_set = len(paths) > 1 or any(match and match[1] == "1" for match in found.values())
    stale = sorted(path for path, match in found.items() if match and path not in paths and is_set)
    if output not in paths and output.exists():
        stale.append(output)
    if stale:
        more = f" and {len(stale) - 1:,} more" if len(stale) > 1 else ""
        raise ConfigurationError(
            f"{stale[0]}{more} would be taken for a part of this, and would stay as it is: remove "
            "it if it is an older run's, or name another --output."
        )


def _pages(slips: Iterator[Slip], cards: int) -> Iterator[list[Slip]]:
    while page := list(itertools.islice(slips, cards)):
        yield page


def _write(path: Path, content: bytes, *, replace: bool) -> None:
    try:
        if path.exists() and not replace:
            keep_older(path)
        replace_private(path, content)
    except OSError as exc:
        raise VoucherError(f"{path} can't be written: {exc.strerror}.") from exc
