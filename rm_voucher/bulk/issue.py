"""Bulk issue: one voucher for each of many recipients, with bounded concurrency."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from rm_voucher.arguments import check_callable, check_type
from rm_voucher.bulk.results import BulkSummary
from rm_voucher.bulk.run import BulkIssue
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.service.client import VoucherClient
from rm_voucher.wire.requests import segment

if TYPE_CHECKING:
    from rm_voucher.ledger.ledger import Ledger

R = TypeVar("R")


def bulk_issue(
    client: VoucherClient,
    batch_key: str,
    recipients: Iterable[R] | AsyncIterable[R],
    *,
    concurrency: int = 64,
    ledger: Ledger | None = None,
    request_id: Callable[[R], str] | None = None,
    on_progress: Callable[[BulkSummary], None] | None = None,
    signers: int | None = None,
) -> BulkIssue[R]:
    """Issue one voucher of a batch to each recipient (RM's page "Issue Voucher").

    Use it as ``async with bulk_issue(…) as run: async for result in run: …``. Results come in the
    order in which the calls end; each recipient has exactly one. A recipient is anything. The
    iterable is read as slots become free, so it may be endless or slow. ``on_progress`` is called
    with the summary after each result.

    A recipient ends ISSUED, FAILED (definitely no voucher) or UNRESOLVED (a voucher may exist; do
    not ask again). When the server refuses all, as for a batch that is sold out, the other
    recipients end FAILED with that error, without a request each.

    With a ``ledger`` the run may be repeated, with the same recipients, after whatever ended it: a
    recipient that has a voucher is ISSUED with that one, and only missing vouchers are issued. A
    recipient whose outcome is unknown waits for the end of the run, when the ledger settles it if
    it can; that takes at least the ledger's ``settle_s``. ``request_id`` gives a recipient's id in
    the ledger; text and numbers are their own. See `rm_voucher.ledger.Ledger`.

    ``signers``: how many processes may sign at most; None for as many as pay on this machine, 0
    for none. They start only once a run has signed for a tenth of a second within one second, and
    never for a signer of your own. The client's `FlowPolicy` says how fast the run sends; single
    calls of the same client pass before it.

    Leaving the block early, also by an exception or a cancellation, takes no further recipient,
    waits for the calls in flight, gives up those that wait to be sent again, and keeps their
    results in ``run.undelivered``. Without a ledger the run is not repeatable: run again with the
    recipients that FAILED.

    Raises `ConfigurationError` for settings that can't be used, `InvalidRequestError` for a key
    that can't, and what ``recipients`` or
    ``on_progress`` raise; with a ledger also what makes a batch unfit for it, see `Ledger.issue`.
    """
    check_type("client", client, VoucherClient)
    segment("batch_key", batch_key)
    if not isinstance(recipients, Iterable | AsyncIterable):
        raise ConfigurationError("recipients must be a list or the like.")
    if isinstance(recipients, str | bytes | bytearray):
        # The name of a file, say: each of its letters would be given a voucher.
        raise ConfigurationError("recipients must be a list or the like, not one text.")
    for name, function in (("request_id", request_id), ("on_progress", on_progress)):
        if function is not None:
            check_callable(name, function)
    if request_id is not None and ledger is None:
        raise ConfigurationError("request_id is for a ledger: give ledger too.")
    return BulkIssue(
        client,
        batch_key,
        recipients,
        concurrency=concurrency,
        ledger=ledger,
        request_id=request_id,
        on_progress=on_progress,
        signers=signers,
    )
