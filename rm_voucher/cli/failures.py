"""What an error becomes: a sentence, an exit code, and under ``--json`` an object."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime
from typing import Any

from typer import Abort, TyperException

from rm_voucher.cli.interrupts import INTERRUPTED
from rm_voucher.cli.output import json_line
from rm_voucher.cli.screen import say, write_out
from rm_voucher.converters import format_time
from rm_voucher.exceptions import (
    AuthenticationError,
    ConfigurationError,
    InvalidRequestError,
    OutcomeUnknownError,
    SignatureError,
    VoucherError,
)

MISTAKE = 2
EXIT_CODES = {
    0: "all done",
    1: "some failed; a probe ended early, or was not agreed to; a database or broker is away",
    MISTAKE: "a mistake in the command line, a file or a setting",
    3: "the credentials were refused, or what is signed with them",
    4: "the outcome of a call is unknown",
    INTERRUPTED: "interrupted",
}
"""What the exit code of every command means."""
# Of each error what it has; a code of a voucher is in none of them.
_DETAILS = (
    "code",
    "http_status",
    "hint",
    "retry_after_s",
    "operation",
    "batch_key",
    "attempt_id",
    "nonce",
    "sent_at",
)


def exit_code_of(error: BaseException) -> int:
    """Return the exit code for an error that ended a command or a recipient."""
    if isinstance(error, OutcomeUnknownError):
        return 4
    if isinstance(error, (AuthenticationError, SignatureError)):
        return 3
    # The client refuses input without a status; with one it is the server's word.
    is_mistake = isinstance(error, ConfigurationError) or (
        isinstance(error, InvalidRequestError) and error.http_status is None
    )
    return MISTAKE if is_mistake else 1


def error_object(error: BaseException, exit_code: int | None = None) -> dict[str, Any]:
    """Return an error as a JSON object: its class, its sentence, and what else is known of it.

    What is not known is left out. A voucher's code is not in it.
    """
    found: dict[str, Any] = {
        "class": type(error).__name__,
        "message": str(error),
        "exit_code": exit_code_of(error) if exit_code is None else exit_code,
    }
    for name in _DETAILS:
        value = getattr(error, name, None)
        if name == "code" and isinstance(error, OutcomeUnknownError):
            continue  # there it is a voucher's
        if isinstance(value, datetime):
            value = format_time(value)
        if value not in (None, ""):
            found[name] = value
    return found


def end_by(error: BaseException, *, as_json: bool) -> int:
    """Say what ended a command, as an object too where that is wanted; return the exit code.

    Raises the error again, if it is a defect and not an end of a command.
    """
    name, message = type(error).__name__, str(error)
    match error:
        case VoucherError():
            found = error_object(error)
        case TyperException():
            message = error.format_message()
            found = _named("UsageError", message, error.exit_code)
        case KeyboardInterrupt() | asyncio.CancelledError() | Abort():
            message, found = "", _named("Interrupted", "Interrupted.", INTERRUPTED)
        case OSError():
            message = f"standard output can't be written: {error.strerror}."
            found = _named(name, message, 1)
        case _:
            raise error
    problems = getattr(error, "problems", ())
    if len(problems) > 1:  # of a file, each on its own line
        say(f"Error: {getattr(error, 'title', '')} has more than one problem:")
        for problem in problems:
            say(f"  {problem}")
        found["problems"] = list(problems)
    elif message:
        say(f"Error: {message}")
    if as_json:
        with contextlib.suppress(OSError):  # nobody reads it
            write_out(json_line({"error": found}))
    return int(found["exit_code"])


def _named(name: str, message: str, exit_code: int) -> dict[str, Any]:
    return {"class": name, "message": message, "exit_code": exit_code}
