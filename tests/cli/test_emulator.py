"""``rm-voucher emulator``: what it is given, what it hands out, how it ends."""

import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.files import KEY_FILE, PUBLIC_KEY_FILE

from rm_voucher.emulator.request_log import LOGGER


def sourced(path: Path, *names: str) -> list[str]:
    """Return what a shell that sources the file has in these variables."""
    script = f". {shlex.quote(str(path))}; printf '%s\\0' " + " ".join(f'"${n}"' for n in names)
    done = subprocess.run(["sh", "-euc", script], capture_output=True, check=True, text=True)
    return done.stdout.split("\0")[:-1]


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
def test_emulator_process(start, rm, tmp_path: Path, monkeypatch, number: signal.Signals) -> None:
    """It serves with the variables that it writes, until a signal ends it without a crash."""
    path = tmp_path / "it's.env"
    process = start(
        "emulator", "--quiet", "--batch", "TEA=1", "--batch", "B=5", "--credentials-out", path
    )
    line = process.stderr.readline()
    assert path.stat().st_mode & 0o7777 == 0o600
    names = ("RM_ENVIRONMENT", "RM_CLIENT_ID", "RM_CLIENT_SECRET", "RM_PRIVATE_KEY")
    values = sourced(path, *names)
    url = values[0]
    said = f"Emulator at {url} (no real vouchers), its page at {url}/_emulator/. Ctrl-C ends it."
    assert line == f"{said}\n"
    for name, value in zip(names, values, strict=True):
        monkeypatch.setenv(name, value)
    issued = rm("issue", "B", "--count", 2)
    assert (issued.code, [row["voucher_status"] for row in issued.rows]) == (0, ["issued"] * 2)
    listed = rm("batches")
    assert [(row["key"], row["quantity"]) for row in listed.rows] == [("TEA", "1"), ("B", "5")]
    process.send_signal(number)
    out, err = process.communicate()
    assert (out, err.strip(), process.returncode) == ("", "", 130)


def test_emulator_given_credentials(rm, stopped: list[str], tmp_path: Path) -> None:
    """Given id, secret and public key are used; a private key that it never sees isn't written."""
    path = tmp_path / "env"
    path.write_text("old")
    path.chmod(0o644)
    identity = ("--client-id", "me", "--client-secret", "it's $ecret", "--public-key")
    ended = rm("emulator", *identity, PUBLIC_KEY_FILE, "--credentials-out", path)
    assert (ended.code, ended.out, ended.err) == (130, "", "")
    url = stopped[0].split()[2]
    assert path.read_text() == (
        f"export RM_ENVIRONMENT={url}\nexport RM_CLIENT_ID=me\n"
        "export RM_CLIENT_SECRET='it'\"'\"'s $ecret'\n"
    )
    assert sourced(path, "RM_CLIENT_SECRET") == ["it's $ecret"]
    assert path.stat().st_mode & 0o7777 == 0o600


def test_variables_are_never_for_others(rm, stopped, tmp_path: Path, monkeypatch) -> None:
    """A new file is its owner's from the first moment on: who opens it early reads nothing."""
    modes = []
    replace = Path.replace

    def look_first(path: Path, target: Path) -> None:
        modes.append(path.stat().st_mode & 0o7777)
        replace(path, target)

    monkeypatch.setattr(Path, "replace", look_first)
    assert rm("emulator", "--credentials-out", tmp_path / "env").code == 130
    assert modes == [0o600]


@pytest.mark.usefixtures("stopped")
def test_log_ends_with_the_command(rm) -> None:
    """What the command did to the log of requests is undone, so that a next one writes no line
    twice."""
    before = ([*LOGGER.handlers], LOGGER.level)
    assert rm("emulator").code == 130
    assert (LOGGER.handlers, LOGGER.level) == before


def test_emulator_generates(rm, stopped: list[str], tmp_path: Path) -> None:
    """What isn't given is generated, new each time, and the key is on one line."""
    seen = set()
    for name in "ab":
        assert rm("emulator", "--credentials-out", tmp_path / name).code == 130
        _, identity, secret, key = (tmp_path / name).read_text().splitlines()
        seen |= {identity, secret}
        pem = key.removeprefix("export RM_PRIVATE_KEY='").removesuffix("'").replace("\\n", "\n")
        assert pem == KEY_FILE.read_text().strip()
    assert len(seen) == 4
    assert rm("emulator").code == 130
    assert len(stopped) == 3


def test_emulator_port(rm, stopped: list[str]) -> None:
    """It listens where it is told to."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert rm("emulator", "--port", port, "--host", "localhost").code == 130
    url = f"http://127.0.0.1:{port}"
    said = f"Emulator at {url} (no real vouchers), its page at {url}/_emulator/. Ctrl-C ends it."
    assert stopped == [said]


def test_emulator_busy_port(rm) -> None:
    """A port that is taken is a mistake: exit 2 and a sentence."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        ended = rm("emulator", "--port", port)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"Error: The emulator can't listen on 127.0.0.1:{port}: ")
    assert "address already in use" in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("batch", ["B", "B=", "=5", "B=x", "B=-1", "B=1.5", "B=1_0", "B=٣", "B= 5"])
