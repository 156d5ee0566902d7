"""A worker that ends while its ledger can keep nothing: its codes are in a file, and come back."""

from __future__ import annotations

import stat
from pathlib import Path

import orjson
import pytest
from support.ledger_clients import B, FailingStore, Place, place

from rm_voucher import LedgerError, OutcomeUnknownError
from rm_voucher.cli.unkept import UnkeptCodes
from rm_voucher.ledger.rules.transitions import confirm


@pytest.fixture
def there(time) -> Place:
    return place(time)


async def lose(there: Place, folder: Path) -> None:
    """Let a ledger end with a code in hand, and a worker save it."""
    store = FailingStore(there.tables)
    ledger = there.ledger(store=store)
    async with ledger:
        store.fails = (confirm,)
        with pytest.raises(OutcomeUnknownError):
            await ledger.issue(there.client, B, "r")
    UnkeptCodes(folder, B).save(ledger)


async def test_next_worker_gives_it_to_the_ledger(there, tmp_path, capsys) -> None:
    """The request has its code then, without another call; the file, its owner's alone, is gone."""
    with pytest.raises(LedgerError, match=r"1 code\(s\) arrived that the ledger could not keep"):
        await lose(there, tmp_path)
    (code,) = there.issued
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert orjson.loads(file.read_bytes())["code"] == code
    async with there.ledger() as ledger:
        await UnkeptCodes(tmp_path, B).give_back(ledger)
        voucher = await ledger.issue(there.client, B, "r")
    assert voucher.code == code
    assert there.posts == 1
    assert list(tmp_path.iterdir()) == []
    shown = capsys.readouterr().err
    assert "1 code(s) of" in shown
    assert code not in shown


async def test_codes_of_another_batch_stay(there, tmp_path) -> None:
    with pytest.raises(LedgerError):
        await lose(there, tmp_path)
    async with there.ledger() as ledger:
        await UnkeptCodes(tmp_path, "OTHER").give_back(ledger)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("content", [b"{", b"[]\n", b'{"batch": "B"}\n'])
async def test_file_that_can_not_be_read_stays(there, tmp_path, content) -> None:
    """It may have codes: a person must look at it before anything is issued."""
    file = tmp_path / "rm-voucher-unkept-1-1.jsonl"
    file.write_bytes(content)
    async with there.ledger() as ledger:
        with pytest.raises(LedgerError, match="can't be read"):
            await UnkeptCodes(tmp_path, B).give_back(ledger)
    assert file.exists()


async def test_folder_that_can_not_be_written(there, tmp_path) -> None:
    """It is said what is known of them."""
    with pytest.raises(LedgerError, match="RM's listing has them") as caught:
        await lose(there, tmp_path / "missing")
    assert there.issued[0] not in str(caught.value)


async def test_nothing_to_save(there, tmp_path) -> None:
    async with there.ledger() as ledger:
        await ledger.issue(there.client, B, "r")
    UnkeptCodes(tmp_path, B).save(ledger)
    assert list(tmp_path.iterdir()) == []
