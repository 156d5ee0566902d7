"""``rm-voucher login``, ``logout`` and ``profiles``, and what ``--profile`` makes of them."""

from __future__ import annotations

from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError
from support.files import KEY_FILE, PUBLIC_KEY_FILE

from rm_voucher import ConfigurationError, Environment
from rm_voucher.cli import logins
from rm_voucher.cli.connect import find_settings, in_words
from rm_voucher.cli.profile_option import begin
from rm_voucher.files import replace_private
from rm_voucher.shared.memory import MemorySharedStore

SECRET = "hush-hush-1234"
NAMES = ("RM_CLIENT_ID", "RM_CLIENT_SECRET", "RM_PRIVATE_KEY", "RM_ENVIRONMENT")


class Keyring(KeyringBackend):
    """A keyring that holds what it is told, and may be locked."""

    priority = 5.0
    is_locked = False

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        if self.is_locked:
            raise KeyringLocked("it is")
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.is_locked:
            raise KeyringLocked("it is")
        self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if (service, username) not in self.held:
            raise PasswordDeleteError("there is none")
        del self.held[service, username]


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Keyring:
    ring = Keyring()
    monkeypatch.setattr(keyring, "get_keyring", lambda: ring)
    monkeypatch.setattr(keyring, "get_password", ring.get_password)
    monkeypatch.setattr(keyring, "set_password", ring.set_password)
    monkeypatch.setattr(keyring, "delete_password", ring.delete_password)
    return ring


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    replace_private(path, KEY_FILE.read_bytes())
    return path


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A person at a terminal: answers by the first word of the question, each asked for once."""
    answers: dict[str, str] = {}

    def prompt(question: str, *, hide_input: bool, err: bool) -> str:
        assert (hide_input, err) == ("secret" in question, True)
        return answers.pop(question)

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.prompt", prompt)
    return answers


@pytest.fixture
def log_in(rm, typed, key_file: Path):
    """Log in under a name."""

    def log_in(name: str = "acme", *more: object, client_id="client-id", where="sandbox"):
        typed["Client secret"] = SECRET
        options = ("--client-id", client_id, "--private-key", key_file, "--environment", where)
        ended = rm("login", name, *options, *more)
        typed.clear()
        return ended

    return log_in


@pytest.fixture
def chosen():
    """Choose a profile in this test alone."""
    begin(None)
    yield begin
    begin(None)


def test_login_asks_for_all(rm, typed, key_file: Path) -> None:
    """What no option says is asked for, and the secret is hidden; the file is its owner's alone."""
    typed |= {
        "Client id": " client-id ",
        "Server: sandbox, production or a URL": "production",
        "File with the private key": str(key_file),
        "Client secret": SECRET,
    }
    ended = rm("login", "acme")
    path = logins.load("acme").path
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == (
        f"Saved in {path}, for PRODUCTION. The secret is in the same file, which only you can "
        "read. Use it with --profile acme.\n"
    )
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.read_text() == (
        f'client_id = "client-id"\nprivate_key_file = "{key_file}"\nenvironment = "production"\n'
        f'client_secret = "{SECRET}"\n'
    )


def test_secret_that_others_can_read(rm, log_in, served) -> None:
    """It is said by each command, doctor too; the file is not altered, which would hide it."""
    log_in()
    path = logins.load("acme").path
    for mode, is_open in ((0o644, True), (0o640, True), (0o600, False)):
        path.chmod(mode)
        for command in ("doctor", "batches"):
            ended = rm(command, "--profile", "acme")
            words = f"The profile {path} has a secret in it, and other users can read it: chmod 600"
            said = " ".join((ended.out + ended.err).split())
            assert (words in said, SECRET in said) == (is_open, False), said
            assert path.stat().st_mode & 0o777 == mode


def test_secret_in_the_keyring(rm, ring: Keyring, log_in) -> None:
    """Where there is a keyring the secret is in it, and nowhere else."""
    assert "The secret is in the system's keyring." in log_in().err
    login = logins.load("acme")
    assert ring.held == {("rm-voucher", "acme"): SECRET}
    assert SECRET not in login.path.read_text()
    assert rm("logout", "acme").code == 0
    assert (ring.held, login.path.exists()) == ({}, False)


