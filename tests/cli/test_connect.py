"""Which server a command talks to."""

from pathlib import Path
from typing import Any

import pytest
from support.files import KEY_FILE, PUBLIC_KEY_FILE, TESTS

from rm_voucher import Credentials, Environment, FlowPolicy, Limits, Proxy
from rm_voucher.cli import connect

SOME = {"RM_CLIENT_ID": "id", "RM_CLIENT_SECRET": "hush", "RM_PRIVATE_KEY": "a key"}
HELP = " Set the RM_… variables, or use --environment memory to try without an account."
LOOPBACK = "http://127.0.0.1:1"


def set_variables(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("option", "variables", "expected"),
    [
        ("memory", {}, True),
        ("MEMORY", {"RM_ENVIRONMENT": "production", **SOME}, True),
        (None, {}, False),
        (None, {"RM_ENVIRONMENT": "memory"}, False),
        (None, SOME, False),
        ("production", {"RM_ENVIRONMENT": "memory"}, False),
        ("nowhere", {}, False),
    ],
)
def test_memory_chosen(
    monkeypatch: pytest.MonkeyPatch, option: str | None, variables: dict[str, str], expected: bool
) -> None:
    """Memory when its option says so, and never else."""
    set_variables(monkeypatch, **variables)
    assert connect.is_memory(option) is expected


@pytest.mark.parametrize(
    ("option", "variables", "expected"),
    [
        (None, {}, Environment.SANDBOX),
        (None, {"RM_ENVIRONMENT": "Production"}, Environment.PRODUCTION),
        (None, {"RM_ENVIRONMENT": LOOPBACK}, Environment(LOOPBACK, LOOPBACK)),
        (
            None,
            {"RM_ENVIRONMENT": "production", "RM_API_URL": LOOPBACK},
            Environment(LOOPBACK, Environment.PRODUCTION.oauth_url),
        ),
        ("sandbox", {"RM_ENVIRONMENT": "production"}, Environment.SANDBOX),
        ("https://rm.example/x/", {}, Environment("https://rm.example/x", "https://rm.example/x")),
    ],
)
def test_server_chosen(
    monkeypatch: pytest.MonkeyPatch,
    option: str | None,
    variables: dict[str, str],
    expected: Environment,
) -> None:
    """The option wins over RM_ENVIRONMENT; with credentials alone it is the sandbox."""
    made: dict[str, Any] = {}

    def client(credentials: Credentials, **options: Any) -> None:
        made.update(options, credentials=credentials)

    monkeypatch.setattr(connect, "VoucherClient", client)
    set_variables(monkeypatch, **SOME, **variables)
    flow = FlowPolicy(rate_per_s=5)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    connect.make_client(option, concurrency=500, flow=flow)
    store = made.pop("token_store")
    assert (store is None) is (expected.oauth_url == LOOPBACK)
    assert made == {
        "credentials": Credentials("id", "hush", "a key"),
        "environment": expected,
        "limits": Limits(max_connections=500),
        "flow": flow,
        "proxy": Proxy("http://proxy.example:3128"),
        "shared": None,
    }


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"RM_ENVIRONMENT": "sandbox"},
            (
                "RM_CLIENT_ID, RM_CLIENT_SECRET and RM_PRIVATE_KEY_FILE (or RM_PRIVATE_KEY) are "
                "not set."
            ),
        ),
        (
            {"RM_CLIENT_ID": "id"},
            "RM_CLIENT_SECRET and RM_PRIVATE_KEY_FILE (or RM_PRIVATE_KEY) are not set.",
        ),
        ({**SOME, "RM_CLIENT_ID": ""}, "RM_CLIENT_ID is not set."),
        ({**SOME, "RM_CLIENT_SECRET": " "}, "RM_CLIENT_SECRET is not set."),
        (
            {**SOME, "RM_CLIENT_SECRET": "hu\nsh"},
            "client_secret must be text without line breaks, and not empty.",
        ),
    ],
)
@pytest.mark.parametrize("command", [("issue", "B"), ("get", "X"), ("batches",)])
def test_credentials_missing(
    rm, monkeypatch: pytest.MonkeyPatch, command: tuple[str], variables: dict, sentence: str
) -> None:
    """Credentials that are not all there are a mistake, with the way out; memory is no fallback."""
    set_variables(monkeypatch, **variables)
    ended = rm(*command)
    assert (ended.code, ended.out, ended.err) == (2, "", f"Error: {sentence}{HELP}\n")


