"""Vouchers that are redeemed and voided, callbacks that tell of it, and a receiver that is killed.

The minute between two attempts passes when the test says so, on the emulator's clock: how fast the
machine is does not decide how many attempts a receiver misses that is down.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import orjson
from kills.killer import ENVIRONMENT
from sqlalchemy import text
from support.command import PATIENCE_S

from rm_voucher import (
    Environment,
    Request,
    Response,
    VoucherClient,
    VoucherStatus,
)
from rm_voucher.database.engine import make_engine, parse_url
from rm_voucher.emulator import Emulator
from rm_voucher.emulator.server import serve
from rm_voucher.transport.aiohttp import AiohttpTransport
from rm_voucher.transport.base import Transport

RECEIVER = Path(__file__).with_name("receiver.py")
KILLED = -signal.SIGKILL
MINUTE_S = 60.0
_BULK = 10
_BACKLOG = 20  # waiting events: fewer than from one kill to the next, or some are never tried
_DAY_S = 86_400.0


class Line(Transport):
    """Carries deliveries to the receiver, and sees how each attempt ends."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._http = AiohttpTransport()
        self._ended = ended
        self.is_up = False
        """Whether the receiver listens. An attempt shows its end before the exit code does."""
        self.connected = 0
        """How often it was."""
        self.under_way = 0
        self.answers: Counter[int] = Counter()
        """How many attempts had each HTTP status; 0 is none."""
        self.accepted: set[tuple[str, str]] = set()
        """Code and status of each event that was answered with 200."""

    def connect(self) -> None:
        self.is_up = True
        self.connected += 1

    async def send(self, request: Request) -> Response:
        self.under_way += 1
        status, connected = 0, self.connected
        try:
            response = await self._http.send(request)
            status = response.status
        finally:
            self.under_way -= 1
            if status == 0 and connected == self.connected:
                self.is_up = False
            self.answers[status] += 1
            self._ended()
        if status == 200:
            item = orjson.loads(request.body)["item"]
            self.accepted.add((item["code"], item["status"]))
        return response

    async def aclose(self) -> None:
        await self._http.aclose()


