"""Rule: a code in hand is never dropped, and nobody is held whose code was seen.

The row of a result with a voucher has its code and QR URL, whatever its status, in the output or in
the next best place. What the ledger could not keep is given to it by the next run, before that
writes over anything.
"""

from __future__ import annotations

import csv
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rm_voucher import (
    BulkResult,
    IssuedVoucher,
    LedgerError,
    OutcomeUnknownError,
    ServerError,
    VoucherError,
)
from rm_voucher.bulk.results import Unresolved
from rm_voucher.cli.output import table_line
from rm_voucher.cli.results import COLUMNS, ResultFile, ResultStream
from rm_voucher.ledger.rules.transitions import confirm
from rm_voucher.ledger.sql.store import SqlLedgerStore

FULL = "The database can't be used: database or disk is full."
VOUCHER = IssuedVoucher(code="NAklEfbVdV", qr_url="https://rm.example/NAklEfbVdV")


def result(voucher: IssuedVoucher | None, cause: VoucherError | None) -> BulkResult[str]:
    error = OutcomeUnknownError("issue: unknown", operation="issue", voucher=voucher)
    error.__cause__ = cause
    return Unresolved(recipient="a", voucher=voucher, error=error, attempts=1)


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["recipient"]: row for row in csv.DictReader(file)}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.csv"


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """The ledger's disk is full, or has space, for codes that arrived."""
    commit = SqlLedgerStore.commit
    state = {"full": False}

    async def limited(self: SqlLedgerStore, transition: Any, item: Any) -> Any:
        if state["full"] and transition is confirm:
            raise LedgerError(FULL) from OSError("No space left on device")
        return await commit(self, transition, item)

    monkeypatch.setattr(SqlLedgerStore, "commit", limited)
    return lambda is_full: state.update(full=is_full)


@pytest.fixture
def issue(rm, served, tmp_path: Path) -> Callable:
    """Issue to 20 through a ledger."""
    served.emulator.advance(time.time() - served.emulator.virtual_clock.now())
    served.emulator.add_batch("Breakfast", key="B", quantity=100)

    def run(*options: object, batch: str = "B"):
        ledger = ("--ledger", f"sqlite:///{tmp_path}/ledger.db", "--settle", 0)
        return rm("issue", batch, "--count", 20, "--concurrency", 4, *ledger, *options)

    return run


@pytest.mark.parametrize(
    ("voucher", "cause", "status"),
    [
        (VOUCHER, LedgerError(FULL), "unkept"),
        (VOUCHER, ServerError("INTERNAL"), "unresolved"),
        (VOUCHER, None, "unresolved"),
        (None, LedgerError(FULL), "unresolved"),
    ],
)
def test_row_has_the_code(capsys, out: Path, voucher, cause, status: str) -> None:
    """Whatever the status: a code that the ledger lacks, and one that came with an error."""
    expected = {"code": "", "qr_url": ""}
    if voucher:
        expected = {"code": voucher.code, "qr_url": voucher.qr_url}
    with ResultFile(out) as file:
        file.begin()
        file.add(result(voucher, cause))
    row = rows_of(out)["a"]
    assert {**expected, "voucher_status": status}.items() <= row.items()
    with ResultStream(as_json=True) as stream:
        stream.begin()
        stream.add(result(voucher, cause))
    assert f'"code":"{expected["code"]}"' in capsys.readouterr().out


def test_code_that_the_ledger_cannot_keep(issue, served, out: Path, full) -> None:
    """Each code that arrived is in its row, the run stops, and run again all have theirs."""
    full(True)
    ended = issue("--output", out)
    issued, rows = served.issued(), rows_of(out)
    assert ended.code == 4
    assert issued
    assert len(issued) <= 8
    unkept = {name: row for name, row in rows.items() if row["voucher_status"] == "unkept"}
    assert sorted(row["code"] for row in unkept.values()) == sorted(issued)
    assert all(row["qr_url"].endswith(row["code"]) for row in unkept.values())
    assert f"{len(issued)} codes arrived that the ledger could not keep." in ended.err
    full(False)
    ended = issue("--output", out)
    again = rows_of(out)
    assert ended.code == 0
    assert {row["voucher_status"] for row in again.values()} == {"issued"}
    assert {name: again[name]["code"] for name in unkept} == {
        name: row["code"] for name, row in unkept.items()
    }
    assert sorted(row["code"] for row in again.values()) == sorted(served.issued())
    assert len(again) == len(served.issued()) == 20


