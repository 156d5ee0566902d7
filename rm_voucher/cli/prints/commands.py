"""``rm-voucher qr`` and ``rm-voucher sheet``: what customers get of a run's output file."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rm_voucher import ConfigurationError, VoucherError
from rm_voucher.cli.common import RARE, examples
from rm_voucher.cli.options import EnvironmentOption
from rm_voucher.cli.output import refuse_no_file
from rm_voucher.cli.prints.documents import Survey, survey, write_sheets
from rm_voucher.cli.prints.images import Folder
from rm_voucher.cli.prints.layout import parse_grid
from rm_voucher.cli.prints.lookup import find_batch
from rm_voucher.cli.prints.names import Stems
from rm_voucher.cli.prints.sheet import Design, Sheet, drawable, read_logo
from rm_voucher.cli.prints.source import Results, Slip
from rm_voucher.cli.progress import progress
from rm_voucher.cli.screen import note, say
from rm_voucher.cli.tables.columns import name_ours
from rm_voucher.cli.tables.write import open_writer
from rm_voucher.qr import image_of
from rm_voucher.text import counted
from rm_voucher.worth import Words, words_of

_ROW = "row"
_RECIPIENT = "recipient"
_FEW = 5
_NAME_COLUMN = "qr_file"
_ROW_DIGITS = 5, 7

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="An output file of 'rm-voucher issue'.")
]


SharedCodesOption = Annotated[
    bool,
    typer.Option(
        "--shared-codes",
        help="Several rows may have one code, as in a static batch. Without it that is a mistake.",
        rich_help_panel=RARE,
    ),
]


class ImageFormat(StrEnum):
    """The kinds of pictures."""

    PNG = "png"
    SVG = "svg"


@examples(
    "rm-voucher qr vouchers.csv --dir codes/",
    "rm-voucher qr vouchers.csv --dir codes/ --name-by row --format svg",
    "rm-voucher qr vouchers.csv --dir codes/ --output merge.xlsx",
)
def qr(
    file: FileArgument,
    folder: Annotated[Path, typer.Option("--dir", help="The folder that the pictures go to.")],
    image_format: Annotated[
        ImageFormat, typer.Option("--format", help="SVG is sharp at any size.")
    ] = ImageFormat.PNG,
    name_by: Annotated[
        str,
        typer.Option(
            help="What a picture is called: by its 'recipient', by its 'row' as a spreadsheet "
            "numbers them, or by what stands in another column."
        ),
    ] = _RECIPIENT,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write the rows here as well, .csv or .xlsx, with the names of their pictures in "
            "the column 'qr_file': for a mail merge."
        ),
    ] = None,
    scale: Annotated[
        int,
        typer.Option(
            min=1,
            max=100,
            help="How many pixels the smallest square of a code has.",
            rich_help_panel=RARE,
        ),
    ] = 10,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Write over files that have a picture's name."),
    ] = False,
    shared_codes: SharedCodesOption = False,
) -> None:
    """Write a picture of each voucher's QR code.

    Run it again to go on where it was stopped. Only vouchers that may be handed on get one.
    """
    if output is not None:
        refuse_no_file(output)
    with (
        Results(
            file,
            column=None if name_by == _RECIPIENT else name_by,
            option="--name-by",
            has_recipient=name_by != _ROW,
            has_shared_codes=shared_codes,
        ) as results,
        Folder(folder, replace=replace) as pictures,
    ):
        try:
            ended, taken = _draw(
                results,
                pictures,
                lambda slip: image_of(slip.qr_url, image_format.value, scale=scale),
                name_of=_names(name_by, len(results.table), image_format),
                output=output,
            )
        except KeyboardInterrupt:
            say("Interrupted. Run it again to go on: what is drawn stays as it is.")
            raise
        except OSError as exc:
            raise VoucherError(f"{output} can't be written: {exc.strerror}.") from exc
    there = f", {ended['there']:,} of them there already" if ended["there"] else ""
    say(f"{folder}: {counted(ended['new'] + ended['there'], 'QR code')}{there}.")
    _say_left_out(results)
    if taken:
        more = f" and {ended['taken'] - len(taken):,} more" if ended["taken"] > len(taken) else ""
        say(
            f"Not written, because another file has the name: {', '.join(taken)}{more}. Name an "
            "empty folder, or write over them with --replace."
        )
        raise typer.Exit(1)


def _draw(
    results: Results,
    pictures: Folder,
    draw: Callable[[Slip], bytes],
    *,
    name_of: Callable[[Slip], str],
    output: Path | None,
) -> tuple[Counter[str], list[str]]:
    """Write the pictures, and the rows with their names. Return how they ended, and names taken."""
    ended: Counter[str] = Counter()
    taken: list[str] = []
    table = results.table
    with contextlib.ExitStack() as stack:
        writer = None
        if output is not None:
            columns = (*table.header, *name_ours((_NAME_COLUMN,), table.header))
            writer = stack.enter_context(
                open_writer(output, columns, like=table.format, exact={results.code_name})
            )
        shown = stack.enter_context(progress("drawing", results.vouchers))
        for row, slip in results.rows():
            name = ""
            if slip is not None:
                name = name_of(slip)
                how = pictures.add(name, draw(slip))
                ended[how] += 1
                shown.update(ended.total())
                if how == "taken":
                    taken.extend([name] if len(taken) < _FEW else ())
                    name = ""  # it is another's
            if writer is not None:
                writer.add([*row.cells, name])
        pictures.close()  # the table may end in the same folder, and waits for its own moment
    return ended, taken


def _names(name_by: str, rows: int, ending: str) -> Callable[[Slip], str]:
    """Return what names a voucher's picture."""
    if name_by == _ROW:
        # They sort as text, and more rows at the end change nothing.
        digits = _ROW_DIGITS[rows >= 10 ** _ROW_DIGITS[0] - 1]
        return lambda slip: f"{slip.row.line.row:0{digits}}.{ending}"
    stems = Stems()
    return lambda slip: f"{stems.give(slip.recipient, slip.row.line.row)}.{ending}"


