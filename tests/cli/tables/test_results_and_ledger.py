"""The output of a run is the input of the next, with a ledger too: nobody gets a second voucher."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest

from rm_voucher import ConfigurationError
from rm_voucher.cli.output import OutputError
from rm_voucher.cli.results import ResultFile
from rm_voucher.cli.tables.read import Row, open_table


@pytest.fixture
def shop(served):
    served.emulator.advance(time.time() - served.emulator.virtual_clock.now())
    served.emulator.add_batch("Breakfast", key="B", quantity=100)
    return served


@pytest.fixture
def names(tmp_path: Path) -> Path:
    path = tmp_path / "members.csv"
    path.write_text("Name,Email\n" + "".join(f"N{n},m{n}@a.my\n" for n in range(6)))
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_resumed_run_has_the_whole_file(rm, shop, names: Path, tmp_path: Path) -> None:
    """Through a ledger a second run writes all rows, in order, and replaces the first output."""
    out, url = tmp_path / "out.csv", f"sqlite:///{tmp_path}/l.db"
    run = ("issue", "B", "--recipients", names, "--ledger", url, "--output", out)
    assert rm(*run).code == 0
    before = rows(out)
    assert [row["Name"] for row in before] == [f"N{n}" for n in range(6)]
    assert rm(*run).code == 0
    assert (rows(out), len(shop.issued())) == (before, 6)
    assert rm(*run[:2], "--recipients", out, *run[4:]).code == 0
    assert (rows(out), len(shop.issued())) == (before, 6)
    assert not list(tmp_path.glob("out.csv.*"))


@pytest.mark.parametrize("ending", ["csv", "xlsx", "jsonl"])
def test_older_output_is_replaced_in_each_format(
    rm, shop, names: Path, tmp_path: Path, ending: str
) -> None:
    """An older output whose codes are all in the new one needs no second file."""
    out, url = tmp_path / f"out.{ending}", f"sqlite:///{tmp_path}/l.db"
    for _ in range(2):
        assert rm("issue", "B", "--recipients", names, "--ledger", url, "--output", out).code == 0
    assert not list(tmp_path.glob("out.*.1"))
    assert rm("issue", "B", "--count", 2, "--ledger", url, "--output", out).code == 0
    assert len(list(tmp_path.glob("out.*.1"))) == 1


def test_codes_of_another_run(rm, shop, names: Path, tmp_path: Path) -> None:
    """Codes that the ledger does not know are refused: who has one would get a second."""
    out, url = tmp_path / "out.csv", f"sqlite:///{tmp_path}/l.db"
    assert rm("issue", "B", "--recipients", names, "--output", out).code == 0
    ended = rm("issue", "B", "--recipients", out, "--ledger", url, "--output", out)
    assert (ended.code, len(shop.issued())) == (2, 6)
    assert f"Error: {out} has more than one problem:" in ended.err
    assert (
        "line 2: has a code, or may have one, that is not in the ledger: run it without --ledger, "
        "or with the ledger that has it"
    ) in ended.err


@pytest.mark.parametrize("ending", ["csv", "xlsx", "jsonl"])
def test_unkept_codes_are_found_in_each_format(names: Path, tmp_path: Path, ending: str) -> None:
    """A code that an earlier run's ledger could not keep is found by the next run, and whose."""
    out = tmp_path / f"out.{ending}"
    with open_table(names) as table:
        with ResultFile(out, table=table) as file:
            file.begin()
            file.put(3, {"recipient": "m3@a.my", "code": "CODE", "voucher_status": "unkept"})
            file.put(1, {"recipient": "m1@a.my", "code": "OTHER", "voucher_status": "issued"})
        with ResultFile(out, table=table, is_kept=True) as file:
            ((path, row),) = file.unkept()
    found = {"recipient": "m3@a.my", "code": "CODE", "voucher_status": "unkept"}
    assert (path, {name: row[name] for name in found}) == (out, found)


def test_unkept_code_of_nobody(names: Path, tmp_path: Path) -> None:
    """Codes without their owners are written over by nobody."""
    out = tmp_path / "out.csv"
    out.write_text("Nick,code,qr_url,voucher_status,error\nx,CODE,,unkept,\n")
    with (
        ResultFile(out, is_kept=True) as file,
        pytest.raises(ConfigurationError, match="not whose they are"),
    ):
        list(file.unkept())


def test_a_row_whose_table_is_lost_keeps_its_code(
    names: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the copy of the table can't be read any more, the partial file has each code."""
    out = tmp_path / "out.csv"
    with (
        open_table(names) as table,
        pytest.raises(OutputError, match="All rows are in"),
        ResultFile(out, table=table) as file,
    ):
        file.begin()

        def lost(number: int) -> Row:
            raise ConfigurationError("The copy can't be read any more.")

        monkeypatch.setattr(table, "row", lost)
        file.put(2, {"recipient": "m2@a.my", "code": "CODE", "voucher_status": "issued"})
    partial = rows(tmp_path / "out.csv.partial")
    assert (partial[0]["Email"], partial[0]["code"]) == ("m2@a.my", "CODE")


def test_interrupted_while_the_whole_file_is_written(
    names: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C at the very end leaves the partial file, and says so."""
    out = tmp_path / "out.csv"
    with (
        open_table(names) as table,
        pytest.raises(OutputError, match="because it was interrupted"),
        ResultFile(out, table=table) as file,
    ):
        file.begin()
        file.put(0, {"recipient": "m0@a.my", "code": "CODE", "voucher_status": "issued"})

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(file, "_ours", interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["members.csv", "out.csv.partial"]
