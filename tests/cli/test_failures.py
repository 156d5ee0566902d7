"""What an error becomes: a sentence, an exit code, and under ``--json`` one object."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime

import pytest
import typer
from support.files import DOCS

from rm_voucher import (
    AuthenticationError,
    ConfigurationError,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitError,
    VoucherError,
)
from rm_voucher.cli.failures import EXIT_CODES, end_by, error_object, exit_code_of
from rm_voucher.cli.tables.model import TableError

CODE = "CANARY-7"
UNKNOWN = OutcomeUnknownError(
    "void: unknown",
    operation="void",
    batch_key="B",
    code=CODE,
    attempt_id="a1",
    nonce="n1",
    sent_at=datetime(2026, 11, 20, 10, tzinfo=UTC),
)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConfigurationError("x"), 2),
        (InvalidRequestError.refused("x"), 2),
        (InvalidRequestError("INVALID_REQUEST", http_status=400), 1),
        (AuthenticationError("INVALID_CLIENT", http_status=401), 3),
        (UNKNOWN, 4),
        (VoucherError("x"), 1),
    ],
)
def test_exit_codes(error: VoucherError, expected: int) -> None:
    """What the client refuses is a mistake; what the server refuses is not."""
    assert exit_code_of(error) == expected in EXIT_CODES


def test_object_of_an_unknown_outcome() -> None:
    """It has what finds the call in a log, and no voucher's code."""
    assert error_object(UNKNOWN) == {
        "class": "OutcomeUnknownError",
        "message": "void: unknown",
        "exit_code": 4,
        "operation": "void",
        "batch_key": "B",
        "attempt_id": "a1",
        "nonce": "n1",
        "sent_at": "2026-11-20T10:00:00Z",
    }


def test_object_of_a_refusal() -> None:
    """It has RM's code, the status, the remedy and the wait."""
    error = RateLimitError("THROTTLED", CODE, 429, "Wait.", retry_after_s=2.0)
    found = error_object(error)
    assert found == {
        "class": "RateLimitError",
        "message": str(error),
        "exit_code": 1,
        "code": "THROTTLED",
        "http_status": 429,
        "hint": "Wait.",
        "retry_after_s": 2.0,
    }


@pytest.mark.parametrize(
    ("words", "name", "code"),
    [
        (("get", "X", "--environment", "memory"), "NotFoundError", 1),
        (("get", "a/b", "--environment", "memory"), "InvalidRequestError", 2),
        (("issue", "B", "--count", "x"), "UsageError", 2),
        (("issue",), "UsageError", 2),
        (("isue",), "UsageError", 2),
        (("issue", "B", "--ledger", ""), "ConfigurationError", 2),
        (("ledger", "status", "sqlite:////nowhere/a.db"), "LedgerError", 1),
    ],
)
def test_each_command_ends_in_an_object(rm, words: tuple[str, ...], name: str, code: int) -> None:
    """The last line of standard output is the error, and the sentence is on standard error."""
    ended = rm(*words, "--json")
    (error,) = [line["error"] for line in ended.json if "error" in line]
    assert isinstance(error, dict)
    assert (error["class"], error["exit_code"], ended.code) == (name, code, code)
    assert ended.err.splitlines()[-1] == f"Error: {error['message']}"


def test_without_json_standard_output_is_clean(rm) -> None:
    """Who did not ask for JSON gets none."""
    ended = rm("get", "X", "--environment", "memory")
    assert (ended.code, ended.out) == (1, "")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError(), typer.Abort()])
def test_interrupted(capsys: pytest.CaptureFixture[str], error: BaseException) -> None:
    """An interruption has an object too, and no sentence of its own."""
    assert end_by(error, as_json=True) == 130
    assert capsys.readouterr() == (
        '{"error":{"class":"Interrupted","message":"Interrupted.","exit_code":130}}\n',
        "",
    )


def test_problems_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Each stands on a line of its own, and in the object."""
    assert end_by(TableError("a.csv", ["line 2: x", "line 3: y"]), as_json=True) == 2
    out, err = capsys.readouterr()
    assert err == "Error: a.csv has more than one problem:\n  line 2: x\n  line 3: y\n"
    assert '"problems":["line 2: x","line 3: y"]' in out


def test_full_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """A device that is full is told of."""
    assert end_by(OSError(28, "No space left on device"), as_json=False) == 1
    said = "Error: standard output can't be written: No space left on device.\n"
    assert capsys.readouterr().err == said


def test_a_defect_is_raised() -> None:
    """What is no end of a command is not hidden."""
    with pytest.raises(ZeroDivisionError):
        end_by(ZeroDivisionError(), as_json=True)


def test_page_has_each_field() -> None:
    """docs/command.md tells of every field, and of no other."""
    page = (DOCS / "command.md").read_text().partition("## For programs")[2]
    rows = re.findall(r"^\| (`[^|]*`) \|", page.partition("## Settings")[0], re.MULTILINE)
    said = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    errors = (UNKNOWN, NotFoundError("X", "", 404, "Look."), RateLimitError(retry_after_s=1.0))
    known = {name for error in errors for name in error_object(error)}
    assert said == known | {"problems"}
