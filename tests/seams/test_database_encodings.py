"""A text is kept to the letter, or refused with an error of ours, whatever the database's encoding.

The encoding of the connection is ours. A database in LATIN1 can't hold every text; one in SQL_ASCII
holds all, and would give bytes back.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy.engine import make_url
from support.event_stores import event
from support.ledger_rows import begin, codes, issue, start
from support.postgres import SERVICE, execute, give_up

from rm_voucher.exceptions import EventStoreError, LedgerError, VoucherError
from rm_voucher.ledger import Ledger
from rm_voucher.webhooks import open_event_store

TEXTS = ["plain", "José", "Größe", "€ 5", "優惠券", "\U0001f375"]
SURROGATE = "\ud83d"


@pytest.fixture(params=["UTF8", "SQL_ASCII", "LATIN1", "EUC_JP"])
def encoding(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(encoding: str) -> Iterator[str]:
    """An empty database in that encoding."""
    name = f"rm_test_{secrets.token_hex(6)}"
    options = f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    try:
        execute(SERVICE, f"CREATE DATABASE {name} {options}")
    except psycopg.Error as exc:
        give_up(SERVICE, exc)
    yield make_url(SERVICE).set(database=name).render_as_string(hide_password=False)
    execute(SERVICE, f"DROP DATABASE {name} WITH (FORCE)")


def can_hold(encoding: str, kept: str) -> bool:
    if encoding in ("UTF8", "SQL_ASCII"):
        return True
    try:
        kept.encode({"LATIN1": "latin-1", "EUC_JP": "euc_jp"}[encoding])
    except UnicodeEncodeError:
        return False
    return True


async def test_ids_and_codes_in_a_ledger(
    url: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can't be held is that one's error; the others are kept to the letter. A variable of the
    environment changes nothing."""
    monkeypatch.setenv("PGCLIENTENCODING", "SQL_ASCII")
    given: dict[str, str] = {}
    async with Ledger.open(f"{url}?client_encoding=latin1") as ledger:
        await begin(ledger)
        for name in TEXTS:
            if can_hold(encoding, name):
                given[name] = await issue(ledger, name, f"C {name}")
            else:
                with pytest.raises(LedgerError):
                    await start(ledger, name)
    async with Ledger.open(url, read_only=True) as ledger:
        assert await codes(ledger) == given
    assert "plain" in given


async def test_events_in_a_store(url: str, encoding: str) -> None:
    """The same for callbacks."""
    async with open_event_store(url) as store:
        for code in TEXTS:
            if can_hold(encoding, code):
                await store.record(event(code))
            else:
                with pytest.raises(EventStoreError):
                    await store.record(event(code))
        await store.expect([code for code in TEXTS if can_hold(encoding, code)])
        assert (await store.counts()).waiting == sum(can_hold(encoding, code) for code in TEXTS)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("name", ["SURROGATE", "NUL"])
async def test_what_no_database_holds(
    kind: str, name: str, tmp_path, request: pytest.FixtureRequest
) -> None:
    """Half of a pair of surrogates is no text in any encoding; a NUL ends one."""
    wrong = {"SURROGATE": SURROGATE, "NUL": "a\0b"}[name]
    at = f"sqlite:///{tmp_path}/"
    if kind == "postgresql":
        pg = request.getfixturevalue("postgres_url")
    async with Ledger.open(f"{at}led.db" if kind == "sqlite" else pg) as ledger:
        await begin(ledger)
        with pytest.raises(VoucherError):
            await start(ledger, wrong)
        with pytest.raises(VoucherError):
            await start(ledger, "a", wrong)
        with pytest.raises(VoucherError):
            await issue(ledger, "b", wrong)
        assert wrong not in await codes(ledger)
    async with open_event_store(f"{at}events.db" if kind == "sqlite" else pg) as store:
        for keep in (store.expect, store.forget):
            if kind == "sqlite" and name == "NUL":  # it keeps all of it
                await keep([wrong])
                continue
            with pytest.raises(EventStoreError):
                await keep([wrong])
        await store.record(event("GOOD"))
