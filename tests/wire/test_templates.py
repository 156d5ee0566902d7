"""The template of a request's path: what a trace shows in its place."""

import pytest

from rm_voucher import Credentials, Environment
from rm_voucher.emulator import Guesses
from rm_voucher.emulator.paths import OPERATIONS, operations
from rm_voucher.wire import operations as wire

SANDBOX = Environment.SANDBOX
CODE = "NAklEfbVdV"
REQUESTS = {
    "issue": wire.build_issue(SANDBOX, CODE),
    "get": wire.build_get(SANDBOX, CODE),
    "void": wire.build_void(SANDBOX, CODE),
    "vouchers": wire.build_vouchers(SANDBOX, CODE),
    "batch": wire.build_batch(SANDBOX, CODE),
    "batches": wire.build_batches(SANDBOX),
    "reinstate": wire.build_reinstate(SANDBOX, CODE, pin="1"),
    "redeem": wire.build_redeem(SANDBOX, [CODE]),
    "member vouchers": wire.build_member_vouchers(SANDBOX, "60", "1"),
    "member get": wire.build_member_get(SANDBOX, "60", "1", CODE),
    "member redeem": wire.build_member_redeem(SANDBOX, "60", "1", CODE),
    "token": wire.build_token(SANDBOX, Credentials("id", "secret", "key")),
}


def test_every_operation_is_here():
    """So a new one has its template."""
    assert REQUESTS.keys() == set(OPERATIONS)


@pytest.mark.parametrize("name", REQUESTS)
def test_template_is_the_path_without_what_is_in_it(name):
    """It is the path of the emulator's table, and with the code in its place the request's."""
    request = REQUESTS[name]
    (path,) = [each.path for each in operations(Guesses()) if each.name == name]
    assert request.template == path
    assert path.format(code=CODE, key=CODE) == request.url.raw_path


def test_path_of_the_users_own_is_not_known():
    """It may have a code."""
    assert wire.build_any(SANDBOX, "GET", f"/v3/stores/{CODE}").template == ""
