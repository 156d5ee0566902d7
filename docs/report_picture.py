"""Draws docs/images/report*.png: the report of an invented campaign, as a browser shows it.

``python docs/report_picture.py`` needs Chromium.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from rm_voucher.cli.campaign.figures import Figures, collect
from rm_voucher.cli.campaign.join import Join
from rm_voucher.cli.campaign.page import render
from rm_voucher.cli.campaign.sources import read_listing
from rm_voucher.cli.campaign.standing import Kept, Mark
from rm_voucher.emulator import Emulator
from rm_voucher.models import Expiry, ExpiryType, VoucherType

IMAGES = Path(__file__).with_name("images")
ZONE = "Asia/Kuala_Lumpur"
BEGUN = datetime(2026, 11, 6, 2, 0, tzinfo=UTC)
PICTURES = {"report": (1280, 1130, False), "report-dark": (1280, 1130, True)}
PICTURES |= {"report-phone": (390, 1290, False)}


async def page() -> str:
    """Return the report of 1,200 recipients, three weeks after the first mail."""
    chance = random.Random(7)  # noqa: S311 - an invented campaign
    emulator = Emulator(seed=7, clock=BEGUN.timestamp)
    emulator.add_batch(
        "Breakfast for two",
        key="BREAKFAST-26",
        quantity=1_500,
        type=VoucherType.CASH,
        amount_sen=1_000,
        expiry=Expiry(type=ExpiryType.DYNAMIC, days=7),
    )
    names, entries, open_codes = iter(range(1, 1_201)), [], []
    for day in range(21):
        for _ in range({0: 640, 1: 300, 7: 180}.get(day, 0)):
            code, _ = emulator.state.issue("BREAKFAST-26")
            name = f"member {next(names):04}"
            entries.append(Kept(recipient=name, mark=Mark.ISSUED, code=code))
            open_codes.append(code)
        chance.shuffle(open_codes)
        for _ in range(min(len(open_codes), int(90 * 0.87**day) + chance.randrange(12))):
            code = open_codes.pop()
            if chance.random() < 0.6:
                emulator.state.redeem([code])
            if chance.random() < 0.7:
                emulator.advance(chance.uniform(0, 600))
                emulator.state.void(code)
        away = BEGUN + timedelta(days=day + 1) - emulator_now(emulator)
        emulator.advance(away.total_seconds())
    sent_at = int(BEGUN.timestamp() * 1e6)
    for number in range(4):
        entries.append(
            Kept(
                recipient=f"member {next(names):04}",
                mark=Mark.UNRESOLVED,
                error="the answer was lost, and the listing can't tell: a person decides",
                sent_at=sent_at + number * 3_100_000,
                attempt=f"5f0c2b7d91e3a64c-00004{number:02}",
            )
        )
        if number < 3:
            emulator.state.issue("BREAKFAST-26")
    for reason, times in (("VOUCHER_BATCH_NOT_ENOUGH_QUANTITY", 11), ("", 2)):
        entries += [
            Kept(recipient=f"member {next(names):04}", mark=Mark.FAILED, error=reason)
            for _ in range(times)
        ]
    entries += [Kept(recipient=f"member {name:04}", mark=Mark.NOT_ASKED) for name in names]
    with Join() as join:
        join.add_entries((kept, None) for kept in entries)
        join.match()
        async with emulator.client() as client:
            listing = await read_listing(client, "BREAKFAST-26", join)
        figures = Figures(
            listing=listing,
            made_at=emulator_now(emulator),
            zone=ZoneInfo(ZONE),
            zone_name=ZONE,
            source="the ledger sqlite:///campaign.db, beside members.csv",
        )
        return render(collect(join, figures))


def emulator_now(emulator: Emulator) -> datetime:
    """Return the emulator's time."""
    return datetime.fromtimestamp(emulator.virtual_clock.now(), UTC)


def draw(html: Path, picture: Path, *, width: int, height: int, dark: bool) -> None:
    """Let Chromium draw a page."""
    subprocess.run(  # noqa: S603 - our own command
        [
            shutil.which("chromium") or "chromium",
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []),
            f"--window-size={width},{height}",
            f"--screenshot={picture}",
            html.as_uri(),
        ],
        check=True,
        capture_output=True,
    )


def main(folder: Path) -> None:
    """Draw all of them."""
    with tempfile.TemporaryDirectory() as temporary:
        html = Path(temporary) / "report.html"
        html.write_text(asyncio.run(page()), encoding="utf-8")
        for name, (width, height, dark) in PICTURES.items():
            draw(html, folder / f"{name}.png", width=width, height=height, dark=dark)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)
