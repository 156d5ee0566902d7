"""A world to simulate: a voucher server, a network, one process at a time, all of a seed."""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeVar

from simulation.clock import VirtualClock
from simulation.loop import VirtualLoop
from support.doubles import NoSigner
from support.files import PUBLIC_KEY_FILE
from support.runtimes import with_runtime

from rm_voucher import (
    Credentials,
    Request,
    Response,
    ResponseTimeoutError,
    RetryPolicy,
    Transport,
    TransportError,
    VoucherClient,
)
from rm_voucher.emulator import Check, Emulator, Fault, FaultPlan, Guesses, Window
from rm_voucher.emulator.reply import Reply

T = TypeVar("T")

# A revoked token costs each call that is under way an attempt, so that is for tests that ask.
KINDS = tuple(kind for kind in Fault if kind not in (Fault.CLOSED, Fault.TOKEN_REVOKED))
_RELAXED = (Check.SIGNATURE, Check.TIMESTAMP)  # nobody signs, and machines' clocks differ
_CLOSED_TIMES = 3
_CREDENTIALS = Credentials("client-id", "client-secret", b"nobody signs here")
_RETRY = RetryPolicy(max_attempts=30, initial_wait_s=0.1, max_wait_s=5.0)
_PLAIN = (str, int, float, type(None))


class World:
    """All that outlives a process: time, the server, what is on its way, and the log of events.

    Args:
        seed: the same one gives the same world, to the last event.
        fault_rate: how many of all requests meet a fault, 0 to 1.
        kinds: the faults they meet. With a rate, nothing listens at some times besides.
        latency_s: the longest time that a request, or an answer, is on its way.
        batches: quantities by key.
        late_s: the longest time after which late work is done.
        lag_s: how far a lagging listing is behind.
        guesses: what the server does that is not documented.
        retry_after_s: the wait that it asks for where it throttles.
    """

    def __init__(
        self,
        seed: int,
        *,
        fault_rate: float = 0.0,
        kinds: tuple[Fault, ...] = KINDS,
        latency_s: float = 0.2,
        batches: dict[str, int] | None = None,
        late_s: float = 2.0,
        lag_s: float = 5.0,
        guesses: Guesses | None = None,
        retry_after_s: int = 1,
    ) -> None:
        self.seed = seed
        self.clock = VirtualClock()
        self.latency_s = latency_s
        self.loop: VirtualLoop | None = None
        """The process that lives now, or the last one."""
        self._hash = hashlib.blake2b(digest_size=16)
        self._random: dict[str, Random] = {}
        self.emulator = Emulator(
            seed=self.random("emulator").getrandbits(32),
            client_id=_CREDENTIALS.client_id,
            client_secret=_CREDENTIALS.client_secret,
            public_key=_public_key(),
            batches={"B": 100_000} if batches is None else batches,
            disabled_checks=_RELAXED,
            guesses=guesses,
            faults=FaultPlan(
                rate=fault_rate,
                kinds=kinds,
                windows=self._closed_times() if fault_rate else (),
                late_s=late_s,
                listing_delay_s=lag_s,
                retry_after_s=retry_after_s,
            ),
            clock=self.clock.true_wall,
        )

    def random(self, concern: str) -> Random:
        """Return the source of chance of one concern, which no other one's use shifts."""
        if concern not in self._random:
            seed = hashlib.blake2b(f"{self.seed} {concern}".encode(), digest_size=8).digest()
            self._random[concern] = Random(int.from_bytes(seed))
        return self._random[concern]

    def run(
        self, main: Callable[[], Coroutine[Any, Any, T]], *, crash_after_s: float | None = None
    ) -> T:
        """Run a process to its end; see `VirtualLoop.run`."""
        self.loop = VirtualLoop(self.clock)
        if crash_after_s is not None:
            self.loop.crash_at(self.clock.now + crash_after_s)
        return self.loop.run(main)

    def settle(self, seconds: float = 60.0) -> None:
        """Let the server come to its end, late work included, while no process lives."""
        self.clock.run_for(seconds)
        self.emulator.virtual_clock.run_due()

    def client(self, **options: Any) -> VoucherClient:
        """Return a client for the process that runs. ``options`` go to `VoucherClient`."""
        if self.loop is None or self.loop.dead:
            raise RuntimeError("a client is of a process that runs")
        nonces = self.random("nonce")
        options = {
            "environment": self.emulator.environment,
            "transport": Network(self, self.loop),
            "signer": NoSigner(),
            "retry": _RETRY,
            "clock": self.clock.wall,
            "monotonic": self.clock.monotonic,
            "sleep": asyncio.sleep,
            "random": self.random("retry").random,
            "make_nonce": lambda: f"{nonces.getrandbits(128):032x}",
            **options,
        }
        return VoucherClient(_CREDENTIALS, **with_runtime(options))

    def calm_down(self) -> None:
        """Let the server meet no more faults."""
        self.emulator.faults = FaultPlan()

    def answer(self, request: Request) -> Reply:
        """Let the server answer a request that has arrived. For tests that look on here."""
        return self.emulator.reply(request)

    def event(self, *what: str | float | None) -> None:
        """Log what the process did. From a dead one nothing is taken.

        Plain values only: a set, an address, or an error's text with its random attempt id would
        be another one in each run.
        """
        if not all(isinstance(each, _PLAIN) for each in what):
            raise TypeError("an event is text, numbers and None")
        if self.loop is None or not self.loop.dead:
            self.log(*what)

    def log(self, *what: str | float | None) -> None:
        """Log what happened outside of any process."""
        self._hash.update(repr((self.clock.now, what)).encode())

    def digest(self) -> str:
        """Return what all events so far come to: equal for the same seed, and only then."""
        return self._hash.hexdigest()

    def _closed_times(self) -> tuple[Window, ...]:
        chance = self.random("windows")
        return tuple(
            Window(
                fault=Fault.CLOSED, start_s=chance.uniform(0, 10), length_s=chance.uniform(0.1, 1)
            )
            for _ in range(_CLOSED_TIMES)
        )


