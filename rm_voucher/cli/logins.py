"""Saved logins, the profiles of ``--profile``: the settings of an account, under a name.

Each is a TOML file for its owner alone, in the platform's folder for settings. Its secret is in the
system's keyring, where there is one, and else in the file. What a probe found out about a server is
another thing: `rm_voucher.profile`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import attrs
import platformdirs

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.files import open_private, replace_private
from rm_voucher.redaction import hide_locals

_APPLICATION = "rm-voucher"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_BYTES = 64 * 1024


@attrs.frozen(kw_only=True)
class Login:
    """What is saved under a name. ``client_secret`` is None where the keyring has it."""

    name: str
    client_id: str
    private_key_file: str
    environment: str
    api_url: str | None = None
    oauth_url: str | None = None
    client_secret: str | None = attrs.field(default=None, repr=False)
    is_open: bool = attrs.field(default=False, eq=False)
    """Whether other users can read its file."""

    @property
    def path(self) -> Path:
        """Its file."""
        return _path_of(self.name)

    @property
    def place(self) -> dict[str, str]:
        """Where it is, by the names of the variables."""
        values = {"RM_API_URL": self.api_url, "RM_OAUTH_URL": self.oauth_url}
        return {"RM_ENVIRONMENT": self.environment} | {k: v for k, v in values.items() if v}


_REQUIRED = ("client_id", "private_key_file", "environment")
_OPTIONAL = ("api_url", "oauth_url", "client_secret")


def check_name(name: str) -> str:
    """Return a profile's name. Raises `ConfigurationError`: it is the name of a file, too."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is no name for a profile: write up to 64 letters, digits, dots, hyphens and "
            "underscores, a letter or digit first."
        )
    return name


def saved_names() -> list[str]:
    """Return the names of all profiles, in alphabetical order."""
    return sorted(path.stem for path in _folder().glob("*.toml") if _NAME.fullmatch(path.stem))


@hide_locals
def load(name: str) -> Login:
    """Return a saved login. Nothing is changed, nor its file's mode.

    Raises `ConfigurationError`.
    """
    path = _path_of(check_name(name))
    try:
        with os.fdopen(open_private(path, os.O_RDONLY, mends=False), "rb") as file:
            is_open = bool(os.fstat(file.fileno()).st_mode & 0o077)
            content = file.read(_MAX_BYTES)
        found = tomllib.loads(content.decode())
    except FileNotFoundError:
        others = ", ".join(saved_names()) or "none"
        raise ConfigurationError(
            f"There is no profile {name!r}; saved are: {others}. 'rm-voucher login {name}' saves "
            "one."
        ) from None
    except OSError as exc:
        raise ConfigurationError(f"The profile {path} can't be read: {exc.strerror}.") from exc
    except ValueError as exc:  # neither TOML nor text; its words quote what they meet
        where = re.search(r"\(at .*\)", str(exc))
        raise ConfigurationError(
            f"The profile {path} is not TOML{f' {where[0]}' if where else ''}."
        ) from None
    for key, value in found.items():
        if key not in (*_REQUIRED, *_OPTIONAL):
            raise ConfigurationError(f"The profile {path} has an unknown setting: {key!r}.")
        if not isinstance(value, str) or not value.strip():
            raise ConfigurationError(f"The profile {path}: {key} must be text, and not empty.")
    if missing := [key for key in _REQUIRED if key not in found]:
        raise ConfigurationError(f"The profile {path} has no {missing[0]}.")
    return Login(name=name, is_open=is_open, **found)


@hide_locals
def save(login: Login, secret: str) -> bool:
    """Save a login with its secret; return whether the keyring keeps that.

    It takes the place of one that has the name. Raises `ConfigurationError`.
    """
    in_keyring = _tell_keyring(login.name, secret)
    kept = attrs.evolve(login, client_secret=None if in_keyring else secret)
    # A string of JSON is one of TOML: none of these has a control character.
    lines = [
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n"
        for key in (*_REQUIRED, *_OPTIONAL)
        if (value := getattr(kept, key)) is not None
    ]
    path = login.path
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_private(path, "".join(lines).encode())
    except OSError as exc:
        raise ConfigurationError(f"The profile {path} can't be written: {exc.strerror}.") from exc
    if not in_keyring:
        _forget_in_keyring(login.name)
    return in_keyring


def remove(name: str) -> None:
    """Remove a login, and its secret from the keyring. Raises `ConfigurationError`."""
    path = _path_of(check_name(name))
    if not path.is_symlink() and not path.exists():
        load(name)  # which says what there is
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        raise ConfigurationError(f"The profile {path} can't be removed: {exc.strerror}.") from exc
    _forget_in_keyring(name)


def token_folder() -> Path:
    """Return where commands keep the tokens that they share."""
    return Path(platformdirs.user_state_path(_APPLICATION, appauthor=False)) / "tokens"


def all_logins() -> Iterator[Login | ConfigurationError]:
    """Iterate over all saved logins, or why one can't be read."""
    for name in saved_names():
        try:
            yield load(name)
        except ConfigurationError as exc:
            yield exc


@hide_locals
def ask_keyring(name: str) -> str | None:
    """Return the secret that the keyring has for a profile, or None.

    Raises `ConfigurationError` where there is one that does not answer, for example because it is
    locked.
    """
    import keyring
    from keyring.errors import KeyringError

    if not _has_keyring():
        return None
    try:
        return keyring.get_password(_APPLICATION, name)
    except KeyringError as exc:
        raise ConfigurationError(
            f"The system's keyring does not give the secret of the profile {name!r}: "
            f"{type(exc).__name__}. Unlock it, or set RM_CLIENT_SECRET."
        ) from exc


@hide_locals
def _tell_keyring(name: str, secret: str) -> bool:
    import keyring
    from keyring.errors import KeyringError

    if not _has_keyring():
        return False
    try:
        keyring.set_password(_APPLICATION, name, secret)
    except KeyringError:
        return False
    return True


def _forget_in_keyring(name: str) -> None:
    import keyring
    from keyring.errors import KeyringError

    if _has_keyring():
        with contextlib.suppress(KeyringError):  # it may have none
            keyring.delete_password(_APPLICATION, name)


def _has_keyring() -> bool:
    """Return whether there is a keyring that keeps a secret. One that writes plain text is none."""
    import keyring
    from keyring.core import recommended

    return bool(recommended(keyring.get_keyring()))


def _folder() -> Path:
    return Path(platformdirs.user_config_path(_APPLICATION, appauthor=False)) / "profiles"


def _path_of(name: str) -> Path:
    return _folder() / f"{name}.toml"
