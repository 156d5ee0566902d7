"""Questions that only a person at a terminal can answer, so that no script does by accident."""

from __future__ import annotations

import contextlib
import sys

import typer

from rm_voucher.cli.screen import say, write_err
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.text import typeable

INTERRUPTED = 130
_NOT_CONFIRMED = 1


def ask(
    question: str, *, hidden: bool = False, script: str = "", nothing: str = "Nothing was sent."
) -> str:
    """Return what a person types, without the spaces at its ends.

    ``script`` is what a script gives instead, and ``nothing`` says that nothing was done, where
    that is the end of it. Raises `ConfigurationError` without a terminal.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfigurationError(
            f"{question}: only a person at a terminal can say that.{script and ' '}{script} "
            f"{nothing}"
        )
    try:
        answer: str = typer.prompt(question, hide_input=hidden, err=True)
    except typer.Abort:
        with contextlib.suppress(OSError):
            write_err("\n")  # the question stands in the line
        say(nothing)
        raise typer.Exit(INTERRUPTED) from None
    return answer.strip()


def confirm(question: str, answer: str, *, yes: bool, nothing: str = "Nothing was issued.") -> None:
    """Return if a script said ``yes``, or if a person types the answer that is wanted.

    Both are compared as they can be typed (`typeable`), and the answer must be something that can;
    another text ends the command with 1. Raises `ConfigurationError` without a terminal. Not within
    an event loop, which would keep Ctrl-C.
    """
    if yes:
        return
    typed = ask(question, script="A script gives --yes.", nothing=nothing)
    if typeable(typed) != typeable(answer) or not typeable(typed):
        say(f"That is something else. {nothing}")
        raise typer.Exit(_NOT_CONFIRMED)