class Network(Transport):
    """Between a process and the server. What was sent arrives, whatever becomes of the process."""

    def __init__(self, world: World, loop: VirtualLoop) -> None:
        self._world = world
        self._loop = loop
        self._clock = world.clock
        self._latency_s = functools.partial(world.random("latency").uniform, 0, world.latency_s)

    async def send(self, request: Request) -> Response:
        if self._loop.dead:
            self._loop.crash()
        future: asyncio.Future[Response] = self._loop.create_future()
        latency_s, max_outage_wait_s = self._latency_s(), request.timeout.attempt_s
        until = self._clock.now + max_outage_wait_s
        self._clock.after(latency_s, self._arrive, request, future, until)
        if (
            latency_s > max_outage_wait_s
        ):  # else it is known on arrival whether the answer is in time
            self._clock.at(until, self._give_up, request, future)
        return await future

    def _arrive(self, request: Request, future: asyncio.Future[Response], until: float) -> None:
        reply = self._world.answer(request)
        self._world.log(request.operation, reply.ending.name, reply.response.status, reply.fault)
        at = self._clock.now + reply.lasts_s + self._latency_s()
        self._clock.at(min(at, until), self._end, request, future, reply, at > until)

    def _end(
        self, request: Request, future: asyncio.Future[Response], reply: Reply, is_late: bool
    ) -> None:
        if is_late:
            self._give_up(request, future)
        if self._loop.dead or future.done():  # crashed, cancelled, or out of patience
            reply.on_loss()
            return
        try:
            future.set_result(reply.for_client_in_memory(request))
        except TransportError as exc:
            future.set_exception(exc)

    def _give_up(self, request: Request, future: asyncio.Future[Response]) -> None:
        if not (self._loop.dead or future.done()):
            future.set_exception(ResponseTimeoutError(f"{request.operation}: no answer in time"))


@functools.cache
def _public_key() -> bytes:
    return PUBLIC_KEY_FILE.read_bytes()
