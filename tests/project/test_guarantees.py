"""The pages of guarantees and of the security model name tests that there are."""

import re

import pytest
from support.files import DOCS
from support.named_tests import missing_tests, named_tests

_TABLE = r"^\| (?:promised|protected) \|.*\n\|-.*\n((?:\|.*\n)+)"
PAGES = [(DOCS / name).read_text() for name in ("guarantees.md", "security-model.md")]
ROWS, PROTECTED = (
    [
        row
        for table in re.findall(
            r"^\| (?:promised|protected) \|.*\n\|-.*\n((?:\|.*\n)+)", page, re.M
        )
        for row in re.findall(r"^\| (.+) \| (.+) \|$", table, re.M)
    ]
    for page in PAGES
)


def test_pages_have_their_rows():
    """The pattern above finds them."""
    assert len(ROWS) > 20
    assert len(PROTECTED) > 20


@pytest.mark.parametrize(
    ("promise", "held_by"),
    [*ROWS, *PROTECTED],
    ids=[row[0][:40] for row in [*ROWS, *PROTECTED]],
)
def test_guarantee_is_held_by_tests_that_there_are(promise, held_by):
    """Each row names at least one, by its file and its function."""
    assert named_tests(held_by), promise
    assert missing_tests(held_by) == [], promise
