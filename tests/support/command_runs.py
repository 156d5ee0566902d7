"""The command as a person starts it, in this process, and the servers that it talks to."""

from __future__ import annotations

import asyncio
import csv
import io
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import attrs
import orjson
import pytest
from support.command import PATIENCE_S
from support.files import KEY_FILE
from typer.main import get_command

from rm_voucher import Credentials, Request, Response
from rm_voucher.cli import emulator as emulator_command
from rm_voucher.cli import main, profile_option
from rm_voucher.cli.app import app
from rm_voucher.emulator import Check, Emulator, Guesses
from rm_voucher.emulator.reply import Reply
from rm_voucher.emulator.server import serve
from rm_voucher.transport.memory import MemoryTransport

PLAN = ("Environment: ", "Merchant: ", "Batch: ", "Recipients: ", "Ledger: ", "Duration: ")
BUILT = get_command(app)  # once: typer would build all commands anew for each run


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@attrs.frozen
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, str]]:
        return rows(self.out)

    @property
    def after_plan(self) -> str:
        """What was said, without the plan of an issue."""
        lines = self.err.splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith(PLAN))

    @property
    def json(self) -> list[dict[str, object]]:
        return [orjson.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test makes keys or commands anew, and nothing depends on the person who runs it."""
    monkeypatch.setattr("rm_voucher.emulator.merchant.new_private_key", KEY_FILE.read_bytes)
    monkeypatch.setattr("rm_voucher.cli.app.get_command", lambda _: BUILT)
    profile_option.begin(None)  # whatever the last command was told
    for name in ("FORCE_COLOR", "PYTHONUNBUFFERED", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def rm(
    quick: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Callable[..., Ended]:
    """Run ``rm-voucher`` in this process; in a test of embedded emulators, on one of those."""

    def run(*args: object) -> Ended:
        if "embedded" in request.fixturenames and "--environment" not in args:
            args = (*args, "--environment", "memory")
        monkeypatch.setattr(sys, "argv", ["rm-voucher", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An emulator in this process is interrupted as soon as it says where it is. What it said."""
    said = []

    def say(text: str) -> None:
        said.append(text)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(emulator_command, "say", say)
    return said


class Embedded:
    """The emulators that commands run on in memory. ``on_issue`` may play a fault."""

    def __init__(self) -> None:
        self.made: list[Emulator] = []
        self.on_issue: Callable[[Callable[[], Response]], Any] = lambda issue: issue()

    @property
    def issued(self) -> list[str]:
        """The codes of every voucher that was issued."""
        return [
            code
            for emulator in self.made
            for batch in emulator.state.stock.ours()
            for code in emulator.state.issued(batch.key)
        ]


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> Embedded:
    embedded = Embedded()
    make_client = Emulator.client

    def client(self: Emulator, **options: Any) -> object:
        def answer(request: Request) -> Any:
            if request.operation == "issue":
                return embedded.on_issue(lambda: self.handle(request))
            return self.handle(request)

        if self not in embedded.made:  # a plan has a client of its own
            embedded.made.append(self)
        return make_client(self, transport=MemoryTransport(answer), **options)

    monkeypatch.setattr(Emulator, "client", client)
    return embedded


@attrs.define
class Served:
    """An emulator that listens. ``on_issue`` may be replaced by what plays a fault."""

    emulator: Emulator
    url: str = ""
    on_issue: Callable[[Callable[[], Reply]], Reply | Response] = lambda issue: issue()

    def __attrs_post_init__(self) -> None:
        reply = self.emulator.reply

        def answer(request: Request) -> Reply:
            if not request.url.path.endswith("/issue"):
                return reply(request)
            answer = self.on_issue(lambda: reply(request))
            return answer if isinstance(answer, Reply) else Reply(answer)

        self.emulator.reply = answer  # type: ignore[method-assign] # so that issues play faults

    def issued(self, batch: str = "B") -> list[str]:
        return list(self.emulator.state.issued(batch))


def serve_in_thread(served: Served, ready: Future[Callable[[], object]]) -> None:
    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with serve(served.emulator, public_url="https://emulator.invalid") as server:
            served.url = server.url
            ready.set_result(lambda: loop.call_soon_threadsafe(stop.set))
            await stop.wait()

    asyncio.run(run())


@pytest.fixture
def served(credentials: Credentials, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """An emulator over HTTP, in a thread of its own, and the variables that a client needs."""
    emulator = Emulator(
        seed=1,
        credentials=credentials,
        clock=lambda: 1_700_000_000.0,
        disabled_checks=[Check.TIMESTAMP],
        guesses=Guesses(page_size=2),
    )
    served = Served(emulator)
    ready: Future[Callable[[], object]] = Future()
    thread = threading.Thread(target=serve_in_thread, args=(served, ready))
    thread.start()
    stop = ready.result(PATIENCE_S)
    monkeypatch.setenv("RM_ENVIRONMENT", served.url)
    monkeypatch.setenv("RM_CLIENT_ID", credentials.client_id)
    monkeypatch.setenv("RM_CLIENT_SECRET", credentials.client_secret)
    monkeypatch.setenv("RM_PRIVATE_KEY", credentials.private_key_pem().decode())
    yield served
    stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
