"""What every command has: the options of all, and examples under its help."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup, TyperOption
from typer.main import get_command

from rm_voucher.cli.profile_option import with_profile
from rm_voucher.cli.screen import SCREEN
from rm_voucher.text import counted

RARE = "Rarely needed"
"""The heading for options that few people need, an option's ``rich_help_panel``."""
COMMON = "Common options"
_EXAMPLES = "command_examples"

F = TypeVar("F", bound=Callable[..., Any])


def examples(*lines: str) -> Callable[[F], F]:
    """Give a command's function examples: shown under its help, and tried by the tests.

    Under ``@app.command()``, where there is one.
    """

    def with_examples(function: F) -> F:
        setattr(function, _EXAMPLES, lines)
        return function

    return with_examples


def examples_of(command: Any) -> tuple[str, ...]:
    """Return the examples of a command."""
    found: tuple[str, ...] = getattr(command.callback, _EXAMPLES, ())
    return found


def _be_quiet(wanted: bool) -> None:  # noqa: FBT001 - typer calls it
    SCREEN.quiet = SCREEN.quiet or wanted


def _every_command(
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            callback=_be_quiet,
            expose_value=False,
            help="Say nothing but errors and the end.",
            rich_help_panel=COMMON,
        ),
    ] = False,
) -> None:
    """Has the options that every command has. Their callbacks take what is given."""


def _count_what_is_too_much(command: Any) -> None:
    """Refuse arguments that a command does not take without repeating them: one may be a code."""
    parse = command.parse_args
    command.context_settings["allow_extra_args"] = True

    def parse_args(ctx: Any, arguments: list[str]) -> list[str]:
        rest: list[str] = parse(ctx, arguments)
        if rest and not ctx.resilient_parsing:
            ctx.fail(
                f"{counted(len(rest), 'argument')} too many. A name with a space in it stands in "
                "quotation marks."
            )
        return rest

    command.parse_args = parse_args


def complete(command: Any) -> Any:
    """Give a command, and the commands of a group, what every command has; return it."""
    command.context_settings.setdefault("help_option_names", ["-h", "--help"])
    if isinstance(command, TyperGroup):
        for each in command.commands.values():
            complete(each)
        return command
    made = typer.Typer(add_completion=False)
    made.command()(_every_command)
    taken = {name for param in command.params for name in param.opts}
    command.params.extend(
        option
        for option in get_command(made).params
        if isinstance(option, TyperOption) and taken.isdisjoint(option.opts)
    )
    with_profile(command)
    _count_what_is_too_much(command)
    if command.help:  # as wide as the screen, and not as the source
        command.help = re.sub(r"(?<=\S)\n(?=\S)", " ", inspect.cleandoc(command.help))
    if lines := examples_of(command):
        command.epilog = "\n\n".join(("Examples:", *lines))
    return command
