"""No operation is forgotten: each public method has its row in every table of tests."""

import inspect

import pytest
from service import test_arguments
from support import operations
from support import outcome_tables as outcomes
from support import troubles as trouble

from rm_voucher import Member, VoucherClient

NOT_OPERATIONS = {"aclose", "from_env", "member"}


def methods(cls, prefix=""):
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if not name.startswith("_") and name not in NOT_OPERATIONS:
            yield prefix + name, method


METHODS = dict([*methods(VoucherClient), *methods(Member, "member ")])
TABLES = {
    "wire": {
        row.here.replace("client.member(…).", "member ").replace("client.", "")
        for row in operations.ROWS.values()
    },
    "outcomes": {name.split(",")[0] for name in outcomes.OPERATIONS},
    "redaction": set(trouble.OPERATIONS),
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", METHODS)
def test_operation_is_in_the_table(name, table):
    """What is sent, what each outcome leads to and what errors show is tested of each operation."""
    assert name in TABLES[table]


@pytest.mark.parametrize("name", METHODS)
def test_operation_that_takes_a_code_meets_bad_ones(name):
    """Each operation that takes a code is given all that is no code."""
    takes = set(inspect.signature(METHODS[name]).parameters)
    assert not takes & {"code", "codes"} or name in test_arguments.CALLS


@pytest.mark.parametrize("name", METHODS)
def test_operation_hides_its_frames(name):
    """A coroutine method is an `operation`: its frame, with the code, is in no traceback."""
    method = METHODS[name]
    is_listing = name.endswith(("vouchers", "batches"))  # whose pages are fetched by such methods
    assert is_listing or (
        inspect.iscoroutinefunction(method) and method.__code__.co_filename.endswith("operation.py")
    )
