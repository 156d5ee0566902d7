"""What the command says of itself: help, examples, completion, the manual, and its page."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from typing import Any

import pytest
from support.command_runs import BUILT
from support.files import DOCS, ROOT
from typer.core import TyperGroup

from rm_voucher.cli.app import COMMANDS
from rm_voucher.cli.common import examples_of
from rm_voucher.cli.failures import EXIT_CODES

PANELS = ["Issue", "After the campaign", "Look and change", "Set up", "Develop"]
PAGE = (DOCS / "command.md").read_text()


def leaves(command: Any, path: tuple[str, ...], parent: Any) -> dict[tuple[str, ...], Any]:
    """Return the commands that do something, by their words."""
    if not isinstance(command, TyperGroup):
        return {path: command}
    context = command.context_class(command, info_name=path[-1], parent=parent)
    found: dict[tuple[str, ...], Any] = {}
    for name in command.list_commands(context):
        found |= leaves(command.get_command(context, name), (*path, name), context)
    return found


LEAVES = leaves(BUILT, ("rm-voucher",), None)
EXAMPLES = [(path, line) for path, command in LEAVES.items() for line in examples_of(command)]


def test_each_command_has_examples() -> None:
    """One to four, of the command itself."""
    assert [
        path for path, command in LEAVES.items() if not 1 <= len(examples_of(command)) <= 4
    ] == []
    assert [line for path, line in EXAMPLES if tuple(shlex.split(line))[: len(path)] != path] == []


def test_examples_are_right() -> None:
    """Each has arguments and options that exist."""
    for path, line in EXAMPLES:
        words = shlex.split(line)[len(path) :]
        try:
            LEAVES[path].make_context(path[-1], words)
        except Exception as exc:
            raise AssertionError(line) from exc


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("line", [line for _, line in EXAMPLES if "--environment memory" in line])
def test_examples_in_memory_run(rm, line: str, tmp_path, monkeypatch) -> None:
    """What needs no account can be copied and run."""
    monkeypatch.chdir(tmp_path)
    assert rm(*shlex.split(line)[1:]).code == 0


def test_each_command_has_what_all_have() -> None:
    """``-h``, ``-q``, and the examples under the help."""
    for path, command in LEAVES.items():
        options = {name for param in command.params for name in param.opts}
        assert {"--quiet", "-q"} <= options, path
        assert command.epilog.startswith("Examples:"), path


def test_short_help(rm) -> None:
    """``-h`` is ``--help``, of the whole, of a command and of one in a group."""
    for words in ((), ("issue",), ("ledger", "status")):
        short, long = rm(*words, "-h"), rm(*words, "--help")
        assert (short.code, short.out) == (0, long.out)
        assert "Usage: rm-voucher " in short.out
        assert ("Examples:" in short.out) is bool(words)


def test_usual_options_come_first(rm) -> None:
    """The rare ones stand in a group of their own, below."""
    shown = rm("issue", "-h").out
    places = [shown.index(text) for text in ("--recipients", "Rarely needed", "--settle", "Common")]
    assert places == sorted(places)


def test_panels(rm) -> None:
    """The list of the commands is in parts, by what a person wants."""
    shown = rm("-h").out
    places = [shown.index(f" {panel} ") for panel in PANELS]
    assert places == sorted(places)
    assert {entry.panel for entry in COMMANDS} <= {*PANELS}


def completed(words: str, shell: str = "bash") -> list[str]:
    """Return what a shell offers after some words; fail if it imported a command for nothing."""
    env = {
        **os.environ,
        "_RM_VOUCHER_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "rm_voucher"], env=env, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("rm-voucher iss", ["issue"]),
        ("rm-voucher issue --recip", ["--recipients"]),
        ("rm-voucher ledger re", ["reconcile", "resolve", "rebind"]),
    ],
)
def test_completion(words: str, offered: list[str]) -> None:
    """Commands, those of groups, and options are completed, though commands are imported late."""
    assert completed(words) == offered


def test_completion_script() -> None:
    """The script for a shell calls the command by its name."""
    env = {**os.environ, "_RM_VOUCHER_COMPLETE": "source_bash"}
    done = subprocess.run(
        [sys.executable, "-m", "rm_voucher"], env=env, capture_output=True, text=True, check=True
    )
    assert "_RM_VOUCHER_COMPLETE=complete_bash" in done.stdout


def test_manual_and_options_are_those_of_the_command() -> None:
    """docs/rm-voucher.1 and docs/options.md are what `python docs/man_page.py` writes today."""
    made = runpy.run_path(str(DOCS / "man_page.py"))
    assert made["man"]() == made["MAN"].read_text()
    assert made["page"]() == made["OPTIONS"].read_text()


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff")
def test_manual_has_no_warning() -> None:
    """It is a manual page without a mistake."""
    command = ["groff", "-man", "-ww", "-z", "-T", "utf8", "-K", "utf8", str(DOCS / "rm-voucher.1")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_manual_is_installed() -> None:
    """The wheel brings it."""
    assert (
        '"docs/rm-voucher.1" = "share/man/man1/rm-voucher.1"'
        in (ROOT / "pyproject.toml").read_text()
    )


def test_page_has_each_command() -> None:
    """docs/command.md names each command once in its tables, under the panel's heading."""
    tables = PAGE.partition("## The commands")[2].partition("## Exit codes")[0]
    rows = re.findall(r"^\| (`.*?) \|", tables, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([a-z-]+)`", row)]
    assert sorted(named) == sorted(entry.name for entry in COMMANDS)


def test_page_has_the_exit_codes() -> None:
    """Those that the command gives, with its words."""
    table = PAGE.partition("## Exit codes")[2].partition("## On the screen")[0]
    said = {
        int(code): words
        for code, words in re.findall(r"^\| (\d+) \| (.*) \|$", table, re.MULTILINE)
    }
    plain = {code: re.sub(r"\[(\w+)\]\([^)]*\)", r"\1", words) for code, words in said.items()}
    assert plain == dict(EXIT_CODES)


def test_options_on_the_page_exist() -> None:
    """What the page says of options is so."""
    known = {name for command in LEAVES.values() for param in command.params for name in param.opts}
    known |= {"--install-completion", "--show-completion", "-h", "--help"}
    said = set(re.findall(r"`(--?[a-z][a-z-]*)", PAGE))
    assert said - known == set()
