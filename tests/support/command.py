"""The command ``rm-voucher``, as a process of its own or in a thread."""

from __future__ import annotations

import asyncio
import queue
import shlex
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import attrs
import orjson
import pytest

from rm_voucher import Credentials, Environment, FlowPolicy, RetryPolicy, VoucherClient

COMMAND = (sys.executable, "-m", "rm_voucher.cli")
PATIENCE_S = 30  # for what must happen; it is only spent when a test fails


@attrs.frozen
class Emulating:
    """The command ``rm-voucher emulator``, which listens."""

    variables: dict[str, str]

    @classmethod
    def at(cls, path: Path, **given: Any) -> Self:
        """Make one with the variables that the command wrote to a file."""
        exports = [shlex.split(line)[1] for line in path.read_text().splitlines()]
        return cls(dict(export.split("=", 1) for export in exports), **given)

    @property
    def url(self) -> str:
        return self.variables["RM_ENVIRONMENT"]

    def client(self, **options: Any) -> VoucherClient:
        """Make a client that tries once, and therefore never waits."""
        return VoucherClient(
            Credentials.from_env(self.variables),
            environment=Environment.from_env(self.variables),
            **{"retry": RetryPolicy(max_attempts=1), "flow": FlowPolicy(adaptive=False), **options},
        )

    def control(self, path: str) -> Any:
        """Return what the control API shows."""
        with urllib.request.urlopen(f"{self.url}/_emulator/{path}") as answer:
            return orjson.loads(answer.read())


@attrs.frozen
class EmulatorProcess(Emulating):
    """It runs in a process of its own."""

    process: subprocess.Popen[str]

    def end(self, number: signal.Signals = signal.SIGTERM) -> list[str]:
        """End it; return the lines that it wrote since it listened."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE_S)
        assert (out, self.process.returncode) == ("", 130)
        return err.splitlines()


@attrs.frozen
class EmulatorThread(Emulating):
    """It runs in a thread of this process, and is cancelled in place of a signal."""

    said: queue.SimpleQueue[str]
    """What it writes to standard error."""
    ended: Future[object]
    """Its exit code."""
    cancel: Callable[[], object]

    @classmethod
    def running(cls, path: Path, monkeypatch: pytest.MonkeyPatch, *options: object) -> Self:
        from rm_voucher.cli import emulator, main, screen

        said = queue.SimpleQueue[str]()
        ended = Future[object]()
        ready = Future[Callable[[], object]]()

        def run_until_cancelled(serving: Coroutine[Any, Any, None]) -> None:
            async def run() -> None:
                loop, task = asyncio.get_running_loop(), asyncio.current_task()
                assert task is not None
                ready.set_result(lambda: loop.call_soon_threadsafe(task.cancel))
                await serving

            asyncio.run(run())

        def run() -> None:
            try:
                main()
            except SystemExit as exc:
                ended.set_result(exc.code)

        arguments = ["emulator", *options, "--credentials-out", path]
        monkeypatch.setattr(sys, "argv", ["rm-voucher", *map(str, arguments)])
        monkeypatch.setattr(emulator, "run_until_interrupted", run_until_cancelled)
        monkeypatch.setattr(screen, "write_err", said.put)
        threading.Thread(target=run).start()
        cancel = ready.result(PATIENCE_S)
        line = said.get(timeout=PATIENCE_S)
        assert line.startswith("Emulator at "), line
        return cls.at(path, said=said, ended=ended, cancel=cancel)

    def stop(self) -> None:
        """Cancel it, unless it has ended, and wait for its end."""
        if not self.ended.done():
            self.cancel()
            self.ended.result(PATIENCE_S)

    def end(self) -> list[str]:
        """End it; return the lines that it wrote since it listened."""
        self.stop()
        assert self.ended.result() == 130
        lines = []
        while not self.said.empty():
            lines.append(self.said.get().removesuffix("\n"))
        return lines
