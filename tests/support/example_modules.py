"""The example applications as modules."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from types import ModuleType

from support.files import EXAMPLES


def load_example(name: str) -> ModuleType:
    """Import an example anew, as none was before."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_changed(name: str, texts: Mapping[str, str]) -> ModuleType:
    """Import an example in which texts are others: names of its own in what tests share."""
    source = (EXAMPLES / f"{name}.py").read_text()
    for text, other in texts.items():
        assert source.count(text) == 1, f"{text} is not there once"
        source = source.replace(text, other)
    module = ModuleType(name)
    exec(compile(source, f"{name}.py", "exec"), vars(module))
    return module
