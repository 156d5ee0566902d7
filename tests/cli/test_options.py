"""What options of several commands share."""

from __future__ import annotations

import pytest

from rm_voucher.cli import app
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


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf"])
def test_rate_bad(rm, embedded, rate: str) -> None:
    """A rate that is none is a mistake, found before anything is sent, and the sentence helps."""
    ended = rm("issue", "B", "--rate", rate)
    assert (ended.code, ended.out, embedded.made) == (2, "", [])
    assert ended.err == (
        f"Error: --rate {rate} is no number of requests a second, which is more than 0 and may be "
        "a fraction; leave it out for as many as the server takes.\n"
    )


@pytest.mark.parametrize(("rate", "expected"), [(None, None), ("0.5", 0.5), ("200", 200.0)])
@pytest.mark.parametrize("where", ["memory", "http"])
def test_rate_is_the_clients(
    rm, request, monkeypatch: pytest.MonkeyPatch, where: str, rate: str | None, expected: object
) -> None:
    """``--rate`` is the most that the client of the run sends a second, on every environment."""
    request.getfixturevalue("embedded" if where == "memory" else "served")
    allowed = []
    monkeypatch.setattr(
        app, "run_issue", lambda client, *_, **__: allowed.append(client.flow.rate_per_s)
    )
    assert rm("issue", "B", *[f"--rate={rate}"] * bool(rate)).code == 0
    assert allowed == [expected]


def test_rate_issues_all(rm, embedded) -> None:
    """A run at a rate of its own issues to all as well."""
    ended = rm("issue", "B", "--count", 30, "--rate", 10_000)
    assert ended.code == 0
    assert sorted(row["code"] for row in ended.rows) == sorted(embedded.issued)
    assert len(ended.rows) == 30
