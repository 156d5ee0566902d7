"""Servers of one test's own, which it may restart: PostgreSQL, RabbitMQ, NATS, Redis."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import pytest

START_S = 90  # on a machine that has other things to do


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def find(*patterns: str) -> Path:
    """Return a program; skip the test for the lack of it."""
    for pattern in patterns:
        if found := sorted(Path("/").glob(pattern.lstrip("/"))):
            return found[-1]
    pytest.skip(f"no {Path(patterns[0]).name} on this machine")


class Service(ABC):
    """A server with a folder of its own, which it keeps over restarts."""

    def __init__(self) -> None:
        # Not in tmp_path, which other users can't enter.
        self._folder = tempfile.TemporaryDirectory(prefix="rm-test-")
        self.home = Path(self._folder.name)
        self.home.chmod(0o755)
        self.port = free_port()

    @property
    @abstractmethod
    def url(self) -> str: ...

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def stop(self) -> None: ...

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        self.stop()
        self._folder.cleanup()


class Postgres(Service):
    """PostgreSQL, which does not run as root."""

    def __init__(self) -> None:
        super().__init__()
        self._programs = find("/usr/lib/postgresql/*/bin/initdb").parent
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self.home, self._user)
        self._run("initdb", "-U", "tester", "-A", "trust", "-N")

    @property
    def url(self) -> str:
        return f"postgresql://tester@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        self._control("start")

    def stop(self) -> None:
        self._control("stop")

    def _control(self, verb: str) -> None:
        options = f"-p {self.port} -h 127.0.0.1 -k ''"
        self._run("pg_ctl", verb, "-w", "-m", "fast", "-o", options, "-l", f"{self.home}/log")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._programs / program), "-D", str(self.home / "data"), *arguments],
            check=True,
            user=self._user,
            cwd="/",
            stdout=subprocess.DEVNULL,
            timeout=START_S,
        )


class _Process(Service):
    """A server that runs in the foreground."""

    process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]: ...

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False

    def start(self) -> None:
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                env=self.environment(),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while not self.answers():
            assert self.process.poll() is None, (self.home / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (self.home / "log").read_text()[-2000:]
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(START_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


class RabbitMQ(_Process):
    """RabbitMQ, as a node of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._program = find("/usr/lib/rabbitmq/bin/rabbitmq-server")
        self._name = f"rm-test-{secrets.token_hex(4)}@localhost"
        self._dist_port = free_port()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def command(self) -> list[str]:
        return [str(self._program)]

    def environment(self) -> dict[str, str]:
        home = str(self.home)
        return {
            **os.environ,
            "HOME": home,
            "RABBITMQ_NODENAME": self._name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": f"{home}/mnesia",
            "RABBITMQ_LOG_BASE": f"{home}/log.d",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": f"{home}/none",
            "RABBITMQ_CONF_ENV_FILE": f"{home}/none.env",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/none.plugins",
            "RABBITMQ_PID_FILE": f"{home}/pid",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }


class Nats(_Process):
    """NATS with JetStream, which writes through to the disk."""

    def __init__(self) -> None:
        super().__init__()
        self._program = find("/usr/sbin/nats-server", "/usr/*bin/nats-server")

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        at = ["-a", "127.0.0.1", "-p", str(self.port)]
        return [str(self._program), *at, "-js", "-sd", str(self.home / "data")]


class Redis(_Process):
    """Redis that loses nothing: each command is on the disk before it is answered."""

    def __init__(self) -> None:
        super().__init__()
        self._program = find("/usr/bin/redis-server", "/usr/*bin/redis-server")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        at = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.home)]
        return [str(self._program), *at, *durable]


BROKERS: dict[str, type[Service]] = {"rabbitmq": RabbitMQ, "nats": Nats, "redis": Redis}


@contextlib.contextmanager
def running(kind: type[Service]) -> Iterator[Service]:
    """Start a server; stop it at the end, and remove its files."""
    service = kind()
    try:
        service.start()
        yield service
    finally:
        service.close()
