"""A receiver of callbacks, killed wherever it hurts: each event is handled exactly once.

``KILLS=all`` runs all of it, as ``nox -s kills`` does.
"""

import os
from pathlib import Path
from random import Random

import pytest
from kills.deliveries import Deliveries

pytestmark = pytest.mark.long

ALL = os.environ.get("KILLS") == "all"
VOUCHERS = {"sqlite": 2000, "postgresql": 2000} if ALL else {"sqlite": 150, "postgresql": 60}
EVERY = 300 if ALL else 70  # events, about, from one kill to the next

# Where each start of a receiver is killed.
POINTS = {
    "unrecorded": ["unrecorded:1", "unrecorded:30"],
    "recorded": ["recorded:1", "recorded:40"],
    "inserted": ["inserted:1", "inserted:40"],
    "uncommitted": ["uncommitted:1", "uncommitted:40"],
    "committed": ["committed:1", "committed:40"],
    "mixed": ["committed:3", "recorded:20", "inserted:20"],
}
POINT_VOUCHERS = 100 if ALL else 30
EACH_POINT = list(POINTS) if ALL else ["mixed"]


async def kill_at(store: str, folder: Path, points: list[str]) -> None:
    deliveries = Deliveries(store, folder, vouchers=POINT_VOUCHERS)
    await deliveries.run(lambda those: those.kill_at(points))
    all_delivered(deliveries, kills=len(points))


async def kill_at_random(store: str, folder: Path, *, vouchers: int) -> None:
    random = Random(7)
    moments = [at - random.randrange(EVERY // 3) for at in range(EVERY, 2 * vouchers, EVERY)]
    deliveries = Deliveries(store, folder, vouchers=vouchers)
    await deliveries.run(lambda those: those.kill_after(moments))
    all_delivered(deliveries, kills=len(moments))


def all_delivered(deliveries: Deliveries, *, kills: int) -> None:
    """Hold that RM gave nothing up, and that each event was accepted and is in the table once."""
    deliveries.check()
    assert deliveries.kills == kills
    answers = deliveries.line.answers
    assert (deliveries.callbacks.delivered, deliveries.callbacks.given_up) == (answers[200], 0)
    assert answers[200] == len(deliveries.seen()) == deliveries.expected
    assert answers[0] >= kills  # each cut a delivery off


@pytest.mark.parametrize("point", EACH_POINT)
async def test_killed_at_point_sqlite(tmp_path: Path, point: str) -> None:
    """Killed at a point, and again after it was started again: each event is handled once."""
    await kill_at(f"sqlite:///{tmp_path}/events.db", tmp_path, POINTS[point])


@pytest.mark.parametrize("point", EACH_POINT)
async def test_killed_at_point_postgresql(postgres_url: str, tmp_path: Path, point: str) -> None:
    """The same in PostgreSQL, where what a dead process had locked is free again."""
    await kill_at(postgres_url, tmp_path, POINTS[point])


async def test_killed_at_random_sqlite(tmp_path: Path) -> None:
    """Killed from outside again and again, at whatever moment: each event is handled once."""
    url = f"sqlite:///{tmp_path}/events.db"
    await kill_at_random(url, tmp_path, vouchers=VOUCHERS["sqlite"])


async def test_killed_at_random_postgresql(postgres_url: str, tmp_path: Path) -> None:
    """The same in PostgreSQL."""
    await kill_at_random(postgres_url, tmp_path, vouchers=VOUCHERS["postgresql"])


async def test_given_up_but_recorded(tmp_path: Path) -> None:
    """Killed before the handler in all five attempts: `run_due` handles what was recorded."""
    url = f"sqlite:///{tmp_path}/events.db"
    deliveries = Deliveries(url, tmp_path, vouchers=1, fails=0, voids=False)
    await deliveries.run(lambda those: those.kill_at(["recorded:1"] * 5))
    assert (deliveries.callbacks.delivered, deliveries.callbacks.given_up) == (0, 1)
    assert not deliveries.seen()
    await deliveries.run_due()
    deliveries.check()
    assert len(deliveries.seen()) == 1
