"""Workers as processes, the ways to what they need, and what comes out of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import attrs
import orjson
from sqlalchemy.engine import make_url
from support.brokers import Queues
from support.command import COMMAND, Emulating
from support.stalling_proxy import StallingProxy
from yarl import URL

_LOOK_S = 0.2
_READY = "Working on "


@attrs.define
class Ways:
    """The ways to a broker, a database and RM's server, each of which can be cut."""

    broker: StallingProxy
    database: StallingProxy
    server: StallingProxy
    variables: dict[str, str]

    @classmethod
    @contextlib.contextmanager
    def to(cls, broker_url: str, database_url: str, emulator: Emulating) -> Iterator[Ways]:
        with contextlib.ExitStack() as stack:

            def way(url: URL) -> tuple[StallingProxy, str]:
                assert url.host is not None
                assert url.port is not None
                proxy = stack.enter_context(StallingProxy(url.host, url.port))
                return proxy, str(url.with_host("127.0.0.1").with_port(proxy.port))

            broker, broker_way = way(URL(broker_url))
            server, server_way = way(URL(emulator.url))
            at = make_url(database_url)
            database = stack.enter_context(StallingProxy(at.host or "127.0.0.1", at.port or 5432))
            database_way = at.set(host="127.0.0.1", port=database.port)
            variables = {
                name: value.replace(emulator.url, server_way)
                for name, value in emulator.variables.items()
            }
            variables["RM_WORKER_BROKER"] = broker_way
            variables["RM_WORKER_LEDGER"] = database_way.render_as_string(hide_password=False)
            yield cls(broker, database, server, variables)


@attrs.define(eq=False)
class Member:
    """One worker process; its lines go to a file."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    @property
    def is_ready(self) -> bool:
        return self.is_alive and _READY in self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@attrs.define
class Fleet:
    """Workers that share a queue, a ledger and an account."""

    folder: Path
    variables: dict[str, str]
    arguments: tuple[str, ...]
    program: tuple[str, ...] = (*COMMAND, "worker")
    members: list[Member] = attrs.field(factory=list)
    logs: list[Path] = attrs.field(factory=list)

    def start(self) -> Member:
        log = self.folder / f"worker-{len(self.logs)}.log"
        self.logs.append(log)
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*self.program, *self.arguments],
                env={**os.environ, **self.variables, "PYTHONUNBUFFERED": "1"},
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
            )
        member = Member(process, log)
        self.members.append(member)
        return member

    async def until_ready(self, member: Member) -> None:
        async with asyncio.timeout(60):
            while not member.is_ready:
                assert member.is_alive, member.log.read_text()[-3000:]
                await asyncio.sleep(_LOOK_S)

    def kill(self, member: Member) -> None:
        """End a worker without a word."""
        member.signal(signal.SIGCONT)
        member.signal(signal.SIGKILL)
        member.process.wait()
        self.members.remove(member)

    async def keep_alive(self) -> None:
        """Start what has ended by itself again, as whatever runs workers does."""
        while True:
            for member in [each for each in self.members if not each.is_alive]:
                self.members.remove(member)
                self.start()
            await asyncio.sleep(1.0)

    async def until_all_ready(self) -> None:
        """Wait for those that start: they have no handler for signals yet."""
        async with asyncio.timeout(90):
            while not all(each.is_ready for each in self.members):
                await asyncio.sleep(_LOOK_S)

    async def stop(self, within_s: float) -> list[int | None]:
        """Tell all to stop; return their exit codes, None for one that did not within the time."""
        for member in self.members:
            member.signal(signal.SIGCONT)
            member.signal(signal.SIGTERM)

        async def ended(member: Member) -> int | None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    while member.is_alive:
                        await asyncio.sleep(_LOOK_S)
            return member.process.poll()

        codes = await asyncio.gather(*map(ended, self.members))
        self.close()
        return list(codes)

    def close(self) -> None:
        for member in list(self.members):
            if member.is_alive:
                self.kill(member)
        self.members.clear()

    @property
    def text(self) -> str:
        """All that the workers have written."""
        return "".join(log.read_text(errors="replace") for log in self.logs)


@attrs.define
class Harvest:
    """What comes out of the queue for vouchers, by the ids of the requests, and what goes in."""

    queues: Queues
    codes: defaultdict[str, list[str]] = attrs.field(factory=lambda: defaultdict(list))
    parked: list[tuple[bytes, str]] = attrs.field(factory=list)
    _sown: deque[tuple[float, bytes]] = attrs.field(factory=deque)

    def sow(self, bodies: Sequence[bytes], lasts_s: float) -> None:
        """Publish messages evenly from now on. One may be published twice in a broker's trouble."""
        now, step_s = time.monotonic(), lasts_s / len(bodies)
        self._sown.extend((now + number * step_s, body) for number, body in enumerate(bodies))

    async def gather(self) -> None:
        """Take all that is there. A broker that is away has nothing."""
        try:
            while self._sown and self._sown[0][0] <= time.monotonic():
                await self.queues.publish(self._sown[0][1])
                self._sown.popleft()
            async for body, _ in self.queues.taking(self.queues.names.vouchers):
                message = orjson.loads(body)
                self.codes[message["request_id"]].append(message["code"])
            self.parked += await self.queues.parked()
        except Exception:  # noqa: BLE001 - of the brokers' libraries, which name no base
            with contextlib.suppress(Exception):
                async with asyncio.timeout(5):
                    await self.queues.reopen()

    async def until(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Gather until a condition holds; return whether it did within the time."""
        try:
            async with asyncio.timeout(within_s):
                while not condition():
                    await self.gather()
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            return False
        return True

    @property
    def count(self) -> int:
        return sum(map(len, self.codes.values()))

    def has(self, count: int) -> bool:
        return self.count >= count

    def lacks(self, ids: Iterable[str], copies: int) -> list[str]:
        """Return the requests that came out less than so many times."""
        return [each for each in ids if len(self.codes[each]) < copies]


def example(path: Path) -> tuple[str, ...]:
    """Return how an example is run."""
    return (sys.executable, "-W", "error", str(path))