@examples(
    "rm-voucher sheet vouchers.csv --output cards.pdf --batch BATCH_KEY",
    "rm-voucher sheet vouchers.csv --output cards.html --label Tea --worth 'RM 5.00' --grid 2x5",
)
def sheet(
    file: FileArgument,
    output: Annotated[
        Path, typer.Option(help="The document to write, .pdf or .html; it is A4, to print.")
    ],
    batch: Annotated[
        str | None,
        typer.Option(
            help="The vouchers' batch: its label, worth and expiry are looked up and printed."
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Print this label, whatever the batch says.")
    ] = None,
    worth: Annotated[
        str | None, typer.Option(help="Print this worth, such as 'RM 5.00'; likewise.")
    ] = None,
    terms: Annotated[
        str | None, typer.Option(help="Print these terms, such as 'Not on Sundays'; likewise.")
    ] = None,
    expiry: Annotated[
        str | None, typer.Option(help="Print this expiry, such as 'Until 31 May'; likewise.")
    ] = None,
    grid: Annotated[
        str, typer.Option(help="How many cards beside and below each other.", metavar="3x8")
    ] = "3x8",
    logo: Annotated[
        Path | None, typer.Option(help="A PNG or JPEG that stands on each card.")
    ] = None,
    title: Annotated[str, typer.Option(help="What stands above each page.")] = "",
    footer: Annotated[
        str, typer.Option(help="What stands below each page, beside its number.")
    ] = "",
    column: Annotated[
        str | None,
        typer.Option(help="The column that says whose a card is. By default the recipients'."),
    ] = None,
    no_recipient: Annotated[
        bool, typer.Option("--no-recipient", help="Don't print whose a card is.")
    ] = False,
    no_cut_marks: Annotated[
        bool, typer.Option("--no-cut-marks", help="Print no cut marks.", rich_help_panel=RARE)
    ] = False,
    font: Annotated[
        list[Path] | None,
        typer.Option(
            help="A font file to print a PDF with, .ttf, .otf or .ttc. Repeatable.",
            rich_help_panel=RARE,
        ),
    ] = None,
    pages_per_file: Annotated[
        int,
        typer.Option(
            min=1, help="Write several documents if there are more pages.", rich_help_panel=RARE
        ),
    ] = 500,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Write over an older document, which else is kept as .1"),
    ] = False,
    shared_codes: SharedCodesOption = False,
    environment: EnvironmentOption = None,
) -> None:
    """Write sheets of A4 to print and cut: a card for each voucher.

    Only vouchers that may be handed on get one. Without --batch nothing is looked up.
    """
    if output.suffix.lower() not in {".pdf", ".html"}:
        raise ConfigurationError(f"{output}: name a file that ends in .pdf or .html.")
    is_pdf = output.suffix.lower() == ".pdf"
    if font and not is_pdf:
        raise ConfigurationError("--font is about a PDF: a browser has its own fonts.")
    refuse_no_file(output)
    if is_pdf:
        _refuse_without_extra()
    cards = parse_grid(grid, has_title=bool(title.strip()))
    picture = None if logo is None else read_logo(logo)
    if column is not None and no_recipient:
        raise ConfigurationError("Give --column or --no-recipient, not both.")
    with Results(
        file, column=column, has_recipient=not no_recipient, has_shared_codes=shared_codes
    ) as results:
        found = survey(results)
        cards.refuse_small(found.modules)
        looked_up = Words() if batch is None else words_of(find_batch(batch, environment))
        design = Design(
            grid=cards,
            words=Words(
                label=looked_up.label if label is None else drawable(label),
                worth=looked_up.worth if worth is None else drawable(worth),
                terms=looked_up.terms if terms is None else drawable(terms),
                expiry=looked_up.expiry if expiry is None else drawable(expiry),
            ),
            title=drawable(title),
            footer=drawable(footer),
            logo=picture,
            longest_code=found.longest_code,
            has_marks=not no_cut_marks,
            has_recipient=not no_recipient,
        )
        pages = -(-results.vouchers // cards.cards)
        begin = _pdf(design, found, font or []) if is_pdf else _html(design)
        with progress("drawing", results.vouchers) as shown:
            written = write_sheets(
                results,
                design,
                begin,
                output,
                pages=pages,
                pages_per_file=pages_per_file,
                replace=replace,
                done=shown.update,
            )
    if design.words == Words():
        note("The cards say no label, worth or expiry: give --batch KEY, or --label and the like.")
    _say_left_out(results)
    last = f" to {written[-1].name}" if len(written) > 1 else ""
    say(f"{written[0]}{last}: {counted(results.vouchers, 'voucher')} on {counted(pages, 'page')}.")


def _say_left_out(results: Results) -> None:
    if words := results.left_out_in_words():
        say(f"{words}.")


def _refuse_without_extra() -> None:
    try:
        import rm_voucher.cli.prints.pdf  # noqa: F401 - only to see whether the extra is there
    except ModuleNotFoundError as exc:
        raise ConfigurationError(f"{exc} A document that ends in .html does not.") from None


def _html(design: Design) -> Callable[[], Sheet]:
    from rm_voucher.cli.prints.html import HtmlSheet

    return lambda: HtmlSheet(design)


def _pdf(design: Design, found: Survey, named: list[Path]) -> Callable[[], Sheet]:
    from rm_voucher.cli.prints import fonts
    from rm_voucher.cli.prints.pdf import PdfSheet

    texts = design.words
    wanted = found.characters.union(
        "Page of · 0123456789,…",
        texts.label,
        texts.worth,
        texts.terms,
        texts.expiry,
        design.title,
        design.footer,
    )
    chosen = fonts.choose(wanted, named=named)
    if chosen.missing:
        raise ConfigurationError(fonts.in_words(chosen.missing))
    return lambda: PdfSheet(design, chosen.faces)
