"""RM's lists, chosen by status and expiry, on a screen or in a file; a member's vouchers."""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import openpyxl
import orjson
import pytest

from rm_voucher.cli.listings import BATCH_COLUMNS, VOUCHER_COLUMNS
from rm_voucher.converters import format_time
from rm_voucher.emulator.reply import Reply

NOW = datetime.now(UTC)


@pytest.fixture
def codes(served) -> list[str]:
    """Three vouchers: issued, redeemed and void."""
    served.emulator.add_batch("=Tea", key="B", quantity=5, amount_sen=1250)
    codes = [str(served.emulator.state.issue("B")[0]) for _ in range(3)]
    served.emulator.state.redeem([codes[1]])
    served.emulator.state.void(codes[2])
    return codes


@pytest.fixture
def ends(served) -> Callable[..., None]:
    """Let the vouchers of a listing end so many days from now."""

    def ends(*days: float) -> None:
        reply = served.emulator.reply

        def answer(request: Any) -> Reply:
            answered: Reply = reply(request)
            if not request.url.path.endswith(("/vouchers", "/voucher-batches")):
                return answered
            body = orjson.loads(answered.response.body)
            first = 0 if "cursor" not in request.url.query else 2
            for item, when in zip(body["items"], days[first:], strict=False):
                item["expiry"]["expiredAt"] = format_time(NOW + timedelta(days=when))
            response = attrs.evolve(answered.response, body=orjson.dumps(body), headers={})
            return attrs.evolve(answered, response=response)

        served.emulator.reply = answer

    return ends


@pytest.mark.parametrize(
    ("statuses", "chosen"),
    [(["ISSUED"], [0]), (["issued", "VOID"], [0, 2]), (["EXPIRED"], []), ([], [0, 1, 2])],
)
def test_status(rm, codes: list[str], statuses: list[str], chosen: list[int]) -> None:
    """Only those with a status, whatever the case; it may be given again."""
    options = [word for status in statuses for word in ("--status", status)]
    ended = rm("vouchers", "B", *options)
    assert (ended.code, [row["code"] for row in ended.rows]) == (0, [codes[n] for n in chosen])


@pytest.mark.parametrize(
    ("within", "chosen"), [("14d", [0, 1]), ("2w", [0, 1]), ("36H", [0]), ("1h", [])]
)
def test_expiring(rm, ends, codes: list[str], within: str, chosen: list[int]) -> None:
    """Only those that end within a time, and can still be used: neither void nor over."""
    ends(1, 13.9, 0.5)
    ended = rm("vouchers", "B", "--expiring-in", within)
    assert (ended.code, [row["code"] for row in ended.rows]) == (0, [codes[n] for n in chosen])
    ends(-1, 15, 0.5)
    assert rm("vouchers", "B", "--expiring-in", "14d").rows == []


def test_batches_that_end(rm, served, ends, codes: list[str]) -> None:
    """Batches are chosen in the same way."""
    served.emulator.add_batch("Later", key="L", quantity=1)
    ends(3, 30)
    ended = rm("batches", "--expiring-in", "7d", "--status", "completed")
    assert [row["key"] for row in ended.rows] == ["B"]
    assert ended.rows[0]["expires_at"] == format_time(NOW + timedelta(days=3))


@pytest.mark.parametrize("text", ["14", "d", "14 months", "-1d", "1.5d"])
def test_time_that_is_none(rm, served, text: str) -> None:
    """It is a mistake, with the way to write one: exit 2, and nothing is asked."""
    ended = rm("vouchers", "B", f"--expiring-in={text}")
    assert (ended.code, ended.out) == (2, "")
    assert "write 14d for days, 12h for hours, 2w for weeks." in ended.err
    assert not served.emulator.requests


def test_csv_file(rm, codes: list[str], tmp_path: Path) -> None:
    """It is its owner's alone; a formula is none any more; an older file is kept."""
    path = tmp_path / "list.csv"
    path.write_text("mine\n")
    ended = rm("vouchers", "B", "--output", path, "--excel")
    assert (ended.code, ended.out, ended.err) == (0, "", f"3 listed → {path}\n")
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == [*VOUCHER_COLUMNS]
    assert [row["code"] for row in rows] == codes
    assert {row["label"] for row in rows} == {"'=Tea"}
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "list.csv.1").read_text() == "mine\n"


