"""The option ``--profile``, which every command has that reads the settings of an account."""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import Annotated, Any

import typer
from typer.main import get_command

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.settings import PROFILE

_NAMED: ContextVar[str | None] = ContextVar("_NAMED", default=None)


def chosen_profile() -> str | None:
    """Return the profile that the option names, or else ``RM_PROFILE``; None for none.

    Raises `ConfigurationError` for a variable that is set to nothing: it was meant to be a name.
    """
    if (named := _NAMED.get()) is not None:
        return named
    if PROFILE not in os.environ:
        return None
    if not (named := os.environ[PROFILE].strip()):
        raise ConfigurationError(f"{PROFILE} is set to nothing: set it to something, or unset it.")
    return named


def begin(name: str | None) -> None:
    """Take note of what a new command line names before its command, or of nothing."""
    _NAMED.set(name)


def _choose(name: str | None) -> None:
    before = _NAMED.get()
    if name is not None and before is not None and before != name:
        raise ConfigurationError(f"--profile is given twice: {before!r} and {name!r}.")
    if name is not None:
        _NAMED.set(name)


def _reads_settings(
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            callback=_choose,
            expose_value=False,
            rich_help_panel="Common options",
            help="Use the settings that 'rm-voucher login NAME' saved; the variables win over "
            "them. By default RM_PROFILE.",
        ),
    ] = None,
) -> None:
    """Has the option. Its callback takes what is given."""


def with_profile(command: Any) -> Any:
    """Give a command the option, where it has ``--environment``; return the command.

    One that reads a ledger alone has it as well: it is typed beside those that do more.
    """
    if any(param.name in ("environment", "namespace") for param in command.params):
        made = typer.Typer(add_completion=False)
        made.command()(_reads_settings)
        command.params.extend(
            param for param in get_command(made).params if "--profile" in param.opts
        )
    return command
