"""Who and where: the settings of a command, where each came from, and the client for them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

import attrs
from yarl import URL

from rm_voucher import (
    ConfigurationError,
    Credentials,
    Environment,
    FlowPolicy,
    Limits,
    Proxy,
    VoucherClient,
)
from rm_voucher.auth.store import FileTokenStore
from rm_voucher.cli.profile_option import chosen_profile
from rm_voucher.cli.screen import say
from rm_voucher.emulator import Emulator
from rm_voucher.redaction import hide_locals
from rm_voucher.service.client import ClientSettings
from rm_voucher.settings import PLAIN_HTTP, is_harmless, is_in_memory, is_loopback
from rm_voucher.shared import SharedStore

MEMORY = "memory"
_IDENTITY = ("RM_CLIENT_ID", "RM_CLIENT_SECRET", "RM_PRIVATE_KEY", "RM_PRIVATE_KEY_FILE")
_PLACE = ("RM_ENVIRONMENT", "RM_API_URL", "RM_OAUTH_URL")
_FEW = 3
_KEY = {"RM_PRIVATE_KEY", "RM_PRIVATE_KEY_FILE"}


@attrs.frozen
class Setting:
    """One setting, as it was found. ``value`` is None, and ``source`` empty, where it was not."""

    name: str
    """That of its variable, wherever it came from."""
    value: str | None = attrs.field(default=None, repr=False)
    source: str = ""
    """In words: ``the variable RM_CLIENT_ID``."""


@attrs.frozen(kw_only=True)
class Settings:
    """The settings of a command. One that is missing is found out by what needs it."""

    profile: str | None
    """The name of the saved login that they come from, if one was chosen."""
    found: Mapping[str, Setting]
    """By the names of the variables."""
    notes: tuple[str, ...] = ()
    """What a person should know: which variables win over the profile and differ from it."""

    @hide_locals
    def credentials(self) -> Credentials:
        """Return who it is. Raises `ConfigurationError`, which says how to go on."""
        try:
            return Credentials.from_env(self._values(_IDENTITY))
        except ConfigurationError as exc:
            raise ConfigurationError(f"{exc} {self._way_out()}") from exc

    def _way_out(self) -> str:
        if self.profile is None:
            from rm_voucher.cli import logins  # not needed with settings

            if saved := logins.saved_names():
                named = " or ".join(f"--profile {name}" for name in saved[:_FEW])
                more = " or another, see 'rm-voucher profiles'" if len(saved) > _FEW else ""
                return f"Give {named}{more}, or set the RM_… variables."
        return "Set the RM_… variables, or use --environment memory to try without an account."

    @hide_locals
    def environment(self) -> Environment:
        """Return where it is. Raises `ConfigurationError`."""
        return Environment.from_env({**plain_http_allowed(), **self._values(_PLACE)})

    @hide_locals
    def client(
        self,
        *,
        concurrency: int = 1,
        keeps_token: bool = True,
        **more: Unpack[ClientSettings],
    ) -> VoucherClient:
        """Return the client. Raises `ConfigurationError`.

        It shares its token with the next commands, unless it does not ``keep`` it or there is a
        shared store, which does that.
        """
        credentials, environment = self.credentials(), self.environment()
        if keeps_token and more.get("shared") is None:
            more.setdefault("token_store", _token_store(credentials, environment))
        more.setdefault("limits", attrs.evolve(Limits(), max_connections=max(concurrency, 10)))
        more.setdefault("proxy", Proxy.from_env())
        return VoucherClient(credentials, environment=environment, **more)

    def _values(self, names: tuple[str, ...]) -> dict[str, str]:
        return {name: value for name in names if (value := self.found[name].value) is not None}


def plain_http_allowed() -> dict[str, str]:
    """Return the variable that allows plain http to one host, if it is set.

    It is never in a profile, nor an option: it belongs to the machine that is beside an emulator.
    """
    return {name: value for name, value in os.environ.items() if name == PLAIN_HTTP}


def is_memory(environment: str | None) -> bool:
    """Return whether the command runs on the embedded emulator: only where its option says so.

    A variable outlives the trial that it was set for, and the emulator's codes look like real ones.
    """
    return environment is not None and environment.lower() == MEMORY


def is_real(environment: Environment) -> bool:
    """Return whether a server has real vouchers: any but RM's sandbox and those of this machine."""
    return not is_harmless(environment)


def in_words(environment: Environment) -> str:
    """Return what a server is, for a person."""
    host = URL(environment.api_url).host or ""
    if environment == Environment.PRODUCTION:
        return "PRODUCTION"
    if environment == Environment.SANDBOX:
        return "the sandbox"
    if is_real(environment):
        return f"NOT THE SANDBOX ({environment.api_url}, tokens from {environment.oauth_url})"
    if is_in_memory(host):
        return "an emulator in this command"
    return f"an emulator at {environment.api_url}"


