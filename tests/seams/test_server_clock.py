"""The rule: that RM's clock and ours agree is measured, not taken for granted.

Each answer's ``Date`` bounds the difference from both sides; what is told is only what it proves.
"""

from __future__ import annotations

from email.utils import formatdate
from time import tzset

import attrs
import pytest
from support.answers import ISSUED, rm_error

from rm_voucher import APIError, Response, SignatureError
from rm_voucher.emulator import Check, Emulator

NOW = 1_700_000_000


def at(date, answer=ISSUED):
    return attrs.evolve(answer, headers={**answer.headers, "date": date})


def written(unix_s):
    return formatdate(unix_s, usegmt=True)


@pytest.mark.parametrize(
    ("ahead_s", "offset_s"),
    [(0, 0), (0.9, 0), (-0.9, 0), (-1, 0), (1, 1), (30, 30), (-30, -29), (86_400, 86_400)],
)
async def test_offset_is_what_is_proven(make_client, time, ahead_s, offset_s):
    time.now = float(NOW)
    client = make_client(lambda _: at(written(int(NOW + ahead_s // 1))))
    assert client.clock_offset_s is None
    await client.issue("K")
    assert client.clock_offset_s == offset_s


async def test_offset_allows_for_the_time_of_the_answer(make_client, time):
    """It may have been written when the request was sent, or when its answer came."""

    def slow(request):
        begun_at = time.now
        time.now += 20
        return at(written(begun_at + 10))

    client = make_client(slow)
    await client.issue("K")
    assert client.clock_offset_s == 0


async def test_offset_follows_the_latest_answer(make_client, time):
    time.now = float(NOW)
    answers = [at(written(NOW + 60)), at(written(NOW)), ISSUED, at("nonsense"), at("")]
    client = make_client(lambda _: answers.pop(0))
    offsets = []
    while answers:
        await client.issue("K")
        offsets.append(client.clock_offset_s)
    assert offsets == [60, 0, 0, 0, 0]


@pytest.mark.parametrize("zone", [" GMT", " UTC", " +0000", " -0000", ""])
async def test_date_is_in_utc(make_client, time, monkeypatch, zone):
    """Read in this machine's zone, a date without one was hours off, and stopped a ledger."""
    monkeypatch.setenv("TZ", "Asia/Kuala_Lumpur")
    tzset()
    try:
        time.now = float(NOW)
        client = make_client(lambda _: at(written(NOW).removesuffix(" GMT") + zone))
        await client.issue("K")
        assert client.clock_offset_s == 0
    finally:
        monkeypatch.undo()
        tzset()


async def test_offset_is_known_from_an_error_too(make_client, time):
    """A clock that is minutes off has all requests refused, and that is when it is asked for."""
    time.now = float(NOW)
    client = make_client(lambda _: at(written(NOW + 600), rm_error("INVALID_TIMESTAMP", 401)))
    with pytest.raises(APIError):
        await client.issue("K")
    assert client.clock_offset_s == 600


@pytest.mark.parametrize("ahead_s", [-600, -7, 6, 600])
async def test_difference_is_warned_of_once(make_client, time, caplog, ahead_s):
    time.now = float(NOW)
    dates = [written(NOW + ahead_s + second) for second in range(3)]
    client = make_client(lambda _: at(dates.pop()))
    while dates:
        await client.issue("K")
    assert caplog.text.count("RM's clock and this machine's differ by") == 1


@pytest.mark.parametrize("ahead_s", [-5, 0, 5])
async def test_small_difference_is_not(make_client, time, caplog, ahead_s):
    time.now = float(NOW)
    client = make_client(lambda _: at(written(NOW + ahead_s)))
    await client.issue("K")
    assert caplog.text == ""


async def test_date_of_one_second_is_read_once(make_client, time, monkeypatch):
    read = []

    def parse(text):
        read.append(text)
        return parsedate_to_datetime(text)

    from email.utils import parsedate_to_datetime

    monkeypatch.setattr("email.utils.parsedate_to_datetime", parse)
    client = make_client(lambda _: at(written(NOW)))
    for _ in range(10):
        await client.issue("K")
    assert read == [written(NOW)]


async def test_emulator_tells_its_time(time):
    """By the clock that timestamps are compared with: to advance it is not to set it wrong."""
    emulator = Emulator(batches={"K": 5}, clock=lambda: time.now + 30)
    emulator.advance(1000)
    async with emulator.client(runtime=time.runtime) as client:
        await client.issue("K")
        assert client.clock_offset_s == pytest.approx(30, abs=1)


async def test_emulator_whose_clock_is_not_compared_tells_none(time):
    checks = [Check.TIMESTAMP]
    emulator = Emulator(batches={"K": 5}, clock=lambda: 1e9, disabled_checks=checks)
    async with emulator.client(runtime=time.runtime) as client:
        await client.issue("K")
        assert client.clock_offset_s is None


async def test_answer_without_a_date_tells_nothing(make_client):
    client = make_client(lambda _: Response(status=200, body=ISSUED.body))
    await client.issue("K")
    assert client.clock_offset_s is None


@pytest.mark.parametrize(
    ("off_s", "words"),
    [(-180, "180 s behind RM's"), (180, "179 s ahead of RM's"), (-3600, "3600 s behind RM's")],
)
async def test_clock_minutes_off_is_refused_and_said(time, off_s, words):
    """The window is RM's two minutes, and the error says what the answer's date proves."""
    time.now = float(NOW) + off_s
    emulator = Emulator(batches={"K": 5}, clock=lambda: time.now - off_s)
    async with emulator.client(runtime=time.runtime) as client:
        with pytest.raises(SignatureError) as caught:
            await client.issue("K")
    assert caught.value.code == "INVALID_TIMESTAMP"
    assert f"this machine's clock is {words}" in str(caught.value)
    assert emulator.issued("K") == ()
