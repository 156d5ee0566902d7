"""The command line: its commands, and what their errors become."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from typer.main import get_command

from rm_voucher._version import __version__
from rm_voucher.cli.arguments import refuse_unset
from rm_voucher.cli.lazy import Entry, group_of
from rm_voucher.cli.profile_option import begin
from rm_voucher.cli.screen import SCREEN, strangers_are_harmless

_ISSUE, _AFTER, _LOOK = "Issue", "After the campaign", "Look and change"
_SET_UP, _DEVELOP = "Set up", "Develop"

# A module is imported when its command is run, or its help asked for.
COMMANDS = (
    Entry(
        "issue",
        "issue",
        "Issue vouchers of a batch: one, --count of them, or one to each of --recipients.",
        _ISSUE,
    ),
    Entry(
        "worker",
        "worker",
        "Issue a voucher for each message of a queue, one code for each request id.",
        _ISSUE,
    ),
    Entry(
        "campaign",
        "campaign.commands",
        "After a campaign was issued: who has what, a report, who is to be asked again.",
        _AFTER,
    ),
    Entry(
        "ledger", "ledger", "Look at a ledger, settle what is unknown, take its codes out.", _AFTER
    ),
    Entry("qr", "prints.commands", "Write a picture of each voucher's QR code.", _AFTER),
    Entry(
        "sheet",
        "prints.commands",
        "Write sheets of A4 to print and cut: a card for each voucher.",
        _AFTER,
    ),
    Entry("get", "one", "Look a voucher up, or each of a file.", _LOOK),
    Entry(
        "void",
        "one",
        "Void a voucher, that is, use it up at a shop, or each of a file.",
        _LOOK,
    ),
    Entry("redeem", "one", "Redeem a voucher, or each of a file.", _LOOK),
    Entry("reinstate", "one", "Make a void voucher usable again, or each of a file.", _LOOK),
    Entry(
        "member",
        "member",
        "Look at and redeem the vouchers of a loyalty member, by telephone number.",
        _LOOK,
    ),
    Entry("batch", "one", "Show a batch: what its vouchers are, how many are left.", _LOOK),
    Entry(
        "vouchers",
        "listings",
        "List the vouchers of a batch, as CSV or a line of JSON each.",
        _LOOK,
    ),
    Entry(
        "batches", "listings", "List the merchant's batches, as CSV or a line of JSON each.", _LOOK
    ),
    Entry(
        "doctor", "doctor.command", "Find out what keeps this installation from working.", _SET_UP
    ),
    Entry(
        "login", "login", "Save the settings of an account under a name, for --profile.", _SET_UP
    ),
    Entry(
        "logout",
        "login",
        "Remove the settings that were saved under a name, their secret and their token.",
        _SET_UP,
    ),
    Entry(
        "profiles",
        "login",
        "List the accounts whose settings were saved, without secrets.",
        _SET_UP,
    ),
    Entry(
        "db",
        "db",
        "Write the SQL of the tables, for a database in which the application may make none.",
        _SET_UP,
    ),
    Entry(
        "webhook", "webhook", "Say what is wrong with a callback, or listen for callbacks.", _SET_UP
    ),
    Entry(
        "emulator", "emulator", "Serve an emulated voucher API over HTTP until Ctrl-C.", _DEVELOP
    ),
    Entry(
        "probe",
        "probe",
        "Find out what RM's server really does, with a batch of the sandbox that may be used up.",
        _DEVELOP,
    ),
)

app: typer.Typer = typer.Typer(
    name="rm-voucher",
    cls=group_of("rm_voucher.cli", COMMANDS),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run() -> None:
    """Run the command line; errors of the library become a sentence and an exit code."""
    with strangers_are_harmless(), SCREEN:
        _run(sys.argv[1:])


def _run(arguments: list[str]) -> None:
    """Run it, and end the process with its exit code."""
    as_json = "--json" in arguments
    try:
        command = get_command(app)
        refuse_unset(command, arguments)
        # Without --json, typer tells of a mistake in the command line.
        sys.exit(command.main(arguments, "rm-voucher", standalone_mode=not as_json))
    except SystemExit:
        raise
    except BaseException as exc:  # noqa: BLE001 - raised again, unless it is one that it knows
        from rm_voucher.cli.failures import end_by

        sys.exit(end_by(exc, as_json=as_json))


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it
    if wanted:
        typer.echo(f"rm-voucher {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
    profile: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The settings that 'rm-voucher login NAME' saved."),
    ] = None,
) -> None:
    """Issue, look up, void and list Revenue Monster vouchers.

    Settings come from the environment: RM_CLIENT_ID, RM_CLIENT_SECRET, RM_PRIVATE_KEY or
    RM_PRIVATE_KEY_FILE, RM_ENVIRONMENT, RM_API_URL, RM_OAUTH_URL; or from a profile that 'login'
    saved.
    """
    begin(profile)