@hide_locals
def find_settings(environment: str | None = None) -> Settings:
    """Return the settings of a command: of the variables, or else of the chosen profile.

    ``environment`` is what the option names. It wins over all that say where; the variables win
    over the profile, of which a key, or a place, is taken whole or not at all. Raises
    `ConfigurationError` for a profile that can't be read, and for a variable that says "memory".
    """
    if environment is None and os.environ.get("RM_ENVIRONMENT", "").strip().lower() == MEMORY:
        raise ConfigurationError(
            "RM_ENVIRONMENT is 'memory', whose vouchers are not real: that takes --environment "
            "memory."
        )
    profile = chosen_profile()
    found = {name: Setting(name) for name in (*_IDENTITY, *_PLACE)}
    notes: list[str] = []
    opened: list[str] = []
    set_here = {name for name in _IDENTITY if os.environ.get(name, "").strip()}
    set_here |= {name for name in _PLACE if name in os.environ}
    if profile is not None:
        saved = _of_profile(profile, opened, needs_secret="RM_CLIENT_SECRET" not in set_here)
        wins = set(set_here)
        if set_here & _KEY:
            wins |= _KEY
        if "RM_ENVIRONMENT" in set_here:  # the rest of a place is no other place's
            wins |= set(_PLACE)
        found |= {name: setting for name, setting in saved.items() if name not in wins}
        said = {name for name in set_here if environment is None or name in _IDENTITY}
        notes = opened + [
            f"{name} is set, and wins over what the profile {profile!r} says."
            for name in sorted(said)
            if _differs(name, saved)
        ]
    for name in found:
        if name in set_here:
            found[name] = Setting(name, os.environ[name], f"the variable {name}")
    if environment is not None:
        found |= {name: Setting(name) for name in _PLACE}
        found["RM_ENVIRONMENT"] = Setting("RM_ENVIRONMENT", environment, "--environment")
    elif not set_here.intersection(_PLACE) and found["RM_ENVIRONMENT"].value is None:
        found["RM_ENVIRONMENT"] = Setting("RM_ENVIRONMENT", "sandbox", "the default")
    return Settings(profile=profile, found=found, notes=tuple(notes))


def _differs(name: str, saved: Mapping[str, Setting]) -> bool:
    """Return whether a variable says another thing than the profile says by it."""
    names = {"RM_PRIVATE_KEY": _KEY, "RM_ENVIRONMENT": set(_PLACE)}.get(name, {name})
    here = {each: value for each in names if (value := os.environ.get(each, "").strip())}
    return here != {each: saved[each].value for each in names if each in saved}


@hide_locals
def _of_profile(name: str, notes: list[str], *, needs_secret: bool) -> dict[str, Setting]:
    """Return what a profile says; note what a person should know of its file."""
    from rm_voucher.cli import logins  # not needed without a profile

    login = logins.load(name)
    secret = login.client_secret
    if login.is_open and secret is not None:
        notes.append(
            f"The profile {login.path} has a secret in it, and other users can read it: chmod 600 "
            "it. If somebody may have, get a new secret in the portal."
        )
    source = secret_source = f"the profile {name!r} ({login.path})"
    if secret is None:
        secret_source = f"the keyring, for the profile {name!r}"
        try:
            secret = logins.ask_keyring(name)
        except ConfigurationError:
            if needs_secret:
                raise
        if secret is None and needs_secret:
            raise ConfigurationError(
                f"The secret of the profile {name!r} is not in the system's keyring any more: "
                f"'rm-voucher login {name}' saves it again."
            )
    values = {
        "RM_CLIENT_ID": login.client_id,
        "RM_PRIVATE_KEY_FILE": login.private_key_file,
        **login.place,
    }
    settings = {key: Setting(key, value, source) for key, value in values.items()}
    if secret is not None:
        settings["RM_CLIENT_SECRET"] = Setting("RM_CLIENT_SECRET", secret, secret_source)
    return settings


def make_client(
    environment: str | None,
    *,
    concurrency: int = 1,
    flow: FlowPolicy | None = None,
    shared: SharedStore | None = None,
) -> VoucherClient:
    """Return the client for a server, with the settings of the variables or of the profile."""
    settings = find_settings(environment)
    say_notes(settings)
    return settings.client(concurrency=concurrency, flow=flow, shared=shared)


def credentials_and_environment(environment: str | None) -> tuple[Credentials, Environment]:
    """Return who and where the variables, the profile and the option say."""
    settings = find_settings(environment)
    say_notes(settings)
    return settings.credentials(), settings.environment()


def say_notes(settings: Settings) -> None:
    """Say what a person should know of how the settings were found."""
    for note in settings.notes:
        say(note)


def make_memory_client(
    *, batch: str | None = None, quantity: int = 0, flow: FlowPolicy | None = None
) -> VoucherClient:
    """Return a client of a new embedded emulator, with a batch of that key made on the fly."""
    return make_memory_emulator(batch=batch, quantity=quantity).client(flow=flow)


def make_memory_emulator(*, batch: str | None = None, quantity: int = 0) -> Emulator:
    """Return that emulator."""
    emulator = Emulator(client_id=MEMORY)  # the same account in every run with one ledger
    if batch is not None:
        emulator.add_batch(batch, key=batch, quantity=quantity)
    return emulator


def token_file(credentials: Credentials, environment: Environment) -> Path:
    """Return the file in which commands share the token of an account.

    Another secret has another file: a wrong one is refused at once, and not only when the token of
    the right one ends.
    """
    from rm_voucher.cli.logins import token_folder  # not needed without a server

    parts = (environment.api_url, environment.oauth_url)
    text = "\n".join((*parts, credentials.client_id, credentials.client_secret))
    return token_folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def _token_store(credentials: Credentials, environment: Environment) -> FileTokenStore | None:
    """Return where commands share a token; None for an emulator, and where there is no folder."""
    host = URL(environment.oauth_url).host or ""
    if is_loopback(host) or is_in_memory(host):
        return None
    path = token_file(credentials, environment)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:  # a container without a home; each command buys its own
        return None
    return FileTokenStore(path)
