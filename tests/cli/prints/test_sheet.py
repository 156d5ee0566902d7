"""``rm-voucher sheet``: a card for each voucher, as PDF and as HTML."""

import csv
import re
import shutil
import stat
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from support.fonts import LATIN, make_font
from support.modules import forget
from support.pictures import Pdf, codes_in, codes_in_svg
from support.result_files import NAMES, code_of, row_of, url_of, write_results

from rm_voucher import VoucherType
from rm_voucher.cli.prints import commands, fonts
from rm_voucher.cli.prints.sheet import drawable

LATIN_NAMES = [name for name in NAMES if name.isascii() or "é" in name]


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with one font, of Latin letters."""
    folder = tmp_path / "fonts"
    folder.mkdir()
    font = make_font(folder / "DejaVuSans.ttf", LATIN)
    monkeypatch.setattr(fonts, "_files", lambda: sorted(folder.iterdir()))
    return font


@pytest.fixture
def results(tmp_path: Path) -> Path:
    names = [LATIN_NAMES[number % 3] for number in range(30)]
    rows = [row_of(number, f"{name} {number}") for number, name in enumerate(names)]
    rows[5:5] = [row_of(90, "nobody", "failed"), row_of(91, "nobody too", "unresolved")]
    return write_results(tmp_path / "out.csv", rows)


def codes_by_page(path: Path) -> list[list[str]]:
    return [sorted(codes_in(picture)) for picture in Pdf(path).pictures()]


def urls(*numbers: int) -> list[str]:
    return sorted(url_of(code_of(number)) for number in numbers)


def test_pdf(rm, embedded, results: Path, tmp_path: Path) -> None:
    """A4, a card for each voucher in the rows' order, with what the batch says of it."""
    output = tmp_path / "sheet.pdf"
    arguments = ("--batch", "TEA", "--title", "Tea time", "--footer", "Not for cash")
    ended = rm("sheet", results, "--output", output, *arguments)
    assert ended.code == 0
    assert ended.err.splitlines()[-2:] == [
        "2 rows without a voucher to hand on: 1 failed, 1 unresolved.",
        f"{output}: 30 vouchers on 2 pages.",
    ]
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert Pdf(output).sizes_mm() == {(210, 297)}
    assert codes_by_page(output) == [urls(*range(24)), urls(*range(24, 30))]
    first, second = Pdf(output).texts()
    for number in range(24):
        assert code_of(number) in first
        assert f"{LATIN_NAMES[number % 3]} {number}".split()[0] in first
    assert first.count("TEA") == 24
    for text in ("Tea time", "Not for cash · Page 1 of 2"):
        assert text in first
    assert "Page 2 of 2" in second
    assert "nobody" not in first + second


@pytest.mark.parametrize(
    "grid",
    [
        "1x1",
        "3x8",
        "5x11",
        *(pytest.param(each, marks=pytest.mark.long) for each in ("2x5", "4x4")),
    ],
)
def test_grids(rm, tmp_path: Path, grid: str) -> None:
    """On paper and in a browser, at every size that a telephone reads."""
    columns, _, rows = grid.partition("x")
    cards = int(columns) * int(rows)
    results = write_results(tmp_path / "o.csv", [row_of(n, "Ana") for n in range(cards + 1)])
    logo = tmp_path / "logo.png"
    Image.new("RGB", (300, 100), "#0a7a4b").save(logo)
    arguments = ("--grid", grid, "--label", "Tea", "--worth", "RM 5.00", "--logo", logo)
    for ending in ("pdf", "html"):
        output = tmp_path / f"sheet.{ending}"
        assert rm("sheet", results, "--output", output, *arguments).code == 0
    assert codes_by_page(tmp_path / "sheet.pdf") == [urls(*range(cards)), urls(cards)]


