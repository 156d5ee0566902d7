"""The tests themselves: how a run was started makes no difference to them."""

import os
import subprocess
import sys

import pytest
from support.files import ROOT, TESTS

IGNORED = "import signal; print(*(signal.getsignal(each) is signal.SIG_IGN for each in (1, 2)))"


def test_processes_that_tests_start_heed_signals():
    """A hang-up and Ctrl-C reach the processes that tests start."""
    done = subprocess.run([sys.executable, "-c", IGNORED], capture_output=True, check=True)
    assert done.stdout == b"False False\n"


def test_long_tests_are_marked_where_they_are():
    """A run of long tests reads no file that lacks the mark, so it has no other name."""
    names = {path.name for path in TESTS.rglob("*.py") if "mark." + "long" in path.read_text()}
    assert {name for name in names if not name.startswith("test_")} == {"conftest.py"}
    assert "mark." + "long" not in "".join(path.read_text() for path in TESTS.glob("*/conftest.py"))


@pytest.mark.long
def test_run_in_the_background_is_a_run():
    """So they do in a run that was started with both ignored, which a hang-up does not end."""
    tests = f"{__file__}::{test_processes_that_tests_start_heed_signals.__name__}"
    done = subprocess.run(
        ["sh", "-c", 'trap "" HUP INT; exec "$@"', "sh", sys.executable, "-m", "pytest", tests],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"},
        check=False,
    )
    assert done.returncode == 0, done.stdout
