"""Rule: what was not said is not guessed where vouchers are at stake.

Codes that are not real come only from ``--environment memory``. An argument or a variable that is
empty is a shell's variable that was not set, and never means a default.
"""

from pathlib import Path

import pytest

from rm_voucher import ConfigurationError, Environment

WAY_OUT = "Set the RM_… variables, or use --environment memory to try without an account."
UNSET = "is a variable of the shell not set?"
PLACES = ["RM_ENVIRONMENT", "RM_API_URL", "RM_OAUTH_URL"]


@pytest.mark.parametrize(
    "command", [("issue", "B"), ("get", "X"), ("void", "X"), ("vouchers", "B"), ("batches",)]
)
def test_nothing_is_set(rm, tmp_path: Path, command: tuple[str, ...]) -> None:
    """Without any variable every command is a mistake, and no file is made."""
    output = ("--output", tmp_path / "file.csv") if command[0] == "issue" else ()
    ended = rm(*command, *output)
    assert (ended.code, ended.out, list(tmp_path.iterdir())) == (2, "", [])
    assert ended.err.endswith(f"{WAY_OUT}\n")


@pytest.mark.parametrize("command", [("issue", "B"), ("get", "X"), ("batches",)])
@pytest.mark.parametrize("name", ["memory", " Memory "])
def test_memory_by_a_variable(rm, monkeypatch, command: tuple[str, ...], name: str) -> None:
    """A variable outlives the trial that it was set for: it can't choose codes that aren't real."""
    monkeypatch.setenv("RM_ENVIRONMENT", name)
    ended = rm(*command)
    assert (ended.code, ended.out) == (2, "")
    assert "that takes --environment memory" in ended.err


def test_memory_by_its_option(rm, embedded, tmp_path: Path) -> None:
    """With the option it is said that the vouchers are not real."""
    out = tmp_path / "file.csv"
    ended = rm("issue", "B", "--output", out, "--environment", "memory")
    assert (ended.code, len(embedded.issued), out.exists()) == (0, 1, True)
    assert ended.err.startswith("These are not real vouchers")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("issue", ""), "An argument"),
        (("issue", "B", "--ledger", ""), "--ledger"),
        (("issue", "B", "--ledger="), "--ledger"),
        (("issue", "B", "--ledger", " "), "--ledger"),
        (("issue", "B", "-e", ""), "-e"),
        (("issue", "B", "--environment", ""), "--environment"),
        (("issue", "B", "--output", ""), "--output"),
        (("issue", "B", "--recipients", ""), "--recipients"),
        (("issue", "B", "--rate", ""), "--rate"),
        (("issue", "B", "--json", ""), "An argument"),
        (("get", ""), "An argument"),
        (("get", "X", "-e", ""), "-e"),
        (("void", "X", "--store-id", ""), "--store-id"),
        (("void", "X", "--used-at", ""), "--used-at"),
        (("vouchers", ""), "An argument"),
        (("batches", "--environment", ""), "--environment"),
        (("ledger", "status", ""), "An argument"),
        (("ledger", "status", "sqlite:///a.db", "--batch", ""), "--batch"),
        (("ledger", "export", "sqlite:///a.db", "--output", ""), "--output"),
        (("ledger", "resolve", "sqlite:///a.db", "1", "--adopt", ""), "--adopt"),
        (("ledger", "reconcile", "sqlite:///a.db", "B", "-e", ""), "-e"),
        (("ledger", "baseline", "sqlite:///a.db", ""), "An argument"),
        (("webhook", "listen", "--public-key", ""), "--public-key"),
        (
            ("webhook", "verify", "--headers", "h", "--body", "b", "--public-key", ""),
            "--public-key",
        ),
        (("emulator", "--batch", ""), "--batch"),
        (("emulator", "--client-id", ""), "--client-id"),
        (("emulator", "--credentials-out", ""), "--credentials-out"),
        (("emulator", "--callback-url", ""), "--callback-url"),
    ],
)
def test_empty_argument(rm, served, tmp_path, monkeypatch, arguments, what) -> None:
    """``--ledger "$UNSET"``: every command refuses it, before it does anything."""
    monkeypatch.chdir(tmp_path)
    ended = rm(*arguments)
    assert (ended.code, ended.err) == (2, f"Error: {what} is empty: {UNSET}\n")
    assert ended.out.startswith('{"error":') if "--json" in arguments else not ended.out
    assert not served.emulator.requests
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("issue", "B", "--ledger", "--json"), "--ledger is followed by --json"),
        (("issue", "B", "--output", "--exclusive"), "--output is followed by --exclusive"),
        (("issue", "B", "-e", "--ledger", "sqlite:///a.db"), "-e is followed by --ledger"),
        (("void", "X", "--store-id", "--json"), "--store-id is followed by --json"),
        (("ledger", "export", "sqlite:///a.db", "--batch", "--output", "f"), "--batch is followed"),
        (("emulator", "--credentials-out", "--quiet"), "--credentials-out is followed by --quiet"),
    ],
)
def test_argument_that_is_gone(rm, served, tmp_path, monkeypatch, arguments, sentence) -> None:
    """``--store-id $UNSET --json``: an option's name is no value of another one."""
    monkeypatch.chdir(tmp_path)
    ended = rm(*arguments)
    assert ended.code == 2
    assert ended.out.startswith('{"error":') if "--json" in arguments else not ended.out
    assert ended.err.startswith(f"Error: {sentence}")
    assert ended.err.endswith(f"{UNSET}\n")
    assert not served.emulator.requests
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("issue", "--help"), ("ledger",), ("nothing", ""), ("void", "X", "--used-at")],
)
def test_usage_is_left_alone(rm, arguments: tuple[str, ...]) -> None:
    """Help, and what is no command at all, is told as ever."""
    ended = rm(*arguments)
    assert ended.code == (0 if "--help" in arguments else 2)


