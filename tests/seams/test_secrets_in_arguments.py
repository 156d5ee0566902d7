"""Rule: no secret need be an argument of a command: other users of a machine can read those."""

from pathlib import Path

import pytest

from rm_voucher.cli.options import open_ledger, without_password


def test_ledger_by_a_variable(rm, served, tmp_path: Path, monkeypatch) -> None:
    """``env:NAME`` is the URL in that variable, for every command, and advice repeats the name."""
    served.emulator.add_batch("Breakfast", key="B", quantity=2)
    monkeypatch.setenv("CAMPAIGN", f"sqlite:///{tmp_path}/a.db")
    ended = rm("issue", "B", "--count", 3, "--ledger", "env:CAMPAIGN", "--partial")
    assert (ended.code, len(served.issued())) == (1, 2)
    assert ended.err.splitlines()[-1].endswith(
        "'rm-voucher ledger status env:CAMPAIGN' shows what is open."
    )
    assert str(tmp_path) not in ended.err
    status = rm("ledger", "status", "env:CAMPAIGN")
    assert "assigned: 2\n" in status.out
    assert len(rm("ledger", "export", "env:CAMPAIGN").rows) == 3
    assert rm("ledger", "reconcile", "env:CAMPAIGN", "B", "--settle", 0).code == 0


@pytest.mark.parametrize("value", [None, "", " "])
def test_variable_that_is_not_set(rm, served, tmp_path, monkeypatch, value: str | None) -> None:
    """A variable that is not there is a mistake, and no ledger of a default name."""
    monkeypatch.chdir(tmp_path)
    if value is not None:
        monkeypatch.setenv("CAMPAIGN", value)
    for command in (("issue", "B", "--ledger"), ("ledger", "status")):
        ended = rm(*command, "env:CAMPAIGN")
        assert (ended.code, ended.out, list(tmp_path.iterdir())) == (2, "", [])
        assert ended.err == "Error: The ledger is in the variable CAMPAIGN, which is not set.\n"


def test_password_of_another_place() -> None:
    """libpq's own ways reach it: a service, and a file of passwords."""
    ledger = open_ledger("postgresql:///?service=campaign&passfile=/run/passwords")
    assert "password" not in str(without_password("env:CAMPAIGN"))
    assert ledger.settings.settle_s == 300


def test_password_among_the_arguments(rm, served) -> None:
    """Who writes it there is told, and it is shown nowhere."""
    url = "postgresql://me:hush@127.0.0.1/db?sslmode=no-such-mode"  # refused without a wait
    ended = rm("ledger", "status", url)
    assert ended.code == 1
    assert "write env:NAME" in ended.err
    assert "hush" not in ended.err + ended.out
