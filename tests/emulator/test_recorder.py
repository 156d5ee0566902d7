"""Requests in a file, a line each: whole, masked, and never at the cost of the emulator."""

import os
import stat

import orjson
import pytest
from support.files import KEY_FILE

from rm_voucher import ConfigurationError, Credentials, VoucherError
from rm_voucher.emulator import Emulator, Fault, recorder
from rm_voucher.emulator.recorder import recording

ME = Credentials("client-id", "client-secret", KEY_FILE.read_bytes())


@pytest.fixture
def emulator():
    return Emulator(credentials=ME, batches={"K": 100_000})


@pytest.fixture
def said():
    return []


async def test_lines(tmp_path, emulator, said):
    """Each request is a line that holds no code and no secret; a second run appends."""
    path = tmp_path / "requests.jsonl"
    codes = []
    for _ in range(2):
        with recording(path, emulator, said.append):
            async with emulator.client() as client:
                codes.append((await client.issue("K")).code)
                emulator.fail_next("void", Fault.DROP_AFTER_COMMIT)
                with pytest.raises(VoucherError):
                    await client.void(codes[-1], store_id="S1")
    text = path.read_text()
    lines = [orjson.loads(line) for line in text.splitlines()]
    assert [one["operation"] for one in lines[:3]] == ["token", "issue", "void"]
    assert [one["number"] for one in lines] == list(range(1, len(lines) + 1))
    assert lines[2]["body"]["storeId"] == "S1"
    assert lines[2]["fault"] == "drop-after-commit"
    assert lines[1]["status"] == 200
    token = list(emulator.journal)[1].request.headers["Authorization"].removeprefix("Bearer ")
    for secret in (*codes, token, emulator.client_secret):
        assert secret not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert said == []
    assert emulator.journal.observers == []


def test_file_that_can_not_be_opened(tmp_path, emulator, said):
    with (
        pytest.raises(ConfigurationError, match="can't be written"),
        recording(tmp_path, emulator, said.append),
    ):
        pass


async def test_full_disk(tmp_path, emulator, said, monkeypatch):
    """Half a line is taken back, it is said once, and the emulator goes on."""
    path = tmp_path / "requests.jsonl"
    path.write_text("{}\n")
    monkeypatch.setattr(recorder, "_EVERY_S", 0.001)
    monkeypatch.setattr(
        "rm_voucher.emulator.recorder.os.write", lambda file, lines: os.pwrite(file, lines[:9], 3)
    )
    with recording(path, emulator, said.append):
        async with emulator.client() as client:
            await client.issue("K")
            while not said:
                await client.issue("K")
            await client.issue("K")
    (words,) = said
    assert "can't be written any more" in words
    assert path.read_text() == "{}\n"


async def test_more_than_can_be_written(tmp_path, emulator, said, monkeypatch):
    """What waits is bounded; that some were left out is said once."""
    monkeypatch.setattr(recorder, "_MOST_WAITING", 2)
    monkeypatch.setattr(recorder, "_EVERY_S", 1_000)
    path = tmp_path / "requests.jsonl"
    with recording(path, emulator, said.append):
        async with emulator.client() as client:
            for _ in range(5):
                await client.issue("K")
    assert len(path.read_text().splitlines()) == 2
    (words,) = said
    assert "some are left out" in words
