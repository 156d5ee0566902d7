"""The package to type checkers: thirty uses that all take, and twelve mistakes that they find.

`tests/typing/` has both. What pyright calls the completeness of types is held here too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.doc_blocks import run_mypy, run_pyright
from support.files import TESTS

USES = TESTS / "typing" / "uses.py"
MISUSES = TESTS / "typing" / "misuses.py"

pytestmark = pytest.mark.long


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a type checker where no settings of the project are found."""
    ours_first = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": ours_first}  # pyright asks the first Python on it
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            command, capture_output=True, text=True, cwd=folder, env=environment, check=False
        )


def test_thirty_uses():
    """They are numbered, and there are thirty."""
    numbers = re.findall(r"^# (\d+)\. ", USES.read_text(), re.MULTILINE)
    assert numbers == [str(number) for number in range(1, 31)]


@pytest.mark.parametrize("checker", ["mypy", "pyright", "pyrefly", "ty"])
def test_every_checker_takes_all_uses(checker):
    """In strict mode, where it has one."""
    match checker:
        case "mypy":
            done = run_mypy([USES])
        case "pyright":
            done = run_pyright([USES])
        case "pyrefly":
            done = run(sys.executable, "-m", "pyrefly", "check", str(USES))
        case _:
            done = run(sys.executable, "-m", "ty", "check", "--python", sys.executable, str(USES))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_each_misuse_is_an_error_and_nothing_else(checker):
    """Twelve lines are marked, and those lines are what is found."""
    lines = MISUSES.read_text().splitlines()
    marked = {number for number, line in enumerate(lines, 1) if line.endswith("  # error")}
    assert len(marked) == 12
    if checker == "mypy":
        found = re.findall(r"misuses\.py:(\d+): error:", run_mypy([MISUSES]).stdout)
        assert {int(number) for number in found} == marked
    else:
        told = json.loads(run_pyright([MISUSES], "--outputjson").stdout)["generalDiagnostics"]
        assert {each["range"]["start"]["line"] + 1 for each in told} == marked


def test_every_type_of_the_package_is_known():
    """To whoever installs it no type is unknown, nor one that checkers infer differently."""
    options = ("--verifytypes", "rm_voucher", "--ignoreexternal", "--outputjson")
    told = json.loads(run(sys.executable, "-m", "pyright", *options).stdout)["typeCompleteness"]
    unsure = [
        symbol["name"]
        for symbol in told["symbols"]
        if symbol["isExported"] and (symbol["isTypeAmbiguous"] or not symbol["isTypeKnown"])
    ]
    assert unsure == []
    assert told["completenessScore"] == 1