class Deliveries:
    """An emulator that delivers, and the receiver's processes one after the other."""

    def __init__(
        self, store: str, folder: Path, *, vouchers: int, fails: float = 0.03, voids: bool = True
    ) -> None:
        self.emulator = Emulator(batches={"K": vouchers})
        self.callbacks = self.emulator.callbacks
        self.vouchers = vouchers
        self.voids = voids
        self.expected = vouchers * (2 if voids else 1)
        self.told = self.kills = self.starts = 0
        self._news = asyncio.Event()
        self.line = self.callbacks.transport = Line(self._news.set)
        self._log = folder / "receiver.log"
        self._engine = make_engine(parse_url(store))
        self._execute("CREATE TABLE seen (event TEXT, code TEXT, status TEXT)")
        key = folder / "server.pem"
        key.write_bytes(self.callbacks.public_key_pem)
        self._options = {"store": store, "public_key": str(key), "fails": fails}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The receiver that runs."""
        assert self._process is not None
        return self._process

    @property
    def ended(self) -> int:
        """How many events RM has done with."""
        return self.callbacks.delivered + self.callbacks.given_up

    async def run(self, killing: Callable[[Deliveries], Any]) -> None:
        """Use all vouchers up, while the receiver is killed, until RM has done with all events."""
        with _port() as port:
            self.callbacks.url = f"http://127.0.0.1:{port}/callbacks"
            self._options |= {"port": port, "callback_url": self.callbacks.url}
            async with serve(self.emulator) as server, self._ending():
                minutes = asyncio.create_task(self._pass_minutes())
                async with asyncio.TaskGroup() as group:
                    group.create_task(killing(self))
                    group.create_task(self._use_up(server.url))
                await self._until(lambda: self.ended == self.expected)
                minutes.cancel()
                await self._end(signal.SIGTERM, expected=0)

    async def kill_at(self, points: Iterable[str]) -> None:
        """Let it kill itself at each point, one after the other; then start one that lives."""
        for point in points:
            await self._start(point)
            await self._until(self._has_ended)
            await self._end(None, expected=KILLED)
        await self._start()

    async def kill_after(self, ended: Iterable[int]) -> None:
        """Kill it when RM has done with so many events. The first time it is down for a minute."""
        await self._start()
        for number in ended:
            await self._until(functools.partial(self._has_done_with, number))
            await self._end(signal.SIGKILL, expected=KILLED)
            if self.kills == 1:
                self.emulator.advance(MINUTE_S)
            await self._start()

    def _has_done_with(self, number: int) -> bool:
        return self.ended >= number

    def _has_ended(self) -> bool:
        return self._process is not None and self._process.returncode is not None

    async def run_due(self) -> None:
        """Handle what is recorded, a day later."""
        await self._start(ahead_s=_DAY_S)
        await self._end(None, expected=0)

    def seen(self) -> Counter[tuple[str, str, str]]:
        """Count the rows that the receiver's handler has inserted."""
        return Counter(self._execute("SELECT event, code, status FROM seen"))

    def check(self) -> None:
        """Hold that what is recorded was handled once, and that no accepted event is missing."""
        seen = self.seen()
        states = dict(self._execute("SELECT id, state FROM rm_webhook_events"))
        assert set(seen.values()) <= {1}
        assert {event for event, _, _ in seen} == set(states)
        assert set(states.values()) <= {"done"}
        handled = {(code, status) for _, code, status in seen}
        assert self.line.accepted <= handled
        codes = set(self.emulator.issued("K"))
        statuses = [VoucherStatus.REDEEMED, *([VoucherStatus.VOID] if self.voids else [])]
        missing = set(itertools.product(codes, statuses)) - handled
        assert len(missing) <= self.callbacks.given_up
        assert len(seen) + len(missing) == self.expected
        log = self._log.read_text()
        assert not any(code in log for code in codes)

    def _execute(self, statement: str) -> list[Any]:
        with self._engine.begin() as connection:
            result = connection.execute(text(statement))
            rows = [tuple(row) for row in result] if result.returns_rows else []
        self._engine.dispose()
        return rows

    async def _use_up(self, url: str) -> None:
        """Issue, redeem and void all vouchers, no faster than callbacks are delivered."""
        credentials, environment = self.emulator.credentials, Environment.at(url)
        assert credentials is not None
        async with VoucherClient(credentials, environment=environment) as client:
            await self._until(lambda: self.line.is_up)
            left = self.vouchers
            while left:
                await self._until(lambda: self.told - self.ended < _BACKLOG)
                number = min(left, _BULK)
                issued = await asyncio.gather(*(client.issue("K") for _ in range(number)))
                codes = [voucher.code for voucher in issued]
                await client.redeem(codes)
                self.told += number
                if self.voids:
                    await asyncio.gather(*(client.void(code) for code in codes))
                    self.told += number
                left -= number

    async def _pass_minutes(self) -> None:
        """Let a minute pass whenever there is nothing else to wait for."""

        def is_idle() -> bool:
            due = self.callbacks.next_due()
            is_later = due is not None and due > self.emulator.virtual_clock.now()
            return self.line.is_up and not self.line.under_way and is_later

        while True:
            await self._until(is_idle)
            self.emulator.advance(MINUTE_S)

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, as long as there is any news."""
        while not condition():
            self._news.clear()
            async with asyncio.timeout(PATIENCE_S):
                await self._news.wait()

    async def _start(self, point: str = "", **options: Any) -> None:
        """Start the receiver; return when it listens, or has ended."""
        self.starts += 1
        options = {**self._options, "point": point, "seed": self.starts, **options}
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-W", "error", str(RECEIVER), orjson.dumps(options).decode()),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, **ENVIRONMENT},
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            if await self._process.stdout.readline() == b"listening\n":
                self.line.connect()
        self._waiting = asyncio.create_task(self._wait(self._process))
        self._news.set()

    async def _wait(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        self.line.is_up = False
        self._news.set()

    async def _end(self, number: signal.Signals | None, *, expected: int) -> None:
        """End the receiver by a signal, or wait for its own end."""
        if number is not None:
            self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE_S):
            await self._waiting
        code, self._process = self.process.returncode, None
        assert code == expected, f"{code}: {self._log.read_text()[-2000:]}"
        self.kills += code == KILLED

    @contextlib.asynccontextmanager
    async def _ending(self) -> AsyncIterator[None]:
        """Leave nothing that runs."""
        try:
            yield
        finally:
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()
            await self.line.aclose()


@contextlib.contextmanager
def _port() -> Any:
    """Keep a port of loopback's from others, but not from who listens there."""
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        yield keeper.getsockname()[1]