def test_workbook_and_lines(rm, codes: list[str], tmp_path: Path) -> None:
    """By the ending of its name it is a workbook or lines of JSON; sen are numbers in both."""
    assert rm("vouchers", "B", "--output", tmp_path / "list.xlsx").code == 0
    sheet = openpyxl.load_workbook(tmp_path / "list.xlsx").active
    assert sheet is not None
    lines = list(sheet.iter_rows(values_only=True))
    assert lines[0] == VOUCHER_COLUMNS
    assert [line[:4] for line in lines[1:]] == [
        (code, status, "GIFT", 1250)
        for code, status in zip(codes, ("ISSUED", "REDEEMED", "VOID"), strict=True)
    ]
    assert rm("batches", "--output", tmp_path / "list.jsonl").code == 0
    (batch,) = map(orjson.loads, (tmp_path / "list.jsonl").read_bytes().splitlines())
    assert (tuple(batch), batch["balance_quantity"], batch["is_static"]) == (
        BATCH_COLUMNS,
        2,
        False,
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--excel"], "--excel is about --output"),
        (["--output", "x.csv", "--json"], "let its name end in .jsonl"),
        (["--output", "/"], "/ is a folder: name a file."),
    ],
)
def test_options_that_go_together(rm, served, options: list[str], sentence: str) -> None:
    """It is a mistake: exit 2, and nothing is asked."""
    ended = rm("vouchers", "B", *options)
    assert ended.code == 2
    assert sentence in ended.err
    assert not served.emulator.requests


def test_list_that_breaks_off(rm, served, codes: list[str], tmp_path: Path) -> None:
    """Half of a list is none: no file is left of it."""
    served.emulator.fail_next("vouchers", "NOT_PERMITTED")
    ended = rm("vouchers", "B", "--output", tmp_path / "list.csv")
    assert ended.code == 1
    assert list(tmp_path.iterdir()) == []


def test_file_that_can_not_be_written(rm, codes: list[str], tmp_path: Path) -> None:
    """It is a sentence: exit 1."""
    ended = rm("vouchers", "B", "--output", tmp_path / "missing" / "list.csv")
    assert (ended.code, ended.out) == (1, "")
    assert f"{tmp_path}/missing/list.csv can't be written: No such file or directory." in ended.err


# A member.


@pytest.fixture
def owned(served) -> str:
    """A voucher in the account of a member."""
    served.emulator.add_batch("Tea", key="B", quantity=2)
    code = str(served.emulator.state.issue("B")[0])
    member = served.emulator.add_member("60", "123456789")
    served.emulator.state.collect(code, member)
    return code


def test_member(rm, served, owned: str) -> None:
    """A member's vouchers are listed, looked up and redeemed by the telephone number."""
    listed = rm("member", "vouchers", "60", "123456789")
    assert (listed.code, [row["code"] for row in listed.rows]) == (0, [owned])
    assert f"code: {owned}\n" in rm("member", "get", "60", "123456789", owned).out
    redeemed = rm("member", "redeem", "60", "123456789", owned, "--json")
    assert (redeemed.code, redeemed.json[0]["status"]) == (0, "VOID")


def test_member_that_is_none(rm, served) -> None:
    """A number that is none is a mistake, and one that nobody has a refusal."""
    ended = rm("member", "vouchers", "+60", "12-345")
    assert (ended.code, "digits" in ended.err) == (2, True)
    assert not served.emulator.requests
    assert rm("member", "vouchers", "60", "999").code == 1


def test_member_without_a_command(rm) -> None:
    """The group shows its commands."""
    assert "Redeem a voucher of a member's" in rm("member", "--help").out


def test_no_header_without_a_list(rm, served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused credentials leave standard output empty: no list was read."""
    monkeypatch.setenv("RM_CLIENT_SECRET", "nope")
    ended = rm("batches")
    assert (ended.code, ended.out) == (3, "")


def test_a_file_has_a_name(rm, served) -> None:
    """Standard output is no file of that name."""
    ended = rm("batches", "--output", "-")
    assert ended.code == 2
    assert "'-' is no name for a file" in ended.err