def test_keyring_that_is_locked(rm, ring: Keyring, log_in, chosen) -> None:
    """To log in, the file serves; to use what it has, it is a sentence."""
    log_in()
    ring.is_locked = True
    ended = rm("batches", "--profile", "acme")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        "Error: The system's keyring does not give the secret of the profile 'acme': KeyringLocked."
        " Unlock it, or set RM_CLIENT_SECRET.\n"
    )
    assert "the same file" in log_in("other").err
    chosen("other")
    assert find_settings().credentials().client_secret == SECRET


def test_secret_that_the_keyring_lost(rm, ring: Keyring, log_in, chosen, monkeypatch) -> None:
    """It is said how to save it again; a variable helps, too."""
    log_in()
    ring.held.clear()
    ended = rm("batches", "--profile", "acme")
    assert ended.code == 2
    assert "is not in the system's keyring any more: 'rm-voucher login acme'" in ended.err
    chosen("acme")
    monkeypatch.setenv("RM_CLIENT_SECRET", "x")
    assert find_settings().credentials().client_secret == "x"
    ring.is_locked = True
    settings = find_settings()
    assert settings.credentials().client_secret == "x"
    assert settings.notes == (
        "RM_CLIENT_SECRET is set, and wins over what the profile 'acme' says.",
    )


def test_secret_without_a_keyring(rm, log_in) -> None:
    """A profile that was brought from a machine with one has no secret here."""
    log_in()
    path = logins.load("acme").path
    path.write_text(path.read_text().replace(f'client_secret = "{SECRET}"', ""))
    ended = rm("batches", "--profile", "acme")
    assert ended.code == 2
    assert "is not in the system's keyring any more: 'rm-voucher login acme'" in ended.err
    assert rm("logout", "acme").code == 0
    assert logins.saved_names() == []


def test_settings_of_a_shared_store(log_in, chosen) -> None:
    """It keeps the token, and no file does."""
    log_in(where="production")
    chosen("acme")
    find_settings().client(shared=MemorySharedStore())
    assert not logins.token_folder().exists()
    find_settings().client(keeps_token=False)
    assert not logins.token_folder().exists()
    find_settings().client()
    assert logins.token_folder().exists()


def test_login_in_a_script(rm, key_file: Path, monkeypatch) -> None:
    """A script has no secret to type: it is told of the variables."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    ended = rm("login", "acme", "--client-id", "x", "--private-key", key_file, "-e", "sandbox")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        "Error: Client secret: only a person at a terminal can say that. A script sets the RM_… "
        "variables instead. Nothing was saved.\n"
    )
    assert logins.saved_names() == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("a/b",), "'a/b' is no name for a profile"),
        (("..",), "'..' is no name for a profile"),
        (("a" * 65,), "is no name for a profile"),
        (("acme", "-e", "nowhere"), "'nowhere' is no environment"),
        (("acme", "-e", "memory"), "'memory' needs no account"),
        (("acme", "--private-key", PUBLIC_KEY_FILE), "This is a public key"),
        (("acme", "--private-key", "missing.pem"), "can't be read: No such file"),
        (("acme", "--private-key", "~nobody-of-that-name/x"), "names no home folder"),
        (("acme", "--client-id", "a\x00b"), "client_id must be text without line breaks"),
    ],
)
def test_login_mistakes(rm, typed, key_file: Path, arguments, sentence: str) -> None:
    """Each is found before the secret is asked for."""
    defaults = ("--client-id", "x", "--private-key", key_file, "-e", "sandbox")
    ended = rm("login", *defaults, *arguments)
    assert (ended.code, ended.out, logins.saved_names()) == (2, "", [])
    assert sentence in ended.err


def test_name_of_another_account(rm, log_in, typed) -> None:
    """A name that is taken keeps its account; the same account's secret may change."""
    log_in()
    ended = log_in(client_id="another")
    assert ended.code == 2
    assert "The profile 'acme' is that of the client id client-id" in ended.err
    assert log_in().code == 0
    logins.load("acme").path.write_text("not TOML at all")
    assert log_in(client_id="another").code == 0
    assert logins.load("acme").client_id == "another"


