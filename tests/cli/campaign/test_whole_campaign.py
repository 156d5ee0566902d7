"""The campaign of docs/campaign.md, as it stands there: each figure is that of the server's books.

The test here takes fewer people, and runs the commands in its own process; the long one runs the
page's script by a shell.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import orjson
import pytest
from support.command import PATIENCE_S
from support.command_runs import Ended, Served, rows, serve_in_thread
from support.files import DOCS

from rm_voucher import Credentials, VoucherStatus
from rm_voucher.emulator import Emulator, Fault, FaultPlan, Guesses

PAGE = (DOCS / "campaign.md").read_text()
KL = timezone(timedelta(hours=8))
LAUNCHER = Path(__file__).parents[2] / "kills" / "launcher.py"
BATCH = "BREAKFAST"
WHOLE, LATE = 5000, 20
MEMBERS = int(os.environ.get("CAMPAIGN_MEMBERS", "800"))


def block(start: str) -> str:
    found = [each for each in re.findall(r"```(.*?)```", PAGE, re.S) if each.startswith(start)]
    assert len(found) == 1
    return str(found[0].partition("\n")[2])


def page_faults() -> tuple[float, list[Fault], int]:
    """The share and the kinds of the faults on the page, and how many vouchers there are."""
    words = shlex.split(block("sh\nrm-voucher emulator"))
    options = dict(pairwise(words))
    kinds = [Fault(kind) for kind in options["--fault-kinds"].split(",")]
    key, _, quantity = options["--batch"].partition("=")
    assert key == BATCH
    return float(options["--fault-rate"]), kinds, int(quantity)


@pytest.fixture
def books(
    credentials: Credentials, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Emulator]:
    """The page's emulator, in a thread; the script finds its variables in the folder."""
    rate, kinds, quantity = page_faults()
    emulator = Emulator(
        seed=4, credentials=credentials, batches={BATCH: quantity}, guesses=Guesses(page_size=100)
    )
    emulator.faults = FaultPlan(rate=rate, kinds=kinds, seed=4, late_s=0.1)
    served = Served(emulator)
    ready: Future[Callable[[], object]] = Future()
    thread = Thread(target=serve_in_thread, args=(served, ready))
    thread.start()
    stop = ready.result(PATIENCE_S)
    variables = {
        "RM_ENVIRONMENT": served.url,
        "RM_CLIENT_ID": credentials.client_id,
        "RM_CLIENT_SECRET": credentials.client_secret,
        "RM_PRIVATE_KEY": credentials.private_key_pem().decode().replace("\n", r"\n"),
    }
    lines = [f"export {shlex.quote(f'{name}={value}')}\n" for name, value in variables.items()]
    (tmp_path / "emulator.env").write_text("".join(lines))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    yield emulator
    stop()
    thread.join(PATIENCE_S)


def figures_of(emulator: Emulator, people: int) -> dict[str, Any]:
    """The figures that a report must have, of the server's books alone."""
    listed = emulator.state.stock.batch(BATCH).listed
    statuses = Counter(record.kept for record in listed)
    days: Counter[tuple[str, str]] = Counter()
    for record in listed:
        assert record.assigned_at is not None
        times = {"issued": datetime.fromtimestamp(record.assigned_at, UTC)}
        if record.redeemed_at is not None:
            times["redeemed"] = datetime.fromtimestamp(record.redeemed_at, UTC)
        if record.kept is VoucherStatus.VOID:
            assert record.used_at is not None
            times["used"] = record.used_at
        days.update((each.astimezone(KL).date().isoformat(), name) for name, each in times.items())
    standings = {
        "served": statuses[VoucherStatus.ISSUED],
        "redeemed": statuses[VoucherStatus.REDEEMED],
        "used": statuses[VoucherStatus.VOID],
    }
    return {
        "recipients": people,
        "with_code": len(listed),
        "standings": {name: number for name, number in standings.items() if number},
        "days": [
            {"day": day, **{name: days[day, name] for name in ("issued", "redeemed", "used")}}
            for day in sorted({day for day, _ in days})
        ],
        "issued": len(listed),
    }


def shown_figures(report: dict[str, Any]) -> dict[str, Any]:
    return {
        "recipients": report["recipients"],
        "with_code": report["with_code"],
        "standings": {name: number for name, number in report["standings"].items() if number},
        "days": report["days"],
        "issued": report["listing"]["issued"],
    }


