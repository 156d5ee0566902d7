"""An emulator for a block of code, with all that a test wants of it."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Unpack

import attrs

from rm_voucher.testing.receiver import CallbackReceiver
from rm_voucher.testing.requests import RecordedRequests

if TYPE_CHECKING:
    from rm_voucher import Credentials, VoucherClient
    from rm_voucher.emulator import Emulator
    from rm_voucher.emulator.app import EmulatorOptions
    from rm_voucher.emulator.merchant import Merchant, MerchantOptions
    from rm_voucher.emulator.server import Server

_START_S = 30.0
_IDENTITY = frozenset({"client_id", "client_secret", "credentials", "public_key"})


@attrs.define(eq=False)
class Emulated:
    """An emulator and what belongs to it; each part is made when it is first asked for."""

    emulator: Emulator
    """A voucher server of the block's own."""
    requests: RecordedRequests
    """What came to it."""
    _until_the_end: ExitStack = attrs.field(factory=ExitStack, repr=False)
    __dict__: dict[str, Any] = attrs.field(init=False, repr=False)

    @functools.cached_property
    def client(self) -> VoucherClient:
        """A client in this process. It needs no closing, and its waits take no time."""
        return client_without_waits(self.emulator, self.emulator)

    def client_of(self, merchant: str, **options: Unpack[MerchantOptions]) -> VoucherClient:
        """Return such a client of another merchant; at first the merchant is made."""
        return client_without_waits(self.emulator, self.emulator.merchant(merchant, **options))

    @functools.cached_property
    def callbacks(self) -> CallbackReceiver:
        """The merchant's URL, to which callbacks are delivered from now on."""
        return CallbackReceiver(self.emulator)

    @functools.cached_property
    def server(self) -> Server:
        """The emulator over HTTP on a free port, in a thread of its own."""
        return self._until_the_end.enter_context(served(self.emulator))


@contextmanager
def emulated(
    *, scenario: str | None = None, **options: Unpack[EmulatorOptions]
) -> Iterator[Emulated]:
    """Give a block an emulator of its own, with all that a test wants of it.

    Write ``with emulated(batches={"TEA": 5}) as rm: …``.

    ``options`` are those of `Emulator`, ``scenario`` is a file or the name of one in the package.
    It is a plain context manager in asynchronous code, too; the code under test runs on asyncio.
    Raises what `Emulator` raises.
    """
    emulator = make_emulator(scenario, options)
    with ExitStack() as until_the_end:
        yield Emulated(emulator, RecordedRequests.of_emulator(emulator), until_the_end)


def make_emulator(scenario: str | None, options: EmulatorOptions) -> Emulator:
    """Return an emulator with the seed 0, and with the key that all tests share."""
    from rm_voucher.emulator import Emulator
    from rm_voucher.emulator.scenario.apply import emulator_of

    if _IDENTITY.isdisjoint(options):
        options["credentials"] = _credentials()
    if scenario is not None:
        return emulator_of(scenario, **options)
    options.setdefault("seed", 0)
    return Emulator(**options)


def client_without_waits(emulator: Emulator, merchant: Merchant) -> VoucherClient:
    """Return a client in this process, whose waits set the emulator's clock ahead."""

    async def sleep(seconds: float) -> None:
        emulator.advance(seconds)
        await asyncio.sleep(0)

    latest = behind_s = 0.0

    def monotonic() -> float:
        nonlocal latest, behind_s
        now = emulator.virtual_clock.now() + behind_s
        if now < latest:  # a reset, or the end of a snapshot, has set the emulator's clock back
            behind_s += latest - now
        latest = max(latest, now)
        return latest

    runtime = attrs.evolve(emulator.runtime, sleep=sleep, monotonic=monotonic)
    return merchant.client(runtime=runtime)


@contextmanager
def served(emulator: Emulator) -> Iterator[Server]:
    """Serve an emulator over HTTP on a free port, in a thread, until the block ends.

    So it also serves tests without asyncio, other processes and other languages: see its ``url``,
    ``environment`` and ``variables``.
    """
    ready: Future[tuple[Server, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(emulator, ready)))
    thread.start()
    server, loop, stop = ready.result(_START_S)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


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
