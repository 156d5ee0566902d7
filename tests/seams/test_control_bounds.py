"""The rule: no number that anybody sends to the emulator costs more than its digits."""

from __future__ import annotations

import tracemalloc

import orjson
import pytest

from rm_voucher.emulator import Emulator, Fault
from rm_voucher.emulator.control.dispatch import control
from rm_voucher.emulator.control.forms import PLAN_FIELDS
from rm_voucher.emulator.faults import Faults

BATCH = {"quantity": 1, "key": "B"}
PLAN = [name for name, field in PLAN_FIELDS.items() if field.kind in (int, float)]
NUMBERS = [
    ("POST", "fail-next", {"operation": "issue", "fault": "truncated"}, "times"),
    ("POST", "batches", BATCH, "quantity"),
    ("POST", "batches", BATCH, "amount_sen"),
    ("POST", "batches", BATCH, "discount_rate_bp"),
    ("POST", "batches", BATCH, "minimum_spend_sen"),
    ("POST", "clock", {}, "advance_s"),
    ("PUT", "callbacks", {}, "interval_s"),
    ("PUT", "rate-limit", {}, "per_s"),
    *(("PUT", "faults", {}, name) for name in PLAN),
]
each_number = pytest.mark.parametrize(("method", "path", "body", "name"), NUMBERS)


@pytest.fixture(scope="module")
def emulator():
    return Emulator(batches={"K": 3})


def call(emulator, method, path, body):
    answer = control(emulator, method, f"/_emulator/{path}", orjson.dumps(body))
    return answer.status, orjson.loads(answer.body)


@each_number
@pytest.mark.parametrize("number", [2**64 - 1, 1e19, 1e300, -1e300, -(2**63)])
def test_number_beyond_its_bound_is_refused(emulator, method, path, body, name, number):
    if (name, number) == ("seed", -(2**63)):
        return  # a seed is any number of 64 bits
    status, answer = call(emulator, method, path, {**body, name: number})
    assert status == 400
    assert name in answer["error"]


@pytest.mark.parametrize("times", [10**9, 10**6])
def test_times_are_a_count(times):
    """A count takes no memory, also where a caller in Python names any number."""
    faults = Faults()
    tracemalloc.start()
    try:
        faults.fail_next("issue", Fault.TRUNCATED, times=times * 10**9)
        faults.fail_next("issue", Fault.THROTTLE)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_queued_faults_come_as_often_as_asked():
    faults = Faults()
    faults.fail_next("issue", Fault.TRUNCATED, times=3)
    faults.fail_next("issue", "OVERLOAD", times=2)
    drawn = [faults.draw("issue", 0.0) for _ in range(6)]
    assert drawn == [Fault.TRUNCATED] * 3 + ["OVERLOAD"] * 2 + [None]


@pytest.mark.parametrize("times", [0, -1, 1.5, True, "2", None])
def test_times_that_are_none(emulator, times):
    with pytest.raises(ValueError, match="times is a whole number, 1 or more"):
        emulator.fail_next("issue", Fault.TRUNCATED, times=times)


def test_windows_are_not_any_number(emulator):
    window = {"fault": "closed", "start_s": 1e9, "length_s": 1}
    status, answer = call(emulator, "PUT", "faults", {"windows": [window] * 101})
    assert (status, answer) == (400, {"error": "windows is a list of 100 at most"})
    assert call(emulator, "PUT", "faults", {"windows": [window] * 100})[0] == 200
    assert call(emulator, "PUT", "faults", {"windows": [{**window, "length_s": 1e10}]})[0] == 400
