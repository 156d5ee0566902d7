"""How much a ledger keeps in a second, durably: SQLite with synchronous=FULL, and PostgreSQL.

No call is sent: each request is asked for and its answer confirmed, as `Ledger.issue` does before
and after its call. Each of both is durable when it returns, so a voucher is two durable records.
PostgreSQL is left out, with the reason, where it does not answer.
"""

import asyncio
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator

import psycopg
from common import Row, at_least, figure, main, say
from sqlalchemy.engine import make_url

from rm_voucher.ledger import Ledger
from rm_voucher.ledger.rules.commands import Claimed, Confirm, Listed
from rm_voucher.ledger.rules.settling import list_codes
from rm_voucher.ledger.rules.transitions import confirm

FORM = "{:,.0f} records/s"
BARS = {"SQLite": at_least(15_000, FORM), "PostgreSQL": at_least(8_000, FORM)}
ROUNDS = 5
ISSUES = 20_000  # a round
TASKS = 512
POSTGRES_URL = os.environ.get("RM_TEST_POSTGRES_URL", "postgresql://root@127.0.0.1/test")


async def issue_all(ledger: Ledger, names: Iterator[int], tasks: int = TASKS) -> None:
    async def work() -> None:
        for number in names:
            answer = await ledger.sender.ask("BENCH", "", f"member {number}")
            assert isinstance(answer, Claimed)
            item = Confirm(
                batch="BENCH",
                request_id=f"member {number}",
                attempt_id=answer.attempt_id,
                code=f"CODE{number:08}",
                qr_url=f"https://qr.invalid/{number}",
                at=ledger.clock.latest_now(),
            )
            await ledger.store.commit(confirm, item)
            del ledger._tracker.sending[answer.attempt_id]

    await asyncio.gather(*(work() for _ in range(tasks)))


async def records_a_second(url: str) -> list[float]:
    rates = []
    numbers = itertools.count()
    async with Ledger.open(url) as ledger:
        await ledger.store.commit(
            list_codes, Listed(batch="BENCH", at=ledger.clock.latest_now(), last=True)
        )
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            await issue_all(ledger, itertools.islice(numbers, ISSUES))
            rates.append(2 * ISSUES / (time.perf_counter() - begin))
        counts = await ledger.counts()
    if counts.asked != counts.assigned or counts.assigned != ROUNDS * ISSUES:
        sys.exit(f"not all assigned: {counts}")
    return rates


def row(store: str, url: str) -> Row:
    rates = asyncio.run(records_a_second(url))
    say(f"{store}: rounds {min(rates):,.0f} to {max(rates):,.0f} records/s")
    return figure(_what(store), statistics.median(rates), FORM, BARS[store])


def _what(store: str) -> str:
    return f"Ledger in {store}, two durable records a voucher"


def measure() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        yield row("SQLite", f"sqlite:///{folder}/ledger.db")
    name = f"rm_ledger_bench_{os.getpid()}"
    try:
        server = psycopg.connect(POSTGRES_URL, autocommit=True, connect_timeout=5)
    except psycopg.Error as exc:
        say(f"PostgreSQL can't be reached: {exc}")
        left_out = "left out, because it can't be reached"
        yield Row(_what("PostgreSQL"), "", left_out, bar=BARS["PostgreSQL"].text)
        return
    with server:
        server.execute(f"CREATE DATABASE {name}")
        try:
            url = make_url(POSTGRES_URL).set(database=name)
            yield row("PostgreSQL", url.render_as_string(hide_password=False))
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


if __name__ == "__main__":
    main(measure)
