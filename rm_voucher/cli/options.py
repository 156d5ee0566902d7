"""Options that several commands share, and the objects that they name."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from rm_voucher import ConfigurationError, FlowPolicy, LedgerError
from rm_voucher.cli.common import RARE
from rm_voucher.cli.screen import say
from rm_voucher.converters import parse_time
from rm_voucher.ledger import Ledger
from rm_voucher.shared import SharedStore, open_shared_store

SETTLE_S = 300.0

EnvironmentOption = Annotated[
    str | None,
    typer.Option(
        "--environment",
        "-e",
        help="sandbox, production, a URL, or memory: an emulator in the command, to try it "
        "without an account. By default RM_ENVIRONMENT, and without that the sandbox.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON instead of text.")]
ExclusiveOption = Annotated[
    bool,
    typer.Option(
        "--exclusive",
        help="Nothing but this ledger issues from the batch: a code that nobody received is taken "
        "for the answer that was lost. If that is not true, vouchers of others are given away.",
    ),
]
SettleOption = Annotated[
    float,
    typer.Option(
        min=0,
        help="How many seconds after a call its voucher may still come into being, or into the "
        "listing. RM does not say; too short a time issues too much.",
        rich_help_panel=RARE,
    ),
]

EncodingOption = Annotated[
    str | None,
    typer.Option(
        help="The encoding of a CSV file that is neither UTF-8, UTF-16 nor Windows-1252, such as "
        "big5 or gbk.",
        rich_help_panel=RARE,
    ),
]

SheetOption = Annotated[
    str | None,
    typer.Option(
        help="The sheet of an .xlsx; by default the first with content.", rich_help_panel=RARE
    ),
]

ExcelOption = Annotated[
    bool,
    typer.Option(
        "--excel",
        help="Begin a CSV file with the mark by which Excel knows that it is UTF-8.",
        rich_help_panel=RARE,
    ),
]

ConcurrencyOption = Annotated[
    int,
    typer.Option(
        min=1,
        max=1000,
        help="How many calls may be in flight at once.",
        rich_help_panel=RARE,
    ),
]

NamespaceOption = Annotated[
    str | None,
    typer.Option(
        help="The part of the database that is this merchant's, where several share it. By "
        "default the one without a name.",
        rich_help_panel=RARE,
    ),
]

NoBalanceCheckOption = Annotated[
    bool,
    typer.Option(
        "--no-balance-check",
        help="Take the batch's listing for complete even if its balance says that more were "
        "issued. What the balance counts is not documented.",
        rich_help_panel=RARE,
    ),
]

RateOption = Annotated[
    float | None,
    typer.Option(
        help="Send at most this many requests a second, for example where others use the same "
        "account. Where processes share the rate, it is that of all together: give each the same. "
        "By default as many as the server takes, which is learned from its throttles."
    ),
]

SharedOption = Annotated[
    str | None,
    typer.Option(
        help="Where the processes of this account share its rate and its token: postgresql://…, "
        "redis://… or env:NAME for the URL in a variable. By default RM_SHARED_URL, and without "
        "that the database of the ledger, if that is PostgreSQL.",
        rich_help_panel=RARE,
    ),
]

YesOption = Annotated[
    bool,
    typer.Option("--yes", help="Don't ask before real vouchers are touched: for scripts."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")
]

_PATIENCE_S = 3600.0


def flow_policy(rate_per_s: float | None) -> FlowPolicy:
    """Return the rate of a command, with an hour of patience: a person can stop it earlier."""
    try:
        return FlowPolicy(rate_per_s=rate_per_s, max_outage_wait_s=_PATIENCE_S)
    except ConfigurationError:
        raise ConfigurationError(
            f"--rate {rate_per_s:g} is no number of requests a second, which is more than 0 and "
            "may be a fraction; leave it out for as many as the server takes."
        ) from None


def open_ledger(
    url: str,
    *,
    namespace: str | None = None,
    exclusive: bool = False,
    settle_s: float = SETTLE_S,
    check_balance: bool = True,
    read_only: bool = False,
    must_exist: bool = False,
    sweeps: bool = False,
) -> Ledger:
    """Return the ledger that a command names. It is opened when it is entered.

    ``env:NAME`` is the URL in a variable: other users of a machine see the arguments of a command.
    Where it ``must_exist``, a missing file is a `LedgerError`: an empty ledger settles nothing.
    """
    url = named_url("ledger", url)
    ledger = Ledger.open(
        url,
        namespace=namespace,
        mode="exclusive" if exclusive else "shared",
        settle_s=settle_s,
        check_balance=check_balance,
        read_only=read_only,
        sweeps=sweeps,
    )
    if must_exist and (missing := _missing_file(url)):
        raise LedgerError(f"There is no file {missing}.")
    return ledger


def ledger_to_read(url: str, namespace: str | None) -> Ledger | None:
    """Return the ledger that a command names, to look at; None where it is not made yet.

    It may be in use. Raises `ConfigurationError`.
    """
    url = _resolve("ledger", url)
    ledger = Ledger.open(url, namespace=namespace, read_only=True)
    return None if _missing_file(url) else ledger


def _missing_file(url: str) -> Path | None:
    """Return the file of a ledger that has none; where another one has, that is None."""
    from rm_voucher.database.engine import database_file, parse_url  # an extra, and it is installed

    if not url.startswith("sqlite"):
        return None
    file = database_file(parse_url(url))
    # If only the .lock is left, the ledger itself explains that when it is opened.
    is_there = file.exists() or file.with_name(f"{file.name}.lock").exists()
    return None if is_there else file


def refuse_file_of_ledger(output: Path, url: str) -> None:
    """Raise `ConfigurationError` where an output would take the place of a file of the ledger."""
    from rm_voucher.database.engine import database_file, parse_url  # an extra

    if not (url := _resolve("ledger", url)).startswith("sqlite"):
        return
    file = os.path.realpath(database_file(parse_url(url)))
    if os.path.realpath(output) in {file, *(file + end for end in _BESIDE_LEDGER)}:
        raise ConfigurationError(f"{output} is a file of the ledger: name another one.")


_BESIDE_LEDGER = (".lock", "-wal", "-shm", "-journal")


def open_shared(url: str | None, ledger: str | None) -> SharedStore | None:
    """Return where a command shares rate and token: `SharedOption` says where.

    None without a ledger, or beside an SQLite one, which is one process's. Close it after the
    client.
    """
    found = find_shared(url, ledger)
    return None if found is None else open_shared_store(found)


def find_shared(url: str | None, ledger: str | None) -> str | None:
    """Return the URL of that store, for `open_shared_store`. Raises `ConfigurationError`."""
    if url is None and "RM_SHARED_URL" in os.environ:
        url = "env:RM_SHARED_URL"
    if url is not None:
        return named_url("shared store", url)
    if ledger is None:
        return None
    url = _resolve("ledger", ledger)
    return None if url.startswith("sqlite") else url


def named_url(what: str, url: str) -> str:
    """Return the URL of what an option names: itself, or of ``env:NAME`` the variable's value."""
    resolved = _resolve(what, url)
    if resolved == url and without_password(url) != url:
        say(
            f"The {what}'s password can be read in the list of processes: write env:NAME, the name "
            "of a variable that has the URL."
        )
    return resolved


def _resolve(what: str, url: str) -> str:
    scheme, _, name = url.partition(":")
    if scheme != "env":
        return url
    named = os.environ.get(name, "").strip()
    if not named:
        raise ConfigurationError(f"The {what} is in the variable {name}, which is not set.")
    return named


def without_password(url: str) -> str:
    """Return the URL of a database or broker with its password masked."""
    if "://" not in url:
        return url
    scheme, _, rest = url.partition("://")
    rest, question, query = rest.partition("?")
    login, at, place = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    hidden = "***" if "password" in query else query
    return f"{scheme}://{user}{colon and ':***'}{at}{place}{question}{hidden}"


def parse_instant(option: str, text: str) -> datetime:
    """Return the instant that an option names."""
    try:
        instant = parse_time(text)
    except ValueError as exc:
        raise ConfigurationError(f"{option} {text!r} is not {exc}.") from exc
    if instant is None:
        raise ConfigurationError(f"{option} is Go's zero time, which means 'not set'.")
    return instant
