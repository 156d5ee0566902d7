"""Write docs/rm-voucher.1 and docs/options.md from the command: ``python docs/man_page.py``."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

os.environ["COLUMNS"] = "80"

from typer.core import TyperArgument, TyperGroup
from typer.main import get_command

from rm_voucher.cli.app import COMMANDS, app
from rm_voucher.cli.common import examples_of
from rm_voucher.cli.failures import EXIT_CODES

HERE = Path(__file__).parent
MAN, OPTIONS = HERE / "rm-voucher.1", HERE / "options.md"
COMMON = ("--quiet", "--profile", "--help")
HEAD = """\
# All options

Every command of `rm-voucher`, with its arguments and options. [The command](command.md) says what
they are for. `python docs/man_page.py` writes this page and the manual page, which `pip` installs:
`man rm-voucher`.

These are the same everywhere: `--quiet` (`-q`) says nothing but errors and the end, `--help` (`-h`)
shows the help, and each command that reads the settings of an account takes `--profile NAME`.
"""
VARIABLES = {
    "RM_CLIENT_ID, RM_CLIENT_SECRET": "who you are",
    "RM_PRIVATE_KEY_FILE, RM_PRIVATE_KEY": "the file with your private key, or the key itself",
    "RM_ENVIRONMENT": "sandbox, production or a URL",
    "RM_API_URL, RM_OAUTH_URL": "other servers",
    "RM_ALLOW_PLAIN_HTTP": "the one host to which plain http may go, like emulator:8000",
    "RM_PROFILE": "the settings that 'rm-voucher login' saved; the other variables win over them",
    "RM_SHARED_URL": "where the processes of an account share its rate and its token",
    "NO_COLOR, TERM": "NO_COLOR=1 and TERM=dumb: no bar and no colours, but plain lines",
}


@attrs.frozen
class Described:
    """One command, as its help tells of it."""

    path: str
    panel: str
    usage: str
    paragraphs: list[str]
    records: list[tuple[str, str]]
    """Arguments and options, without those that every command has."""
    examples: tuple[str, ...]


def described() -> Iterator[Described]:
    """Iterate over the commands, in the order of the help, and those of groups."""
    root = get_command(app)
    context = root.context_class(root, info_name="rm-voucher")
    for panel in dict.fromkeys(entry.panel for entry in COMMANDS):
        for entry in COMMANDS:
            if entry.panel == panel:
                command = root.get_command(context, entry.name)
                yield from _described(command, f"rm-voucher {entry.name}", str(panel), context)


def _described(command: Any, path: str, panel: str, parent: Any) -> Iterator[Described]:
    context = command.context_class(command, info_name=path.rpartition(" ")[2], parent=parent)
    if isinstance(command, TyperGroup):
        for name in command.list_commands(context):
            yield from _described(
                command.get_command(context, name), f"{path} {name}", panel, context
            )
        return
    records = [
        (_plain(record[0]), _plain(record[1]))
        for param in sorted(command.get_params(context), key=_is_option)
        if not set(param.opts) & set(COMMON) and (record := param.get_help_record(context))
    ]
    arguments = [p.name.upper() for p in command.params if isinstance(p, TyperArgument)]
    yield Described(
        path,
        panel,
        " ".join([path, *arguments, "[options]"]),
        [" ".join(each.split()) for each in inspect.cleandoc(command.help or "").split("\n\n")],
        records,
        examples_of(command),
    )


def _is_option(param: Any) -> bool:
    return not isinstance(param, TyperArgument)


def _plain(text: str) -> str:
    """Return a cell of the help without the kinds that say nothing to a person."""
    return " ".join(re.sub(r"<bool>|\{(\w+)\}", lambda match: match[1] or "", text).split())


def page() -> str:
    """Return the page of all options."""
    parts, panel = [HEAD], ""
    for command in described():
        if command.panel != panel:
            panel = command.panel
            parts.append(f"\n## {panel}\n")
        parts.append(f"\n### {command.path}\n\n" + "\n\n".join(command.paragraphs) + "\n\n```sh\n")
        parts += [f"{line}\n" for line in command.examples]
        parts.append("```\n")
        if command.records:
            parts.append("\n| | |\n|---|---|\n")
        parts += [f"| `{name}` | {_cell(text)} |\n" for name, text in command.records]
    return "".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def man() -> str:
    """Return the manual page."""
    parts = [
        '.TH RM\\-VOUCHER 1 "" "rm\\-voucher" "User Commands"\n',
        ".SH NAME\n",
        "rm\\-voucher \\- issue, look up, void and list Revenue Monster vouchers\n",
        ".SH SYNOPSIS\n",
        ".B rm\\-voucher\n.I command\n.RI [ options ]\n",
        ".SH DESCRIPTION\n",
        _roff("Issues vouchers, one or thousands, and does the rest of a campaign's work. Each"),
        _roff("command takes \\-\\-help (\\-h), \\-\\-quiet (\\-q: errors and the end alone) and,"),
        _roff("where it reads the settings of an account, \\-\\-profile NAME."),
    ]
    panel = ""
    for command in described():
        if command.panel != panel:
            panel = command.panel
            parts.append(f".SH {panel.upper()}\n")
        parts.append(f".SS {_roff(command.usage)}")
        for number, paragraph in enumerate(command.paragraphs):
            parts.append(".PP\n" * bool(number) + _roff(paragraph))
        for name, text in command.records:
            parts.append(f".TP\n.B {_roff(name)}{_roff(text)}")
        if command.examples:
            parts.append(".PP\nExamples:\n.PP\n.nf\n")
            parts += [f"    {_roff(line)}" for line in command.examples]
            parts.append(".fi\n")
    parts.append(".SH EXIT STATUS\n")
    parts += [f".TP\n.B {code}\n{_roff(words)}" for code, words in EXIT_CODES.items()]
    parts.append(".SH ENVIRONMENT\n")
    parts += [f".TP\n.B {_roff(name)}{_roff(words)}" for name, words in VARIABLES.items()]
    return "".join(parts)


def _roff(text: str) -> str:
    """Return a line of text as it stands in a manual page, whatever is in it."""
    escaped = text.replace("\\-", "-").replace("\\", "\\e").replace("-", "\\-")
    escaped = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in escaped)
    guard = "\\&" if escaped[:1] in (".", "'") else ""
    return f"{guard}{escaped}\n"


if __name__ == "__main__":
    for path, text in ((MAN, man()), (OPTIONS, page())):
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.name}")