class Page(HTMLParser):
    """The texts of a page, and all that it would fetch or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [
            value or "" for name, value in attrs if name in {"href", "src"} or name.startswith("on")
        ]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_html(rm, tmp_path: Path) -> None:
    """Whole in one file: nothing runs, nothing is fetched, and whatever a name is, it is a text."""
    logo = tmp_path / "logo.png"
    Image.new("RGB", (30, 10)).save(logo)
    spiteful = ["<script>alert(1)</script>", "陈美玲", "முருகன்", "\x1b[2J\u202eevil", "\"'&amp;"]
    rows = [row_of(number, name) for number, name in enumerate(spiteful)]
    path = write_results(tmp_path / "out.csv", rows)
    output = tmp_path / "sheet.html"
    arguments = ("--label", "<b>Tea</b>", "--title", "</style><img src=x>", "--logo", logo)
    assert rm("sheet", path, "--output", output, *arguments).code == 0
    text = output.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.tags & {"script", "img", "b", "link", "iframe", "object"}
    assert {link[:22] for link in page.links} == {"#marks", "#logo", "data:image/png;base64,"}
    assert re.findall(r"url\(|@import|https?://(?!www\.w3\.org)", text) == []
    assert "default-src 'none'" in text
    for expected in (
        "<b>Tea</b>",
        "陈美玲",
        "முருகன்",
        "</style><img src=x>",
        *map(code_of, range(5)),
    ):
        assert expected in page.texts
    assert "\x1b" not in text
    assert "\u202e" not in text
    found = [codes_in_svg(f"<svg{each}")[0] for each in text.split('<div class="qr"><svg')[1:]]
    assert found == [url_of(code_of(number)) for number in range(5)]
    assert stat.S_IMODE(output.stat().st_mode) == 0o600


def test_names_that_no_font_draws(rm, tmp_path: Path) -> None:
    """It is said before anything is written, with the ways out, and each of them is one."""
    path = write_results(tmp_path / "out.csv", [row_of(1, "陈美玲"), row_of(2, "முருகன்")])
    output = tmp_path / "sheet.pdf"
    ended = rm("sheet", path, "--output", output)
    assert ended.code == 2
    assert "No font of this machine draws" in ended.err
    assert "apt install fonts-noto-cjk fonts-noto-core" in ended.err
    assert not output.exists()
    assert rm("sheet", path, "--output", output, "--no-recipient").code == 0
    assert rm("sheet", path, "--output", tmp_path / "sheet.html").code == 0
    font = make_font(tmp_path / "own.ttf", "陈美玲முருகன்")
    assert rm("sheet", path, "--output", output, "--font", font).code == 0
    assert codes_by_page(output) == [urls(1, 2)]


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("க்\u200dஷ", "க்\u200dஷ"),
        ("a\u00a0b\u3000c\nd\t", "a b c d"),
        ("\u202eevil\u200b\x1b[2J\x00", "evil[2J"),
        ("\ud800", ""),
    ],
)
def test_what_is_drawn_of_a_text(text: str, drawn: str) -> None:
    """All that is seen and what shapes it, and nothing that turns the line around."""
    assert drawable(text) == drawn


def test_without_any_font(rm, results: Path, tmp_path: Path, machine: Path) -> None:
    """Latin letters are drawn with what each reader of PDFs has."""
    machine.unlink()
    output = tmp_path / "sheet.pdf"
    assert rm("sheet", results, "--output", output, "--label", "Café – RM 5").code == 0
    assert "Café – RM 5" in Pdf(output).texts()[0]
    assert codes_by_page(output)[1] == urls(*range(24, 30))


def test_an_older_sheet_is_kept(rm, results: Path, tmp_path: Path) -> None:
    """Under a number, unless a person says otherwise."""
    output = tmp_path / "sheet.html"
    output.write_text("another")
    assert rm("sheet", results, "--output", output).code == 0
    assert (tmp_path / "sheet.html.1").read_text() == "another"
    assert rm("sheet", results, "--output", output, "--replace").code == 0
    assert sorted(path.name for path in tmp_path.glob("sheet*")) == ["sheet.html", "sheet.html.1"]


@pytest.mark.parametrize("ending", ["pdf", "html"])
def test_many_pages_are_several_documents(rm, results: Path, tmp_path: Path, ending: str) -> None:
    """So that a million cards neither fill the memory nor a printer's."""
    output = tmp_path / f"sheet.{ending}"
    arguments = ("--grid", "1x1", "--pages-per-file", 3)
    ended = rm("sheet", results, "--output", output, *arguments)
    names = [f"sheet-{number:02}.{ending}" for number in range(1, 11)]
    assert sorted(path.name for path in tmp_path.glob("sheet*")) == names
    assert ended.err.splitlines()[-1] == (
        f"{tmp_path}/sheet-01.{ending} to sheet-10.{ending}: 30 vouchers on 30 pages."
    )
    if ending == "pdf":
        assert codes_by_page(tmp_path / "sheet-10.pdf") == [urls(27), urls(28), urls(29)]
        assert "Page 30 of 30" in Pdf(tmp_path / "sheet-10.pdf").texts()[-1]


def test_pages_of_an_older_run(rm, results: Path, tmp_path: Path) -> None:
    """They would be printed with the new ones, and are nobody's to remove."""
    arguments = ("sheet", results, "--output", tmp_path / "sheet.html", "--grid", "1x1")
    assert rm(*arguments, "--pages-per-file", 10).code == 0
    before = {path.name: path.read_bytes() for path in tmp_path.glob("sheet*")}
    assert rm(*arguments, "--pages-per-file", 10, "--replace").code == 0
    for pages in (15, 30):
        ended = rm(*arguments, "--pages-per-file", pages, "--replace")
        assert (ended.code, "would be taken for a part of this" in ended.err) == (2, True)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("sheet*")} == before


def test_another_sheet_with_a_number(rm, results: Path, tmp_path: Path) -> None:
    """Beside one document, a second one of its own is no page of it."""
    (tmp_path / "sheet-2.html").write_text("another")
    assert rm("sheet", results, "--output", tmp_path / "sheet.html").code == 0


