"""Who watches SQLAlchemy in the same process, as Sentry and OpenTelemetry's instrumentation do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event

from rm_voucher.emulator import Emulator
from rm_voucher.ledger import Ledger


@pytest.fixture
def watched() -> Iterator[Counter[str]]:
    """Keep a span in the context of each statement, and end it there, as they do."""
    spans: Counter[str] = Counter()

    def begin(_: Any, __: Any, statement: str, ___: Any, context: Any, ____: bool) -> None:
        context.span = statement
        spans["begun"] += 1

    def end(_: Any, __: Any, statement: str, ___: Any, context: Any, ____: bool) -> None:
        assert context.span == statement
        spans["ended"] += 1

    event.listen(Engine, "before_cursor_execute", begin)
    event.listen(Engine, "after_cursor_execute", end)
    yield spans
    event.remove(Engine, "before_cursor_execute", begin)
    event.remove(Engine, "after_cursor_execute", end)


async def test_who_watches_breaks_nothing(url: str, watched: Counter[str]) -> None:
    """A statement that goes to the driver itself has no context that they could write to."""
    emulator = Emulator(batches={"TEA": 3})
    async with emulator.client() as client, Ledger.open(url) as ledger:
        for number in range(3):
            await ledger.issue(client, "TEA", f"order {number}")
        assert (await ledger.counts()).assigned == 3
    assert watched["begun"] == watched["ended"] > 0
