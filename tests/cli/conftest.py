"""The command as a person starts it, and the servers that it talks to."""

import pytest
from support.command_runs import (  # noqa: F401 - fixtures
    embedded,
    quick,
    rm,
    served,
    stopped,
)


@pytest.fixture(autouse=True)
def nothing_is_made_anew(quick: None) -> None:  # noqa: F811 - the fixture
    """Every test of the command is quick."""
