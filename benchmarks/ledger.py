"""How much a ledger keeps in a second, durably: SQLite with synchronous=FULL, and PostgreSQL.

No call is sent: each request is asked for and its answer confirmed, as `Ledger.issue` does before
and after its call. Each of both is durable when it returns, so a voucher is two durable records.
Fails when there are fewer records a second than the LIMIT, or when the requests don't add up.
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
from sqlalchemy.engine import make_url

from rm_voucher.ledger import Ledger
from rm_voucher.ledger.commands import Confirm, Listed, Started
from rm_voucher.ledger.settling import list_codes
from rm_voucher.ledger.transitions import confirm

LIMITS = {"sqlite": 15_000, "postgresql": 8_000}
ROUNDS = 5
ISSUES = 20_000  # a round
TASKS = 512
POSTGRES_URL = os.environ.get("RM_TEST_POSTGRES_URL", "postgresql://root@127.0.0.1/test")


async def issue_all(ledger: Ledger, names: Iterator[int], tasks: int = TASKS) -> None:
    async def work() -> None:
        for number in names:
            answer = await ledger.sender.ask("BENCH", "", f"member {number}")
            assert isinstance(answer, Started)
            item = Confirm(
                batch="BENCH",
                request_id=f"member {number}",
                attempt_id=answer.attempt_id,
                code=f"CODE{number:08}",
                qr_url=f"https://qr.invalid/{number}",
                at=ledger.now(),
            )
            await ledger.commit(confirm, item)
            ledger.sender.live.discard(answer.attempt_id)

    await asyncio.gather(*(work() for _ in range(tasks)))


async def records_a_second(url: str) -> list[float]:
    rates = []
    numbers = itertools.count()
    async with Ledger.open(url) as ledger:
        await ledger.commit(list_codes, Listed(batch="BENCH", at=ledger.now(), last=True))
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            await issue_all(ledger, itertools.islice(numbers, ISSUES))
            rates.append(2 * ISSUES / (time.perf_counter() - begin))
        counts = await ledger.counts()
    if counts.asked != counts.assigned or counts.assigned != ROUNDS * ISSUES:
        sys.exit(f"not all assigned: {counts}")
    return rates


def report(store: str, url: str) -> bool:
    rates = asyncio.run(records_a_second(url))
    rate = statistics.median(rates)
    print(
        f"{store}: {rate:,.0f} durable records a second, that is {rate / 2:,.0f} vouchers "
        f"(rounds {min(rates):,.0f} to {max(rates):,.0f}; limit {LIMITS[store]:,} records)"
    )
    return rate >= LIMITS[store]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        good = report("sqlite", f"sqlite:///{folder}/ledger.db")
    name = f"rm_ledger_bench_{os.getpid()}"
    try:
        server = psycopg.connect(POSTGRES_URL, autocommit=True, connect_timeout=5)
    except psycopg.Error as exc:
        print(f"postgresql: left out, because it can't be reached: {exc}")
    else:
        with server:
            server.execute(f"CREATE DATABASE {name}")
            try:
                url = make_url(POSTGRES_URL).set(database=name)
                text = url.render_as_string(hide_password=False)
                good = report("postgresql", text) and good
            finally:
                server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    if not good:
        sys.exit("the ledger is too slow")


if __name__ == "__main__":
    main()
