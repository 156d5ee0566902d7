"""The experiment on an idle connection, over real sockets; its clock is the test's."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count

import attrs
import pytest

from rm_voucher import Environment, Runtime, Transport
from rm_voucher.emulator import Emulator, Guesses
from rm_voucher.emulator.server import serve
from rm_voucher.probe import Cost, Options, Probe, idle
from rm_voucher.probe.findings import NotDecided
from rm_voucher.probe.idle import IDLE
from rm_voucher.probe.session import Session, UnclearError

Behave = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ANSWER = b"HTTP/1.1 404 Not Found\r\nContent-Length: 20\r\n\r\n"


def session(credentials, where: str | Environment, life_s: float = 75.0) -> Session:
    """Return the session of a probe, whose clock goes ahead by so much between two looks."""
    ticks = count(start=0.0, step=life_s)
    runtime = Runtime(monotonic=lambda: next(ticks))
    probe = Probe(
        credentials, "K", transport=Unused(), runtime=runtime,
        environment=Environment.at(where) if isinstance(where, str) else where,
        options=Options(measure_idle=True, max_s=1e9),
    )  # fmt: skip
    return probe._session


class Unused(Transport):
    async def send(self, request):
        raise AssertionError("it has a connection of its own")


@asynccontextmanager
async def listening(behave: Behave) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve on loopback; give the URL, and what came."""
    came: list[bytes] = []

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.readuntil(b"\r\n\r\n"))
        try:
            await behave(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_server(meet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", came


async def answer_and_close(reader, writer):
    writer.write(ANSWER)
    await writer.drain()


async def answer_and_reset(reader, writer):
    writer.write(ANSWER)
    await writer.drain()
    wire = writer.get_extra_info("socket")
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def answer_and_speak(reader, writer):
    writer.write(ANSWER)
    await writer.drain()
    await asyncio.sleep(0)
    writer.write(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    await writer.drain()
    await reader.read()


async def answer_and_wait(reader, writer):
    writer.write(ANSWER)
    await writer.drain()
    await reader.read()


async def close_at_once(reader, writer):
    pass


@pytest.mark.parametrize("life_s", [2.0, 75.0, 75.3])
@pytest.mark.parametrize("behave", [answer_and_close, answer_and_reset])
async def test_life(credentials, behave, life_s):
    """It is the time from the answer to the close, in whole seconds; nothing secret is sent."""
    async with listening(behave) as (url, came):
        there = session(credentials, url, life_s)
        await IDLE.observe(there)
    assert IDLE.decides[0].conclude(there.notes) == round(life_s)
    assert there.budget.used == Cost(calls=1)
    (head,) = came
    assert head.startswith(b"HEAD /v3/rm-voucher-probe HTTP/1.1\r\nHost: 127.0.0.1:")
    assert head.count(b"\r\n") == 3


@pytest.mark.parametrize(
    ("behave", "why"),
    [(answer_and_speak, "speaks without being asked"), (answer_and_wait, "for more than 300 s")],
)
async def test_what_is_no_end(credentials, behave, why, monkeypatch):
    """A server that speaks, or waits longer than the probe, leaves it open."""
    if behave is answer_and_wait:
        monkeypatch.setattr(idle, "MAX_IDLE_S", attrs.evolve(Long(), seconds=300.0))
    async with listening(behave) as (url, _):
        there = session(credentials, url)
        await IDLE.observe(there)
    seen = IDLE.decides[0].conclude(there.notes)
    assert isinstance(seen, NotDecided)
    assert why in seen.why


@attrs.frozen
class Long:
    """A time that is over at once, and is written as another one."""

    seconds: float = 0.0

    def __format__(self, spec: str) -> str:
        return format(self.seconds, spec)

    def __radd__(self, now: float) -> float:
        return now


async def test_no_answer(credentials):
    async with listening(close_at_once) as (url, _):
        with pytest.raises(UnclearError, match="no answer"):
            await IDLE.observe(session(credentials, url))


async def test_no_connection(credentials):
    async with listening(close_at_once) as (url, _):
        pass
    with pytest.raises(UnclearError, match="no connection"):
        await IDLE.observe(session(credentials, url))


async def test_where_there_is_no_connection_to_look_at(credentials, monkeypatch):
    """An emulator in memory has none, and behind a proxy it is the proxy's."""
    with pytest.raises(UnclearError, match="in memory"):
        await IDLE.observe(session(credentials, "https://emulator.invalid"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    there = session(credentials, Environment.SANDBOX)
    with pytest.raises(UnclearError, match="proxy"):
        await IDLE.observe(there)
    assert there.budget.used == Cost()


@pytest.mark.parametrize("life_s", [0.05, 3630.0])
async def test_emulator_over_http(credentials, life_s):
    """The emulator closes idle connections when its option says so."""
    emulator = Emulator(credentials=credentials, guesses=Guesses(idle_life_s=life_s))
    async with serve(emulator) as server:
        url = server.url.removeprefix("http://")
        host, port = url.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"HEAD /v3/x HTTP/1.1\r\nHost: {url}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        if life_s < 1:
            assert await reader.read() == b""
        assert reader.at_eof() is (life_s < 1)
        writer.close()