@pytest.mark.parametrize("as_json", [False, True])
def test_output_fails_too(
    issue, served, out: Path, full, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    """When neither the ledger nor the file takes a code, standard output or error has it."""
    full(True)

    def fail(self: ResultFile, line: str) -> None:
        if line != ",".join(COLUMNS) + "\n":
            raise OSError(28, os.strerror(28))

    monkeypatch.setattr(ResultFile, "_write", fail)
    ended = issue("--output", out, *["--json"] * as_json)
    assert ended.code == 4
    rescued = [line for line in ended.out.splitlines() if ",unkept," in line]
    assert sorted(line.split(",")[1] for line in rescued) == sorted(served.issued())


def test_killed_run(issue, served, out: Path, full) -> None:
    """A run that was killed left its partial file: the codes in it are kept first."""
    full(True)
    issue("--output", out)
    partial = out.with_name("out.csv.ledger.partial")
    text = out.rename(partial).read_text()
    seen = {name: row["code"] for name, row in rows_of(partial).items() if row["code"]}
    assert seen
    # The last row is torn: whose code it is can't be told.
    with partial.open("a") as file:
        file.write("99,TORNCODE")
    full(False)
    ended = issue("--output", out)
    assert ended.code == 0
    assert seen.items() <= {name: row["code"] for name, row in rows_of(out).items()}.items()
    assert (partial.exists(), "TORNCODE" in text) == (False, False)


ROWS = {
    "another code": ("1", "OTHERCODE"),
    "nobody's": ("nobody", "OTHERCODE"),
    "another's code": ("2", None),
}


@pytest.mark.parametrize("where", ["out.csv", "out.csv.ledger.partial"])
@pytest.mark.parametrize("what", ROWS)
def test_ledger_contradicts(issue, served, tmp_path: Path, where: str, what: str) -> None:
    """What the ledger does not take is a sentence: nothing is issued, and nothing written over."""
    issue("--output", tmp_path / "first.csv")
    assert len(served.issued()) == 20
    name, code = ROWS[what]
    code = code or rows_of(tmp_path / "first.csv")["1"]["code"]
    row = {"recipient": name, "code": code, "qr_url": "", "voucher_status": "unkept", "error": "x"}
    text = ",".join(COLUMNS) + "\n" + table_line(row)
    (tmp_path / where).write_text(text)
    ended = issue("--output", tmp_path / "out.csv")
    assert (ended.code, ended.out, len(served.issued())) == (1, "", 20)
    assert f"{where} has a code for '{name}' that the ledger does not take: " in ended.err
    assert "Nothing was issued." in ended.err
    assert code not in ended.err
    assert (tmp_path / where).read_text() == text
    assert [path.name for path in tmp_path.glob("out*")] == [where]


def test_evidence_is_not_kept(issue, served, out: Path) -> None:
    """A code that came with an error proves nothing, and the next run keeps its hands off it."""
    row = {
        "recipient": "1",
        "code": "EVIDENCE",
        "qr_url": "",
        "voucher_status": "unresolved",
        "error": "x",
    }
    out.write_text(",".join(COLUMNS) + "\n" + table_line(row))
    assert issue("--output", out).code == 2  # 1 may have a voucher that no ledger knows
    ended = issue("--output", out, "--again")
    assert ended.code == 0
    assert "EVIDENCE" not in {row["code"] for row in rows_of(out).values()}
    assert "EVIDENCE" in out.with_name("out.csv.1").read_text()  # it is not in the new file


@pytest.mark.parametrize("where", ["out.csv", "out.csv.ledger.partial"])
def test_export_over_it(issue, rm, tmp_path: Path, where: str) -> None:
    """An export writes over no code that is in no ledger."""
    issue()
    text = ",".join(COLUMNS) + "\n1,CODE,,unkept,x\n"
    (tmp_path / where).write_text(text)
    ended = rm(
        "ledger", "export", f"sqlite:///{tmp_path}/ledger.db", "--output", tmp_path / "out.csv"
    )
    assert (ended.code, (tmp_path / where).read_text()) == (2, text)
    assert f"{where} has codes that are in no ledger" in ended.err


def test_refused_before_it_begins(issue, rm, served, tmp_path: Path, out: Path) -> None:
    """A ledger that can't be opened leaves a partial file as it is."""
    partial = out.with_name("out.csv.ledger.partial")
    text = ",".join(COLUMNS) + "\n1,CODE,,unkept,x\n"
    partial.write_text(text)
    (tmp_path / "ledger.db").mkdir()
    ended = issue("--output", out)
    assert (ended.code in (1, 2), served.issued(), partial.read_text()) == (True, [], text)


def test_recipient_in_another_form(issue, rm, served, tmp_path: Path, out: Path, full) -> None:
    """A code is kept for its recipient, whose name another program has written meanwhile."""
    recipients = tmp_path / "r.csv"
    recipients.write_text("recipient\nJose\u0301\n")
    options = ("--recipients", recipients, "--output", out)
    command = ("issue", "B", "--ledger", f"sqlite:///{tmp_path}/ledger.db", "--settle", 0, *options)
    full(True)
    assert rm(*command).code == 4
    out.write_text(out.read_text().replace("Jose\u0301", "José"))
    recipients.write_text("recipient\nJosé\n")
    full(False)
    assert rm(*command).code == 0
    assert [row["code"] for row in rows_of(out).values()] == served.issued()
    assert len(served.issued()) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with 1.2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.long
def test_real_disk_that_fills(rm, served, out: Path, small_disk: Path) -> None:
    """The ledger on a disk that fills, the output elsewhere: with space, all have what was seen."""
    served.emulator.advance(time.time() - served.emulator.virtual_clock.now())
    served.emulator.add_batch("Breakfast", key="B", quantity=9_000)
    names = out.with_name("r.csv")
    people = [f"{number:05} {'x' * 300}" for number in range(1_500)]
    names.write_text("".join(f"{name}\n" for name in ["recipient", *people]))
    options = ("--recipients", names, "--output", out, "--exclusive", "--settle", 0)
    command = ("issue", "B", "--ledger", f"sqlite:///{small_disk}/ledger.db", *options)
    ended = rm(*command)
    assert ended.code == 4, ended.err
    seen = {name: row["code"] for name, row in rows_of(out).items() if row["code"]}
    assert 0 < len(seen) < len(people)
    assert sorted(seen.values()) == sorted(served.issued())
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    ended = rm(*command)
    assert ended.code == 0, ended.err
    codes = {name: row["code"] for name, row in rows_of(out).items()}
    assert codes.items() >= seen.items()
    assert sorted(codes.values()) == sorted(served.issued())
    assert len(codes) == len(people)
