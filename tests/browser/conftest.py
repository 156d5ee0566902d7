"""A browser for tests of pages. Without Chromium they are skipped; in CI that is a failure."""

import os

import pytest
from support.browsers import CHROMIUM, browser


@pytest.fixture
async def chromium():
    if CHROMIUM is None:
        assert "CI" not in os.environ, "CI installs Chromium"
        pytest.skip("there is no Chromium")
    async with browser() as started:
        yield started
