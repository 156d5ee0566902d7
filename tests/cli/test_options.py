"""What options of several commands share."""

from __future__ import annotations

import pytest

from rm_voucher.cli.options import without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///campaign.db", "sqlite:///campaign.db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://me:s3cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:s3@c:ret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://host/db?password=s3cret", "postgresql://host/db?***"),
        ("postgresql:///db?host=here", "postgresql:///db?host=here"),
    ],
)
def test_without_password(url: str, shown: str) -> None:
    """A URL that is shown has no password."""
    assert without_password(url) == shown
