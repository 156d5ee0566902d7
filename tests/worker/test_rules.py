"""The pure rules of a worker: delays, prefetch, names."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rm_voucher import (
    ConfigurationError,
    IdempotencyConflictError,
    OutcomeUnknownError,
    RateLimitError,
    Retryable,
    VoucherError,
)
from rm_voucher.exceptions import InvalidRequestError
from rm_voucher.worker import QueueNames, WorkerSettings, open_broker, prefetch_for
from rm_voucher.worker.dispositions import Later, Park, backoff_s, judge

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SETTINGS = WorkerSettings(first_delay_s=5.0, longest_delay_s=900.0, max_attempts=50)


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_delays_grow_within_their_bounds(attempt: int, chance: float) -> None:
    """Twice as long each time, up to the longest; chance takes off up to half."""
    delay_s = backoff_s(attempt, SETTINGS, chance)
    whole_s = backoff_s(attempt, SETTINGS, 0.0)
    assert whole_s == (900.0 if attempt > 8 else 5.0 * 2 ** (attempt - 1))
    assert whole_s / 2 <= delay_s <= whole_s


@pytest.mark.parametrize(
    ("error", "attempt", "expected"),
    [
        (InvalidRequestError.refused("no"), 1, Park),
        (IdempotencyConflictError("no"), 1, Park),
        (InvalidRequestError("BAD_REQUEST", "", 400), 1, Later),
        (VoucherError("no"), 49, Later),
        (VoucherError("no"), 50, Park),
        (OutcomeUnknownError("no", operation="issue"), 50, Park),
    ],
)
def test_what_another_delivery_does_not_help_is_parked(
    error: VoucherError, attempt: int, expected: type
) -> None:
    """What this library refuses, an id with two contents, and what was tried often enough."""
    found = judge(error, attempt, SETTINGS, settle_s=300.0, chance=0.0)
    assert isinstance(found, expected)
    assert type(error).__name__ in found.reason
    if expected is Park and attempt == 1:
        assert error.retryable is Retryable.NEVER


@given(st.integers(1, 49), st.floats(0, 1, exclude_max=True))
def test_unknown_outcome_comes_back_when_it_can_be_settled(attempt: int, chance: float) -> None:
    """Not before, nor much later; its place is free for the next message meanwhile."""
    error = OutcomeUnknownError("lost", operation="issue", attempt_id="a-1", sent_at=NOW)
    found = judge(error, attempt, SETTINGS, settle_s=300.0, chance=chance)
    assert isinstance(found, Later)
    assert 300.0 < found.delay_s <= 305.0
    assert not found.holds


@pytest.mark.parametrize("attempt_id", [None, "a-1"])
def test_earlier_call_is_asked_for_soon(attempt_id: str | None) -> None:
    """It goes on after its message's time, or is being settled: that may end at any moment."""
    error = OutcomeUnknownError("earlier", operation="issue", attempt_id=attempt_id)
    found = judge(error, 1, SETTINGS, settle_s=300.0, chance=0.0)
    assert found == Later(5.0, f"OutcomeUnknownError: {error}")


@pytest.mark.parametrize(("asked_s", "delay_s"), [(None, 5.0), (60.0, 60.0), (1e9, 900.0)])
def test_the_wait_that_rm_asks_for_is_kept(asked_s: float | None, delay_s: float) -> None:
    """Within the longest delay: a server's mistake must not hold a message for years."""
    error = RateLimitError("TOO_MANY", "", 429, retry_after_s=asked_s)
    found = judge(error, 1, SETTINGS, settle_s=300.0, chance=0.0)
    assert found == Later(delay_s, f"RateLimitError: {error}", holds=True)


@pytest.mark.parametrize(
    ("rate_per_s", "latency_s", "prefetch"),
    [(50, 0.2, 20), (1, 0.1, 8), (200, 1.0, 400), (1e6, 1.0, 1000)],
)
def test_prefetch_is_little_s_law(rate_per_s: float, latency_s: float, prefetch: int) -> None:
    """Twice rate × latency, within bounds."""
    assert prefetch_for(rate_per_s, latency_s) == prefetch


@pytest.mark.parametrize(
    "options",
    [
        {"prefetch": 0},
        {"attempt_s": 0},
        {"first_delay_s": float("nan")},
        {"first_delay_s": 10, "longest_delay_s": 5},
        {"max_attempts": 0},
    ],
)
def test_settings_that_make_no_sense(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        WorkerSettings(**options)  # type: ignore[arg-type]  # a table of mistakes


@pytest.mark.parametrize("names", [("", "a"), ("a", ""), ("a", "a")])
def test_queues_need_names_of_their_own(names: tuple[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="different names"):
        QueueNames(requests=names[0], vouchers=names[1])


@pytest.mark.parametrize("url", ["", "http://x", "kafka://x", "amqp"])
def test_broker_that_nobody_knows(url: str) -> None:
    with pytest.raises(ConfigurationError, match="amqp://"):
        open_broker(url)