def test_login_checks(rm, served, log_in, monkeypatch) -> None:
    """``--check`` asks the server, and saves nothing that it refuses."""
    for name in NAMES:
        monkeypatch.delenv(name)
    ended = log_in("acme", "--check", where=served.url)
    assert (ended.code, logins.saved_names()) == (3, [])
    assert "INVALID_CLIENT" in ended.err
    assert SECRET not in ended.err


def test_use(rm, served, log_in, typed, key_file: Path, monkeypatch, credentials) -> None:
    """A command with ``--profile`` needs no variable."""
    for name in NAMES:
        monkeypatch.delenv(name)
    served.emulator.add_batch("Breakfast", key="B", quantity=3)
    typed["Client secret"] = credentials.client_secret
    options = ("--client-id", credentials.client_id, "--private-key", key_file, "-e", served.url)
    ended = rm("login", "acme", *options, "--check")
    assert ended.code == 0, ended
    assert ended.err.startswith("The server takes them, ")
    assert rm("batches").code == 2
    assert rm("issue", "B", "--profile", "acme").code == 0
    assert rm("--profile", "acme", "issue", "B").code == 0
    monkeypatch.setenv("RM_PROFILE", "acme")
    assert rm("issue", "B").code == 0
    assert len(served.issued()) == 3
    ended = rm("--profile", "acme", "batches", "--profile", "other")
    assert (ended.code, ended.err) == (
        2,
        "Error: --profile is given twice: 'acme' and 'other'.\n",
    )


@pytest.mark.parametrize("arguments", [("--profile", "nobody"), ()])
def test_profile_that_is_not_there(rm, log_in, monkeypatch, arguments) -> None:
    """The names that there are stand beside it."""
    log_in("acme")
    log_in("bravo")
    monkeypatch.setenv("RM_PROFILE", "nobody")
    ended = rm("batches", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        "Error: There is no profile 'nobody'; saved are: acme, bravo. 'rm-voucher login nobody' "
        "saves one.\n"
    )


def test_variable_that_is_set_to_nothing(rm, monkeypatch) -> None:
    """It names no merchant, and the default is another one."""
    monkeypatch.setenv("RM_PROFILE", " ")
    ended = rm("batches")
    assert (ended.code, ended.err) == (
        2,
        "Error: RM_PROFILE is set to nothing: set it to something, or unset it.\n",
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("client_id = 5", "client_id must be text, and not empty."),
        ('client_id = " "', "client_id must be text, and not empty."),
        ('client_id = "x"\nprivate_key_file = "y"', "has no environment."),
        ('yes = "always"', "has an unknown setting: 'yes'."),
        (f"client_secret = {SECRET}", "is not TOML (at line 1, column 17)."),
        (b"\xff", "is not TOML."),
    ],
)
def test_file_that_can_not_be_used(rm, log_in, content, sentence: str) -> None:
    """Somebody may have edited it; what stands in it is not repeated."""
    log_in()
    path = logins.load("acme").path
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    ended = rm("batches", "--profile", "acme")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"Error: The profile {path}")
    assert ended.err.endswith(f"{sentence}\n")
    assert SECRET not in ended.err
    listed = rm("profiles")
    assert (listed.code, listed.out) == (0, "")
    assert sentence in listed.err


def test_file_that_is_a_link(rm, log_in, tmp_path: Path) -> None:
    """Another's file is not read."""
    log_in()
    path = logins.load("acme").path
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    ended = rm("batches", "--profile", "acme")
    assert (ended.code, ended.err) == (
        2,
        f"Error: The profile {path} can't be read: it is a link.\n",
    )
    assert rm("logout", "acme").code == 0
    assert (tmp_path / "elsewhere").exists()


