"""The rule: where the tables are made, a role that may create nothing is enough.

Who answers for a database lets an application read and write rows, and nothing else.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from sqlalchemy.engine import make_url
from support.event_stores import event
from support.postgres import execute

from rm_voucher.emulator import Emulator
from rm_voucher.exceptions import LedgerError
from rm_voucher.ledger import Ledger
from rm_voucher.shared import open_shared_store
from rm_voucher.webhooks import open_event_store
from rm_voucher.webhooks.records import Disposition
from rm_voucher.worker import Outbox

# As docs/deployment.md has them.
GRANTS = (
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
)


@pytest.fixture
def role_url(postgres_url: str) -> Iterator[str]:
    """The URL of the database for a role that has no right in it."""
    role, password = f"rm_test_{secrets.token_hex(6)}", secrets.token_hex(12)
    execute(postgres_url, f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
    at = make_url(postgres_url).set(username=role, password=password)
    yield at.render_as_string(hide_password=False)
    execute(postgres_url, f"DROP OWNED BY {role}")
    execute(postgres_url, f"DROP ROLE {role}")


async def test_role_that_may_only_write_rows(postgres_url: str, role_url: str) -> None:
    """It has a ledger, callbacks, an outbox and what processes share; before, it is told."""
    with pytest.raises(LedgerError, match=r"permission denied for schema public\.$"):
        await Ledger.open(role_url).__aenter__()
    async with (
        Ledger.open(postgres_url),
        open_event_store(postgres_url),
        Outbox(postgres_url),
        open_shared_store(postgres_url) as shared,
    ):
        await shared.load("tables are made at the first use")
    with pytest.raises(LedgerError, match="permission denied for table"):
        await Ledger.open(role_url).__aenter__()
    role = make_url(role_url).username
    for grant in GRANTS:
        execute(postgres_url, grant.format(role=role))
    emulator = Emulator(batches={"TEA": 5})
    async with (
        open_shared_store(role_url) as shared,
        emulator.client(shared=shared) as client,
        Ledger.open(role_url) as ledger,
        Outbox(role_url) as outbox,
        open_event_store(role_url) as events,
    ):
        await ledger.issue(client, "TEA", "order 1")
        assert (await ledger.counts()).assigned == 1
        assert client.flow.store_away_s is None
        await events.record(event("CODE"))
        async with events.transaction(event("CODE")) as (seen, _):
            assert seen is Disposition.READY
        async with outbox.once("order 1", b"a message"):
            pass
        assert await outbox.relay(publish) == 1


async def publish(message: bytes) -> None:
    """Be a broker that takes all."""
