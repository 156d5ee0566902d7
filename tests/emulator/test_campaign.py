"""A campaign under faults: what was issued is what was handed out and what is known to be lost."""

import os

import pytest
from support.fault_stage import ME, WAYS

from rm_voucher import (
    BulkStatus,
    FlowPolicy,
    Limits,
    RateLimitError,
    RetryPolicy,
    VoucherClient,
    bulk_issue,
)
from rm_voucher.emulator import Emulator, Fault, FaultPlan
from rm_voucher.emulator.server import serve

# CAMPAIGN_ISSUES=10000 is more than a run of all tests has time for.
ISSUES = int(os.environ.get("CAMPAIGN_ISSUES", "1000"))
CONCURRENCY = 256
KINDS = set(FaultPlan().kinds)


async def issue_to_all(client):
    """Issue to everybody, again to those who definitely got nothing; return what became of it."""
    codes, unresolved, to_do = {}, set(), set(range(ISSUES))
    while to_do:
        before = len(to_do)
        async with bulk_issue(client, "B", sorted(to_do), concurrency=CONCURRENCY) as run:
            async for result in run:
                match result.status:
                    case BulkStatus.ISSUED:
                        assert result.voucher is not None
                        assert result.recipient not in codes
                        codes[result.recipient] = result.voucher.code
                    case BulkStatus.UNRESOLVED:
                        unresolved.add(result.recipient)
                    case BulkStatus.FAILED:
                        assert isinstance(result.error, RateLimitError)  # in every attempt
                        continue
                to_do.remove(result.recipient)
        assert len(to_do) < before
    return codes, unresolved


@pytest.mark.parametrize("way", WAYS)
async def test_campaign(way):
    """While a fifth of all requests fails, in every way, each voucher that was issued was handed
    out to one recipient or is known to be undelivered, and none is both."""
    emulator = Emulator(seed=1, credentials=ME, batches={"B": ISSUES * 2})
    emulator.faults = FaultPlan(rate=0.2, seed=7, late_s=0.3, slow_body_s=0.05, retry_after_s=0)
    retry = RetryPolicy(max_attempts=9, initial_wait_s=0.01)
    flow = FlowPolicy(
        adaptive=False
    )  # the throttles among the faults have nothing to do with a rate
    if way == "memory":
        async with emulator.client(retry=retry, flow=flow) as client:
            codes, unresolved = await issue_to_all(client)
    else:
        limits = Limits(max_connections=CONCURRENCY)
        async with serve(emulator) as server:
            place = server.environment
            async with VoucherClient(
                ME, environment=place, limits=limits, retry=retry, flow=flow
            ) as client:
                codes, unresolved = await issue_to_all(client)

    emulator.advance(1)  # late work that is still due
    handed_out, undelivered = list(codes.values()), emulator.undelivered
    assert len(set(handed_out)) == len(handed_out)
    assert len(set(undelivered)) == len(undelivered)
    assert set(handed_out).isdisjoint(undelivered)
    assert sorted(emulator.state.issued("B")) == sorted([*handed_out, *undelivered])
    # Everybody has a voucher or is in doubt, and for each lost one somebody is.
    assert codes.keys().isdisjoint(unresolved)
    assert len(codes) + len(unresolved) == ISSUES
    assert len(unresolved) >= len(undelivered)
    # It was a campaign: of every kind there was some, and of everything a good deal.
    met = {fault for operation, fault in emulator.faults_met if operation == "issue"}
    assert met == KINDS - {Fault.LISTING_DELAY}
    assert len(codes) > ISSUES * 0.7
    assert len(undelivered) > ISSUES * 0.05
