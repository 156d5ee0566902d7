"""What a receiver of callbacks costs: checking one, recording many durably, and the event loop.

- `CallbackVerifier.authenticate`, as a ratio to the bare check of the same signature with
  `cryptography`: CPU time, by turns, the median of the rounds' ratios. RATIO is the most.
- Deliveries a second that 64 tasks verify, parse and record in SQLite with synchronous=FULL, each
  of a voucher of its own. RATE is the least. The whole of `WebhookRouter.receive`, with both kinds
  of handler, is shown beside it.
- The longest step of the event loop while 64 tasks deliver, with ordinary bodies, and where a
  quarter have 64 KiB; and what it takes to refuse the forged bodies that take longest.
  STEP is the most.

A step is measured in CPU time of the loop's thread: what else a busy machine does, and the threads
of the store, are not in it. The garbage collector runs, but not over what the benchmark made
before, which would take 10 to 20 ms. Of a forged body the median of its tries counts.
"""

import asyncio
import gc
import itertools
import statistics
import sys
import tempfile
import time
from asyncio.events import Handle
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Self

import attrs
import orjson
from common import Row, at_least, at_most, compared, figure, main, median_ratio, say
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from multidict import CIMultiDict, CIMultiDictProxy

from rm_voucher import CallbackError, VoucherStatus
from rm_voucher.runtime import Runtime
from rm_voucher.signing import RsaSigner, canonical_json, format_signature, string_to_sign
from rm_voucher.webhooks import CallbackVerifier, VoucherEvent, WebhookRouter, open_event_store

RATIO = at_most(1.7)
RATE_FORM = "{:,.0f} deliveries/s"
RATE = at_least(2_000, RATE_FORM)
STEP_FORM = "{:.2f} ms"
STEP = at_most(5, STEP_FORM)
RATIO_ROUNDS = 1001
RATIO_DELIVERIES = 10  # a round is short, so that most of them are not interrupted
RATE_ROUNDS = 3
DELIVERIES = 4_000
EXACTLY_ONCE = 400  # of them: each is a transaction of its own
SOME_LONG = 2_000  # where a quarter of the bodies are long
TASKS = 64
BODY_BYTES = 64 * 1024
TRIES = 31  # of one body
HERE = Path(__file__).parent.parent / "tests"
URL = "https://shop.example/callbacks/rm"
NOW = 1_790_000_000
VOUCHER = orjson.loads((HERE / "payloads" / "get-voucher.json").read_bytes())["item"]
SIGNER = RsaSigner.from_pem((HERE / "vectors" / "throwaway-pkcs8.pem").read_bytes())
PUBLIC_KEY = (HERE / "vectors" / "throwaway-public.pem").read_bytes()
CHECK = CallbackVerifier(PUBLIC_KEY, url=URL, runtime=Runtime(clock=lambda: NOW))


@attrs.frozen
class Delivery:
    """``headers`` are as aiohttp gives them; ``text`` is what was signed, ``raw`` the signature."""

    headers: CIMultiDictProxy[str]
    body: bytes
    text: bytes
    raw: bytes

    @classmethod
    def of(cls, body: bytes, *, signed: bytes | None = None) -> Self:
        """Return a delivery of a body, signed as ``signed``, by default as what it is."""
        canonical = canonical_json(orjson.loads(body)) if signed is None else signed
        text = string_to_sign(
            method="POST", url=URL, nonce="x" * 32, timestamp=str(NOW), body=canonical
        ).encode()
        raw = SIGNER.sign(text)
        headers = CIMultiDict(
            {
                "Host": "shop.example",
                "User-Agent": "Go-http-client/1.1",
                "Content-Length": str(len(body)),
                "Content-Type": "application/json",
                "X-Nonce-Str": "x" * 32,
                "X-Signature": format_signature(raw),
                "X-Timestamp": str(NOW),
                "Accept-Encoding": "gzip",
            }
        )
        return cls(CIMultiDictProxy(headers), body, text, raw)


