"""The page of guarantees names tests that there are."""

import ast
import re

from support.files import DOCS, TESTS

PAGE = (DOCS / "guarantees.md").read_text()
ROWS = re.findall(r"^\| (?!promised|---)(.+) \| (.+) \|$", PAGE, re.M)


def test_guarantees_are_held_by_tests_that_there_are():
    """Each row names at least one, by its file and its function."""
    assert len(ROWS) > 20
    for promise, held_by in ROWS:
        names = re.findall(r"`([\w/]+\.py)::(test_\w+)`", held_by)
        assert names, promise
        assert held_by.count("::") == len(names), promise
        for file, function in names:
            tree = ast.parse((TESTS / file).read_text())
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
            assert function in {node.name for node in tree.body if isinstance(node, kinds)}, promise
