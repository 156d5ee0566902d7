"""The fields of log records, by which a machine finds what belongs to a call."""

import ast
import logging
from pathlib import Path

import pytest
from support.answers import ISSUED, ok, rm_error, voucher
from support.scripted_server import ScriptedServer

import rm_voucher
from rm_voucher import ConnectError, OutcomeUnknownError, ResponseLostError, VoucherError

PACKAGE = Path(rm_voucher.__file__).parent
FIELDS = {"rm_operation", "rm_attempt", "rm_batch", "rm_client", "rm_event"}
WINGS = ("calls", "auth", "service", "ledger", "webhooks", "worker")
# What is said there is about no call, no batch and no event.
OF_THE_PROCESS = {
    "calls/hooks.py",  # a function of the user's
    "calls/server_clock.py",
    "calls/shared_flow.py",
    "ledger/process.py",
    "webhooks/asgi.py",  # begin and end of the application
    "worker/outbox.py",
    "worker/redis.py",
}
NOT_SENT = ConnectError("x: no connection")
LOST = ResponseLostError("x: the server closed the connection")
TOKEN = ok({"accessToken": "token", "expiresIn": 10_000})


def log_calls(path):
    """Return the calls of a file that write a record."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = node.func.value
            if (
                isinstance(name, ast.Name)
                and name.id == "_log"
                and node.func.attr != "isEnabledFor"
            ):
                yield node


FILES = {
    str(path.relative_to(PACKAGE)): path
    for wing in WINGS
    for path in (PACKAGE / wing).rglob("*.py")
}


@pytest.mark.parametrize("name", sorted(name for name in FILES if any(log_calls(FILES[name]))))
def test_record_of_a_call_has_fields(name):
    """Each is written with them, but for what is about the process."""
    has = [any(word.arg == "extra" for word in call.keywords) for call in log_calls(FILES[name])]
    assert all(has) if name not in OF_THE_PROCESS else not any(has)


@pytest.fixture(autouse=True)
def _all_is_logged(caplog):
    caplog.set_level(logging.DEBUG, logger="rm_voucher")


def fields(record):
    return {name: text for name, text in vars(record).items() if name.startswith("rm_")}


async def test_records_of_a_call(make_client, caplog):
    """All are there, and those of an attempt have its id."""
    client = make_client(
        ScriptedServer([TOKEN, NOT_SENT, ISSUED]), name="till 3", token_source=None
    )
    await client.issue("KEY")
    token, *others = map(fields, caplog.records)
    nothing = dict.fromkeys(FIELDS, "")
    assert token == nothing | {"rm_operation": "token", "rm_client": "till 3"}
    assert len(others) == 3
    for each in others:
        assert len(each.pop("rm_attempt")) == 16
        assert each == {
            "rm_operation": "issue",
            "rm_batch": "KEY",
            "rm_client": "till 3",
            "rm_event": "",
        }


async def test_attempt_of_a_record_is_that_of_the_error(make_client, caplog):
    """Which is how a call of unknown outcome is found in the log."""
    with pytest.raises(OutcomeUnknownError) as caught:
        await make_client(ScriptedServer([LOST])).issue("KEY")
    record, *_ = caplog.records
    assert fields(record)["rm_attempt"] == caught.value.attempt_id


@pytest.mark.parametrize(
    "answers",
    [
        [LOST, voucher("ISSUED"), voucher("VOID")],
        [LOST, NOT_SENT, NOT_SENT, NOT_SENT, NOT_SENT, NOT_SENT],
        [rm_error("TOKEN_EXPIRED", 401), rm_error("TOKEN_EXPIRED", 401)],
    ],
    ids=["read back", "not read back", "token"],
)
async def test_every_record_has_every_field(make_client, caplog, answers):
    """So that a format may name them."""
    try:
        await make_client(ScriptedServer(answers)).void("X")
    except VoucherError:
        pass
    assert caplog.records
    for record in caplog.records:
        assert fields(record).keys() == FIELDS
        logging.Formatter("%(rm_operation)s %(rm_attempt)s %(message)s").format(record)
