"""What a worker tells of itself, in numbers, and in the text form of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rm_voucher.exceptions import LedgerError
from rm_voucher.ledger import AttemptState, Counts
from rm_voucher.runtime import Runtime
from rm_voucher.worker.broker import Broker
from rm_voucher.worker.dispositions import Kind
from rm_voucher.worker.worker import Worker

_LEDGER_S = 15.0


@attrs.frozen(kw_only=True)
class LedgerFigures:
    """How the batch stands in the ledger, which all workers share; ages in seconds."""

    counts: Counts
    oldest_waiting_s: float
    oldest_ambiguous_s: float


@attrs.frozen(kw_only=True)
class Figures:
    """How a worker stands. What could not be asked is None."""

    backlog: int | None
    in_flight: int
    processed: Mapping[Kind, int]
    unkept: int
    rate_per_s: float | None
    throttled: int
    waiting_for_turn: int
    outage_s: float
    ledger: LedgerFigures | None


class Meter:
    """Reads the figures of a worker. The ledger is asked every 15 s at most: counting is work."""

    def __init__(self, worker: Worker, broker: Broker, *, runtime: Runtime | None = None) -> None:
        self._worker = worker
        self._broker = broker
        self._runtime = runtime or Runtime()
        self._ledger: LedgerFigures | None = None
        self._asked_at = float("-inf")

    async def read(self) -> Figures:
        """Return the figures. Raises nothing: what is away has none."""
        worker, flow = self._worker, self._worker.client.flow
        return Figures(
            backlog=await self._backlog(),
            in_flight=worker.in_flight,
            processed={kind: worker.processed[kind] for kind in Kind},
            unkept=len(worker.ledger.unkept),
            rate_per_s=flow.rate_per_s,
            throttled=flow.throttled,
            waiting_for_turn=flow.waiting,
            outage_s=flow.outage_s or 0.0,
            ledger=await self._read_ledger(),
        )

    async def text(self) -> bytes:
        """Return the figures in the text form of Prometheus."""
        registry = CollectorRegistry()
        registry.register(_Families(await self.read()))
        return generate_latest(registry)

    async def _backlog(self) -> int | None:
        try:
            return await self._broker.backlog()
        except Exception:  # noqa: BLE001 - of the broker's libraries, which name no base
            return None

    async def _read_ledger(self) -> LedgerFigures | None:
        now = self._runtime.monotonic()
        if now - self._asked_at < _LEDGER_S:
            return self._ledger
        self._asked_at = now
        try:
            self._ledger = await self._ask_ledger()
        except LedgerError:
            self._ledger = None
        return self._ledger

    async def _ask_ledger(self) -> LedgerFigures:
        ledger, batch_key = self._worker.ledger, self._worker.batch_key
        ambiguous = await ledger.attempts(batch_key, (AttemptState.AMBIGUOUS,))
        waiting = await ledger.store.read(lambda unit: unit.find_unserved(batch_key, 1))
        now = self._runtime.clock()
        return LedgerFigures(
            counts=await ledger.counts(batch_key),
            oldest_waiting_s=max((now - row.asked_at for row in waiting), default=0.0),
            oldest_ambiguous_s=max((now - row.sent_at for row in ambiguous), default=0.0),
        )


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
            "rm_worker_throttled", "Attempts that RM throttled", value=figures.throttled
        )
        gauges: dict[str, tuple[str, float | None]] = {
            "backlog": ("Requests at the broker that nobody has taken", figures.backlog),
            "in_flight": ("Messages that this process works on", figures.in_flight),
            "unkept_codes": ("Codes in the memory of this process alone", figures.unkept),
            "rate_per_second": ("Requests a second that RM takes, once known", figures.rate_per_s),
            "waiting_for_turn": ("Calls that wait for their turn", figures.waiting_for_turn),
            "outage_seconds": ("For how long RM has been failing", figures.outage_s),
        }
        if (ledger := figures.ledger) is not None:
            counts = ledger.counts
            gauges |= {
                "oldest_waiting_seconds": ("Oldest request without code", ledger.oldest_waiting_s),
                "oldest_ambiguous_seconds": (
                    "Oldest call with an unknown outcome",
                    ledger.oldest_ambiguous_s,
                ),
                "waiting": ("Requests of the batch that wait", counts.waiting),
                "ambiguous": ("Requests whose call is open or unknown", counts.ambiguous),
                "held": ("Requests that a person must decide", counts.unresolved),
                "assigned": ("Requests that have their code", counts.assigned),
                "spare": ("Codes of the ledger that are nobody's yet", counts.spare),
            }
        for name, (meaning, value) in gauges.items():
            if value is not None:
                yield GaugeMetricFamily(f"rm_worker_{name}", meaning, value=value)