def body_of(number: int, **more: Any) -> bytes:
    item = {**VOUCHER, "code": f"CODE{number:08}", "status": "VOID", **more}
    return orjson.dumps({"item": item, "code": "SUCCESS"})


# What checking costs.


def compare_with_bare_signature(deliveries: list[Delivery]) -> Iterator[Row]:
    key = load_pem_public_key(PUBLIC_KEY)
    padding, digest = PKCS1v15(), SHA256()
    authenticated, verified, bare = [], [], []
    for _ in range(RATIO_ROUNDS):  # by turns, so that a busy machine troubles all three alike
        bare.append(cpu_us(lambda one: key.verify(one.raw, one.text, padding, digest), deliveries))
        authenticated.append(
            cpu_us(lambda one: CHECK.authenticate(one.headers, one.body), deliveries)
        )
        verified.append(cpu_us(lambda one: CHECK.verify(one.headers, one.body), deliveries))
    say(f"verify takes {median_ratio(verified, bare):.2f} times the bare signature")
    signature = ("the bare signature", bare)
    yield compared("Callback authenticated, CPU time", authenticated, signature, "{:.1f} µs", RATIO)


def cpu_us(check: Callable[[Delivery], object], deliveries: list[Delivery]) -> float:
    """Return the CPU time that one takes."""
    begin = time.thread_time()
    for one in deliveries:
        check(one)
    return (time.thread_time() - begin) / len(deliveries) * 1e6


# How many are kept.


async def at_once(
    deliveries: list[Delivery], receive: Callable[[Delivery], Awaitable[object]]
) -> float:
    """Return how many a second 64 tasks receive."""
    waiting = iter(deliveries)

    async def work() -> None:
        for one in waiting:
            await receive(one)

    begin = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(TASKS)))
    return len(deliveries) / (time.perf_counter() - begin)


async def record(url: str, deliveries: list[Delivery]) -> float:
    async with open_event_store(url) as store:
        rate = await at_once(
            deliveries, lambda one: store.record(CHECK.verify(one.headers, one.body))
        )
        counts = await store.counts()
    if counts.waiting != len(deliveries):
        sys.exit(f"not all were recorded: {counts}")
    return rate


async def handle(url: str, deliveries: list[Delivery]) -> float:
    async def handler(event: VoucherEvent) -> None:
        pass

    return await route(url, deliveries, handler)


async def handle_exactly_once(url: str, deliveries: list[Delivery]) -> float:
    async def handler(event: VoucherEvent, tx: object) -> None:
        pass

    return await route(url, deliveries[:EXACTLY_ONCE], handler)


async def route(
    url: str, deliveries: list[Delivery], handler: Callable[..., Awaitable[None]]
) -> float:
    store = open_event_store(url)
    async with WebhookRouter(CHECK, store=store) as router:
        router.on(VoucherStatus.VOID)(handler)
        rate = await at_once(deliveries, lambda one: router.receive(one.headers, one.body))
        counts = await store.counts()
    if counts.done != len(deliveries):
        sys.exit(f"not all were handled: {counts}")
    return rate


def rates(deliveries: list[Delivery], urls: Iterator[str]) -> Iterator[Row]:
    for name, run, bar in (
        ("verified, parsed, recorded", record, RATE),
        ("received, with a handler", handle, None),
        ("received, with a handler that takes the transaction", handle_exactly_once, None),
    ):
        found = [asyncio.run(run(next(urls), deliveries)) for _ in range(RATE_ROUNDS)]
        say(f"{name}: rounds {min(found):,.0f} to {max(found):,.0f} a second")
        yield figure(f"Callbacks {name}", statistics.median(found), RATE_FORM, bar)


# How long the event loop is held.


