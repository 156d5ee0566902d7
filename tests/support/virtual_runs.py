"""Bulk runs in virtual time: everything that waits is the real thing, and no test waits."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from simulation.clock import VirtualClock
from simulation.loop import VirtualLoop

from rm_voucher import (
    BulkResult,
    FlowPolicy,
    Request,
    Response,
    Runtime,
    Transport,
    VoucherClient,
    VoucherError,
    bulk_issue,
)
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.memory import MemoryLedgerStore

PATIENT = FlowPolicy(max_outage_wait_s=3600)  # as the command is


class Surroundings(Transport):
    """A network in virtual time: what happens to a request, and after how many seconds."""

    def __init__(self, clock, meet):
        self.clock = clock
        self.meet = meet
        self.begun_at = clock.now
        self.requests = []

    @property
    def seconds(self):
        return self.clock.now - self.begun_at

    async def send(self, request: Request) -> Response:
        self.requests.append(request)
        wait_s, answer = self.meet(self, request)
        assert isinstance(answer, Response | VoucherError)
        await asyncio.sleep(wait_s)
        if isinstance(answer, VoucherError):
            raise answer
        return answer


def run(credentials, signer, meet, people, *, has_ledger=False, **options):
    """Run a bulk issue; return its results or what it raised, the seconds, and the network."""
    clock = VirtualClock()
    network = Surroundings(clock, meet)
    chance = random.Random(1).random
    runtime = Runtime(
        clock=clock.wall, monotonic=clock.monotonic, sleep=asyncio.sleep, random=chance
    )
    results: list[BulkResult[Any]] = []

    async def issue_all(client, ledger):
        async with bulk_issue(client, "K", people, ledger=ledger, signers=0) as running:
            async for result in running:
                results.append(result)

    async def main():
        settings = {"flow": PATIENT, **options}
        async with VoucherClient(
            credentials, transport=network, signer=signer, runtime=runtime, **settings
        ) as client:
            if not has_ledger:
                return await issue_all(client, None)
            store = MemoryLedgerStore()
            async with Ledger(store, mode="exclusive", runtime=runtime) as ledger:
                return await issue_all(client, ledger)

    raised = None
    try:
        VirtualLoop(clock).run(main)
    except VoucherError as exc:
        raised = exc
    return results, raised, network
