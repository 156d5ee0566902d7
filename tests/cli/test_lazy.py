"""Commands that are imported when they are run, and a list of them that imports none."""

import subprocess
import sys
from typing import Any

import pytest
from typer import Context
from typer.main import get_command

from rm_voucher.cli.app import COMMANDS, app

GROUP: Any = get_command(app)


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_command_is_there_under_its_name(entry):
    """What the list has can be run."""
    command = GROUP.get_command(Context(GROUP), entry.name)
    assert command.name == entry.name
    assert command.get_short_help_str(200) == entry.summary


def test_names_that_do_not_exist():
    """They are none, and the nearest one is offered."""
    assert GROUP.get_command(Context(GROUP), "isue") is None
    assert "issue" in GROUP.commands


def test_list_of_the_commands_imports_none():
    """Neither the commands' modules nor what they need."""
    program = (
        "import sys\n"
        "from rm_voucher.cli.app import COMMANDS, app\n"
        "try:\n"
        "    app(['--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "print([each.name for each in COMMANDS\n"
        "       if f'rm_voucher.cli.{each.module}' in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Look a voucher up" in done.stdout
