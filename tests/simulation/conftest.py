"""What all tests of the simulation use."""

import gc
import sys

import pytest
from simulation.world import World


@pytest.fixture(autouse=True)
def nothing_leaks(monkeypatch, caplog):
    """Whatever a test abandoned, nobody complains of it when it is collected: no warning, no log,
    no error of a finalizer."""
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    gc.freeze()  # what was there before is not looked through
    yield
    gc.collect()
    assert complaints == []
    assert [record for record in caplog.records if record.name == "asyncio"] == []


@pytest.fixture
def world():
    return World(1)
