"""Modules that are imported anew, or can't be imported, while a test runs."""

import sys

import pytest


def forget(monkeypatch: pytest.MonkeyPatch, *prefixes: str) -> None:
    """Let modules be imported anew; after the test all is as it was.

    Their packages, too: who imports a module anew sets it as an attribute of its package.
    """
    for name in [name for name in sys.modules if name.startswith(prefixes)]:
        package, _, child = name.rpartition(".")
        parent = sys.modules.get(package)
        if parent is not None and child in vars(parent):
            monkeypatch.setattr(parent, child, vars(parent)[child])
    for name in [name for name in sys.modules if name.startswith(prefixes)]:
        monkeypatch.delitem(sys.modules, name)
