"""Rule: no locale costs a row, a sentence or the help. Rows are UTF-8 whatever it is."""

import csv
import io
import os
import subprocess
from pathlib import Path

import pytest
from support.command import COMMAND, PATIENCE_S

SURROUNDINGS: list[dict[str, str]] = [
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"PYTHONIOENCODING": "latin-1"},
]


@pytest.fixture
def run(tmp_path: Path):
    """Run the command as a process, with an environment that has little more than this."""

    def run(surroundings: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[bytes]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return subprocess.run(
            [*COMMAND, *map(os.fsencode, map(str, arguments))],
            env={**kept, **surroundings, "COLUMNS": "80"},
            cwd=tmp_path,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    "command",
    [
        ("--help",),
        pytest.param(("issue", "--help"), marks=pytest.mark.long),
        pytest.param(("ledger", "reconcile", "--help"), marks=pytest.mark.long),
        pytest.param(("webhook", "verify", "--help"), marks=pytest.mark.long),
        pytest.param(("emulator", "--help"), marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize(
    "surroundings",
    [SURROUNDINGS[0], *(pytest.param(each, marks=pytest.mark.long) for each in SURROUNDINGS[1:])],
)
def test_help(run, surroundings: dict[str, str], command: tuple[str, ...]) -> None:
    """The help is shown, whole, and ends with 0."""
    ended = run(surroundings, *command)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"Usage" in ended.stdout
    boxes, _, examples = ended.stdout.partition(b"Examples")
    assert boxes.rstrip().endswith((b"+", "╯".encode()))
    if command != ("--help",):
        assert b"rm-voucher " + " ".join(command[:-1]).encode() in examples


@pytest.mark.parametrize(
    "command", [("issue", "B", "--quantité"), pytest.param(("isue\u2026",), marks=pytest.mark.long)]
)
def test_usage(run, command: tuple[str, ...]) -> None:
    """A mistake in the command line is told."""
    ended = run(SURROUNDINGS[0], *command)
    assert ended.returncode == 2
    assert b"No such" in ended.stderr
    assert b"Traceback" not in ended.stderr


@pytest.mark.parametrize("to_file", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "surroundings",
    [SURROUNDINGS[1], *(pytest.param(each, marks=pytest.mark.long) for each in SURROUNDINGS[::2])],
)
def test_rows(run, tmp_path: Path, surroundings: dict[str, str], to_file: bool) -> None:
    """Names of people and of files are what they are, and each has its code."""
    names = ["名前", "José", "👩‍👩‍👧"]
    path = tmp_path / "récipients.csv"
    path.write_text("".join(f"{name}\n" for name in ["recipient", *names]), encoding="utf-8")
    out = tmp_path / "bons.csv"
    output = ("--output", out) if to_file else ()
    ended = run(surroundings, "issue", "B", "-e", "memory", "--recipients", path, *output)
    assert ended.returncode == 0, ended.stderr
    text = (out.read_bytes() if to_file else ended.stdout).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert sorted(row["recipient"] for row in rows) == sorted(names)
    assert all(row["code"] and row["voucher_status"] == "issued" for row in rows)


@pytest.mark.long
def test_mistakes_name_what_they_are_about(run, tmp_path: Path) -> None:
    """A sentence has the name of a file that the locale can't write."""
    ended = run(SURROUNDINGS[0], "issue", "B", "-e", "memory", "--recipients", "récipients.csv")
    assert ended.returncode == 2
    assert b"cipients.csv can't be read: No such file or directory." in ended.stderr
