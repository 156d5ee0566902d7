"""A pytest plugin: fixtures on the emulator, in every project where rm_voucher is installed.

They need no import and no conftest. `rm_emulator` is a voucher server of the test's own,
`rm_client` a client of it in this process, `rm_server` the same server over HTTP, and
`rm_callbacks` the merchant's URL. ``@pytest.mark.rm_emulator(batches={"TEA": 5})`` gives arguments
to the emulator. Tests don't wait: between attempts `rm_client` sets the emulator's clock ahead.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import attrs
import pytest

if TYPE_CHECKING:
    from rm_voucher import Credentials, Request, Response, Voucher, VoucherClient
    from rm_voucher.emulator import Emulator
    from rm_voucher.emulator.server import Server

__all__ = ["CallbackReceiver", "rm_callbacks", "rm_client", "rm_emulator", "rm_server"]

_START_S = 30.0
_IDENTITY = frozenset({"client_id", "client_secret", "credentials", "public_key"})
_CALLBACK_URL = "https://merchant.invalid/callback"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "rm_emulator(**arguments): what the fixture rm_emulator gives to Emulator."
    )


class CallbackReceiver:
    """The merchant's URL in this process: it keeps the deliveries, and answers them."""

    def __init__(self, emulator: Emulator) -> None:
        from rm_voucher.transport.memory import MemoryTransport

        self.requests: list[Request] = []
        """Every delivery with its headers, repeats included."""
        self._emulator = emulator
        self._statuses: list[int] = []
        self._came = threading.Condition()  # `rm_server` delivers from its thread
        emulator.callbacks.url = _CALLBACK_URL
        emulator.callbacks.transport = MemoryTransport(self._receive)

    @property
    def vouchers(self) -> list[Voucher]:
        """The voucher of every delivery, repeats included."""
        import orjson

        from rm_voucher.converters import structure
        from rm_voucher.models import Voucher

        return [structure(orjson.loads(one.body)["item"], Voucher) for one in self.requests]

    def refuse_next(self, *, times: int = 1, status: int = 500) -> None:
        """Answer the next deliveries with a status other than 200, so that they are repeated."""
        self._statuses.extend([status] * times)

    def wait_for(self, count: int, *, timeout_s: float = 10.0) -> list[Voucher]:
        """Wait until ``count`` deliveries have come, and return the vouchers of all.

        It is for tests with `rm_server`, which delivers by itself. Raises `TimeoutError`.
        """
        with self._came:
            if not self._came.wait_for(lambda: len(self.requests) >= count, timeout_s):
                raise TimeoutError(f"{len(self.requests)} of {count} callbacks came")
        return self.vouchers

    async def deliver(self) -> int:
        """Make all deliveries that are due now; return the number of attempts."""
        return await self._emulator.callbacks.deliver()

    async def deliver_all(self) -> int:
        """Let time pass until nothing is left to deliver; return the number of attempts."""
        made = await self.deliver()
        while (due := self._emulator.callbacks.next_due()) is not None:
            self._emulator.advance(max(0.0, due - self._emulator.virtual_clock.now()))
            made += await self.deliver()
        return made

    def _receive(self, request: Request) -> Response:
        from rm_voucher import Response

        with self._came:
            self.requests.append(request)
            self._came.notify_all()
        return Response(status=self._statuses.pop(0) if self._statuses else 200)


@pytest.fixture
def rm_emulator(request: pytest.FixtureRequest) -> Emulator:
    """A voucher server of the test's own, empty unless the marker ``rm_emulator`` fills it."""
    from rm_voucher.emulator import Emulator

    marker = request.node.get_closest_marker("rm_emulator")
    given: dict[str, Any] = dict(marker.kwargs) if marker else {}
    if marker and marker.args:
        raise TypeError("the marker rm_emulator takes keyword arguments only, as Emulator does")
    if _IDENTITY.isdisjoint(given):
        given["credentials"] = _credentials()
    return Emulator(**{"seed": 0, **given})


@pytest.fixture
def rm_client(rm_emulator: Emulator) -> VoucherClient:
    """A client of `rm_emulator` in this process. It needs no closing."""

    async def sleep(seconds: float) -> None:
        rm_emulator.advance(seconds)
        await asyncio.sleep(0)

    runtime = attrs.evolve(
        rm_emulator.runtime, sleep=sleep, monotonic=rm_emulator.virtual_clock.now
    )
    return rm_emulator.client(runtime=runtime)


@pytest.fixture
def rm_server(rm_emulator: Emulator) -> Iterator[Server]:
    """`rm_emulator` over HTTP on a free port, in a thread of its own.

    So it also serves tests without asyncio, other processes and other languages: see its ``url``,
    ``environment`` and ``variables``.
    """
    ready: Future[tuple[Server, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(rm_emulator, ready)))
    thread.start()
    server, loop, stop = ready.result(_START_S)
    yield server
    loop.call_soon_threadsafe(stop.set)
    thread.join()


@pytest.fixture
def rm_callbacks(rm_emulator: Emulator) -> CallbackReceiver:
    """The merchant's URL, to which `rm_emulator` delivers its callbacks."""
    return CallbackReceiver(rm_emulator)


@functools.cache
def _credentials() -> Credentials:
    # One for all tests, because a new key takes a tenth of a second.
    from rm_voucher import Credentials
    from rm_voucher.emulator.keys import new_private_key

    return Credentials("emulator", "secret of nothing", new_private_key())


async def _serve(emulator: Emulator, ready: Future[Any]) -> None:
    from rm_voucher.emulator.server import serve

    stop = asyncio.Event()
    try:
        async with serve(emulator) as server:
            ready.set_result((server, asyncio.get_running_loop(), stop))
            await stop.wait()
    except OSError as exc:
        ready.set_exception(exc)
