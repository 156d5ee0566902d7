"""What every test may use: payloads, keys, clients on scripted servers, and a clock that no test
waits for. `pytest-socket` (see pyproject.toml) refuses every connection that is not loopback."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import HealthCheck, settings
from postgres import (  # noqa: F401 - fixtures
    postgres_database,
    postgres_events_url,
    postgres_ledger_url,
    postgres_url,
)

from rm_voucher import (
    ConnectError,
    Credentials,
    Environment,
    FlowPolicy,
    Request,
    Response,
    ResponseLostError,
    RetryPolicy,
    StaticToken,
    TokenSource,
    Transport,
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

HERE = Path(__file__).parent
COMMAND = (sys.executable, "-m", "rm_voucher.cli")
PATIENCE_S = 30  # for what must happen; it is only spent when a test fails
KEY_FILE = HERE / "vectors" / "throwaway-pkcs8.pem"
PUBLIC_KEY_FILE = HERE / "vectors" / "throwaway-public.pem"

Answer = Response | BaseException | Callable[[Request], Response]


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


def payload(name: str) -> Any:
    """Return one of the example payloads of RM's documentation."""
    return orjson.loads((HERE / "payloads" / f"{name}.json").read_bytes())


def ok(body: object, status: int = 200, **headers: str) -> Response:
    """Return an answer with a JSON body."""
    return Response(
        status=status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        body=orjson.dumps(body),
    )


def rm_error(code: str, status: int = 400, message: str = "", **headers: str) -> Response:
    """Return an answer with RM's own error body."""
    return ok({"error": {"code": code, "message": message}}, status, **headers)


ISSUED = ok({"item": {"code": "NAklEfbVdV", "qrUrl": "https://qr.invalid/1"}, "code": "SUCCESS"})


NOT_SENT = ConnectError("x: no connection")
LOST = ResponseLostError("x: the server closed the connection")
HTML = Response(status=502, body=b"<html>Bad Gateway</html>")
THROTTLED = rm_error("TOO_MANY_REQUEST_PER_SECOND", 429)
GO_ZERO_TIME = "0001-01-01T00:00:00Z"


def voucher_item(status: str, code: str = "X", used_at: str = GO_ZERO_TIME) -> dict[str, Any]:
    """Return a voucher as it stands in an answer; unless used or redeemed it shows no such time."""
    redeemed = status in ("REDEEMED", "VOID")
    return {
        **payload("get-voucher")["item"],
        "code": code,
        "status": status,
        "usedAt": used_at,
        "redeemedAt": "2018-09-28T17:19:35Z" if redeemed else GO_ZERO_TIME,
    }


def voucher(status: str, used_at: str = GO_ZERO_TIME, code: str = "X") -> Response:
    """Return an answer that shows one voucher."""
    return ok({"item": voucher_item(status, code, used_at), "code": "SUCCESS"})


class ScriptedServer:
    """Answers requests in the order of a script, and keeps what it was sent."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        assert self.answers, f"one request too many: {request.method} {request.url}"
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, Response) else answer(request)

    @property
    def paths(self) -> list[str]:
        return [f"{r.method} {r.url.raw_path}" for r in self.requests]

    @property
    def transport(self) -> Transport:
        return MemoryTransport(self)


class Recorder:
    """Gives tokens, knows no voucher, and keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        if request.operation == "token":
            return ok(payload("token-client-credentials"))
        return rm_error("VOUCHER_NOT_FOUND", 404)


class Tokens(TokenSource):
    """Gives its tokens one after the other, each until it is refused; an error is raised."""

    def __init__(self, *tokens: str | Exception) -> None:
        self.tokens = list(tokens)
        self.refused: list[str] = []

    async def token(self) -> str:
        token = self.tokens[0]
        if isinstance(token, Exception):
            raise token
        return token

    def refuse(self, token: str) -> bool:
        self.refused.append(token)
        self.tokens.pop(0)
        return bool(self.tokens)


class FakeTime:
    """A clock that only `sleep` moves."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class NoSigner:
    """A signer for tests that are not about signing."""

    def sign(self, text: bytes) -> bytes:
        return b"signature"


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
            "clock": time.clock,
            "monotonic": time.clock,
            "sleep": time.sleep,
            "random": lambda: 0.0,
        }
        return VoucherClient(credentials, **{**defaults, **options})

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

    def popen(*args: object, **options: object) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        process = subprocess.Popen([*COMMAND, *map(str, args)], **pipes)
        started.append(process)
        return process

    yield popen
    for process in started:
        with process:  # closes the pipes
            if process.poll() is None:
                process.kill()


@attrs.frozen
class Emulating:
    """The command ``rm-voucher emulator`` as a process that listens."""

    process: subprocess.Popen[str]
    variables: dict[str, str]

    @property
    def url(self) -> str:
        return self.variables["RM_ENVIRONMENT"]

    def client(self, **options: Any) -> VoucherClient:
        """Make a client that tries once, and therefore never waits."""
        return VoucherClient(
            Credentials.from_env(self.variables),
            environment=Environment.from_env(self.variables),
            **{"retry": RetryPolicy(max_attempts=1), "flow": FlowPolicy(learns=False), **options},
        )

    def control(self, path: str) -> Any:
        """Return what the control API shows."""
        with urllib.request.urlopen(f"{self.url}/_emulator/{path}") as answer:
            return orjson.loads(answer.read())

    def end(self, number: signal.Signals = signal.SIGTERM) -> list[str]:
        """End it; return the lines that it wrote since it listened."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE_S)
        assert (out, self.process.returncode) == ("", 130)
        return err.splitlines()


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
