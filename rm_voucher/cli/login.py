"""``rm-voucher login``, ``logout`` and ``profiles``: the settings of several merchants, by name."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from rm_voucher import ConfigurationError, Credentials, Environment, Proxy, VoucherClient
from rm_voucher.cli import logins
from rm_voucher.cli.asking import ask
from rm_voucher.cli.common import examples
from rm_voucher.cli.connect import in_words, is_memory, plain_http_allowed, token_file
from rm_voucher.cli.interrupts import run_until_interrupted
from rm_voucher.cli.options import JsonOption
from rm_voucher.cli.output import json_line
from rm_voucher.cli.profile_option import chosen_profile
from rm_voucher.cli.screen import say, tell, write_out
from rm_voucher.redaction import hide_locals
from rm_voucher.signing.rsa import RsaSigner

_TO_TYPE = "sandbox, production or a URL"

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Any name: letters, digits, dots, hyphens.")
]


@examples("rm-voucher login acme", "rm-voucher login acme --environment production --check")
def login(
    name: NameArgument,
    client_id: Annotated[
        str | None, typer.Option(help="The client id of the application. Asked for without it.")
    ] = None,
    private_key: Annotated[
        Path | None,
        typer.Option(
            help="The file with the private key, PEM. It stays where it is. Asked for without it."
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--environment", "-e", help=f"{_TO_TYPE}. Asked for without it."),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Ask the server whether it takes them: a token and a list."),
    ] = False,
) -> None:
    """Save the settings of an account under a name, for --profile.

    The client's secret is asked for, and not shown. It goes into the system's keyring where there
    is one, and else into a file that only you can read.
    """
    logins.check_name(name)
    client_id = client_id or _ask("Client id")
    where = where or _ask(f"Server: {_TO_TYPE}")
    if is_memory(where):
        raise ConfigurationError("'memory' needs no account: --environment memory alone does.")
    environment = Environment.from_env({**plain_http_allowed(), "RM_ENVIRONMENT": where})
    private_key = private_key or Path(_ask("File with the private key"))
    private_key = _absolute(private_key)
    _refuse_another_account(name, client_id)
    RsaSigner.from_pem(Credentials(client_id, "unknown yet", private_key).private_key_pem())
    _save(name, client_id, where, environment, private_key, check=check)


@hide_locals
def _save(
    name: str,
    client_id: str,
    where: str,
    environment: Environment,
    private_key: Path,
    *,
    check: bool,
) -> None:
    credentials = Credentials(client_id, _ask("Client secret", hidden=True), private_key)
    if check:
        _try_out(credentials, environment)
    made = logins.Login(
        name=name, client_id=client_id, private_key_file=str(private_key), environment=where
    )
    in_keyring = logins.save(made, credentials.client_secret)
    place = "the system's keyring" if in_keyring else "the same file, which only you can read"
    say(
        f"Saved in {made.path}, for {in_words(environment)}. The secret is in {place}. Use it with "
        f"--profile {name}."
    )


def _absolute(path: Path) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError as exc:
        raise ConfigurationError(f"{path} names no home folder.") from exc


@examples("rm-voucher logout acme")
def logout(name: NameArgument) -> None:
    """Remove the settings that were saved under a name, their secret and their token.

    The file with the private key stays.
    """
    _forget_token(name)
    logins.remove(name)
    say(f"The profile {name!r} is removed.")


@examples("rm-voucher profiles", "rm-voucher profiles --json")
def profiles(as_json: JsonOption = False) -> None:
    """List the accounts whose settings were saved, without secrets."""
    chosen, count = chosen_profile(), 0
    for found in logins.all_logins():
        if isinstance(found, ConfigurationError):
            say(str(found))
            continue
        count += 1
        shown = {
            "profile": found.name,
            "environment": found.environment,
            "client_id": found.client_id,
            "private_key_file": found.private_key_file,
            "secret": "file" if found.client_secret else "keyring",
            "chosen": found.name == chosen,
        }
        if as_json:
            write_out(json_line(shown))
        else:
            mark = ", chosen by RM_PROFILE" if shown["chosen"] else ""
            tell(
                f"{found.name}: {found.environment}, client id {found.client_id}, key "
                f"{found.private_key_file}, secret in the {shown['secret']}{mark}"
            )
    if not (count or as_json):
        say("No profile is saved. 'rm-voucher login NAME' saves one.")


def _refuse_another_account(name: str, client_id: str) -> None:
    """Raise `ConfigurationError` where a name is another account's: a slip of the keyboard."""
    try:
        before = logins.load(name).client_id if name in logins.saved_names() else client_id
    except ConfigurationError:  # a damaged one may be replaced
        return
    if before != client_id:
        raise ConfigurationError(
            f"The profile {name!r} is that of the client id {before}: choose another name, or "
            f"remove it first with 'rm-voucher logout {name}'."
        )


def _try_out(credentials: Credentials, environment: Environment) -> None:
    """Buy a token with the secret, and read a list, which is signed. Raises `VoucherError`."""

    async def read() -> None:
        client = VoucherClient(credentials, environment=environment, proxy=Proxy.from_env())
        async with client:
            await client.batches()
        say("The server takes them, and lists the account's batches.")

    run_until_interrupted(read())


@hide_locals
def _forget_token(name: str) -> None:
    """Remove the token that commands share for a profile, where there is one."""
    with contextlib.suppress(ConfigurationError):  # a profile without its secret has none
        login = logins.load(name)
        if secret := login.client_secret or logins.ask_keyring(name):
            credentials = Credentials(login.client_id, secret, b"not needed")
            environment = Environment.from_env({**plain_http_allowed(), **login.place})
            token_file(credentials, environment).unlink(missing_ok=True)


def _ask(question: str, *, hidden: bool = False) -> str:
    return ask(
        question,
        hidden=hidden,
        script="A script sets the RM_… variables instead.",
        nothing="Nothing was saved.",
    )
