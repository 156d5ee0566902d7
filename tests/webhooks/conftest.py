"""What every test of callbacks holds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.scoped_statements import all_scoped


@pytest.fixture(autouse=True)
def _no_statement_leaves_its_namespace() -> Iterator[None]:
    with all_scoped():
        yield