def test_folder_that_can_not_be_made(log_in, monkeypatch, tmp_path: Path) -> None:
    """It is a sentence."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    ended = log_in()
    assert ended.code == 2
    assert "acme.toml can't be written: Not a directory." in ended.err


def test_profiles(rm, ring: Keyring, log_in, monkeypatch, key_file: Path) -> None:
    """All of them, without a secret, for people and for programs."""
    assert rm("profiles").err == "No profile is saved. 'rm-voucher login NAME' saves one.\n"
    assert rm("profiles", "--json").err == ""
    log_in("bravo", where="production")
    ring.is_locked = True
    log_in("acme", client_id="another")
    monkeypatch.setenv("RM_PROFILE", "acme")
    listed = rm("profiles")
    assert listed.out == (
        f"acme: sandbox, client id another, key {key_file}, secret in the file, chosen by "
        f"RM_PROFILE\nbravo: production, client id client-id, key {key_file}, secret in the "
        "keyring\n"
    )
    assert rm("profiles", "--json").json[0] == {
        "profile": "acme",
        "environment": "sandbox",
        "client_id": "another",
        "private_key_file": str(key_file),
        "secret": "file",
        "chosen": True,
    }
    assert SECRET not in listed.out + listed.err


def test_logout_that_fails(rm, log_in) -> None:
    """It is a sentence."""
    log_in()
    path = logins.load("acme").path
    path.unlink()
    path.mkdir()
    ended = rm("logout", "acme")
    assert ended.code == 2
    assert ended.err.startswith(f"Error: The profile {path} can't be removed: ")


def test_logout(rm, log_in, chosen, key_file: Path) -> None:
    """Settings and token go; the key stays."""
    log_in(where="production")
    chosen("acme")
    settings = find_settings()
    settings.client()
    from rm_voucher.cli.connect import token_file

    token = token_file(settings.credentials(), settings.environment())
    token.write_text("a token")
    ended = rm("logout", "acme")
    assert (ended.code, ended.err) == (0, "The profile 'acme' is removed.\n")
    assert (logins.saved_names(), token.exists(), key_file.exists()) == ([], False, True)
    ended = rm("logout", "acme")
    assert (ended.code, ended.err) == (
        2,
        (
            "Error: There is no profile 'acme'; saved are: none. 'rm-voucher login acme' saves "
            "one.\n"
        ),
    )


class TestWhatWins:
    """The option, the variables, and then the profile."""

    @pytest.fixture(autouse=True)
    def profile(self, log_in, chosen) -> None:
        log_in(where="production")
        chosen("acme")

    def test_profile_alone(self, key_file: Path) -> None:
        """Where each setting comes from can be told."""
        settings = find_settings()
        credentials = settings.credentials()
        assert (credentials.client_id, credentials.client_secret) == ("client-id", SECRET)
        assert credentials.private_key == key_file
        assert settings.environment() == Environment.PRODUCTION
        assert (settings.profile, settings.notes) == ("acme", ())
        source = f"the profile 'acme' ({logins.load('acme').path})"
        sources = {name: found.source for name, found in settings.found.items()}
        assert sources == {
            "RM_CLIENT_ID": source,
            "RM_CLIENT_SECRET": source,
            "RM_PRIVATE_KEY": "",
            "RM_PRIVATE_KEY_FILE": source,
            "RM_ENVIRONMENT": source,
            "RM_API_URL": "",
            "RM_OAUTH_URL": "",
        }
        assert SECRET not in repr(settings)

    @pytest.mark.parametrize(
        ("variables", "noted"),
        [
            ({"RM_CLIENT_ID": "client-id"}, []),
            ({"RM_CLIENT_SECRET": SECRET}, []),
            ({"RM_ENVIRONMENT": "production"}, []),
            ({"RM_CLIENT_ID": " "}, []),
            ({"RM_CLIENT_ID": "another"}, ["RM_CLIENT_ID"]),
            ({"RM_CLIENT_SECRET": "another"}, ["RM_CLIENT_SECRET"]),
            ({"RM_PRIVATE_KEY": "another"}, ["RM_PRIVATE_KEY"]),
            ({"RM_PRIVATE_KEY_FILE": "another"}, ["RM_PRIVATE_KEY_FILE"]),
            ({"RM_ENVIRONMENT": "sandbox"}, ["RM_ENVIRONMENT"]),
            ({"RM_API_URL": "https://rm.example"}, ["RM_API_URL"]),
            (
                {"RM_ENVIRONMENT": "sandbox", "RM_CLIENT_ID": "b"},
                ["RM_CLIENT_ID", "RM_ENVIRONMENT"],
            ),
        ],
    )
    def test_variable_wins(self, monkeypatch, variables: dict[str, str], noted: list[str]) -> None:
        """It is said where it says another thing."""
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        settings = find_settings()
        assert settings.notes == tuple(
            f"{name} is set, and wins over what the profile 'acme' says." for name in noted
        )
        for name, value in variables.items():
            if value.strip():
                assert settings.found[name].value == value
                assert settings.found[name].source == f"the variable {name}"

    def test_key_is_one(self, monkeypatch) -> None:
        """The variable's key, or the profile's, and no mixture."""
        monkeypatch.setenv("RM_PRIVATE_KEY", "pem")
        settings = find_settings()
        assert settings.found["RM_PRIVATE_KEY_FILE"].value is None
        assert settings.credentials().private_key == "pem"

    def test_place_is_one(self, rm, monkeypatch) -> None:
        """URLs of the profile's place are not those of the variable's."""
        path = logins.load("acme").path
        path.write_text(path.read_text() + 'api_url = "https://rm.example"\n')
        assert find_settings().environment() == Environment(
            "https://rm.example", Environment.PRODUCTION.oauth_url
        )
        monkeypatch.setenv("RM_ENVIRONMENT", "sandbox")
        assert find_settings().environment() == Environment.SANDBOX
        monkeypatch.setenv("RM_ENVIRONMENT", "production")
        settings = find_settings()
        assert settings.environment() == Environment.PRODUCTION
        assert len(settings.notes) == 1

    @pytest.mark.parametrize("variables", [{}, {"RM_ENVIRONMENT": "production", "RM_API_URL": "x"}])
    def test_option_wins(self, monkeypatch, variables: dict[str, str]) -> None:
        """It stands on the line: nothing needs to be said."""
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        settings = find_settings("sandbox")
        assert (settings.environment(), settings.notes) == (Environment.SANDBOX, ())
        assert settings.found["RM_ENVIRONMENT"].source == "--environment"

    def test_notes_are_said(self, rm, served, monkeypatch) -> None:
        """On standard error, once."""
        ended = rm("batches", "--profile", "acme")
        assert ended.err == (
            "RM_CLIENT_SECRET is set, and wins over what the profile 'acme' says.\n"
            "RM_ENVIRONMENT is set, and wins over what the profile 'acme' says.\n"
            "RM_PRIVATE_KEY is set, and wins over what the profile 'acme' says.\n"
        )


def test_default_is_the_sandbox() -> None:
    """Without anything that says where."""
    settings = find_settings()
    assert settings.found["RM_ENVIRONMENT"].source == "the default"
    assert settings.environment() == Environment.SANDBOX
    with pytest.raises(ConfigurationError, match="RM_CLIENT_ID, RM_CLIENT_SECRET and RM_PR"):
        settings.credentials()


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (Environment.PRODUCTION, "PRODUCTION"),
        (Environment.SANDBOX, "the sandbox"),
        (Environment.at("http://127.0.0.1:5"), "an emulator at http://127.0.0.1:5"),
        (Environment.at("https://emulator.invalid"), "an emulator in this command"),
        (
            Environment(Environment.SANDBOX.api_url, Environment.PRODUCTION.oauth_url),
            (
                "NOT THE SANDBOX (https://sb-open.revenuemonster.my, tokens from "
                "https://oauth.revenuemonster.my)"
            ),
        ),
    ],
)
def test_in_words(environment: Environment, words: str) -> None:
    """A server that may have real vouchers is written in capitals."""
    assert in_words(environment) == words


def test_a_saved_profile_is_suggested(rm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no settings are found, and some are saved, the way to them is named."""
    for name in ("RM_CLIENT_ID", "RM_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("rm_voucher.cli.logins.saved_names", lambda: ["kedai", "teh"])
    ended = rm("batches")
    assert ended.code == 2
    assert "Give --profile kedai or --profile teh, or set the RM_… variables." in ended.err
