"""What every test may use: payloads, keys, clients on scripted servers, and a clock that no test
waits for. `pytest-socket` (see pyproject.toml) refuses every connection that is not loopback."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import os
import signal
import ssl
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, settings
from support.command import COMMAND, EmulatorProcess, EmulatorThread
from support.doubles import FakeTime, NoSigner
from support.files import KEY_FILE
from support.postgres import (  # noqa: F401 - fixtures
    postgres_database,
    postgres_events_url,
    postgres_ledger_url,
    postgres_url,
)
from support.runtimes import with_runtime
from support.scripted_server import Recorder

from rm_voucher import (
    Credentials,
    Environment,
    Request,
    StaticToken,
    VoucherClient,
)
from rm_voucher.signing import RsaSigner
from rm_voucher.transport.memory import MemoryTransport

# How this run was called is not for the runs of pytest that tests start.
os.environ.pop("PYTEST_ADDOPTS", None)

# Each worker would compile all tests anew, and each process that a test starts the package, which
# takes most of a run's time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


KEYS = 8  # so many are different

# These begin first, so that no worker has one of them left when the others have nothing to do.
LONGEST = (
    "tests/chaos/",
    "tests/browser/test_from_order_to_till.py",
    "tests/emulator/test_openapi_typescript.py",
    "tests/shared/test_rate_processes.py",
    "tests/kills/",
    "tests/seams/test_server_that_stands_still.py",
    "tests/worker/test_links.py",
    "tests/seams/test_command_keeps_codes.py",
    "tests/project/test_readme.py::test_programs_run",
    "tests/project/test_readme.py::test_blocks",
    "tests/simulation/test_campaigns.py",
    "tests/simulation/test_shared_rate.py",
    "tests/seams/test_no_crossing.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Let `-n auto` start one more than there are cores: tests wait for processes and disks."""
    is_given = "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ
    return None if is_given else (os.cpu_count() or 1) + 1


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Read no file without a long test, where long tests alone are wanted."""
    if config.option.markexpr != "long" or collection_path.suffix != ".py":
        return None
    return None if "mark.long" in collection_path.read_text() else True


@pytest.hookimpl(trylast=True)  # they are in random order
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin a run of long tests with the longest."""
    if config.option.markexpr == "long":
        items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


def pytest_collection_finish() -> None:
    """Let the garbage collector look no more through thousands of tests."""
    gc.collect()
    gc.freeze()


# Speed is measured in benchmarks/, not here. `nox -s tests` tries more examples.
settings.register_profile(
    "any-machine",
    deadline=None,
    max_examples=int(os.environ.get("RM_TESTS_EXAMPLES", "25")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("any-machine")


@pytest.fixture(scope="session", autouse=True)
def signals_as_at_a_prompt() -> Iterator[None]:
    """A run in the background, or under nohup, ignores signals that tests send.

    Its children would inherit that. A handler they don't inherit, so they have the defaults; the
    run itself still outlives its terminal.
    """
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: lambda *_: None}
    ignored = [number for number in handlers if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, handlers[number])
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_read_twice() -> Iterator[None]:
    """A key is read once, which takes 20 ms, and the system's authorities are not: another 20 ms,
    for every client, and no test has a certificate of theirs."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        read = functools.cache(serialization.load_pem_private_key)
        monkeypatch.setattr(serialization, "load_pem_private_key", read)
        monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def new_keys_come_in_turns() -> Iterator[None]:
    """A few new keys serve all tests: to make one takes up to a tenth of a second."""
    make, made = rsa.generate_private_key, deque[rsa.RSAPrivateKey]()

    def take_turns(public_exponent: int, key_size: int) -> rsa.RSAPrivateKey:
        if (public_exponent, key_size) != (65537, 2048):
            return make(public_exponent, key_size)
        made.append(make(public_exponent, key_size) if len(made) < KEYS else made.popleft())
        return made[-1]

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(rsa, "generate_private_key", take_turns)
        yield


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Names of folders, one for each test, that nothing has made yet."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def no_rm_variables(monkeypatch: pytest.MonkeyPatch, homes: Iterator[Path]) -> None:
    """No test sees the settings of the person who runs it, or leaves it any."""
    home = next(homes)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    for name in (
        "RM_CLIENT_ID",
        "RM_CLIENT_SECRET",
        "RM_PRIVATE_KEY",
        "RM_PRIVATE_KEY_FILE",
        "RM_ENVIRONMENT",
        "RM_API_URL",
        "RM_OAUTH_URL",
        "RM_PROFILE",
        "HTTPS_PROXY",
        "https_proxy",
        "NO_PROXY",
        "no_proxy",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture(scope="session")
def credentials() -> Credentials:
    return Credentials("client-id", "client-secret", KEY_FILE.read_bytes())


@pytest.fixture(scope="session")
def signer() -> RsaSigner:
    return RsaSigner.from_pem(KEY_FILE.read_bytes())


@pytest.fixture
def make_client(credentials: Credentials, time: FakeTime) -> Callable[..., VoucherClient]:
    """Make a client that needs neither token nor signature nor patience."""

    def make(server: Callable[[Request], Any], **options: Any) -> VoucherClient:
        defaults: dict[str, Any] = {
            "environment": Environment.SANDBOX,
            "transport": MemoryTransport(server),
            "token_source": StaticToken("token"),
            "signer": NoSigner(),
            "runtime": time.runtime,
        }
        return VoucherClient(credentials, **with_runtime({**defaults, **options}))

    return make


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def buyer(
    make_client: Callable[..., VoucherClient], recorder: Recorder
) -> AsyncIterator[VoucherClient]:
    """A client that has to buy its token from the recorder before it can send anything."""
    async with make_client(recorder, token_source=None) as client:
        yield client


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``rm-voucher`` as a process of its own; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def popen(
        *args: object, stdout: IO[str] | int = subprocess.PIPE, stderr: int = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        command = [*COMMAND, *map(str, args)]
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, text=True)
        started.append(process)
        return process

    yield popen
    for process in started:
        with process:  # closes the pipes
            if process.poll() is None:
                process.kill()


@pytest.fixture
def emulating(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> Callable[..., EmulatorProcess]:
    """Start ``rm-voucher emulator`` as a process of its own, and wait until it listens."""

    def emulate(*options: object) -> EmulatorProcess:
        path = tmp_path / "emulator.env"
        process = start("emulator", *options, "--credentials-out", path)
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("Emulator at "), line
        return EmulatorProcess.at(path, process=process)

    return emulate


@pytest.fixture
def emulated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., EmulatorThread]]:
    """Run ``rm-voucher emulator`` in a thread of this process, one at a time."""
    with contextlib.ExitStack() as running:

        def emulate(*options: object) -> EmulatorThread:
            running.close()
            path = tmp_path / "emulator.env"
            emulator = EmulatorThread.running(path, monkeypatch, *options)
            running.callback(emulator.stop)
            return emulator

        yield emulate
