"""Draw docs/images/sheet-*.png from real sheets: ``python docs/sheet_pictures.py``.

It needs the extra ``print``, pypdfium2, Chromium, and the fonts of fonts-noto-core and
fonts-noto-cjk. The vouchers are made up.
"""

from __future__ import annotations

import csv
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pypdfium2
from PIL import Image, ImageDraw, ImageFont

IMAGES = Path(__file__).parent / "images"
NAMES = [
    "Nur Aisyah binti Abdullah",
    "陈美玲",
    "முருகன் கிருஷ்ணசாமி",
    "Tan Ah Kow",
    "நித்யா ஸ்ரீ",
    "somebody.with.a.name@example.com",
    "張偉",
    "José Müller",
    "+60 12-345 6789",
]
LETTERS = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
WORDS = ["--label", "Teh Tarik", "--worth", "RM 5.00", "--terms", "Minimum spend RM 20.00"]
WORDS += ["--expiry", "Valid until 31 Dec 2026"]
WIDTH = 900


def write_results(path: Path, count: int) -> None:
    chance = random.Random(1)  # noqa: S311 - the same pictures again
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["recipient", "code", "qr_url", "voucher_status", "error"])
        for number in range(count):
            code = "".join(chance.choices(LETTERS, k=12))
            url = f"https://emulator.invalid/qr/1/voucher/{code}"
            writer.writerow([NAMES[number % len(NAMES)], code, url, "issued", ""])


def draw_logo(path: Path) -> None:
    logo = Image.new("RGBA", (600, 160), (0, 0, 0, 0))
    draw = ImageDraw.Draw(logo)
    draw.rounded_rectangle((0, 0, 599, 159), 40, fill="#0a6b45")
    draw.text((300, 80), "TANJUNG TEA", fill="white", anchor="mm", font=ImageFont.load_default(72))
    logo.save(path)


def sheet(folder: Path, output: str, *options: str) -> Path:
    command = [sys.executable, "-m", "rm_voucher.cli", "sheet", str(folder / "vouchers.csv")]
    path = folder / output
    arguments = [*command, "--output", str(path), *WORDS, *options]
    subprocess.run(arguments, check=True)  # noqa: S603 - the arguments above
    return path


def save(picture: Image.Image, name: str, height: int) -> None:
    picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)))
    grey = picture.crop((0, 0, WIDTH, height)).quantize(24)
    grey.save(IMAGES / name, optimize=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_results(folder / "vouchers.csv", 24)
        draw_logo(folder / "logo.png")
        pdf = pypdfium2.PdfDocument(
            sheet(folder, "s.pdf", "--title", "Teh Tarik week").read_bytes()
        )
        save(pdf[0].render(scale=2.2).to_pil(), "sheet-pdf.png", 500)
        logo = ("--logo", str(folder / "logo.png"), "--grid", "2x5")
        page = sheet(folder, "s.html", *logo, "--title", "கோப்பை தேநீர் · 奶茶 · Teh Tarik")
        shot = folder / "shot.png"
        quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        quiet += ["--disable-background-networking", "--hide-scrollbars"]
        size = [f"--screenshot={shot}", "--window-size=840,700", "--force-device-scale-factor=2"]
        arguments = ["chromium", *quiet, *size, page.as_uri()]
        subprocess.run(arguments, check=True, timeout=60)  # noqa: S603 - likewise
        save(Image.open(shot).convert("RGB"), "sheet-html.png", 620)


if __name__ == "__main__":
    main()
