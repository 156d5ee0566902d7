"""What a ledger can't do it says as a `LedgerError`, or refuses at the door, on every store alike.

Rows that were removed or changed by hand; ids, keys, contents and clients that are none.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from support.ledger_clients import B, Place, client_of, place
from support.ledger_rows import runtime_at

from rm_voucher import IssuedVoucher, OutcomeUnknownError, VoucherBatch, VoucherError
from rm_voucher.database.engine import parse_url
from rm_voucher.emulator import Fault
from rm_voucher.exceptions import ConfigurationError, InvalidRequestError, LedgerError
from rm_voucher.ledger import Ledger

SPOILT = {
    "attempts removed": "DELETE FROM rm_ledger_attempts",
    "requests removed": "DELETE FROM rm_ledger_requests",
    "codes removed": "DELETE FROM rm_ledger_codes",
    "state of an attempt": "UPDATE rm_ledger_attempts SET state = 'odd' WHERE state <> 'confirmed'",
    "state of a request": "UPDATE rm_ledger_requests SET state = 'lost'",
    "claim of a request": "UPDATE rm_ledger_requests SET attempt_id = 'none', state = 'waiting'",
    "origin of a code": "UPDATE rm_ledger_codes SET origin = 'lost'",
}


@pytest.fixture
def there(time) -> Place:
    return place(time)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/l.db"
    return str(request.getfixturevalue("postgres_ledger_url"))


def execute(url: str, statement: str) -> None:
    engine = create_engine(parse_url(url))
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def all_of_it(there: Place, ledger: Ledger) -> list[Callable[[], Awaitable[Any]]]:
    async def listed() -> object:
        return [one async for one in ledger.requests()]

    voucher = IssuedVoucher(code="seen")
    return [
        lambda: ledger.issue(there.client, B, "has one"),
        lambda: ledger.issue(there.client, B, "lost"),
        lambda: ledger.submit(B, "has one"),
        lambda: ledger.submit(B, "waits"),
        lambda: ledger.keep(B, "lost", voucher),
        lambda: ledger.reconcile(there.client, B, wait=True),
        lambda: ledger.finish(there.client, B),
        lambda: ledger.recover(B),
        lambda: ledger.resolve("none", reissue=True),
        ledger.counts,
        ledger.attempts,
        listed,
    ]


@pytest.mark.parametrize("how", SPOILT)
async def test_rows_that_are_missing_or_changed(there, url, time, how) -> None:
    """Every call ends in what it can say, or in a `LedgerError` that says what to do."""
    settings: dict[str, Any] = {"runtime": runtime_at(time), "mode": "exclusive"}
    said: list[str] = []
    async with Ledger.open(url, **settings) as ledger:
        await ledger.issue(there.client, B, "has one")
        await ledger.submit(B, "waits")
        there.emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
        with pytest.raises(OutcomeUnknownError):
            await ledger.issue(there.client, B, "lost")
        execute(url, SPOILT[how])
        for call in all_of_it(there, ledger):
            try:
                await call()
            except VoucherError as exc:  # anything else fails the test
                said.append(str(exc))
    with contextlib.suppress(LedgerError):
        async with Ledger.open(url, **settings):
            pass
    assert not any(code in text for code in there.issued for text in said)
    if "state" in how or "claim" in how or "origin" in how:
        assert any("removed or changed by hand" in text for text in said)


async def test_rows_that_vanish_while_a_call_is_made(there, url, time) -> None:
    """Its code is in the error, and nothing more is issued."""
    settings: dict[str, Any] = {"runtime": runtime_at(time), "mode": "exclusive"}
    gate, client = there.gate()
    async with Ledger.open(url, **settings) as ledger:
        await ledger.prepare(client, B)
        task = asyncio.create_task(ledger.issue(client, B, "r"))
        await gate.arrived.wait()
        execute(url, "DELETE FROM rm_ledger_attempts")
        gate.opened.set()
        with pytest.raises(OutcomeUnknownError) as caught:
            await task
        assert caught.value.code == there.issued[0]
        assert "removed or changed by hand" in str(caught.value.__cause__)
        with pytest.raises(LedgerError, match="Nothing is issued from this batch"):
            await ledger.issue(client, B, "r2")
    assert ledger.unkept == {"r": caught.value.voucher}


@pytest.mark.parametrize("store", ["memory", "sqlite", "postgresql"])
@pytest.mark.parametrize(
    ("name", "is_good"),
    [
        ("x" * 1000, True),
        ("é" * 1000, True),
        ("猫" * 833, True),
        ("猫" * 1000, False),
        ("😺" * 1000, False),
        ("x" * 1001, False),
    ],
    ids=["ascii", "two bytes", "three bytes", "too many bytes", "four bytes", "too long"],
)
async def test_ids_have_the_same_limits_on_every_store(
    there, store, name, is_good, tmp_path, request, time
) -> None:
    """A database's index must take them."""
    settings: dict[str, Any] = {"runtime": runtime_at(time), "mode": "exclusive"}
    if store == "memory":
        ledger = Ledger.in_memory(**settings)
    elif store == "sqlite":
        ledger = Ledger.open(f"sqlite:///{tmp_path}/l.db", **settings)
    else:
        ledger = Ledger.open(request.getfixturevalue("postgres_ledger_url"), **settings)
    async with ledger:
        if is_good:
            assert (await ledger.issue(there.client, B, name)).code
        else:
            with pytest.raises(InvalidRequestError):
                await ledger.issue(there.client, B, name)


