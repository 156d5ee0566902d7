"""What options of several commands share."""

from __future__ import annotations

import pytest

from rm_voucher import ConfigurationError
from rm_voucher.cli import issue as command
from rm_voucher.cli.options import open_shared, without_password


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
    if where == "memory":
        request.getfixturevalue("embedded")
    else:
        request.getfixturevalue("served").emulator.add_batch("Breakfast", key="B", quantity=1)
    allowed = []
    monkeypatch.setattr(
        command, "run_issue", lambda client, *_, **__: allowed.append(client.flow.rate_per_s)
    )
    assert rm("issue", "B", *[f"--rate={rate}"] * bool(rate)).code == 0
    assert allowed == [expected]


def test_rate_issues_all(rm, embedded) -> None:
    """A run at a rate of its own issues to all as well."""
    ended = rm("issue", "B", "--count", 30, "--rate", 10_000)
    assert ended.code == 0
    assert sorted(row["code"] for row in ended.rows) == sorted(embedded.issued)
    assert len(ended.rows) == 30


@pytest.mark.parametrize(
    ("option", "variable", "ledger", "store"),
    [
        (None, None, "postgresql://me@host/db", "SqlSharedStore"),
        (None, None, "env:THE_LEDGER", "SqlSharedStore"),
        (None, None, "sqlite:///campaign.db", None),
        (None, "redis://host/0", "postgresql://me@host/db", "RedisSharedStore"),
        (None, "redis://host/0", "sqlite:///campaign.db", "RedisSharedStore"),
        ("redis://host/0", "sqlite:///shared.db", "sqlite:///campaign.db", "RedisSharedStore"),
        ("env:THE_STORE", "redis://host/0", "sqlite:///campaign.db", "SqlSharedStore"),
    ],
)
async def test_shared_store(
    monkeypatch: pytest.MonkeyPatch,
    option: str | None,
    variable: str | None,
    ledger: str,
    store: str | None,
) -> None:
    """The option, else the variable, else the ledger's PostgreSQL; a file has one process."""
    monkeypatch.delenv("RM_SHARED_URL", raising=False)
    monkeypatch.setenv("THE_LEDGER", "postgresql://me:s3cret@host/db")
    monkeypatch.setenv("THE_STORE", "sqlite:///shared.db")
    if variable is not None:
        monkeypatch.setenv("RM_SHARED_URL", variable)
    found = open_shared(option, ledger)
    assert (None if found is None else type(found).__name__) == store
    if found is not None:
        await found.aclose()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("env:NOTHING", "The shared store is in the variable NOTHING, which is not set"),
        (None, "The shared store is in the variable RM_SHARED_URL, which is not set"),
        ("mysql://host/db", "postgresql"),
    ],
)
def test_shared_store_that_can_not_be_opened(
    monkeypatch: pytest.MonkeyPatch, option: str | None, said: str
) -> None:
    """Nor is a variable that is set to nothing taken for the default."""
    monkeypatch.delenv("NOTHING", raising=False)
    monkeypatch.setenv("RM_SHARED_URL", " ")
    with pytest.raises(ConfigurationError, match=said):
        open_shared(option, "sqlite:///campaign.db")


def test_password_of_a_shared_store_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    """Only where it stands in the arguments, and once."""
    open_shared("redis://:s3cret@host/0", "postgresql://me:s3cret@host/db")
    said = capsys.readouterr().err
    assert said.count("The shared store's password can be read") == 1
    assert "ledger" not in said
    assert "s3cret" not in said
