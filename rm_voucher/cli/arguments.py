"""The command line as it was typed: what a shell's variable that is not set leaves of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typer import Context
from typer.core import TyperGroup, TyperOption

from rm_voucher.exceptions import ConfigurationError

_REASON = "is a variable of the shell not set?"


def refuse_unset(command: Any, arguments: Sequence[str]) -> None:
    """Refuse an argument that is empty, and an option with another option in its value's place.

    That is ``--ledger "$UNSET"`` and ``--ledger $UNSET --output FILE``. No argument of any command
    has a use for either. Raises `ConfigurationError`.
    """
    rest = list(arguments)
    while isinstance(command, TyperGroup) and rest and rest[0] in command.commands:
        command = command.get_command(Context(command), rest.pop(0))
    options = [each for each in command.params if isinstance(each, TyperOption)]
    names = {name for option in options for name in option.opts}
    with_value = {name for option in options if not option.is_flag for name in option.opts}
    before = ""
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name in with_value and equals and not value.strip():
            raise ConfigurationError(f"{name} is empty: {_REASON}")
        if not argument.strip():
            what = before if before in with_value else "An argument"
            raise ConfigurationError(f"{what} is empty: {_REASON}")
        if before in with_value and argument in names:
            raise ConfigurationError(f"{before} is followed by {argument}: {_REASON}")
        # A value is no option's name.
        before = "" if before in with_value else argument
