"""``rm-voucher issue`` with a ledger, killed wherever it hurts: nothing is lost or issued twice.

The wait for ``--settle`` is real here. ``KILLS=all`` runs all of it, as ``nox -s kills`` does.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from kills.campaign import Campaign, Scale, run
from support.command import Emulating

from rm_voucher.ledger import Ledger
from rm_voucher.ledger.rules.records import OPEN

pytestmark = pytest.mark.long

ALL = os.environ.get("KILLS") == "all"
SCALE = (
    Scale(1000, 3, {"late_s": 2, "listing_delay_s": 5})
    if ALL
    else Scale(
        60, 1, {"late_s": 0.5, "listing_delay_s": 0.5, "slow_body_s": 0.1, "retry_after_s": 0}
    )
)

# Where each start of a campaign is killed. Of commits, those of 1,000 requests are some dozens,
# and the first is of one operation.
POINTS = {
    "ask uncommitted": ["ask uncommitted:1", "ask uncommitted:6"],
    "ask committed": ["ask committed:1", "ask committed:6"],
    "before post": ["before post:1", "before post:50"],
    "posted": ["posted:1", "posted:50"],
    "answered": ["answered:1", "answered:30"],
    "confirm uncommitted": ["confirm uncommitted:1", "confirm uncommitted:7"],
    "confirm committed": ["confirm committed:1", "confirm committed:7"],
    "untold": ["untold:1", "untold:9"],
    "told": ["told:1", "told:5"],
    "ambiguous uncommitted": ["ambiguous uncommitted:1", "ambiguous uncommitted:4"],
    "ambiguous committed": ["ambiguous committed:1", "ambiguous committed:4"],
    "baseline uncommitted": ["list_codes uncommitted:2", "list_codes uncommitted:1"],
    "baseline committed": ["list_codes committed:1", "list_codes committed:2"],
    "recover uncommitted": ["posted:50", "recover uncommitted:1", "recover uncommitted:1"],
    "recover committed": ["posted:50", "recover committed:1", "answered:20", "recover committed:1"],
    "listed": ["listed:1", "listed:1"],
    "settle uncommitted": ["settle uncommitted:1", "settle uncommitted:2"],
    "settle committed": ["settle committed:1", "settle committed:1"],
    "reissue": ["reissue:1", "reissue:3"],
    "row": ["before row:20", "row:60"],
    "whole file": ["whole row:10", "before whole row:40", "before unlink:2", "unlinked:2"],
    "replace": ["before replace:1", "replaced:1"],
    "mixed": ["posted:20", "settle committed:1"],
}


@pytest.fixture
def begin(emulating: Callable[..., Emulating], tmp_path: Path) -> Callable[[str], Campaign]:
    """Begin a campaign: an emulator of its own, a batch with some issued, a ledger's URL."""

    def make(url: str) -> Campaign:
        emulator = emulating("--fault-rate", 0.3, "--batch", "B=10000", "--seed", 7, "--quiet")
        folder = tmp_path / "campaign"
        folder.mkdir()
        return Campaign(emulator, url, folder, SCALE)

    return make


@pytest.mark.parametrize("point", POINTS if ALL else ["mixed"])
def test_killed_at_point_sqlite(begin, tmp_path: Path, point: str) -> None:
    """Killed at a point, and again after it was started again: each recipient has one code."""
    run(begin(f"sqlite:///{tmp_path}/ledger.db"), POINTS[point])


@pytest.mark.parametrize("point", POINTS if ALL else ["told"])
def test_killed_at_point_postgresql(begin, postgres_url: str, point: str) -> None:
    """The same in PostgreSQL, where a dead process is told by its lock that is gone."""
    run(begin(postgres_url), POINTS[point])


@pytest.mark.parametrize("requests", [5, 20, 60] if ALL else [20])
def test_killed_with_a_long_queue(
    emulating: Callable[..., Emulating], postgres_url: str, tmp_path: Path, requests: int
) -> None:
    """Of 64 recipients that are taken up at once, at 20 a second, few are unknown: those in flight,
    of which a busy machine has many, and not those that wait for their turn."""
    campaign = Campaign(
        emulating("--batch", "B=1000", "--quiet"),
        postgres_url,
        tmp_path,
        Scale(100, 0.5, {}),
        ("--rate", "20"),
    )
    campaign.kill_after(requests)

    async def left_open() -> int:
        async with Ledger.open(postgres_url, read_only=True) as ledger:
            return len(await ledger.attempts(states=list(OPEN)))

    assert asyncio.run(left_open()) <= 32


@pytest.mark.parametrize("seed", range(8 if ALL else 1))
def test_killed_at_random(begin, tmp_path: Path, seed: int) -> None:
    """Killed twice from outside, at whatever moment: each recipient has one code."""
    random = Random(seed)
    campaign = begin(f"sqlite:///{tmp_path}/ledger.db")
    campaign.begin()
    campaign.kill_after(random.randint(1, SCALE.recipients))
    campaign.kill_after(random.randint(1, 30))
    campaign.run_to_the_end()
    campaign.check()
