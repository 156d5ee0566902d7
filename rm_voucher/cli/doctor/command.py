"""``rm-voucher doctor``: a line for each check, with the remedy where something is wrong."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import attrs
import typer

from rm_voucher import ConfigurationError
from rm_voucher.cli.common import RARE, examples
from rm_voucher.cli.connect import is_memory
from rm_voucher.cli.doctor.account import (
    check_batches,
    check_clock,
    check_scope,
    check_server,
    check_signature,
    check_token,
)
from rm_voucher.cli.doctor.patient import Check, Finding, Patient, examine
from rm_voucher.cli.doctor.settings import (
    check_callback_key,
    check_environment,
    check_key,
    check_settings,
)
from rm_voucher.cli.doctor.stores import check_ledger
from rm_voucher.cli.doctor.way import check_connection, check_dns, check_proxy, check_tls
from rm_voucher.cli.interrupts import run_until_interrupted
from rm_voucher.cli.options import EnvironmentOption, JsonOption, NamespaceOption
from rm_voucher.cli.output import json_line
from rm_voucher.cli.screen import say, tell, write_out

CHECKS: dict[str, Check] = {
    "settings": check_settings,
    "environment": check_environment,
    "key": check_key,
    "proxy": check_proxy,
    "dns": check_dns,
    "connection": check_connection,
    "tls": check_tls,
    "server": check_server,
    "clock": check_clock,
    "token": check_token,
    "signature": check_signature,
    "scope": check_scope,
    "batches": check_batches,
    "ledger": check_ledger,
    "callback_key": check_callback_key,
}
"""The checks by their names, in their order: each builds on what the ones before it found."""

_MARKS = {True: "✔", False: "✘", None: "–"}
_LOGGER = logging.getLogger("rm_voucher")


@examples(
    "rm-voucher doctor",
    "rm-voucher doctor --ledger sqlite:///campaign.db --server-key rm-server.pem",
)
def doctor(
    ledger: Annotated[
        str | None,
        typer.Option(
            help="Look at this ledger, too: sqlite:///FILE, postgresql://… or env:NAME for the URL "
            "in a variable. Nothing in it is changed."
        ),
    ] = None,
    namespace: NamespaceOption = None,
    server_key: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Look at RM's server key, which checks callbacks. By default "
            "RM_CALLBACK_PUBLIC_KEY_FILE. Repeatable.",
        ),
    ] = None,
    try_other_environment: Annotated[
        bool,
        typer.Option(
            "--try-other-environment",
            help="If the credentials are refused, show them to RM's other environment as well, "
            "sandbox or production, to find out whether they are its.",
            rich_help_panel=RARE,
        ),
    ] = False,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find out what keeps this installation from working.

    Nothing is changed. A line for each check: ✔ it is well, ✘ it is not, and the remedy, – it was
    not made. No secret, token, key or voucher code is shown. The exit code is that of the first
    fault.
    """
    if namespace is not None and ledger is None:
        raise ConfigurationError("--namespace is about a ledger: give --ledger too.")
    if is_memory(environment):
        raise ConfigurationError(
            "The environment is 'memory', an embedded emulator: there is nothing to check."
        )
    patient = Patient(
        option=environment,
        ledger=ledger,
        namespace=namespace,
        server_keys=server_key or [],
        tries_other=try_other_environment,
    )
    faults: list[Finding] = []

    async def look() -> None:
        for name, check in CHECKS.items():
            finding = await examine(name, check, patient)
            _show(finding, as_json=as_json)
            if finding.ok is False:
                faults.append(finding)

    with _silent():
        run_until_interrupted(look())
    if not faults:
        say("All is well, as far as it was checked.")
        return
    others = "" if len(faults) == 1 else f" {len(faults)} faults: begin with the first."
    say(f"Something is wrong with: {', '.join(fault.check for fault in faults)}.{others}")
    raise typer.Exit(faults[0].exit_code)


def _show(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        shown = attrs.asdict(finding)
        del shown["exit_code"]
        write_out(json_line(shown))
        return
    reason = "not asked: " if finding.ok is None else ""
    tell(f"{_MARKS[finding.ok]} {finding.check.replace('_', ' ')}: {reason}{finding.says}")
    if finding.remedy:
        tell(f"    {finding.remedy}")


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Let the library log nothing: each line says what it would."""
    level = _LOGGER.level
    _LOGGER.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        _LOGGER.setLevel(level)
