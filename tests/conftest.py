"""What every test may use: payloads, keys, clients on scripted servers, and a clock that no test
waits for. `pytest-socket` (see pyproject.toml) refuses every connection that is not loopback."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from support.command import COMMAND, Emulating
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

# Speed is measured in benchmarks/, not here.
settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-machine")


@pytest.fixture(autouse=True)
def no_rm_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of the person who runs it."""
    for name in (
        "RM_CLIENT_ID",
        "RM_CLIENT_SECRET",
        "RM_PRIVATE_KEY",
        "RM_PRIVATE_KEY_FILE",
        "RM_ENVIRONMENT",
        "RM_API_URL",
        "RM_OAUTH_URL",
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
    started = []

    def popen(*args: object, **options: Any) -> subprocess.Popen[str]:
        given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen([*COMMAND, *map(str, args)], text=True, **given)
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
) -> Callable[..., Emulating]:
    """Start ``rm-voucher emulator`` as a process of its own, and wait until it listens."""

    def emulate(*options: object) -> Emulating:
        path = tmp_path / "emulator.env"
        process = start("emulator", *options, "--credentials-out", path)
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("Emulator at "), line
        exports = [shlex.split(line)[1] for line in path.read_text().splitlines()]
        return Emulating(process, dict(export.split("=", 1) for export in exports))

    return emulate
