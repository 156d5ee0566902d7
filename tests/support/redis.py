"""Redis for tests, or a skip that says why."""

from __future__ import annotations

import os

import pytest
from support.postgres import listens
from yarl import URL

SERVICE = os.environ.get("RM_TEST_REDIS_URL", "redis://127.0.0.1:6379/15")


@pytest.fixture(scope="session")
def redis_url() -> str:
    """The URL of a Redis; each test has keys of its own there."""
    from redis import Redis  # an extra
    from redis.exceptions import RedisError

    at = URL(SERVICE)
    try:
        with Redis.from_url(SERVICE, socket_timeout=5, socket_connect_timeout=5) as client:
            client.ping()
    except (RedisError, OSError) as exc:
        reason = f"Redis at {at.host}:{at.port} can't be used: {exc}"
        if os.environ.get("CI") == "true" and listens(at.host or "127.0.0.1", at.port or 6379):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return SERVICE
