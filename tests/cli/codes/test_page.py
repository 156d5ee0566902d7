"""docs/codes.md: its commands run as they stand there, and its tables are those of the code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.files import DOCS

from rm_voucher.cli.codes.operations import (
    FAILED,
    NOT_ASKED,
    OURS,
    UNRESOLVED,
    looking_up,
    redeeming,
    reinstating,
    voiding,
)
from rm_voucher.cli.listings import BATCH_COLUMNS, VOUCHER_COLUMNS

PAGE = (DOCS / "codes.md").read_text()


def commands() -> Iterator[list[str]]:
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL):
        for line in block.splitlines():
            yield shlex.split(line)


def test_commands_run(rm, served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, on a shop with a batch, a member and two files' worth of vouchers."""
    emulator, state = served.emulator, served.emulator.state
    emulator.add_batch("Tea", key="BATCH", quantity=50)
    one, theirs, *others = (str(state.issue("BATCH")[0]) for _ in range(8))
    state.collect(theirs, emulator.add_member("60", "123456789"))
    (tmp_path / "vouchers.csv").write_text("".join(f"{code}\n" for code in ("code", *others)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOP_PIN", "123456")
    ran = 0
    for name, *arguments in commands():
        assert name == "rm-voucher"
        code = theirs if arguments[0] == "member" else one
        ended = rm(*(code if word == "CODE" else word for word in arguments))
        assert (ended.code, ended.err.count("Error")) == (0, 0), (arguments, ended.err)
        ran += 1
    assert ran == 16


def cells(head: str) -> list[str]:
    """Return the first column of the table with a head."""
    (table,) = re.findall(rf"^\| {re.escape(head)} \|.*?\n\|[-|]+\|\n(.*?)\n\n", PAGE, re.M | re.S)
    return [line.split("|")[1].strip() for line in table.splitlines()]


def test_columns() -> None:
    """The page has the columns in their order."""
    assert cells("column") == [f"`{name}`" for name in OURS]
    (lists,) = re.findall(r"\| of a voucher \| of a batch \|\n\|---\|---\|\n(.*)\n", PAGE)
    shown = [re.findall(r"`(\w+)`", cell) for cell in lists.strip("|").split("|")]
    assert shown == [list(VOUCHER_COLUMNS), list(BATCH_COLUMNS)]


def test_outcomes() -> None:
    """The page has each outcome."""
    done = [each.done for each in (looking_up(), voiding(), redeeming(), reinstating(""))]
    shown = re.findall(r"`(\w+)`", " ".join(cells("`outcome`")))
    assert shown == [*done, FAILED, UNRESOLVED, NOT_ASKED]
