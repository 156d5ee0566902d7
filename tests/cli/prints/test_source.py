"""Which rows of an output file have a voucher to hand on."""

import re
from pathlib import Path

import pytest
from support.result_files import COLUMNS, code_of, row_of, url_of, write_results

from rm_voucher import ConfigurationError
from rm_voucher.cli.prints.source import Results
from rm_voucher.cli.tables.model import Row
from rm_voucher.cli.tables.read import Table


def read(path: Path, **options) -> tuple[list[str], str]:
    with Results(path, **options) as results:
        slips = list(results)
        assert len(slips) == results.vouchers
        return [slip.recipient for slip in slips], results.left_out_in_words()


def test_only_issued_rows_are_handed_on(tmp_path: Path) -> None:
    """A code of an unresolved row may be another's, an unkept one waits for its ledger."""
    held = [
        ["u", code_of(7), url_of(code_of(7)), status, ""] for status in ("unresolved", "unkept")
    ]
    path = write_results(
        tmp_path / "out.csv",
        [
            row_of(1, "ana"),
            row_of(2, "bob", "failed"),
            *held,
            ["", "", "", "", ""],
            ["no code", "", url_of("x"), "issued", ""],
            ["no url", code_of(8), "", "issued", ""],
            ["odd url", code_of(9), "javascript:alert(1)", "issued", ""],
            row_of(10, "eve"),
        ],
    )
    recipients, left_out = read(path)
    assert recipients == ["ana", "eve"]
    assert left_out == (
        "6 rows without a voucher to hand on: 1 failed, 2 issued without a QR URL, "
        "1 issued without a code, 1 unkept, 1 unresolved"
    )


@pytest.mark.parametrize(
    ("columns", "row", "recipients"),
    [
        (
            ("Name", "E-Mail", "code", "qr_url", "voucher_status", "error"),
            ["A", "a@b.c"],
            ["a@b.c"],
        ),
        (("recipient", "email", "code", "qr_url", "voucher_status", "error"), ["A", "x"], ["A"]),
        (
            ("code", "phone", "rm_code", "qr_url", "voucher_status", "error"),
            ["theirs", "+60 1"],
            ["+60 1"],
        ),
    ],
)
def test_their_own_columns_say_whose_it_is(
    columns: tuple[str, ...], row: list[str], recipients: list[str], tmp_path: Path
) -> None:
    """As in ``issue``: our own word, else a header that says so; the code is ours."""
    path = write_results(tmp_path / "out.csv", [[*row, *row_of(1)[1:]]], columns)
    assert read(path)[0] == recipients
    with Results(path) as results:
        (slip,) = results
        assert slip.code == code_of(1)


def test_a_listing_is_taken_as_well(tmp_path: Path) -> None:
    """What RM says is no more to hand on than that: a used voucher has no card."""
    rows = [
        [code_of(n), url_of(code_of(n)), s] for n, s in enumerate(["ISSUED", "VOID", "REDEEMED"])
    ]
    path = write_results(tmp_path / "out.csv", rows, ("code", "qr_url", "status"))
    with Results(path, has_recipient=False) as results:
        assert [slip.code for slip in results] == [code_of(0), code_of(2)]


@pytest.mark.parametrize(
    ("rows", "columns", "sentence"),
    [
        ([["ana"]], ("recipient",), "has no column 'code': name a file that"),
        ([], COLUMNS, "has no voucher to hand on: it has no rows"),
        ([row_of(1, "a", "failed")], COLUMNS, "1 row without a voucher to hand on: 1 failed"),
        (
            [row_of(1), row_of(2), row_of(1, "other")],
            COLUMNS,
            "line 4: line 2 has the same code, and one of the two people would find it used",
        ),
        ([row_of(1)], ("email", "code", "qr_url", "status", "phone"), "may be in 'email'"),
    ],
)
def test_what_is_refused(rows, columns, sentence: str, tmp_path: Path) -> None:
    """A sentence says what is wrong, before anything is drawn."""
    path = write_results(tmp_path / "out.csv", rows, columns)
    with pytest.raises(ConfigurationError, match=re.escape(sentence)) as raised:
        Results(path)
    assert code_of(1) not in str(raised.value)


def test_one_code_for_all(tmp_path: Path) -> None:
    """A static batch has it, and a person says so."""
    path = write_results(tmp_path / "out.csv", [row_of(1, "ana"), row_of(1, "bob")])
    assert read(path, has_shared_codes=True)[0] == ["ana", "bob"]


def test_workbook(tmp_path: Path) -> None:
    """An .xlsx is read as well; a code that a spreadsheet made a number of is refused."""
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    sheet.append(COLUMNS)
    sheet.append(row_of(1, "ana"))
    book.save(tmp_path / "out.xlsx")
    assert read(tmp_path / "out.xlsx")[0] == ["ana"]
    sheet.append(["bob", 123456, url_of("00123456"), "issued"])
    book.save(tmp_path / "out.xlsx")
    with pytest.raises(ConfigurationError, match="line 3: the code is a number"):
        Results(tmp_path / "out.xlsx")


def test_a_slip_shows_no_code(tmp_path: Path) -> None:
    """Nor does it in a traceback that shows values."""
    with Results(write_results(tmp_path / "out.csv", [row_of(1)])) as results:
        (slip,) = results
    assert code_of(1) not in repr(slip)


def test_a_status_that_is_none(tmp_path: Path) -> None:
    """A column of that name may hold anything: a sentence stays one."""
    rows = [["x", "c", url_of("c"), f"status {number}", ""] for number in range(1000)]
    path = write_results(tmp_path / "out.csv", [row_of(1, "ana"), *rows])
    assert read(path)[1].endswith("1 status 6, 1 status 7, 992 with another status")


def test_many_rows_with_one_code(tmp_path: Path) -> None:
    """Each is compared with the first alone: ten thousand take no longer than others."""
    path = write_results(tmp_path / "out.csv", [row_of(1, f"r{n}") for n in range(10_000)])
    with pytest.MonkeyPatch.context() as patch:
        looked: list[int] = []
        real = Table.row

        def row(table: Table, number: int) -> Row:
            looked.append(number)
            return real(table, number)

        patch.setattr(Table, "row", row)
        with pytest.raises(ConfigurationError, match="9,999 problems"):
            Results(path)
    assert len(looked) < 20_001


def test_what_is_left_of_an_output(tmp_path: Path) -> None:
    """Without a column of ours, an unresolved row can't be told from an issued one."""
    path = write_results(tmp_path / "out.csv", [row_of(1)[:4]], COLUMNS[:4])
    with pytest.raises(ConfigurationError, match="is not the whole output of a run"):
        Results(path)


def test_vouchers_that_were_used_are_not_handed_on(tmp_path: Path) -> None:
    """The file of ``campaign status`` says how each stands: only who has yet to use it gets one."""
    standings = ("served", "used", "void", "redeemed", "expired", "served", "used")
    listed = ("standing", "status", "assigned_at", "redeemed_at", "used_at", "expires_at")
    rows = [
        [*row_of(n, f"p{n}"), standing, "ISSUED", "", "", "", ""]
        for n, standing in enumerate(standings)
    ]
    path = write_results(tmp_path / "status.csv", rows, columns=(*COLUMNS, *listed))
    recipients, left_out = read(path)
    assert recipients == ["p0", "p5"]
    assert left_out.endswith(": 1 expired, 1 redeemed, 2 used, 1 void")
