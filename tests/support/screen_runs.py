"""Bulk runs of the command on a terminal, in virtual time: what waits is the real thing."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
import signal
from collections.abc import Coroutine
from typing import Any

import attrs
import pytest
from simulation.clock import VirtualClock
from simulation.loop import VirtualLoop
from support.files import KEY_FILE
from support.terminals import Terminal

from rm_voucher import (
    Credentials,
    FlowPolicy,
    Request,
    Response,
    Runtime,
    VoucherClient,
    bulk_issue,
)
from rm_voucher.cli import issuing, screen
from rm_voucher.cli.interrupts import Steps, Stopping
from rm_voucher.cli.recipients import Recipient
from rm_voucher.cli.report import Report
from rm_voucher.cli.results import ResultStream
from rm_voucher.cli.screen import logged_to_person, note
from rm_voucher.emulator import Emulator, Fault, FaultPlan
from rm_voucher.emulator.faults import Window
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.memory import MemoryLedgerStore
from rm_voucher.transport.memory import MemoryTransport

LOGGER = logging.getLogger("rm_voucher.test.screen")
CREDENTIALS = Credentials("client", "secret", KEY_FILE.read_bytes())


@attrs.frozen(kw_only=True)
class Script:
    """What a run meets. Seconds are those of virtual time."""

    count: int = 60
    concurrency: int = 4
    latency_s: tuple[float, float] = (0.01, 0.3)
    rate_limit: float | None = None
    fault_rate: float = 0.0
    kinds: tuple[Fault, ...] = (Fault.ERROR_AFTER_COMMIT,)
    outage_s: tuple[float, float] | None = None
    """When it begins, and how long it is."""
    presses_s: tuple[float, ...] = ()
    """When Ctrl-C is pressed."""
    settle_s: float | None = None
    """With an exclusive ledger: how long unknown outcomes take."""
    logs: float = 0.0
    """The share of the requests that a library logs a line of."""
    seed: int = 1

    @classmethod
    def by_chance(cls, seed: int) -> Script:
        """Return one of many."""
        chance = random.Random(seed)
        outage_s = (chance.uniform(0, 2), chance.uniform(1, 60)) if chance.random() < 0.5 else None
        presses_s = sorted(chance.uniform(0, 5) for _ in range(chance.choice([0, 0, 1, 2, 3, 4])))
        return cls(
            count=chance.choice([1, 7, 40, 150]),
            concurrency=chance.choice([1, 4, 32]),
            rate_limit=chance.choice([None, 5, 20]),
            fault_rate=chance.choice([0.0, 0.1, 0.3]),
            kinds=tuple(Fault(each) for each in ("error-after-commit", "throttle", "html-page")),
            outage_s=outage_s,
            presses_s=tuple(presses_s),
            settle_s=chance.choice([None, 30.0]),
            logs=chance.choice([0.0, 0.3]),
            seed=seed,
        )


@attrs.define
class ScreenRun:
    """A run that has ended."""

    terminal: Terminal
    report: Report
    issued: list[str]
    """Every code that the server made."""
    written: list[str] = attrs.field(factory=list)
    """What went through the one writer, in that order, and where the bar ended."""

    @property
    def expected(self) -> list[str]:
        """The lines that the terminal has, if none is torn."""
        return [line for text in self.written for line in self.terminal.wrapped(text)]


def run_on(terminal: Terminal, script: Script, monkeypatch: pytest.MonkeyPatch) -> ScreenRun:
    """Run ``issue`` on a terminal, rows and all."""
    clock = VirtualClock()
    chance = random.Random(script.seed)
    windows: tuple[Window, ...] = ()
    if script.outage_s is not None:
        start_s, length_s = script.outage_s
        windows = (Window(fault=Fault.CLOSED, start_s=start_s, length_s=length_s),)
    emulator = Emulator(
        seed=script.seed,
        credentials=CREDENTIALS,
        batches={"B": 1_000},
        clock=clock.wall,
        rate_limit=script.rate_limit,
        faults=FaultPlan(
            rate=script.fault_rate, kinds=script.kinds, operations=("issue",), windows=windows
        ),
    )

    async def answer(request: Request) -> Response:
        if chance.random() < script.logs:
            LOGGER.warning("a line of a library, %s", "long " * chance.randrange(30))
        if request.operation == "issue":
            await asyncio.sleep(chance.uniform(*script.latency_s))
        return emulator.handle(request)

    runtime = Runtime(
        clock=clock.wall, monotonic=clock.monotonic, sleep=asyncio.sleep, random=chance.random
    )
    client = emulator.client(
        runtime=runtime,
        transport=MemoryTransport(answer),
        flow=FlowPolicy(max_outage_wait_s=3600),
    )
    ledger = None
    if script.settle_s is not None:
        store = MemoryLedgerStore()
        ledger = Ledger(store, mode="exclusive", settle_s=script.settle_s, runtime=runtime)
    report = Report(script.count, ledger=None if ledger is None else "sqlite:///x.db")
    ended = ScreenRun(terminal, report, [])

    def run_until_interrupted(main: Coroutine[Any, Any, None], *, stopping: Stopping) -> None:
        async def interruptible() -> None:
            task = asyncio.current_task()
            assert task is not None
            steps = Steps(stopping, task)
            for press_s in script.presses_s:
                clock.after(press_s, steps.take, signal.SIGINT)
            await main

        VirtualLoop(clock).run(interruptible)

    _record(ended.written, monkeypatch)
    unsigned = functools.partial(bulk_issue, signers=0)  # no processes in virtual time
    monkeypatch.setattr(issuing, "bulk_issue", unsigned)
    monkeypatch.setattr(issuing, "run_until_interrupted", run_until_interrupted)
    terminal.stands_for(monkeypatch, "stdout", "stderr")
    with logged_to_person(LOGGER, logging.WARNING), ResultStream(as_json=False) as results:
        note("These are not real vouchers.")
        _issue(client, report, script, results, ledger)
    report.write(None, as_json=False)
    ended.issued = list(emulator.state.issued("B"))
    return ended


def _issue(
    client: VoucherClient,
    report: Report,
    script: Script,
    results: ResultStream,
    ledger: Ledger | None,
) -> None:
    names = (Recipient.at(number, str(number + 1)) for number in range(script.count))
    concurrency = script.concurrency
    issuing.run_issue(
        client, "B", names, report, concurrency=concurrency, results=results, ledger=ledger
    )


def _record(written: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Note what is written, and what the bar showed last."""
    write, bar = screen.SCREEN.write, screen.SCREEN.bar

    def recorded(stream: Any, text: str) -> None:
        write(stream, text)
        written.append(text)

    def recorded_bar(text: Any) -> Any:
        @contextlib.contextmanager
        def shown() -> Any:
            try:
                with bar(text):
                    yield
            finally:
                written.append(LAST)

        return shown()

    monkeypatch.setattr(screen.SCREEN, "write", recorded)
    monkeypatch.setattr(screen.SCREEN, "bar", recorded_bar)


LAST = "<the bar>"
