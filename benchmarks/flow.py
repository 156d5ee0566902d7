"""How a bulk issue finds the rate of a server that throttles, and waits for one that is down.

In real time, against the emulator over HTTP, in a process of its own; the client is told nothing.

- A limit of 50, 200 and 1,000 requests a second, with bursts of 0.1 s. From 30 s on, for 10 s: the
  share of the limit that is used, and the share of the attempts that are throttled. Then the limit
  is doubled: when 90 % of it was first used for 2 s. Then it is halved: the share throttled from
  the fifth second on, for 10 s.
- A server that answers after 0.1 s is closed for a minute, which is the mildest outage: of what is
  sent to it meanwhile nothing can be in doubt. The attempts meanwhile as a share of those of a
  minute before, when 90 % of the former speed was first kept for 1 s afterwards, and whether
  anything was lost: each recipient has a result, and each code that was issued was handed out, or
  its answer never left the server. How many recipients failed or are in doubt stands beside it.
"""

import asyncio
import bisect
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import attrs
from common import Bar, Process, Row, at_least, at_most, in_fresh_process, main, say, serving
from emulator import CLIENT, KEY
from loops import CONCURRENCY, for_seconds, new_key, private_pem, public_pem

from rm_voucher import (
    Attempt,
    AttemptResult,
    BulkSummary,
    Credentials,
    Environment,
    VoucherClient,
    bulk_issue,
)

LIMITS = (50, 200, 1000)  # a second
USED = at_least(0.90, "{:.0%}")
THROTTLED = at_most(0.02, "{:.0%}")
FOUND_S = at_most(30, "{:.0f} s")
LEARN_S = 30.0
LOOK_S = 10.0
ADAPT_S = 5.0
SHARE = 0.9  # of a limit or speed, to have reached it
REACHED_FOR_S = 2.0

NORMAL_S = 15.0
LEAST_S = 5.0  # of it do not count: the signing processes start
DOWN_S = 60.0
BACK_S = 15.0
LATENCY_S = 0.1  # so that neither side is busy, and the speed before is one to come back to
BACK_FOR_S = 1.0
SENT_DOWN = at_most(0.05, "{:.0%}")
RECOVERED_S = at_most(10, "{:.0f} s")
LOST = at_most(0, "{:.0f}")
# The doubled 1,000 takes most of two cores, so it is alone.
GROUPS = (("outage", "50", "200"), ("1000",))


class Attempts:
    """What the client sends, as a hook sees it."""

    def __init__(self) -> None:
        self.begun: list[float] = []
        self.taken: list[float] = []
        self.throttled: list[float] = []

    def __call__(self, attempt: Attempt) -> Callable[[AttemptResult], None] | None:
        if attempt.operation != "issue":
            return None
        self.begun.append(time.perf_counter())
        return self._after

    def _after(self, result: AttemptResult) -> None:
        if result.http_status == 200:
            self.taken.append(time.perf_counter())
        elif result.http_status == 429:
            self.throttled.append(time.perf_counter())

    def throttled_share(self, begin: float, length_s: float) -> float:
        throttled = count(self.throttled, begin, length_s)
        taken = count(self.taken, begin, length_s)
        return throttled / (throttled + taken) if taken else 1.0  # who sends nothing has no merit

    def reached_s(self, per_s: float, since: float, *, for_s: float) -> float | None:
        """Return how long it took until that speed had been kept for a time, None for never."""
        first = bisect.bisect_left(self.taken, since)
        run = int(per_s * for_s)
        for begin, end in zip(self.taken[first:], self.taken[first + run :], strict=False):
            if end - begin <= for_s:
                return end - since
        return None

    def best_per_s(self, since: float, *, for_s: float) -> float:
        """Return the highest speed that was kept for a time."""
        first = bisect.bisect_left(self.taken, since)
        return max(count(self.taken, begin, for_s) for begin in self.taken[first:]) / for_s


def count(times: list[float], begin: float, length_s: float) -> int:
    """Return how many of the times, which ascend, lie there."""
    return bisect.bisect_left(times, begin + length_s) - bisect.bisect_left(times, begin)


# One scenario, in a process of its own.


@attrs.frozen
class Stage:
    """An emulator, and a client of it."""

    client: VoucherClient
    attempts: Attempts
    server: Process
    url: str
    session: aiohttp.ClientSession

    async def control(self, path: str, **fields: object) -> None:
        async with self.session.put(f"{self.url}/_emulator/{path}", json=fields) as answer:
            answer.raise_for_status()

    async def undelivered(self) -> int:
        async with self.session.get(f"{self.url}/_emulator/faults") as answer:
            return int((await answer.json())["undelivered"])

    async def bulk(self, seconds: float, seen: set[str]) -> BulkSummary:
        """Issue for so long; return how it ended."""
        async with bulk_issue(
            self.client, KEY, for_seconds(seconds), concurrency=CONCURRENCY
        ) as run:
            async for result in run:
                if result.voucher is not None:
                    seen.add(result.voucher.code)
        return run.summary


@asynccontextmanager
async def stage(latency_s: float = 0.0) -> AsyncIterator[Stage]:
    key, attempts = new_key(), Attempts()
    arguments = ("emulator", public_pem(key).decode(), str(latency_s))
    with serving("emulator.py", *arguments) as (port, server):
        url = f"http://127.0.0.1:{port}"
        client = VoucherClient(
            Credentials(CLIENT, CLIENT, private_pem(key)),
            environment=Environment.at(url),
            hooks=[attempts],
        )
        async with client, aiohttp.ClientSession() as session:
            yield Stage(client, attempts, server, url, session)