def test_emulator_bad_batch(rm, batch: str) -> None:
    """A batch that isn't KEY=QUANTITY is a mistake."""
    ended = rm("emulator", "--batch", batch)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (f"Error: --batch {batch!r}: write KEY=QUANTITY, like BREAKFAST=1000.\n")


@pytest.mark.parametrize("quantity", [10**18, 2**63, 2**64])
def test_emulator_batch_too_large(rm, stopped: list[str], quantity: int) -> None:
    """A quantity that no JSON answer can carry, or of more than 18 digits, is a mistake."""
    ended = rm("emulator", "--batch", f"B={quantity}")
    assert (ended.code, stopped) == (2, [])
    assert ended.err.startswith(f"Error: --batch 'B={quantity}': write KEY=QUANTITY")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("--batch", "A=B=1", "--batch", "A=B=2"),
            "--batch 'A=B=2': there is a batch with the key 'A=B' already.",
        ),
        (
            ("--public-key", "{0}/no.pem"),
            "The public key file {0}/no.pem can't be read: No such file or directory.",
        ),
        (
            ("--public-key", KEY_FILE),
            "This is a private key; checking a signature needs the signer's public key.",
        ),
        (("--client-id", "a\nb"), "client_id must be text without line breaks, and not empty."),
        (("--credentials-out", "{0}"), "{0} can't be written: Is a directory."),
        (
            ("--credentials-out", "{0}/no/env"),
            ("{0}/no/env can't be written: No such file or directory."),
        ),
    ],
)
def test_emulator_mistakes(rm, tmp_path: Path, arguments: tuple, sentence: str) -> None:
    """What it can't use is a mistake: exit 2 and a sentence, before it says that it serves."""
    ended = rm("emulator", *(str(argument).format(tmp_path) for argument in arguments))
    assert (ended.code, ended.out, ended.err) == (2, "", f"Error: {sentence}\n".format(tmp_path))


def test_emulator_unknown_host(rm, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that can't be listened on is a mistake as well."""

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    ended = rm("emulator", "--host", "nowhere.invalid", "--port", 1)
    assert ended.code == 2
    assert ended.err == (
        "Error: The emulator can't listen on nowhere.invalid:1: "
        "[Errno -2] Name or service not known.\n"
    )


def test_merchants_of_the_command(start, tmp_path: Path) -> None:
    """Each has a file of its own, the same batches, and codes of its own though there is a seed."""
    path = tmp_path / "emulator.env"
    names = ("--merchant", "shop", "--merchant", "kiosk")
    process = start(
        *("emulator", "--quiet", "--seed", 1, "--batch", "TEA=3", *names),
        *("--credentials-out", path),
    )
    process.stderr.readline()
    assert {each.name for each in tmp_path.iterdir()} == {
        "emulator.env",
        "emulator-shop.env",
        "emulator-kiosk.env",
    }
    variables = ("RM_ENVIRONMENT", "RM_CLIENT_ID", "RM_CLIENT_SECRET", "RM_PRIVATE_KEY")
    found = [sourced(each, *variables) for each in tmp_path.iterdir()]
    assert [len({one[place] for one in found}) for place in range(4)] == [1, 3, 3, 1]
    codes = set()
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o7777 == 0o600
        script = f". {shlex.quote(str(file))}; exec {sys.executable} -m rm_voucher.cli issue TEA"
        done = subprocess.run(
            ["sh", "-euc", script], capture_output=True, check=True, text=True, timeout=60
        )
        codes.add(done.stdout.splitlines()[1].split(",")[1])
    assert len(codes) == 3
    process.send_signal(signal.SIGTERM)
    process.communicate()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--merchant", "main"], "--merchant 'main': there is one of that name already."),
        (
            ["--merchant", "a/b"],
            "--merchant: 'a/b' is no name of 1 to 63 letters, digits, - and _.",
        ),
        (["--allow-host", "*"], "'*' is no name of a host, such as emulator or emulator:8000."),
        (["--public-url", "here"], "The public URL must start with https:// (or http:// for loop"),
        (
            ["--scenario", "first-steps", "--merchant", "a"],
            "The scenario says what --merchant would say: write it there.",
        ),
    ],
)
def test_merchants_and_names_that_can_not_be(rm, options: list[str], sentence: str) -> None:
    """They are mistakes: exit 2 and a sentence."""
    ended = rm("emulator", *options)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"Error: {sentence}")
    assert len(ended.err.splitlines()) == 1


@pytest.mark.usefixtures("stopped")
def test_name_for_other_containers(rm, tmp_path: Path) -> None:
    """A client is told the name, and that it may use it without TLS."""
    path = tmp_path / "env"
    ended = rm(
        *("emulator", "--host", "0.0.0.0", "--allow-host", "emulator:8000"),
        *("--public-url", "http://localhost:8000", "--credentials-out", path),
    )
    assert ended.code == 130
    assert sourced(path, "RM_ENVIRONMENT", "RM_ALLOW_PLAIN_HTTP") == [
        "http://emulator:8000",
        "emulator:8000",
    ]
