"""Commands that are imported when they are run: a list of all of them imports none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command


class Entry(NamedTuple):
    """A command in the list of commands."""

    name: str
    module: str
    """Where the function, or the group, of that name is: in a package that all share."""
    summary: str
    """What a list of the commands says of it."""
    panel: str | None = None
    """The heading that it stands under."""


def group_of(package: str, entries: Iterable[Entry]) -> type[TyperGroup]:
    """Return the class of a group with these commands, in their order."""
    table = {entry.name: entry for entry in entries}

    class LazyGroup(TyperGroup):
        _lists = False

        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self._loaded: dict[str, Any] = {}
            self.commands = {
                name: TyperCommand(name, help=entry.summary, rich_help_panel=entry.panel)
                for name, entry in table.items()
            }

        def list_commands(self, ctx: Any) -> list[str]:
            return list(table)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if self._lists or cmd_name not in table:
                return self.commands.get(cmd_name)
            if cmd_name not in self._loaded:
                self._loaded[cmd_name] = _load(package, table[cmd_name])
            return self._loaded[cmd_name]

        def format_help(self, ctx: Any, formatter: Any) -> None:
            with self._listing():
                super().format_help(ctx, formatter)

        def shell_complete(self, ctx: Any, incomplete: str) -> Any:
            with self._listing():
                return super().shell_complete(ctx, incomplete)

        @contextmanager
        def _listing(self) -> Iterator[None]:
            self._lists = True
            try:
                yield
            finally:
                self._lists = False

    return LazyGroup


def _load(package: str, entry: Entry) -> Any:
    from rm_voucher.cli.common import complete  # not needed for a list

    module = import_module(f"{package}.{entry.module}")
    found = getattr(module, entry.name, None)
    if found is None or isinstance(found, typer.Typer):
        return complete(get_command(getattr(module, f"{entry.name}_app")))
    alone = typer.Typer(add_completion=False)
    alone.command(entry.name)(found)
    return complete(get_command(alone))