async def limited(per_s: float) -> dict[str, Any]:
    """Return what came of a limit that is found, doubled and halved."""
    async with stage() as at:
        await at.control("rate-limit", per_s=per_s)
        lasts_s = LEARN_S + LOOK_S + FOUND_S.limit + ADAPT_S + LOOK_S
        begin = time.perf_counter()
        running = asyncio.create_task(at.bulk(lasts_s, set()))
        await asyncio.sleep(LEARN_S + LOOK_S)
        await at.control("rate-limit", per_s=2 * per_s)
        doubled = time.perf_counter()
        say(f"{per_s:g}/s: learned, and doubled")
        await asyncio.sleep(FOUND_S.limit)
        await at.control("rate-limit", per_s=per_s)
        halved = time.perf_counter()
        say(f"{per_s:g}/s: halved")
        await running
    attempts, look = at.attempts, (begin + LEARN_S, LOOK_S)
    return {
        "used": count(attempts.taken, *look) / LOOK_S / per_s,
        "throttled": attempts.throttled_share(*look),
        "best_per_s": attempts.best_per_s(doubled, for_s=REACHED_FOR_S),
        "found_s": attempts.reached_s(2 * SHARE * per_s, doubled, for_s=REACHED_FOR_S),
        "throttled_after": attempts.throttled_share(halved + ADAPT_S, LOOK_S),
    }


async def outage() -> dict[str, Any]:
    """Return what came of a minute in which nothing listens."""
    seen = set[str]()
    async with stage(LATENCY_S) as at:
        running = asyncio.create_task(at.bulk(NORMAL_S + DOWN_S + BACK_S, seen))
        await asyncio.sleep(NORMAL_S)
        window = {"fault": "closed", "start_s": 0.0, "length_s": DOWN_S}
        closed = time.perf_counter()
        await at.control("faults", windows=[window])
        say("outage: closed")
        summary = await running
        undelivered = await at.undelivered()
        issued = int(at.server.end())
    attempts, counted_s = at.attempts, NORMAL_S - LEAST_S
    per_s = count(attempts.taken, closed - counted_s, counted_s) / counted_s
    return {
        "per_s": per_s,
        "sent": count(attempts.begun, closed, DOWN_S) / (per_s * DOWN_S),
        "recovered_s": attempts.reached_s(SHARE * per_s, closed + DOWN_S, for_s=BACK_FOR_S),
        "summary": attrs.asdict(summary),
        "issued": issued,
        "undelivered": undelivered,
        "lost": abs(issued - len(seen) - undelivered)
        + abs(summary.asked - summary.issued - summary.failed - summary.unresolved),
    }


async def scenario(name: str) -> dict[str, Any]:
    return await (outage() if name == "outage" else limited(float(name)))


# All of them.


def _share(what: str, share: float, bar: Bar) -> Row:
    return Row(what, f"{share:.1%}", "", "", bar.text, bar.is_met_by(share))


def _time(what: str, seconds: float | None, bar: Bar, peer: str = "") -> Row:
    if seconds is None:
        return Row(what, "never", peer, "", bar.text, ok=False)
    return Row(what, f"{seconds:.1f} s", peer, "", bar.text, bar.is_met_by(seconds))


def limit_rows(limit: int, found: dict[str, Any]) -> Iterator[Row]:
    what = f"Limit of {limit:,}/s, untold"
    yield _share(f"{what}: used after {LEARN_S:.0f} s", found["used"], USED)
    yield _share(f"{what}: throttled", found["throttled"], THROTTLED)
    best = f"{found['best_per_s']:,.0f}/s at best"
    yield _time(f"{what}, doubled: {SHARE:.0%} used after", found["found_s"], FOUND_S, best)
    what = f"{what}, halved: throttled after {ADAPT_S:.0f} s"
    yield _share(what, found["throttled_after"], THROTTLED)


def outage_rows(found: dict[str, Any]) -> Iterator[Row]:
    summary = ", ".join(f"{count} {name}" for name, count in found["summary"].items() if count)
    say(f"outage: {found['per_s']:.0f}/s before; {summary}; {found['undelivered']} undelivered")
    what = f"Server down for {DOWN_S:.0f} s"
    yield _share(f"{what}: requests meanwhile, of normal", found["sent"], SENT_DOWN)
    before = f"{found['per_s']:,.0f}/s before"
    what_after = f"{what}: {SHARE:.0%} of the speed after"
    yield _time(what_after, found["recovered_s"], RECOVERED_S, before)
    # Nobody of these is lost, but they have no voucher.
    ends = found["summary"]
    peer = f"{found['issued']:,} issued, {ends['failed']} failed, {ends['unresolved']} unknown"
    lost = found["lost"]
    yield Row(f"{what}: lost", str(lost), peer, "", LOST.text, LOST.is_met_by(lost))


def measure() -> Iterator[Row]:
    found: dict[str, dict[str, Any]] = {}
    for group in GROUPS:
        say(f"{', '.join(group)}: about 90 s")
        with ThreadPoolExecutor(len(group)) as pool:
            results = pool.map(lambda name: in_fresh_process("flow.py", name), group)
            found.update(zip(group, results, strict=True))
    for limit in LIMITS:
        yield from limit_rows(limit, found[str(limit)])
    yield from outage_rows(found["outage"])


if __name__ == "__main__":
    known = [name for name in itertools.chain(*GROUPS) if name in sys.argv[1:]]
    if known:
        print(json.dumps(asyncio.run(scenario(known[0]))))
    else:
        main(measure)
