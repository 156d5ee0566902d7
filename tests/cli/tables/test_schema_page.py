"""The page of the columns says what the command writes."""

import re

from support.files import DOCS

from rm_voucher.bulk.results import BulkStatus
from rm_voucher.cli.tables.columns import OURS, RECIPIENT_NAMES, choose_column

PAGE = (DOCS / "output-schema.md").read_text()
GUIDE = (DOCS / "spreadsheets.md").read_text()


def rows(table: str) -> list[str]:
    """Return the first cells of a table of the page, by the first cell of its header."""
    _, _, text = PAGE.partition(f"| {table} |")
    lines = text.partition("\n\n")[0].splitlines()[2:]
    return [re.findall("`(.+?)`", line)[0] for line in lines]


def test_columns() -> None:
    """The table of the columns has ours, in their order."""
    assert rows("column") == list(OURS)


def test_statuses() -> None:
    """The table of the words has each that a row can have."""
    assert rows("`voucher_status` | the recipient") == [
        *(status.value for status in (BulkStatus.ISSUED, BulkStatus.FAILED, BulkStatus.UNRESOLVED)),
        "unkept",
        "given_up",
        "not_asked",
        "duplicate",
    ]
    assert len(BulkStatus) == 3


def test_names_of_the_guide() -> None:
    """Each name of a column that the guide tells of is one."""
    _, _, text = GUIDE.partition("blanks and marks: ")
    names = re.split(r",\s+", text.partition(". The command")[0])
    assert len(names) > 20
    for name in names:
        assert choose_column(["x", name], column=None, names=RECIPIENT_NAMES, what="recipient") == 1
