"""What a worker tells of itself, in numbers, and in the text form of Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping
from typing import TypeVar

import attrs

from rm_voucher.calls.flow import FlowState
from rm_voucher.extras import extra
from rm_voucher.ledger import Backlog
from rm_voucher.worker.broker import Broker
from rm_voucher.worker.dispositions import Kind
from rm_voucher.worker.worker import Worker

with extra("worker", __name__):
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector

T = TypeVar("T")

_ASKED_S = 2.0  # so long a broker or a database is waited for


@attrs.frozen(kw_only=True)
class Figures:
    """How a worker stands, and what all workers share. What could not be asked is None.

    Attributes:
        queued: requests at the broker that nobody has taken.
        in_flight: messages that this process works on.
        processed: deliveries that ended, by what became of them.
        unkept: codes in the memory of this process alone, most of them for the time of a commit.
        oldest_unkept_s: for how long the oldest of them has been there.
        flow: how its client sends.
        backlog: what is not finished of the batch, in the ledger.
        now: when that was asked, in seconds since 1970.
    """

    queued: int | None
    in_flight: int
    processed: Mapping[Kind, int]
    unkept: int
    oldest_unkept_s: float
    flow: FlowState
    backlog: Backlog | None
    now: float


async def read_figures(worker: Worker, broker: Broker) -> Figures:
    """Return the figures, within two seconds. Raises nothing: what is away has none."""
    queued, backlog = await asyncio.gather(
        _ask(broker.backlog()), _ask(worker.ledger.backlog(worker.batch_key))
    )
    return Figures(
        queued=queued,
        in_flight=worker.in_flight,
        processed={kind: worker.processed[kind] for kind in Kind},
        unkept=len(worker.ledger.unkept),
        oldest_unkept_s=worker.ledger.oldest_unkept_s,
        flow=worker.client.flow,
        backlog=backlog,
        now=worker.ledger.clock.latest_now(),
    )


def to_text(figures: Figures) -> bytes:
    """Return figures in the text form of Prometheus."""
    registry = CollectorRegistry()
    registry.register(_Families(figures))
    return generate_latest(registry)


async def _ask(asking: Awaitable[T]) -> T | None:
    try:
        async with asyncio.timeout(_ASKED_S):
            return await asking
    except Exception:  # noqa: BLE001 - of the broker's libraries, which name no base
        return None


@attrs.frozen(eq=False)  # a registry has it in a set
class _Families(Collector):
    """The figures as Prometheus names them."""

    _figures: Figures

    def collect(self) -> Iterator[Metric]:
        """Yield each figure that is known."""
        figures = self._figures
        processed = CounterMetricFamily(
            "rm_worker_messages", "Deliveries that ended, by what became of them", labels=["end"]
        )
        for kind, number in figures.processed.items():
            processed.add_metric([kind], number)
        yield processed
        yield CounterMetricFamily(
            "rm_worker_throttled", "Attempts that RM throttled", value=figures.flow.throttled
        )
        for name, (meaning, value) in {**self._of_process(), **self._of_ledger()}.items():
            if value is not None:
                yield GaugeMetricFamily(f"rm_worker_{name}", meaning, value=value)

    def _of_process(self) -> dict[str, tuple[str, float | None]]:
        figures, flow = self._figures, self._figures.flow
        is_shared = flow.processes is not None
        return {
            "backlog": ("Requests at the broker that nobody has taken", figures.queued),
            "in_flight": ("Messages that this process works on", figures.in_flight),
            "unkept_codes": ("Codes in the memory of this process alone", figures.unkept),
            "oldest_unkept_seconds": (
                "For how long the oldest of them has been there",
                figures.oldest_unkept_s,
            ),
            "rate_per_second": ("Requests a second that RM takes, once known", flow.rate_per_s),
            "waiting_for_turn": ("Calls that wait for their turn", flow.waiting),
            "outage_seconds": ("For how long RM has been failing", flow.outage_s or 0.0),
            "processes": ("Processes that share the rate", flow.processes),
            "shared_store_away_seconds": (
                "For how long the store of the shared rate has been away",
                (flow.store_away_s or 0.0) if is_shared else None,
            ),
        }

    def _of_ledger(self) -> dict[str, tuple[str, float | None]]:
        if (backlog := self._figures.backlog) is None:
            return {}
        return {
            "waiting": ("Requests of the batch that wait", backlog.waiting),
            "oldest_waiting_seconds": (
                "Since when the oldest of them waits",
                self._age(backlog.oldest_waiting_at),
            ),
            "sending": ("Calls that may be in flight", backlog.sending),
            "ambiguous": ("Calls with an unknown outcome", backlog.ambiguous),
            "oldest_ambiguous_seconds": (
                "Since when the oldest of them is unknown",
                self._age(backlog.oldest_ambiguous_at),
            ),
            "held": ("Calls that a person must decide about", backlog.held),
            "spare": ("Codes of the ledger that are nobody's yet", backlog.spare),
        }

    def _age(self, at: float | None) -> float:
        return 0.0 if at is None else max(self._figures.now - at, 0.0)
