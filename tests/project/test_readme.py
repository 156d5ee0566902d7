"""The README and the docs: what they show runs, and what they name is there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.doc_blocks import BLOCKS, PAGES, PROGRAM, check_types
from support.files import ROOT, TESTS

import rm_voucher

README = (ROOT / "README.md").read_text()
TEXTS = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]

PROGRAMS = {each.name: each.code for each in BLOCKS if each.kind == PROGRAM}


def test_programs_of_the_readme_run(tmp_path):
    """They run as they stand, with warnings as errors."""
    hold_that_they_run([name for name in PROGRAMS if name.startswith("README")], tmp_path)


@pytest.mark.long
def test_programs_run(tmp_path):
    """So does every program on the pages."""
    hold_that_they_run(list(PROGRAMS), tmp_path)


def hold_that_they_run(names, tmp_path):
    """Run programs in one process, each in a fork of it."""
    assert names
    paths = []
    for name, code in ((name, PROGRAMS[name]) for name in names):
        folder = tmp_path / name.replace("/", "-")
        folder.mkdir()
        paths.append(folder / "program.py")
        paths[-1].write_text(code)
    runner = TESTS / "support" / "program_runner.py"
    done = subprocess.run([sys.executable, "-W", "error", runner, *paths], check=False)
    for name, path in zip(names, paths, strict=True):
        assert path.with_name("program.py.err").read_text() == "", name
        assert path.with_name("program.py.out").read_text() != "", name
    assert done.returncode == 0


@pytest.mark.long
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_runs_by_itself(name, tmp_path):
    """So it does in a process that begins with nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAMS[name]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.long
def test_blocks_and_examples_pass_strict_type_checkers():
    """What a user copies from the pages passes ``mypy --strict``, and pyright in strict mode."""
    for done in check_types():
        assert done.returncode == 0, done.stdout + done.stderr


def command_with(word):
    (line,) = [
        line
        for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
        for line in block.splitlines()
        if word in line
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


def test_three_minutes_are_enough():
    """At most 700 words; how to install it, and ten lines of code, before line 30."""
    assert len(README.split()) <= 700
    beginning = README.splitlines()[:30]
    assert "pip install rm-voucher" in beginning
    code = beginning[beginning.index("```python") + 1 :]
    assert len(code[: code.index("```")]) >= 10


def test_second_command_is_the_one_that_ci_runs():
    """CI runs the README's own test command."""
    assert command_with("pytest") in (ROOT / ".ci" / "run").read_text().splitlines()


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """Links to files of the repository are files of the repository."""
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_files_that_the_docs_name_are_there():
    """The table of what to change where names files that exist."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.partition("## Where to change what")[2].partition("## Rules")[0]
    package = Path(rm_voucher.__file__).parent
    names = re.findall(r"`((?:\w+/)*\w+\.py)`", table)
    assert names
    for name in names:
        is_ours = name.partition("/")[0] not in {"benchmarks", "docs", "examples", "tests"}
        assert (package / name if is_ours else ROOT / name).exists(), name
