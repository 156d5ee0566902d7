"""The rule: a part of a time-out that is not given fits itself to the parts that are."""

from __future__ import annotations

import math

import attrs
import pytest
from support.answers import rm_error
from support.scripted_server import ScriptedServer

from rm_voucher import (
    ConfigurationError,
    OutcomeUnknownError,
    ResponseTimeoutError,
    RetryPolicy,
    Timeout,
)


@pytest.mark.parametrize(
    ("given", "fitted"),
    [
        ({}, (10.0, 30.0, 60.0, None)),
        ({"total_s": 15}, (5.0, 15, 15, 15)),
        ({"total_s": 40}, (10.0, 30.0, 40, 40)),
        ({"attempt_s": 2}, (2 / 3, 2, 2, None)),
        ({"attempt_s": 15}, (5.0, 15, 15, None)),
        ({"attempt_s": 90}, (10.0, 90, 90, None)),
        ({"connect_s": 2}, (2, 30.0, 60.0, None)),
        ({"connect_s": 15}, (15, 45, 60.0, None)),
        ({"connect_s": 40}, (40, 120, 120, None)),
        ({"total_s": 600}, (10.0, 30.0, 60.0, 600)),
        ({"total_s": 0.001}, (0.001 / 3, 0.001, 0.001, 0.001)),
        ({"attempt_s": 2, "total_s": 15}, (2 / 3, 2, 2, 15)),
        ({"connect_s": 2, "total_s": 15}, (2, 15, 15, 15)),
        ({"connect_s": 12, "total_s": 15}, (12, 15, 15, 15)),
        ({"connect_s": 40, "total_s": 60}, (40, 60, 60, 60)),
        ({"connect_s": 1, "attempt_s": 3, "total_s": 5}, (1, 3, 3, 5)),
        ({"change_s": 95}, (10.0, 30.0, 95, None)),
        ({"change_s": 6}, (2.0, 30.0, 6, None)),
        ({"attempt_s": 2, "change_s": 8}, (2 / 3, 2, 8, None)),
        ({"change_s": 5, "total_s": 10}, (5 / 3, 10, 5, 10)),
    ],
)
def test_parts_fit(given, fitted):
    timeout = Timeout(**given)
    assert (timeout.connect_s, timeout.attempt_s, timeout.change_s, timeout.total_s) == fitted
    assert attrs.evolve(timeout) == timeout


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"connect_s": 5, "attempt_s": 5}, "connect_s must be less than attempt_s"),
        ({"connect_s": 15, "total_s": 15}, "connect_s must be less than total_s"),
        ({"attempt_s": 30, "total_s": 15}, "total_s must not be less than attempt_s"),
        ({"change_s": 30, "total_s": 15}, "total_s must not be less than change_s"),
        ({"connect_s": 5, "change_s": 5}, "connect_s must be less than change_s"),
    ],
)
def test_parts_that_contradict_each_other(given, words):
    with pytest.raises(ConfigurationError, match=words):
        Timeout(**given)


CHANGES = {
    "issue": lambda client, **given: client.issue("B", **given),
    "void": lambda client, **given: client.void("X", **given),
    "reinstate": lambda client, **given: client.reinstate("X", pin="1", **given),
    "redeem": lambda client, **given: client.redeem(["X"], **given),
    "member redeem": lambda client, **given: client.member("60", "1").redeem("X", **given),
    "request": lambda client, **given: client.request("POST", "/v3/x", **given),
}


@pytest.mark.parametrize("given", [{}, {"timeout": Timeout(attempt_s=30, change_s=60)}])
@pytest.mark.parametrize("name", CHANGES)
async def test_changes_have_more_time_than_reads(make_client, name, given):
    """A change that RM's own clients would wait for is not of unknown outcome; what reads it back
    and every other read has the time of a read."""
    server = ScriptedServer([ResponseTimeoutError("late"), rm_error("VOUCHER_NOT_FOUND", 404)])
    with pytest.raises(OutcomeUnknownError):
        await CHANGES[name](make_client(server, retry=RetryPolicy(max_attempts=1)), **given)
    attempts = [request.timeout.attempt_s for request in server.requests]
    assert attempts == ([60.0] if name in ("issue", "request") else [60.0, 30.0])


@pytest.mark.parametrize("name", ["connect_s", "attempt_s", "total_s", "change_s"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "5", True, False, b"5", [5]])
def test_part_that_is_no_time(name, value):
    with pytest.raises(ConfigurationError, match=f"{name} must be a number more than 0"):
        Timeout(**{name: value})
