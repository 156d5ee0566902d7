"""Several processes of a ledger: one is killed, or stands still, while the others go on."""

from typing import Any

import pytest
from simulation import mutants
from simulation.books import BrokenPromiseError
from simulation.campaign import Campaign
from simulation.test_campaigns import SEEDS, hold_end
from simulation.test_seams import OVERTAKEN

SEVERAL: dict[str, Any] = {**OVERTAKEN, "ledgers": 3, "crashes": 0}
LOST: dict[str, dict[str, Any]] = {
    "killed": {"kills": 2},
    "killed, shared": {"kills": 2, "mode": "shared", "foreign": 10},
    "killed, swept": {"kills": 2, "ledger": {"sweeps": True}},
    "stopped": {"stops": 6},
    "stopped, shared": {"stops": 6, "mode": "shared", "foreign": 10},
    "stopped, swept": {"stops": 6, "ledger": {"sweeps": True}},
    "both": {"kills": 1, "stops": 4, "ledger": {"sweeps": True}},
}
EACH = SEEDS // len(LOST) + 1


@pytest.mark.parametrize("kind", LOST)
@pytest.mark.parametrize(
    "seeds", [range(1), pytest.param(range(1, EACH), marks=pytest.mark.long)], ids=["one", "more"]
)
def test_one_of_several_is_lost(kind, seeds):
    """The others take over what it was sending, and each request gets one code; one that goes on
    finds out what is no longer its own, and sends none of it."""
    for seed in seeds:
        hold_end(Campaign(seed=seed, **{**SEVERAL, **LOST[kind]}).run())


def test_stopped_process_that_does_not_look_is_noticed(monkeypatch):
    """Without the last look at an attempt, one that stood still sends what others took over."""
    mutants.send_what_another_process_took_over(monkeypatch)
    with pytest.raises(BrokenPromiseError, match="its attempt had ended"):
        for seed in range(12):
            Campaign(seed=seed, **{**SEVERAL, **LOST["stopped"]}).run()


def test_same_seed_same_losses():
    """One seed replays to the same digest, whoever is killed or stopped."""
    settings = {**SEVERAL, **LOST["both"]}
    assert Campaign(seed=0, **settings).run().world.digest() == (
        Campaign(seed=0, **settings).run().world.digest()
    )
