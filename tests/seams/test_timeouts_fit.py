"""The rule: a part of a time-out that is not given fits itself to the parts that are."""

from __future__ import annotations

import math

import attrs
import pytest

from rm_voucher import ConfigurationError, Timeout


@pytest.mark.parametrize(
    ("given", "fitted"),
    [
        ({}, (10.0, 30.0, None)),
        ({"total_s": 15}, (5.0, 15, 15)),
        ({"attempt_s": 2}, (2 / 3, 2, None)),
        ({"attempt_s": 15}, (5.0, 15, None)),
        ({"attempt_s": 90}, (10.0, 90, None)),
        ({"connect_s": 2}, (2, 30.0, None)),
        ({"connect_s": 40}, (40, 120, None)),
        ({"total_s": 600}, (10.0, 30.0, 600)),
        ({"total_s": 0.001}, (0.001 / 3, 0.001, 0.001)),
        ({"attempt_s": 2, "total_s": 15}, (2 / 3, 2, 15)),
        ({"connect_s": 2, "total_s": 15}, (2, 15, 15)),
        ({"connect_s": 12, "total_s": 15}, (12, 15, 15)),
        ({"connect_s": 40, "total_s": 60}, (40, 60, 60)),
        ({"connect_s": 1, "attempt_s": 3, "total_s": 5}, (1, 3, 5)),
    ],
)
def test_parts_fit(given, fitted):
    timeout = Timeout(**given)
    assert (timeout.connect_s, timeout.attempt_s, timeout.total_s) == fitted
    assert attrs.evolve(timeout) == timeout


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"connect_s": 5, "attempt_s": 5}, "connect_s must be less than attempt_s"),
        ({"connect_s": 15, "total_s": 15}, "connect_s must be less than total_s"),
        ({"attempt_s": 30, "total_s": 15}, "total_s must not be less than attempt_s"),
    ],
)
def test_parts_that_contradict_each_other(given, words):
    with pytest.raises(ConfigurationError, match=words):
        Timeout(**given)


@pytest.mark.parametrize("name", ["connect_s", "attempt_s", "total_s"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "5", True, False, b"5", [5]])
def test_part_that_is_no_time(name, value):
    with pytest.raises(ConfigurationError, match=f"{name} must be a number more than 0"):
        Timeout(**{name: value})
