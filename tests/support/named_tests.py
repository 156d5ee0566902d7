"""Tests that pages name, by file and function."""

from __future__ import annotations

import ast
import re

from support.files import TESTS


def named_tests(text: str) -> list[tuple[str, str]]:
    """Return the file and function of each test that a text names, like ``a/test_b.py::test_c``.

    Raises `ValueError` where a name is written in another way.
    """
    names = re.findall(r"`([\w/]+\.py)::(test_\w+)`", text)
    if len(names) != text.count("::"):
        raise ValueError(f"it names tests in another way: {text}")
    return names


def missing_tests(text: str) -> list[str]:
    """Return the tests that a text names, and that there are not."""
    return [
        f"{file}::{function}"
        for file, function in named_tests(text)
        if function not in _functions(file)
    ]


def _functions(file: str) -> set[str]:
    path = TESTS / file
    if not path.is_file():
        return set()
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, kinds)}
