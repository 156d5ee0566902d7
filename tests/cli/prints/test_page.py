"""docs/print.md says what the commands do."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from support.command_runs import BUILT
from support.files import DOCS
from support.pictures import Pdf, codes_in
from typer import Context

PAGE = (DOCS / "print.md").read_text(encoding="utf-8")
SHOWN_BY_HELP_ALONE = {
    "--help",
    "--environment",
    "--dir",
    "--output",
    "--format",
    "--quiet",
    "--profile",
}


def test_the_commands_of_the_page(rm, tmp_path: Path, monkeypatch) -> None:
    """One after the other, as they stand there."""
    monkeypatch.chdir(tmp_path)
    lines = [
        line
        for block in re.findall(r"```sh run\n(.*?)```", PAGE, re.DOTALL)
        for line in block.splitlines()
    ]
    assert len(lines) == 4
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "rm-voucher"
        assert "--environment" in arguments or arguments[0] == "qr"
        ended = rm(*arguments)
        assert ended.code == 0, ended.err
    assert len(list((tmp_path / "codes").iterdir())) == 40
    assert (tmp_path / "merge.xlsx").exists()
    found = [
        code for picture in Pdf(tmp_path / "cards.pdf").pictures() for code in codes_in(picture)
    ]
    assert len(set(found)) == 40


@pytest.mark.parametrize("command", ["qr", "sheet"])
def test_every_option_is_on_the_page(command: str) -> None:
    """But for those that every command has."""
    group: Any = BUILT  # typer brings the click that it needs, without types
    found = group.get_command(Context(group), command)
    options = {name for parameter in found.params for name in parameter.opts if name[:2] == "--"}
    assert {name for name in options - SHOWN_BY_HELP_ALONE if f"`{name}" not in PAGE} == set()