KEYS = [VoucherBatch(key=B), {"key": B}, None, "", 7, b"B", "B\n", "猫" * 1000]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: type(key).__name__)
async def test_what_is_no_key_is_refused(there, key) -> None:
    """At every door, before anything is kept or sent."""
    client: Any = there.client
    async with there.ledger() as ledger:
        for call in (
            lambda: ledger.issue(client, key, "r"),
            lambda: ledger.submit(key, "r"),
            lambda: ledger.keep(key, "r", IssuedVoucher(code="c")),
            lambda: ledger.prepare(client, key),
            lambda: ledger.finish(client, key),
            lambda: ledger.reconcile(client, key),
            lambda: ledger.baseline(client, key),
        ):
            with pytest.raises(InvalidRequestError):
                await call()
        assert await ledger.batches() == []
    assert there.emulator.requests.total() == 0


async def test_what_is_no_content_client_or_voucher_is_refused(there) -> None:
    """Empty ones too, which would pass for none."""
    client: Any = there.client
    wrong: Any
    async with there.ledger() as ledger:
        for wrong in ({}, [], None, b"", 0, {"lines": 2}):
            for call in (
                lambda wrong=wrong: ledger.issue(client, B, "r", content=wrong),
                lambda wrong=wrong: ledger.submit(B, "r", content=wrong),
            ):
                with pytest.raises(InvalidRequestError, match="content is text"):
                    await call()
        for wrong in (None, "client", client.caller):
            for call in (
                lambda wrong=wrong: ledger.issue(wrong, B, "r"),
                lambda wrong=wrong: ledger.prepare(wrong, B),
                lambda wrong=wrong: ledger.baseline(wrong, B),
                lambda wrong=wrong: ledger.finish(wrong, B),
                lambda wrong=wrong: ledger.reconcile(wrong, B),
            ):
                with pytest.raises(ConfigurationError, match="must be of type VoucherClient"):
                    await call()
        for wrong in ("CODE", None, {"code": "CODE"}):
            with pytest.raises(InvalidRequestError):
                await ledger.keep(B, "r", wrong)
        for wrong in (None, 7, "", "a\0"):
            with pytest.raises(InvalidRequestError):
                await ledger.keep(B, wrong, IssuedVoucher(code="c"))
    assert there.emulator.requests.total() == 0


async def test_text_of_halves_of_surrogate_pairs_is_a_content(there) -> None:
    """Only its digest is kept."""
    async with there.ledger() as ledger:
        assert await ledger.issue(there.client, B, "r", content="\ud800")


async def test_another_client_may_ask_for_the_same(there) -> None:
    """A client is no part of a request."""
    async with there.ledger() as ledger:
        voucher = await ledger.issue(there.client, B, "r")
        assert await ledger.issue(client_of(there.emulator, there.time), B, "r") == voucher
