"""How much several processes keep in one ledger on PostgreSQL, beside one, and beside pgbench.

No call is sent: each request is asked for and its answer confirmed, each durably, as `Ledger.issue`
does before and after its call. The processes share one batch, or have a batch each. `pgbench` shows
what the same machine and server give to as many clients: its script "simple-update", whose
transactions are as durable. The ratios are the figures: to those of one process, in the same run.
How busy the machine's processors are is the limit: what one process and the server leave idle is
all that others can use. So the bar is 2.00, or a machine with nothing left.
With ``--delay-ms`` each answer of the server comes so much later, as over a network; pgbench runs
without.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from common import AS_JSON, Row, at_least, main, process, say
from sqlalchemy.engine import URL, make_url

from rm_voucher.ledger import Ledger
from rm_voucher.ledger.rules.commands import Ask, Claimed, Confirm, Listed
from rm_voucher.ledger.rules.settling import list_codes
from rm_voucher.ledger.rules.transitions import ask, confirm

FORM = "{:,.0f} records/s"
RATIO = at_least(2.0)
FULL = 0.95
POSTGRES_URL = os.environ.get("RM_TEST_POSTGRES_URL", "postgresql://root@127.0.0.1/test")
PROCESSES = (1, 2, 4)
ROUNDS = 3
WARM_S = 1.0
WINDOW_S = 4.0
TASKS = 64  # a process; an issuing process has as many calls in flight
_TPS = re.compile(r"tps = ([0-9.]+) \(without")


async def keep_records(url: str, batch: str, tasks: int) -> int:
    """Keep records as a process of its own does; return how many in the window."""
    kept = 0
    name = f"{batch} {os.getpid()}"
    numbers = itertools.count()
    async with Ledger.open(url) as ledger:
        await ledger.store.commit(
            list_codes, Listed(batch=batch, at=ledger.clock.latest_now(), last=True)
        )
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        end = time.monotonic() + WARM_S + WINDOW_S

        async def work() -> None:
            nonlocal kept
            for number in numbers:
                if (now := time.monotonic()) > end:
                    return
                wanted = Ask(
                    batch=batch,
                    request_id=f"{name} {number}",
                    content="",
                    attempt_id=f"{name} attempt {number:08}",
                    owner=ledger.store.owner,
                    at=ledger.clock.earliest_now(),
                )
                answer = await ledger.store.commit(ask, wanted)
                assert isinstance(answer, Claimed)
                item = Confirm(
                    batch=batch,
                    request_id=wanted.request_id,
                    attempt_id=answer.attempt_id,
                    code=f"{name} CODE{number:08}",
                    qr_url=f"https://qr.invalid/{number}",
                    at=ledger.clock.latest_now(),
                )
                await ledger.store.commit(confirm, item)
                if now > end - WINDOW_S:
                    kept += 2

        await asyncio.gather(*(work() for _ in range(tasks)))
    return kept


def processor_time() -> tuple[int, int]:
    """Return how long the machine's processors were busy, and how long they were there."""
    with Path("/proc/stat").open() as stat:
        user, nice, system, idle, iowait, *others = map(int, stat.readline().split()[1:9])
    busy = user + nice + system + sum(others)
    return busy, busy + idle + iowait


def records_a_second(url: str, batches: list[str], tasks: int) -> tuple[float, float]:
    """Return the records a second of all processes, and the share of the processors in use."""
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(
                process(sys.executable, __file__, "--process", url, batch, f"--tasks={tasks}")
            )
            for batch in batches
        ]
        for one in running:
            one.line()
        busy, there = processor_time()
        for one in running:
            one.start()
        rate = sum(int(one.line()) for one in running) / WINDOW_S
        later_busy, later_there = processor_time()
        return rate, (later_busy - busy) / (later_there - there)


def transactions_a_second(url: str, clients: int) -> float:
    done = subprocess.run(
        ["pgbench", "-n", "-N", f"-c{clients}", "-j1", f"-T{WINDOW_S:.0f}", url],
        capture_output=True,
        text=True,
        check=True,
    )
    found = _TPS.search(done.stdout)
    assert found
    return float(found[1])


