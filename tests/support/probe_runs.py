"""Probes in virtual time, against emulators in memory: everything is the real thing, and no test
waits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
from simulation.clock import VirtualClock
from simulation.loop import VirtualLoop

from rm_voucher import Request, Response, Runtime, Transport
from rm_voucher.emulator import Emulator, Guesses
from rm_voucher.models import Expiry, ExpiryType
from rm_voucher.probe import Options, Probe, Report

KEY = "PROBE"
MEMBER = ("60", "123456789")
PIN = "123456"
# Everything that a person can name.
ALL = Options(
    static_batch="STATIC",
    sold_out_batch="EMPTY",
    expired_batch="ENDED",
    uploaded_batch="UPLOADED",
    store_id="store-1",
    pin=PIN,
    member=MEMBER,
    measure_rate=True,
)


@attrs.define(eq=False)
class Counting(Transport):
    """Keeps what is sent over a transport, and what comes back."""

    inner: Transport
    requests: list[Request] = attrs.field(factory=list)
    answers: list[Response] = attrs.field(factory=list)

    async def send(self, request: Request) -> Response:
        self.requests.append(request)
        self.answers.append(await self.inner.send(request))
        return self.answers[-1]


@attrs.define(eq=False)
class Stage:
    """An emulator with what a probe may be told of, on a virtual clock."""

    emulator: Emulator
    clock: VirtualClock
    client_offset_s: float = 0.0
    issued_before: int = 0
    wire: Counting = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.wire = Counting(self.emulator.transport())

    @property
    def runtime(self) -> Runtime:
        return Runtime(
            clock=lambda: self.clock.wall() + self.client_offset_s,
            monotonic=self.clock.monotonic,
            sleep=asyncio.sleep,
            random=random.Random(1).random,
        )

    def probe(
        self, options: Options = ALL, *, transport: Transport | None = None, **others: Any
    ) -> Probe:
        return Probe(
            self.emulator.credentials,
            KEY,
            environment=self.emulator.environment,
            options=options,
            transport=transport or self.wire,
            runtime=self.runtime,
            **others,
        )

    def run(self, options: Options = ALL, **others: Any) -> Report:
        """Run a probe to its end."""

        async def main() -> Report:
            async with self.probe(options, **others) as probe:
                return await probe.run()

        return VirtualLoop(self.clock).run(main)

    @property
    def used(self) -> int:
        """How many vouchers left the stock of any batch since the stage was set."""
        return count_issued(self.emulator) - self.issued_before


def count_issued(emulator: Emulator) -> int:
    return sum(batch.issued for batch in emulator.state.stock.ours())


def stage(
    guesses: Guesses | None = None,
    *,
    quantity: int = 11,
    issued: int = 5,
    make: Callable[..., Emulator] = Emulator,
    **options: Any,
) -> Stage:
    """Set up an emulator: a batch with ``issued`` of its vouchers out, and one of each kind."""
    clock = VirtualClock()
    if guesses is not None:
        options["guesses"] = guesses
    emulator = make(seed=1, merchant_pin=PIN, clock=clock.wall, **options)
    emulator.add_batch("Probe me", key=KEY, quantity=quantity)
    emulator.add_batch("Static", key="STATIC", quantity=5, static_code="STATIC-CODE-1")
    emulator.add_batch("Empty", key="EMPTY", quantity=0)
    ended = datetime.fromtimestamp(clock.wall(), UTC) - timedelta(days=1)
    emulator.add_batch(
        "Ended", key="ENDED", quantity=5, expiry=Expiry(type=ExpiryType.FIXED, expires_at=ended)
    )
    emulator.add_batch("Uploaded", key="UPLOADED", codes=["UPLOADED-1", "UPLOADED-2"])
    if emulator.guesses.unknown_store_code:
        emulator.state.add_store("store-1")  # before the first, any store will do
    member = emulator.add_member(*MEMBER, name="Aminah binti Ismail")
    for _ in range(issued):
        emulator.state.issue(KEY)
    code, _ = emulator.state.issue(KEY)
    emulator.state.collect(code, member)
    clock.now += 1000
    return Stage(emulator, clock, issued_before=count_issued(emulator))


def like(report: Report, path: Path, **options: Any) -> Stage:
    """Set up an emulator from a report's file."""
    path.write_bytes(report.to_json())
    return stage(make=lambda **others: Emulator.like(path, **others), **options)