@pytest.mark.parametrize(
    ("key_file", "sentence"),
    [
        ("missing.pem", "The private key file {} can't be read: No such file or directory."),
        (".", "The private key file {} can't be read: Is a directory."),
        (
            PUBLIC_KEY_FILE,
            (
                "This is a public key; signing needs the private key whose public half is in the "
                "merchant portal."
            ),
        ),
        (
            TESTS / "payloads" / "error.json",
            (
                "The private key is not PEM text. If it is a file name, pass pathlib.Path(name). "
                "If it is DER, make PEM of it: 'openssl pkey -inform DER -in key.der -out key.pem'."
            ),
        ),
    ],
)
def test_key_file_bad(
    rm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key_file: str | Path, sentence: str
) -> None:
    """A key file that can't be used is a mistake, and the sentence says what it is."""
    path = tmp_path / key_file
    set_variables(
        monkeypatch, RM_CLIENT_ID="id", RM_CLIENT_SECRET="hush", RM_PRIVATE_KEY_FILE=str(path)
    )
    ended = rm("issue", "B")
    assert (ended.code, ended.out, ended.err) == (2, "", f"Error: {sentence.format(path)}\n")


@pytest.mark.parametrize("name", ["throwaway-pkcs1.pem", "throwaway-pkcs8.pem"])
def test_key_file_good(
    rm, served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, caplog
) -> None:
    """A key file of either kind signs, and one that others can read gives a line in the log."""
    served.emulator.add_batch("Breakfast", key="B", quantity=2)
    path = tmp_path / "key.pem"
    path.write_bytes((KEY_FILE.parent / name).read_bytes())
    path.chmod(0o600)
    set_variables(monkeypatch, RM_PRIVATE_KEY=" ", RM_PRIVATE_KEY_FILE=str(path))
    assert rm("issue", "B").code == 0
    path.chmod(0o640)
    assert rm("issue", "B").code == 0
    said = f"The private key file {path} can be read by other users: chmod 600 it."
    assert caplog.messages.count(said) == 1


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("nowhere", "'nowhere' is no environment: write sandbox, production or a URL."),
        ("ftp://x", "api_url must start with https:// (or http:// for loopback)."),
        (
            "http://rm.example",
            (
                "api_url is plain http to another machine: secrets would travel unprotected. "
                "Use https; only for an emulator, RM_ALLOW_PLAIN_HTTP=rm.example (in code, "
                "allow_plain_http) allows it."
            ),
        ),
        ("https://me:hush@rm.example", "api_url must be a bare URL: no user, query or fragment."),
    ],
)
@pytest.mark.parametrize("how", ["option", "variable"])
def test_environment_bad(
    rm, served, monkeypatch: pytest.MonkeyPatch, how: str, url: str, sentence: str
) -> None:
    """An environment that can't be used is a mistake, by option and by variable alike."""
    monkeypatch.setenv("RM_ENVIRONMENT", url if how == "variable" else served.url)
    ended = rm("batches", *(["--environment", url] if how == "option" else []))
    assert (ended.code, ended.out, ended.err) == (2, "", f"Error: {sentence}\n")


def test_environment_url(rm, served, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--environment URL`` sends the token's request and the calls to that URL."""
    served.emulator.add_batch("Breakfast", key="B", quantity=3)
    monkeypatch.setenv("RM_ENVIRONMENT", "production")
    ended = rm("issue", "B", "--environment", served.url)
    assert ended.code == 0
    assert [row["code"] for row in ended.rows] == served.issued()
