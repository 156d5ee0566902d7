"""A merchant's books as a person reads them: batches, vouchers with history, members, tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from rm_voucher.emulator.exchange import Journal
from rm_voucher.emulator.masking import masked
from rm_voucher.emulator.merchant import Merchant
from rm_voucher.emulator.records import Batch, Record
from rm_voucher.emulator.stock import RefusedError
from rm_voucher.models import VoucherStatus

_MAX_PAGE = 200
_MAX_LOOKED_AT = 200_000  # vouchers, for one page of a search


def batch_line(batch: Batch, merchant: Merchant) -> dict[str, Any]:
    """Return a batch with its counts. Those of a status are of changes: expiry is not counted."""
    wire = merchant.state.batch_wire(batch)
    counts = batch.counts
    return {
        "key": batch.key,
        "label": batch.label,
        "type": batch.type,
        "amount_sen": batch.amount_sen,
        "discount_rate_bp": batch.discount_rate_bp,
        "minimum_spend_sen": batch.minimum_spend_sen,
        "expiry": wire["expiry"],
        "is_static": batch.static_code is not None,
        "quantity": batch.quantity,
        "balance": batch.quantity - batch.issued,
        "issued": batch.issued,
        "redeemed": counts[VoucherStatus.REDEEMED],
        "void": counts[VoucherStatus.VOID],
    }


def vouchers(
    merchant: Merchant, key: str, *, search: str, status: str, start: int, size: int, reveals: bool
) -> dict[str, Any]:
    """Return a page of a batch's vouchers, the newest first. Raises `RefusedError`.

    ``search`` is a part of the code, in any case. ``start`` is the ``next`` of the page before.
    """
    listed = merchant.state.stock.batch(key).listed
    now, wanted = merchant.virtual_clock.now(), search.casefold()
    found: list[dict[str, Any]] = []
    place, size = start, max(1, min(size, _MAX_PAGE))
    for record in _backwards(listed, start, _MAX_LOOKED_AT):
        place += 1
        is_found = wanted in record.code.casefold() and status in ("", record.status(now))
        if is_found:
            found.append(_line(record, merchant, now, place - 1, reveals=reveals))
        if len(found) == size:
            break
    return {"vouchers": found, "next": place if place < len(listed) else None}


def _backwards(listed: list[Record], start: int, most: int) -> Iterator[Record]:
    return islice(reversed(listed), start, start + most)


def _line(
    record: Record, merchant: Merchant, now: float, place: int, *, reveals: bool
) -> dict[str, Any]:
    return {
        # Masked codes are not told apart by their text: a place in the batch says which one it is.
        "place": len(record.batch.listed) - 1 - place,
        "code": record.code if reveals else masked(record.code),
        "status": record.status(now),
        "changed_at": record.updated_at,
        "member": None if record.member is None else record.member.name or "(a member)",
    }


def find(merchant: Merchant, key: str, place: int) -> Record:
    """Return a voucher of a batch by its place. Raises `RefusedError`."""
    listed = merchant.state.stock.batch(key).listed
    if not 0 <= place < len(listed):
        raise RefusedError("VOUCHER_NOT_FOUND")
    return listed[place]


def voucher(
    merchant: Merchant, key: str, place: int, journal: Journal, *, reveals: bool
) -> dict[str, Any]:
    """Return a voucher of a batch, by its place, with its history. Raises `RefusedError`."""
    record = find(merchant, key, place)
    wire = merchant.state.wire(record)
    return {
        "place": place,
        "batch": key,
        "code": record.code if reveals else masked(record.code),
        "qr_url": wire["qrUrl"] if reveals else None,
        "status": wire["status"],
        "label": wire["label"],
        "expires_at": record.expires_at,
        "history": list(_history(record, merchant, journal)),
    }


def _history(record: Record, merchant: Merchant, journal: Journal) -> Iterator[dict[str, Any]]:
    steps = iter(record.history)
    for at, status, number in zip(steps, steps, steps, strict=True):
        exchange = journal.find(int(number)) if number else None
        yield {
            "at": at,
            "status": status,
            "request": number or None,
            "operation": None if exchange is None else exchange.operation,
        }
    if record.expires_at is not None and record.status(merchant.virtual_clock.now()) is (
        VoucherStatus.EXPIRED
    ):
        yield {
            "at": record.expires_at,
            "status": VoucherStatus.EXPIRED,
            "request": None,
            "operation": None,
        }


def members(merchant: Merchant, *, reveals: bool) -> list[dict[str, Any]]:
    """Return the members."""
    return [
        {
            "country_code": member.country_code,
            "phone_number": member.phone_number if reveals else masked(member.phone_number),
            "name": member.name,
            "vouchers": len(member.vouchers),
        }
        for member in _bounded(merchant.state.members())
    ]


def _bounded(members: Iterable[Any]) -> list[Any]:
    return list(islice(members, 1_000))


def summary(merchant: Merchant, *, reveals: bool) -> dict[str, Any]:
    """Return what there is of a merchant beside vouchers, requests and callbacks."""
    callbacks = merchant.callbacks
    return {
        "name": merchant.name,
        "number": merchant.number,
        "client_id": merchant.client_id,
        "batches": [batch_line(batch, merchant) for batch in merchant.state.stock.ours()],
        "members": members(merchant, reveals=reveals),
        "stores": [
            {"id": store_id, "is_authorised": is_authorised}
            for store_id, is_authorised in merchant.state.stores().items()
        ],
        "tokens": merchant.authenticator.tokens(),
        "requests": merchant.requests,
        "undelivered": len(merchant.undelivered),
        "rate_limit": merchant.rate_limit,
        "callbacks": {
            "url": callbacks.url,
            "delivered": callbacks.delivered,
            "given_up": callbacks.given_up,
            "waiting": callbacks.waiting,
        },
    }