def test_offline(rm, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a batch nothing is asked, and no setting is needed."""
    monkeypatch.setattr(commands, "find_batch", None)
    output = tmp_path / "sheet.html"
    words = {"label": "Tea", "worth": "RM 5.00", "terms": "Not on Sundays", "expiry": "Until May"}
    arguments = [part for name, text in words.items() for part in (f"--{name}", text)]
    assert rm("sheet", results, "--output", output, *arguments).code == 0
    assert set(words.values()) <= set(Page(output.read_text()).texts)
    ended = rm("sheet", results, "--output", output, "--replace")
    assert "The cards say no label, worth or expiry: give --batch KEY" in ended.err


def test_batch(rm, served, results: Path, tmp_path: Path) -> None:
    """What RM says, but for what a person says."""
    served.emulator.add_batch(
        "Tea at <five>",
        key="B",
        quantity=1,
        type=VoucherType.DISCOUNT,
        discount_rate_bp=1500,
        minimum_spend_sen=2000,
    )
    output = tmp_path / "sheet.html"
    assert rm("sheet", results, "--output", output, "--batch", "B", "--expiry", "Soon").code == 0
    texts = Page(output.read_text()).texts
    assert {"Tea at <five>", "15 % off", "Minimum spend RM 20.00", "Soon"} <= set(texts)
    ended = rm("sheet", results, "--output", output, "--batch", "NONE")
    assert ended.code == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--output", "sheet.docx"], "sheet.docx: name a file that ends in .pdf or .html."),
        (["--output", "folder.pdf"], "folder.pdf is a folder"),
        (["--grid", "3by8"], "write columns x rows, like 3x8"),
        (["--grid", "12x30"], "take fewer cards a page"),
        (["--logo", "out.csv"], "out.csv is neither a PNG nor a JPEG"),
        (["--logo", "none.png"], "none.png can't be read: No such file"),
        (["--logo", "broken.png"], "The logo can't be read"),
        (["--font", "out.csv"], "out.csv is no font that can be put into a PDF."),
        (["--column", "phone"], "there is no column 'phone'"),
        (["--column", "recipient", "--no-recipient"], "not both"),
        (["--output", "s.html", "--font", "x.ttf"], "--font is about a PDF"),
    ],
)
def test_mistakes(rm, results: Path, tmp_path: Path, monkeypatch, arguments, sentence: str) -> None:
    """A sentence and 2, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.pdf").mkdir()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    before = sorted(tmp_path.iterdir())
    ended = rm("sheet", "out.csv", "--output", "sheet.pdf", *arguments)
    assert ended.code == 2
    assert sentence in ended.err
    assert sorted(tmp_path.iterdir()) == before


def test_without_the_extra(rm, results: Path, tmp_path: Path, monkeypatch) -> None:
    """A PDF needs it, and HTML does not."""
    forget(monkeypatch, "rm_voucher.cli.prints.pdf")
    monkeypatch.setitem(sys.modules, "fpdf", None)
    ended = rm("sheet", results, "--output", tmp_path / "sheet.pdf")
    assert ended.code == 2
    assert "A PDF needs the extra 'print': pip install 'rm-voucher[print]'." in ended.err
    assert rm("sheet", results, "--output", tmp_path / "sheet.html").code == 0


TAMIL = Path("/usr/share/fonts/truetype/noto/NotoSansTamil-Regular.ttf")


@pytest.mark.skipif(not TAMIL.exists(), reason="there is no Noto Sans Tamil")
def test_tamil_is_shaped(rm, tmp_path: Path) -> None:
    """A vowel that is written before its consonant is drawn there: not left to right as typed."""
    drawn = []
    for text in ("கெ", "க ெ"):
        output = tmp_path / "sheet.pdf"
        path = write_results(tmp_path / "out.csv", [row_of(1, text)])
        arguments = ("--font", TAMIL, "--grid", "1x1", "--replace")
        assert rm("sheet", path, "--output", output, *arguments).code == 0
        (picture,) = Pdf(output).pictures()
        drawn.append(picture.tobytes())
    assert drawn[0] != drawn[1]


@pytest.mark.long
@pytest.mark.skipif(shutil.which("soffice") is None, reason="there is no LibreOffice")
def test_libreoffice_opens_a_mail_merge(rm, tmp_path: Path) -> None:
    """Codes and telephone numbers stay texts, umlauts and Chinese what they are."""
    rows = [row_of(number, name) for number, name in enumerate(NAMES)]
    rows[0][1], rows[4][0] = "0012345678901234567", "0123456789"
    path = write_results(tmp_path / "out.csv", rows)
    merge = tmp_path / "merge.xlsx"
    assert rm("qr", path, "--dir", tmp_path / "codes", "--output", merge).code == 0
    profile = f"-env:UserInstallation=file://{tmp_path}/profile"
    convert = "csv:Text - txt - csv (StarCalc):44,34,76,1"
    subprocess.run(
        [
            "soffice",
            profile,
            "--headless",
            "--convert-to",
            convert,
            "--outdir",
            tmp_path / "o",
            merge,
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    with (tmp_path / "o" / "merge.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.reader(file))
    assert [cells[:2] for cells in read[1:]] == [row[:2] for row in rows]