class Steps:
    """Times each step of the event loop: on the wall, and in CPU time of its thread."""

    def __enter__(self) -> Self:
        self.cpu: list[float] = []
        self.wall: list[float] = []
        run = self._run = Handle._run

        def timed(handle: Handle) -> None:
            cpu, wall = time.thread_time(), time.perf_counter()
            run(handle)
            self.cpu.append(time.thread_time() - cpu)
            self.wall.append(time.perf_counter() - wall)

        Handle._run = timed  # type: ignore[method-assign] - there is no hook for all steps
        return self

    def __exit__(self, *_: object) -> None:
        Handle._run = self._run  # type: ignore[method-assign] - as above


def long_fields() -> dict[str, Any]:
    """Return values that make a body of nearly 64 KiB, each hard in its own way."""
    size = BODY_BYTES - len(body_of(0, note=""))
    nest: list[Any] = ["x" * (size // 33 - 62)]
    for _ in range(28):  # the deepest that a body can be
        nest = [nest]
    return {
        "lists in lists": [nest] * 33,  # nor can it have more of them
        "thousands of keys": {f"k{number * 7919 % 6007}": 0 for number in range(6007)},
        "thousands of numbers": [0] * (size // 2),
        "a string full of <": "<" * size,
        "a plain string": "x" * size,
    }


def mixed(deliveries: list[Delivery]) -> list[Delivery]:
    """Return deliveries of which a quarter have a long field that nobody documented."""
    turns = itertools.cycle(long_fields().values())
    return [
        one if number % 4 else Delivery.of(body_of(DELIVERIES + number, note=next(turns)))
        for number, one in enumerate(deliveries)
    ]


def longest_step(kind: str, deliveries: list[Delivery], url: str) -> Row:
    gc.collect()
    gc.freeze()
    with Steps() as steps:
        asyncio.run(handle(url, deliveries))
    say(f"{kind}: {len(steps.cpu):,} steps, the longest {max(steps.wall) * 1e3:.2f} ms on the wall")
    what = f"Callbacks, {kind}: longest step of the event loop, CPU time"
    return figure(what, max(steps.cpu) * 1e3, STEP_FORM, STEP)


def refuse_long_bodies() -> Iterator[Row]:
    """Hold what anybody can send: bodies that are refused only once their signature is checked."""
    bodies = {name: body_of(0, note=field) for name, field in long_fields().items()}
    bodies["thousands of lists"] = body_of(0, note=[[]] * 21_000)
    bodies["nested without end"] = b'{"item":' * (BODY_BYTES // 8)
    for name, body in bodies.items():
        if not BODY_BYTES * 0.9 < len(body) <= BODY_BYTES:
            sys.exit(f"{name}: {len(body)} bytes")
        forged = Delivery.of(body, signed=b"another body")
        times, step = [], None
        for _ in range(TRIES):
            begin = time.thread_time()
            try:
                CHECK.verify(forged.headers, body)
            except CallbackError as exc:
                step = exc.step
            times.append(time.thread_time() - begin)
        if step is None:
            sys.exit(f"{name}: a forged body was taken")
        say(f"64 KiB, {name}: refused at the step '{step}'")
        what = f"Forged callback of 64 KiB, {name}: refused, CPU time"
        yield figure(what, statistics.median(times) * 1e3, STEP_FORM, STEP)


def measure() -> Iterator[Row]:
    deliveries = [Delivery.of(body_of(number)) for number in range(DELIVERIES)]
    some_long = mixed(deliveries[:SOME_LONG])
    yield from compare_with_bare_signature(deliveries[:RATIO_DELIVERIES])
    with tempfile.TemporaryDirectory() as folder:
        urls = (f"sqlite:///{folder}/events{number}.db" for number in itertools.count())
        yield from rates(deliveries, urls)
        yield longest_step("ordinary bodies", deliveries, next(urls))
        yield longest_step("some of 64 KiB", some_long, next(urls))
    yield from refuse_long_bodies()


if __name__ == "__main__":
    main(measure)
