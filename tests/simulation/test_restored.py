"""Files of a ledger that are put back issue to nobody a second time, whatever was copied."""

import pytest
from simulation.restored import History
from simulation.test_campaigns import SEEDS

HISTORIES = max(30, SEEDS // 5)
_FEW = 4


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(seed, marks=[pytest.mark.long] if seed >= _FEW else [])
        for seed in range(HISTORIES)
    ],
)
async def test_copy_that_is_put_back_issues_nothing(seed, tmp_path):
    """Whoever asks again gets the code that they had, or is refused: also in a batch that began
    after the copy was made, and where log or lock file are gone or are others'."""
    await History(seed, tmp_path / "files").run()


async def test_killed_process_leaves_no_copy(tmp_path):
    """What a kill leaves is no older copy: nobody is refused."""
    history = await History(0, tmp_path / "files", spoils=False).run()
    assert history.refused == 0
    assert len(history.seen) > 20