@contextlib.contextmanager
def scratch_database() -> Iterator[str]:
    name = f"rm_ledger_bench_{os.getpid()}"
    with psycopg.connect(POSTGRES_URL, autocommit=True, connect_timeout=5) as server:
        server.execute(f"CREATE DATABASE {name}")
        try:
            url = make_url(POSTGRES_URL).set(database=name)
            yield url.render_as_string(hide_password=False)
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def delayed(url: str, delay_s: float) -> Iterator[str]:
    """Give the URL of a relay to the server, whose answers come so much later."""
    if not delay_s:
        yield url
        return
    parsed = make_url(url)
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_relay, args=(listener, parsed, delay_s), daemon=True).start()
    with listener:
        here = parsed.set(host="127.0.0.1", port=listener.getsockname()[1])
        yield here.render_as_string(hide_password=False)


def _relay(listener: socket.socket, to: URL, delay_s: float) -> None:
    asyncio.run(_relaying(listener, to, delay_s))


async def _relaying(listener: socket.socket, to: URL, delay_s: float) -> None:
    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wait_s: float
    ) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                loop.call_later(wait_s, writer.write, data)
        loop.call_later(wait_s, writer.close)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(to.host or "127.0.0.1", to.port or 5432)
        await asyncio.gather(pump(reader, there[1], 0), pump(there[0], writer, delay_s))

    server = await asyncio.start_server(relay, sock=listener)
    async with server:
        await server.serve_forever()


def measure() -> Iterator[Row]:
    yield from _measure(tasks=TASKS, delay_s=0.0)


def _measure(tasks: int, delay_s: float) -> Iterator[Row]:
    one_batch: dict[int, list[tuple[float, float]]] = {count: [] for count in PROCESSES}
    own_batch: dict[int, list[tuple[float, float]]] = {count: [] for count in PROCESSES[1:]}
    peer: dict[int, list[float]] = {count: [] for count in PROCESSES}
    with scratch_database() as url, delayed(url, delay_s) as way:
        subprocess.run(["pgbench", "-i", "-q", "-s", "10", url], capture_output=True, check=True)
        for number in range(ROUNDS):
            for count in PROCESSES:
                one_batch[count].append(records_a_second(way, ["BENCH"] * count, tasks))
                if count in own_batch:
                    each = [f"BENCH{one}" for one in range(count)]
                    own_batch[count].append(records_a_second(way, each, tasks))
                peer[count].append(transactions_a_second(url, count))
            say(f"round {number + 1} of {ROUNDS}")
    base = one_batch[1]
    peers = {
        count: statistics.median(a / b for a, b in zip(rates, peer[1], strict=True))
        for count, rates in peer.items()
    }
    for what, runs_of in (("on one batch", one_batch), ("a batch each", own_batch)):
        for count, runs in runs_of.items():
            ratio = statistics.median(a / b for (a, _), (b, _) in zip(runs, base, strict=True))
            busy = statistics.median(busy for _, busy in runs)
            has_bar = runs_of is one_batch and count == PROCESSES[-1]
            yield Row(
                f"Ledger in PostgreSQL, {count} process{'es' * (count > 1)}, {what}",
                FORM.format(statistics.median(rate for rate, _ in runs)),
                f"processors busy: {busy:.0%}, pgbench -N: {peers[count]:.2f}",
                f"{ratio:.2f}",
                f"{RATIO.text}, or busy {FULL:.0%}" if has_bar else "",
                RATIO.is_met_by(ratio) or busy >= FULL if has_bar else None,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--process", nargs=2, metavar=("URL", "BATCH"))
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument(AS_JSON, action="store_true")
    given = parser.parse_args()
    if given.process:
        print(asyncio.run(keep_records(*given.process, given.tasks)), flush=True)
    else:
        main(lambda: _measure(given.tasks, given.delay_ms / 1000))
