"""The command line: its commands, and what its errors become.

Exit codes: 0 all done, 1 some failed, 2 a mistake in the command line, files or settings, 3 the
credentials were refused, 4 the outcome of a call is unknown, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer
from typer.main import get_command

from rm_voucher import ConfigurationError, InvalidRequestError, VoucherError, __version__
from rm_voucher.cli.arguments import refuse_unset
from rm_voucher.cli.lazy import Entry, group_of
from rm_voucher.cli.output import say, say_error, strangers_are_harmless
from rm_voucher.cli.profile_option import begin

_MISTAKE = 2
_INTERRUPTED = 130

# A module is imported when its command is run, or its help asked for.
COMMANDS = (
    Entry(
        "issue",
        "issue",
        "Issue vouchers of a batch: one, --count of them, or one to each of --recipients.",
    ),
    Entry("get", "one", "Look a voucher up, or each of a file."),
    Entry("void", "one", "Void a voucher, that is, use it up at a shop, or each of a file."),
    Entry("redeem", "one", "Redeem a voucher, or each of a file."),
    Entry("reinstate", "one", "Make a void voucher usable again, or each of a file."),
    Entry(
        "member",
        "member",
        "Look at and redeem the vouchers of a loyalty member, by telephone number.",
    ),
    Entry("batch", "one", "Show a batch: what its vouchers are, how many are left."),
    Entry("vouchers", "listings", "List the vouchers of a batch, as CSV or a line of JSON each."),
    Entry("batches", "listings", "List the merchant's batches, as CSV or a line of JSON each."),
    Entry(
        "doctor",
        "doctor.command",
        "Find out what keeps this installation from working. Nothing is changed.",
    ),
    Entry("emulator", "emulator", "Serve an emulated voucher API over HTTP until Ctrl-C."),
    Entry(
        "probe",
        "probe",
        "Find out what RM's server really does, with a batch of the sandbox that may be used up.",
    ),
    Entry(
        "worker",
        "worker",
        "Issue a voucher for each message of a queue, one code for each request id.",
    ),
    Entry("ledger", "ledger", "Look at a ledger, settle what is unknown, take its codes out."),
    Entry("login", "login", "Save the settings of an account under a name, for --profile."),
    Entry("logout", "login", "Remove the settings that were saved under a name."),
    Entry("profiles", "login", "List the accounts whose settings were saved, without secrets."),
    Entry("webhook", "webhook", "Say what is wrong with a callback, or listen for callbacks."),
)

app = typer.Typer(
    name="rm-voucher",
    cls=group_of("rm_voucher.cli", COMMANDS),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def run() -> None:
    """Run the command line; errors of the library become a sentence and an exit code."""
    with strangers_are_harmless():
        _run()


def _run() -> None:
    try:
        command = get_command(app)
        refuse_unset(command, sys.argv[1:])
        command()
    except VoucherError as exc:
        from rm_voucher.cli.issuing import exit_code_of

        say_error(exc)
        # The client refuses input without a status; with one it is the server's word.
        is_mistake = isinstance(exc, ConfigurationError) or (
            isinstance(exc, InvalidRequestError) and exc.http_status is None
        )
        sys.exit(_MISTAKE if is_mistake else exit_code_of(exc))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(_INTERRUPTED)
    except OSError as exc:
        say(f"Error: standard output can't be written: {exc.strerror}.")
        sys.exit(1)


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
