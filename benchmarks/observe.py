"""What it costs to be observable: a call in memory, without hooks, and with OpenTelemetry's.

Nothing is signed and no socket is used, so that what is left is ours. Without hooks a call is
compared with the same method under `hide_locals` alone, which asks for no observer.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from common import Row, at_most, compared, main, say
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from rm_voucher import Credentials, Request, Response, StaticToken, VoucherClient
from rm_voucher.otel import OpenTelemetryHook
from rm_voucher.redaction import hide_locals
from rm_voucher.transport.memory import MemoryTransport

UNSET = at_most(1.02)
ROUNDS = 101
CALLS = 200  # a round, of each: short turns, so that a busy machine troubles all alike
ANSWER = Response(
    status=200,
    body=b'{"item":{"code":"NAklEfbVdV","qrUrl":"https://example.invalid/q"},"code":"SUCCESS"}',
)


class NoSigner:
    def sign(self, text: bytes) -> bytes:
        return b"signature"


async def answer(_: Request) -> Response:
    return ANSWER


def client(*hooks: Any) -> VoucherClient:
    return VoucherClient(
        Credentials("id", "secret", "no key"),
        transport=MemoryTransport(answer),
        token_source=StaticToken("token"),
        signer=NoSigner(),
        hooks=hooks,
    )


async def cpu_us(issue: Callable[[str], Awaitable[object]]) -> float:
    begin = time.process_time()
    for _ in range(CALLS):
        await issue("KEY")
    return (time.process_time() - begin) / CALLS * 1e6


async def rounds() -> tuple[list[float], list[float], list[float]]:
    hook = OpenTelemetryHook(TracerProvider(), MeterProvider([InMemoryMetricReader()]))
    unset, bare_client, observed = client(), client(), client(hook)
    bare = hide_locals(VoucherClient.issue.__wrapped__)  # type: ignore[attr-defined]
    taken: tuple[list[float], ...] = ([], [], [])
    calls = (unset.issue, lambda key: bare(bare_client, key), observed.issue)
    for number in range(ROUNDS + 1):
        figures = [await cpu_us(call) for call in calls]
        if number:
            for into, figure in zip(taken, figures, strict=True):
                into.append(figure)
    return taken[0], taken[1], taken[2]


def measure() -> Iterator[Row]:
    unset, bare, observed = asyncio.run(rounds())
    say(f"median of {ROUNDS} rounds: {statistics.median(observed):.0f} µs with OpenTelemetry")
    yield compared(
        "Call in memory, without hooks, CPU time",
        unset,
        ("asks for no observer", bare),
        "{:.1f} µs",
        UNSET,
    )
    yield compared(
        "Call in memory, OpenTelemetry's spans and metrics, CPU time",
        observed,
        ("without hooks", unset),
        "{:.1f} µs",
    )


if __name__ == "__main__":
    main(measure)