def test_value_that_looks_like_much(rm, served) -> None:
    """A value may have dashes, equal signs and spaces."""
    assert rm("issue", "--json=x").code == 2
    assert not served.emulator.requests
    ended = rm("get", "-e", served.url, "A=B -- C=")
    assert (ended.code, "VOUCHER_NOT_FOUND" in ended.err) == (1, True)


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("value", ["", " "])
def test_empty_variable(rm, served, monkeypatch, name: str, value: str) -> None:
    """``RM_API_URL=$UNSET`` names no server; the default is another one than was meant."""
    monkeypatch.setenv(name, value)
    ended = rm("issue", "B")
    assert (ended.code, ended.out) == (2, "")
    assert not served.emulator.requests
    assert ended.err.startswith(f"Error: {name} is set to nothing")


@pytest.mark.parametrize("name", PLACES)
def test_empty_variable_of_a_client(name: str) -> None:
    """So it is in a program: a shop with RM_ENVIRONMENT="" would hand out the sandbox's codes."""
    with pytest.raises(ConfigurationError, match=f"{name} is set to nothing"):
        Environment.from_env({"RM_ENVIRONMENT": "production", name: " "})


def test_empty_credentials(rm, served, monkeypatch) -> None:
    """A credential has no default: one that is empty is missing, unless another gives the key."""
    monkeypatch.setenv("RM_PRIVATE_KEY", "")
    ended = rm("issue", "B")
    assert (ended.code, ended.err) == (
        2,
        f"Error: RM_PRIVATE_KEY_FILE (or RM_PRIVATE_KEY) is not set. {WAY_OUT}\n",
    )


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "option",
    [
        ("issue", "B", "--ledger", "sqlite:///a.db", "--settle"),
        ("issue", "B", "--rate"),
        ("ledger", "reconcile", "sqlite:///a.db", "B", "--settle"),
        ("emulator", "--fault-rate"),
        ("emulator", "--latency"),
        ("emulator", "--rate-limit"),
        ("emulator", "--callback-interval"),
    ],
)
def test_numbers_that_are_none(
    rm, served, stopped, tmp_path, monkeypatch, option: tuple[str, ...], number: str
) -> None:
    """A number of seconds or of requests is finite."""
    monkeypatch.chdir(tmp_path)
    ended = rm(*option, number)
    assert (ended.code, ended.out, stopped) == (2, "", [])
    assert not list(tmp_path.iterdir())
