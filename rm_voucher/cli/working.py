"""Runs the worker of ``rm-voucher worker``, until a signal comes or the samples are worked off."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import attrs

from rm_voucher import VoucherClient, VoucherError
from rm_voucher.cli.output import json_line
from rm_voucher.cli.screen import say, write_out
from rm_voucher.cli.unkept import UnkeptCodes
from rm_voucher.jsontext import read_json
from rm_voucher.ledger import Ledger
from rm_voucher.shared import SharedStore
from rm_voucher.worker import (
    Broker,
    MemoryBroker,
    QueueNames,
    Worker,
    WorkerSettings,
    open_broker,
    prefetch_for,
)
from rm_voucher.worker.endpoint import serve_health

# Where the broker is away they write a traceback at each attempt, and the worker one line.
_TALKATIVE = ("aio_pika", "aiormq", "nats")
_DRAIN_SHARE = 0.7  # of the time to stop; the rest is for closing


@attrs.frozen(kw_only=True)
class Plan:
    """What the command line asks for. ``served`` is the address of health and metrics."""

    batch_key: str
    settings: WorkerSettings
    requests: str
    vouchers: str
    served: tuple[str, int] | None
    stop_s: float
    folder: Path = Path()
    """Where codes are written that the ledger could not keep."""

    @property
    def queues(self) -> QueueNames:
        """The names of the queues. Raises `ConfigurationError`."""
        return QueueNames(requests=self.requests, vouchers=self.vouchers)


def settings_for(
    rate_per_s: float | None,
    prefetch: int | None,
    *,
    first_delay_s: float,
    max_attempts: int,
) -> WorkerSettings:
    """Return the settings that fit a rate."""
    usual = WorkerSettings()
    if prefetch is None:
        prefetch = usual.prefetch if rate_per_s is None else prefetch_for(rate_per_s)
    return WorkerSettings(
        prefetch=prefetch,
        first_delay_s=first_delay_s,
        longest_delay_s=max(usual.longest_delay_s, first_delay_s),
        max_attempts=max_attempts,
    )


async def try_out(client: VoucherClient, plan: Plan, count: int) -> None:
    """Work off sample messages, and write what comes out."""
    samples = [json_line({"request_id": f"order {n}"}).encode() for n in range(1, count + 1)]
    broker = MemoryBroker(samples, prefetch=plan.settings.prefetch)
    async with client, Ledger.in_memory(sweeps=True) as ledger:
        worker = Worker(client, ledger, plan.batch_key, settings=plan.settings)
        async with worker.working(broker):
            await broker.wait_idle()
    for message in broker.vouchers:
        write_out(json_line(read_json(message)))
    say(f"{count:,} messages: {len(broker.vouchers):,} vouchers, {len(broker.parked):,} parked.")


async def work(
    client: VoucherClient, ledger: Ledger, shared: SharedStore | None, url: str, plan: Plan
) -> None:
    """Work until a signal comes, and end within a deadline.

    Health, readiness and metrics answer from the start to the end, so that an operator sees what an
    end waits for.
    """
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    broker = open_broker(url, names=plan.queues, settings=plan.settings)
    worker = Worker(client, ledger, plan.batch_key, settings=plan.settings)
    stop_s = plan.stop_s
    stopping, started = asyncio.Event(), asyncio.Event()
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - for the type checker
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if not stopping.is_set():
            stopping.set()
            if not started.is_set():
                task.cancel()  # no message is at work
            say(f"Stopping within {stop_s:g} s: the messages at work are finished first.")
            loop.call_later(stop_s, task.cancel)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    unkept = UnkeptCodes(plan.folder, plan.batch_key)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(shared or contextlib.nullcontext())
        await stack.enter_async_context(client)
        if plan.served is not None:
            host, port = plan.served
            at = await stack.enter_async_context(serve_health(worker, broker, host=host, port=port))
            say(f"Health, readiness and metrics at {at}.")
        stack.callback(unkept.save, ledger)  # when it is closed
        await stack.enter_async_context(ledger)
        await unkept.give_back(ledger)
        await stack.enter_async_context(_starting(worker, broker, stop_s * _DRAIN_SHARE))
        started.set()
        mode = ledger.settings.mode
        say(f"Working on {plan.queues.requests}, in the mode '{mode}'. Ctrl-C ends it.")
        await stopping.wait()


@contextlib.asynccontextmanager
async def _starting(worker: Worker, broker: Broker, drain_s: float) -> AsyncIterator[None]:
    """Work, or say in a sentence why the broker can't be used."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(worker.working(broker, stop_s=drain_s))
        except VoucherError:
            raise
        except Exception as exc:
            raise VoucherError(
                f"The broker can't be used ({type(exc).__name__}). Look at its URL, and whether it "
                "runs."
            ) from exc
        yield
