"""Tests that need PostgreSQL are skipped without it; in CI they fail if it is there, but broken."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import psycopg
import pytest
from support.postgres import execute, give_up


@pytest.fixture
def port() -> Iterator[int]:
    """A port at which somebody answers who is no PostgreSQL."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("in_ci", [True, False])
def test_postgres_that_does_not_answer_is_a_skip(
    in_ci: bool, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In CI too: it may have no PostgreSQL. The reason is given, and no password."""
    monkeypatch.setenv("CI", "true" if in_ci else "")
    url = f"postgresql://u:secret@127.0.0.1:{unused_tcp_port}/d"
    with pytest.raises(psycopg.OperationalError) as refused:
        execute(url, "SELECT 1")
    with pytest.raises(pytest.skip.Exception, match=r"127\.0\.0\.1.*Connection refused") as raised:
        give_up(url, refused.value)
    assert "secret" not in str(raised.value)


def test_postgres_that_answers_and_can_not_be_used_fails_in_ci(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that is there but not set up right must not pass for one that is not there."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no such role"):
        give_up(f"postgresql://u@127.0.0.1:{port}/d", "no such role")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no such role"):
        give_up(f"postgresql://u@127.0.0.1:{port}/d", "no such role")
