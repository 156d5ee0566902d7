"""The README and the docs: what they show runs, and what they name is there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.files import ROOT

README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


SNIPPETS = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in PAGES
    for number, code in enumerate(blocks(page.read_text(), "python"))
]


@pytest.mark.parametrize("code", SNIPPETS)
def test_snippet_runs(code, tmp_path):
    """Every Python block runs as it stands, with warnings as errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def command_with(word):
    (line,) = [
        line for block in blocks(README, "sh") for line in block.splitlines() if word in line
    ]
    return line


def test_first_command_issues_to_all_recipients(tmp_path):
    """What the first command runs once it is installed: a code for each recipient of the file."""
    own_part = command_with("examples/recipients.csv").split("&& ")[-1]
    program, *arguments = shlex.split(own_part)
    assert program == ".venv/bin/rm-voucher"
    arguments[-1] = str(tmp_path / arguments[-1])
    done = subprocess.run(
        [sys.executable, "-m", "rm_voucher.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "not real vouchers" in done.stderr
    rows = [line.split(",") for line in Path(arguments[-1]).read_text().splitlines()[1:]]
    recipients = (ROOT / "examples" / "recipients.csv").read_text().split()[1:]
    assert sorted(row[0] for row in rows) == sorted(recipients)
    assert len(recipients) == 1_000
    assert len({row[1] for row in rows}) == 1_000
    assert all(row[1] and row[2].endswith(row[1]) for row in rows)


def test_second_command_is_the_one_that_ci_runs():
    """CI runs the README's own test command."""
    assert command_with("pytest") in (ROOT / ".ci" / "run").read_text().splitlines()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    """Links to files of the repository are files of the repository."""
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_files_that_the_docs_name_are_there():
    """The map names files that exist."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.partition("## Where to change what")[2].partition("## Rules")[0]
    for name in re.findall(r"`((?:tests/|emulator/|ledger/|transport/|cli/)?\w+\.py)`", table):
        found = ROOT / name if name.startswith("tests/") else ROOT / "rm_voucher" / name
        assert found.exists(), name
