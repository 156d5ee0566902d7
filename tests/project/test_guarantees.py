"""The page of guarantees names tests that there are."""

import re

import pytest
from support.files import DOCS
from support.named_tests import missing_tests, named_tests

PAGE = (DOCS / "guarantees.md").read_text()
ROWS = re.findall(r"^\| (?!promised|---)(.+) \| (.+) \|$", PAGE, re.M)


def test_page_has_its_rows():
    """The pattern above finds them."""
    assert len(ROWS) > 20


@pytest.mark.parametrize(("promise", "held_by"), ROWS, ids=[row[0][:40] for row in ROWS])
def test_guarantee_is_held_by_tests_that_there_are(promise, held_by):
    """Each row names at least one, by its file and its function."""
    assert named_tests(held_by), promise
    assert missing_tests(held_by) == [], promise
