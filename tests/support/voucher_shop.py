"""A voucher server in memory whose issues a test may play faults on, and runs through a ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
from support.doubles import FakeTime, NoSigner
from support.ledger_rows import runtime_at

from rm_voucher import (
    BulkResult,
    BulkStatus,
    BulkSummary,
    Credentials,
    Request,
    Response,
    ResponseLostError,
    VoucherClient,
    bulk_issue,
)
from rm_voucher.bulk.run import BulkIssue
from rm_voucher.emulator import Check, Emulator
from rm_voucher.ledger import Ledger
from rm_voucher.transport.memory import MemoryTransport

SETTLE_S = 300.0
Issue = Callable[[], Response]


class Shop:
    """``on_issue`` and ``on_listing`` answer those; they are given what does the work."""

    def __init__(self, credentials: Credentials, time: FakeTime, quantity: int = 1000) -> None:
        self.time = time
        self.emulator = Emulator(
            seed=1,
            credentials=credentials,
            callback_key=credentials.private_key_pem(),
            batches={"B": quantity, "C": 1000},
            disabled_checks=[Check.SIGNATURE],
            clock=time.clock,
        )
        self.on_issue: Callable[[Issue], Any] = lambda issue: issue()
        self.on_listing: Callable[[Issue], Any] = lambda read: read()
        self.posts = 0

    @property
    def issued(self) -> Sequence[str]:
        return self.emulator.issued("B")

    @property
    def settings(self) -> dict[str, Any]:
        """What a ledger of this world is made with."""
        return {"runtime": runtime_at(self.time), "settle_s": SETTLE_S}

    def client(self, **options: Any) -> VoucherClient:
        return self.emulator.client(
            transport=MemoryTransport(self._answer),
            signer=NoSigner(),
            runtime=self.time.runtime,
            **options,
        )

    def top_up(self, quantity: int) -> None:
        self.emulator.state.stock.batch("B").quantity += quantity

    def _answer(self, request: Request) -> Any:
        if request.operation == "vouchers":
            return self.on_listing(lambda: self.emulator.handle(request))
        if request.operation != "issue":
            return self.emulator.handle(request)
        self.posts += 1
        return self.on_issue(lambda: self.emulator.handle(request))


def lost(issue: Issue) -> Response:
    """Do the work, and lose the answer."""
    issue()
    raise ResponseLostError("issue: lost")


def lost_before(issue: Issue) -> Response:
    """Lose the request, which looks the same."""
    raise ResponseLostError("issue: lost")


def in_turn(*plays: Callable[[Issue], Any] | None) -> Callable[[Issue], Any]:
    """Play one after the other, None for no fault; then none."""
    rest = list(plays)

    def play(issue: Issue) -> Any:
        fault = rest.pop(0) if rest else None
        return issue() if fault is None else fault(issue)

    return play


@attrs.frozen
class Ran:
    """What came of a run: results by recipient, each once, and the summary."""

    results: list[BulkResult[Any]]
    summary: BulkSummary

    @property
    def codes(self) -> dict[Any, str]:
        return {r.recipient: r.voucher.code for r in self.results if r.voucher is not None}

    @property
    def statuses(self) -> list[tuple[Any, BulkStatus]]:
        return sorted((str(r.recipient), r.status) for r in self.results)


def summed_up(run: BulkIssue[Any], results: list[BulkResult[Any]]) -> Ran:
    """Hold that the summary says what the results say."""
    summary = run.summary
    counts = [sum(r.status is status for r in results) for status in BulkStatus]
    assert counts == [summary.issued, summary.failed, summary.unresolved]
    assert (summary.asked, summary.in_flight, summary.held) == (len(results), 0, 0)
    return Ran(results, summary)


async def issue(
    shop: Shop, ledger: Ledger, recipients: Iterable[Any], batch: str = "B", **options: Any
) -> Ran:
    """Run to the end."""
    async with shop.client() as client:
        run = bulk_issue(client, batch, [*recipients], ledger=ledger, **options)
        async with run:
            results = [result async for result in run]
    assert run.undelivered == []
    return summed_up(run, results)


async def assert_sound(shop: Shop, ledger: Ledger, codes: dict[Any, str]) -> None:
    """Hold that each has a code of the server's, its own, and that none is unaccounted for."""
    counts = await ledger.counts("B")
    assert len(set(codes.values())) == len(codes)
    assert set(codes.values()) <= set(shop.issued)
    assert len(shop.issued) == counts.assigned + counts.spare