def check(emulator: Emulator, folder: Path, *, members: int, late: int, redeem: int, use: int):
    """All that the script left is what the server's books say."""
    people = members + late
    (report,) = [orjson.loads(line) for line in (folder / "report.json").read_bytes().splitlines()]
    expected = figures_of(emulator, people)
    assert shown_figures(report) == expected
    assert expected["with_code"] == people  # one voucher each: nobody has two, nobody none
    # A call whose attempts are all lost may have done nothing.
    assert 0.5 * use <= expected["standings"]["used"] <= use
    assert 0.5 * redeem <= expected["standings"]["redeemed"] + use <= redeem
    assert report["differences"] == dict.fromkeys(report["differences"], 0)
    assert report["strangers"] == {}
    assert report["undated"] == {"issued": 0, "redeemed": 0, "used": 0}
    status = rows((folder / "status.csv").read_text())
    assert [row["email"] for row in status] == [
        f"m{n:05}@example.com" for n in range(1, people + 1)
    ]
    books = {record.code: record for record in emulator.state.stock.batch(BATCH).listed}
    assert len({row["code"] for row in status}) == people
    for row in status:
        assert row["status"] == str(books[row["code"]].kept)
    late_rows = rows((folder / "late.csv").read_text())
    assert [row["name"] for row in late_rows] == [
        f"Member {n}" for n in range(members + 1, people + 1)
    ]
    page = (folder / "report.html").read_text()
    for number in (people, *expected["standings"].values()):
        assert f">{number:,}<" in page
    assert (folder / "sheet.html").read_text().count("<svg") >= late


def test_small(books, rm, tmp_path, monkeypatch, request):
    """Sixty people, five of them late; the killed run is a process of its own."""
    script = block("sh campaign")
    for old, new in (("5020", "65"), ("5001", "61"), ("1001", "13"), ("601", "8")):
        script = re.sub(rf"\b{old}\b", new, script)
    script = script.replace("--settle 5", "--settle 0.3").replace(
        "$LEDGER", "sqlite:///campaign.db"
    )
    for line in script.replace("\\\n", " ").splitlines():
        run_line(line, rm, tmp_path)
    check(books, tmp_path, members=60, late=5, redeem=12, use=7)


def run_line(line: str, rm: Callable[..., Ended], folder: Path) -> None:
    """Run a line of the script: our command in this process, and all else by a shell."""
    words = shlex.split(line, comments=True)
    if words[:1] == ["timeout"]:
        at = words.index("rm-voucher")
        command = [sys.executable, str(LAUNCHER), "confirm committed:4", *words[at + 1 : -2]]
        path = str(LAUNCHER.parents[1])
        done = subprocess.run(
            command, capture_output=True, check=False, env={**os.environ, "PYTHONPATH": path}
        )
        assert done.returncode == -9, done.stderr.decode()
    elif words[:1] == ["rm-voucher"]:
        may_fail = words[-2:] == ["||", "true"]
        words = words[:-2] if may_fail else words
        where = words.index(">") if ">" in words else len(words)
        ended = rm(*words[1:where])
        assert ended.code == 0 or (may_fail and ended.code == 4), (line, ended.err)
        if where < len(words):
            (folder / words[where + 1]).write_text(ended.out)
    elif words:
        subprocess.run(["sh", "-euc", line], check=True)


def script_for(members: int) -> str:
    """Return the page's script for so many people: for 5,000 as it stands there."""
    script = block("sh campaign")
    if members < WHOLE:
        numbers = {
            "seq 5020": f"seq {members + LATE}",
            "head -n 5001": f"head -n {members + 1}",
            "KILL 10": "KILL 4",
            "head -n 1001": f"head -n {members // 5 + 1}",
            "head -n 601": f"head -n {members * 3 // 25 + 1}",
        }
        for there, here in numbers.items():
            assert there in script
            script = script.replace(there, here)
    return script


@pytest.mark.long
def test_page_as_it_stands(books, tmp_path):
    """By a shell; ``CAMPAIGN_MEMBERS=5000`` is the whole of it."""
    folder = Path(sys.executable).parent
    done = subprocess.run(
        ["sh", "-euc", script_for(MEMBERS)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "no_proxy": "*"},
    )
    assert done.returncode == 0, done.stderr
    assert "Killed" in done.stderr or MEMBERS < WHOLE  # a quick machine is done before
    check(books, tmp_path, members=MEMBERS, late=LATE, redeem=MEMBERS // 5, use=MEMBERS * 3 // 25)
