"""A plain repeat of ``issue`` gives nobody a second voucher; what may be one is refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rm_voucher.cli.tables.read import open_table
from rm_voucher.cli.tables.write import open_writer

HEADER = "email,phone\n"
PEOPLE = [f"m{n}@a.my,6012345678{n}" for n in range(5)]


@pytest.fixture
def shop(served):
    served.emulator.advance(time.time() - served.emulator.virtual_clock.now())
    served.emulator.add_batch("Breakfast", key="B", quantity=100)
    served.emulator.add_batch("Lunch", key="C", quantity=100)
    return served


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.csv"


@pytest.fixture
def ledger(tmp_path: Path) -> tuple[str, str]:
    return ("--ledger", f"sqlite:///{tmp_path}/l.db")


@pytest.fixture
def people(tmp_path: Path) -> Path:
    path = tmp_path / "people.csv"
    path.write_text(HEADER + "\n".join(PEOPLE) + "\n")
    return path


@pytest.fixture
def issue(rm, shop, people: Path) -> Callable[..., object]:
    def run(*options: object, column: str = "email", batch: str = "B"):
        return rm("issue", batch, "--recipients", people, "--column", column, *options)

    return run


@pytest.mark.parametrize("has_ledger", [False, True])
def test_partial_of_the_other_kind(issue, shop, out: Path, ledger, has_ledger: bool) -> None:
    """What a killed run left with a ledger stops one without, and the other way round."""
    other = out.with_name("out.csv.partial" if has_ledger else "out.csv.ledger.partial")
    other.write_text(f"{HEADER.strip()},code,qr_url,voucher_status,error\nm0@a.my,1,X,,issued,\n")
    for extra in ([], ["--dry-run"]):
        ended = issue("--output", out, *(ledger if has_ledger else ()), *extra)
        assert (ended.code, shop.issued()) == (2, [])
        assert f"Error: {other} is there: " in ended.err
    assert sorted(path.name for path in out.parent.glob("out.*")) == [other.name]
    other.unlink()
    assert issue("--output", out, *(ledger if has_ledger else ())).code == 0


@pytest.mark.parametrize("column", ["email", "phone"])
@pytest.mark.parametrize("ending", ["csv", "xlsx", "jsonl"])
def test_again_without_a_ledger(issue, shop, tmp_path: Path, ending: str, column: str) -> None:
    """Who has a voucher in the output gets no second one, by whatever column, unless it is said."""
    out = tmp_path / f"out.{ending}"
    assert issue("--output", out).code == 0
    before = out.read_bytes()
    for extra in ([], ["--dry-run"]):
        ended = issue("--output", out, *extra, column=column)
        assert (ended.code, len(shop.issued()), out.read_bytes()) == (2, 5, before)
        assert ended.err.endswith(
            f"Error: 5 recipients of this list have a voucher in {out} already, or may have one. "
            "Nothing was issued. To go on with that run, give its output as the list: --recipients "
            f"{out}. If it is of another campaign, or of a trial, name another --output. --again "
            "issues a second one to each.\n"
        )
    assert issue("--output", out, "--again").code == 0
    assert len(shop.issued()) == 10


def test_some_of_a_list(rm, shop, issue, people: Path, out: Path) -> None:
    """One is enough; and who may have one counts. Who has none does not."""
    assert issue("--output", out).code == 0
    lines = out.read_text().splitlines()
    failed = [f"{','.join(line.split(',')[:2])},,,failed,x" for line in lines[2:]]
    for first, count in (("X,,issued,", 1), (",,unresolved,", 1), (",,failed,", 0)):
        out.write_text("\n".join([lines[0], f"m0@a.my,1,{first}", *failed]) + "\n")
        ended = issue("--output", out, "--dry-run")
        assert ended.code == (2 if count else 0), ended
        assert ("1 recipient of this list has" in ended.err) is bool(count)
    assert issue("--output", out).code == 0


def test_count_again(rm, shop, out: Path) -> None:
    """The numbers of --count are recipients, too."""
    assert rm("issue", "B", "--count", 2, "--output", out).code == 0
    ended = rm("issue", "B", "--count", 3, "--output", out)
    assert (ended.code, len(shop.issued())) == (2, 2)
    assert "2 recipients of this list have a voucher" in ended.err
    assert rm("issue", "B", "--count", 3, "--output", out, "--again").code == 0


def test_go_on_with_an_output(rm, issue, shop, out: Path) -> None:
    """An output that is the list itself is no hindrance."""
    assert issue("--output", out).code == 0
    ended = rm("issue", "B", "--recipients", out, "--column", "email", "--output", out)
    assert (ended.code, len(shop.issued())) == (0, 5)


def test_a_ledger_that_comes_later(issue, shop, out: Path, ledger) -> None:
    """What was issued without it, it does not know: nobody in that output gets a second one."""
    assert issue("--output", out).code == 0
    for extra in ([], ["--dry-run"]):
        ended = issue("--output", out, *ledger, *extra)
        assert (ended.code, len(shop.issued())) == (2, 5)
        assert "already, or may have one, which the ledger does not know." in ended.err
    assert issue("--output", out, *ledger, "--again").code == 0
    assert issue("--output", out, *ledger).code == 0  # they are the ledger's own now
    assert len(shop.issued()) == 10


def test_another_ledger_than_that_of_the_partial(issue, shop, out: Path, tmp_path: Path) -> None:
    """A killed run is gone on with in its own ledger: another one knows nobody of it."""
    kept = ("--ledger", f"sqlite:///{tmp_path}/l.db")
    assert issue(*kept, "--output", out).code == 0
    partial = out.rename(out.with_name("out.csv.ledger.partial"))
    before = partial.read_bytes()
    partial.write_bytes(before[:-12])  # the last row is torn
    for extra in ([], ["--dry-run"]):
        ended = issue("--ledger", f"sqlite:///{tmp_path}/other.db", "--output", out, *extra)
        assert (ended.code, len(shop.issued()), partial.read_bytes()) == (2, 5, before[:-12])
        assert "4 recipients of this list have a voucher in" in ended.err
        assert "Give the ledger of that run. If it is of another campaign" in ended.err
    assert issue(*kept, "--output", out).code == 0
    assert (len(shop.issued()), out.read_bytes()) == (5, before)


def test_other_names(issue, shop, ledger, people: Path) -> None:
    """The same people by another column get no second voucher, unless they are called others."""
    assert issue(*ledger).code == 0
    for extra in ([], ["--dry-run"]):
        ended = issue(*ledger, *extra, column="phone")
        assert (ended.code, len(shop.issued())) == (2, 5)
        assert "l.db; 5 others served from this batch" in ended.err
        assert "The ledger has 5 others served from this batch, and none of the 5" in ended.err
    assert issue(*ledger, "--other-people", column="phone").code == 0
    assert len(shop.issued()) == 10


def test_more_people(issue, shop, ledger, people: Path) -> None:
    """A list that goes on with most of them, or of another batch, is none of other people."""
    people.write_text(HEADER + "\n".join(PEOPLE[:2]) + "\n")
    assert issue(*ledger).code == 0
    more = [f"new{n}@a.my,{n}" for n in range(30)]
    people.write_text(HEADER + "\n".join([PEOPLE[0], *more]) + "\n")
    ended = issue(*ledger)
    assert (ended.code, len(shop.issued())) == (0, 32)
    people.write_text(HEADER + "\n".join(f"late{n}@a.my,{n}" for n in range(3)) + "\n")
    assert issue(*ledger, "--dry-run", batch="C").code == 0
    assert issue(*ledger, "--dry-run").code == 2


def test_other_people_without_a_ledger(issue, shop) -> None:
    """It is about one."""
    ended = issue("--other-people")
    assert (ended.code, shop.issued()) == (2, [])
    assert "--other-people are about a ledger" in ended.err


def test_again_without_an_output(issue, shop) -> None:
    """Nothing is known then of an earlier run."""
    ended = issue("--again")
    assert (ended.code, shop.issued()) == (2, [])
    assert "Error: --again is about --output: give that too." in ended.err


def test_ledger_that_can_not_be_looked_into(issue, shop, out: Path, tmp_path: Path) -> None:
    """Who has a voucher in the output is not asked for on trust; it is said why."""
    assert issue("--output", out).code == 0
    (tmp_path / "l.db").write_bytes(b"no database")
    ended = issue("--output", out, "--ledger", f"sqlite:///{tmp_path}/l.db")
    assert (ended.code, len(shop.issued())) == (2, 5)
    assert "already, or may have one, and the ledger could not be looked into: " in ended.err


def test_case_of_an_address(issue, shop, ledger, people: Path) -> None:
    """Two spellings of one mailbox are one person, in a list and in the ledger."""
    people.write_text("email\nAnn@x.my\nann@X.my\n")
    ended = issue()
    assert (ended.code, shop.issued()) == (2, [])
    assert "'ann@X.my' looks the same as 'Ann@x.my' in line 2" in ended.err
    people.write_text("email\nAnn@x.my\nMember A\n")
    assert issue(*ledger).code == 0
    people.write_text("email\nann@x.my\nmember a\n")
    assert issue(*ledger).code == 0
    assert len(shop.issued()) == 3


@pytest.mark.parametrize("name", ["l.db", "l.db.lock", "l.db-wal"])
@pytest.mark.parametrize("is_there", [False, True])
def test_output_that_is_the_ledger(issue, shop, tmp_path, ledger, name: str, is_there) -> None:
    """No output takes the place of a file of the ledger."""
    if is_there:
        assert issue(*ledger).code == 0
    before = len(shop.issued())
    ended = issue(*ledger, "--output", tmp_path / name)
    assert (ended.code, len(shop.issued())) == (2, before)
    assert f"{tmp_path / name} is a file of the ledger: name another one." in ended.err


def test_output_that_is_a_database(rm, issue, shop, tmp_path: Path, ledger) -> None:
    """Nor does that of any other command."""
    assert issue(*ledger).code == 0
    for command in (("vouchers", "B"), ("ledger", "export", ledger[1])):
        ended = rm(*command, "--output", tmp_path / "l.db")
        assert ended.code == 2
        assert f"{tmp_path / 'l.db'} is a database: name another file." in ended.err


@pytest.mark.parametrize("ending", ["csv", "xlsx", "jsonl"])
def test_output_with_a_column_more(issue, shop, tmp_path: Path, ledger, ending: str) -> None:
    """A person's own notes in an output are kept beside the new one."""
    out = tmp_path / f"out.{ending}"
    assert issue("--output", out, *ledger).code == 0
    with open_table(out, column="email") as table:
        header, rows = table.header, [row.cells for row in table]
    with open_writer(out, (*header, "called"), exact=("code",), is_replaced=lambda: True) as writer:
        for cells in rows:
            writer.add([*cells, "on Monday"])
    written = out.read_bytes()
    assert issue("--output", out, *ledger).code == 0
    assert (tmp_path / f"out.{ending}.1").read_bytes() == written
    assert issue("--output", out, *ledger).code == 0
    assert not (tmp_path / f"out.{ending}.2").exists()


def test_dry_run_beside_a_partial_file(issue, out: Path, ledger) -> None:
    """What stops the run stops its plan, too."""
    out.with_name("out.csv.partial").write_text("recipient,code,qr_url,voucher_status,error\n")
    for options in ((), ledger):
        ended = issue("--output", out, "--dry-run", *options)
        assert ended.code == 2
        assert f"{out}.partial is there: " in ended.err
