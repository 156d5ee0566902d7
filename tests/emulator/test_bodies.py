"""Bodies: every one that is not as documented draws RM's error and changes nothing."""

from datetime import UTC, datetime

import pytest
from support.raw_requests import (
    BAD_PARAMETER,
    BAD_REQUEST,
    GOOD,
    INCOMPLETE,
    ROUTES,
    request_to,
    send,
    signed,
    stocked,
)

from rm_voucher import InvalidRequestError
from rm_voucher.emulator.routes import OPERATIONS


@pytest.fixture
def emulator():
    return stocked()


@pytest.mark.parametrize("operation", sorted(set(OPERATIONS) - {"token"}))
@pytest.mark.parametrize(
    "body", [b"[]", b'"x"', b"5", b"true", b'["codes"]', b"[" * 200 + b"]" * 200]
)
def test_body_is_an_object(emulator, operation, body):
    """JSON that is no object is no body of any path, and changes nothing."""
    methods, target, _ = ROUTES[operation]
    before = emulator.batch("K")
    assert signed(emulator, sorted(methods)[0], target, body) == BAD_REQUEST
    assert emulator.batch("K") == before


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"x",
        b" ",
        b"{'a':1}",
        b'{"a":1,}',
        b"{}{}",
        b"NaN",
        b'{"a":1e999}',
        b'{"a":' + b"1" * 5000 + b"}",
        b"\xef\xbb\xbf{}",
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\x00"}',
        b"[" * 100_000,
        b"[" * 500 + b"]" * 500,
    ],
)
def test_body_is_json(emulator, body):
    """What is no JSON, or can't be written again, is refused before its signature is looked at."""
    target = "/v3/voucher-batch/K/issue"
    assert signed(emulator, "POST", target, body) == BAD_REQUEST
    assert send(emulator, request_to("POST", "/v1/token", body)) == BAD_REQUEST
    assert len(emulator.state.issued("K")) == 3


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b'{"unknown":[1]}'])
@pytest.mark.parametrize("operation", ["issue", "get", "void", "member redeem"])
def test_bodies_that_say_nothing(emulator, operation, body):
    """No body is as good as an empty one, and unknown fields are ignored."""
    methods, target, _ = ROUTES[operation]
    assert signed(emulator, sorted(methods)[-1], target, body) == GOOD


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"storeId":null,"usedAt":null}', GOOD),
        ('{"storeId":"1"}', GOOD),
        ('{"usedAt":"2026-01-01T12:00:00+08:00"}', GOOD),
        ('{"usedAt":"x"}', BAD_PARAMETER),
        ('{"usedAt":""}', BAD_PARAMETER),
        ('{"usedAt":5}', BAD_PARAMETER),
        ('{"usedAt":"2026-01-01"}', BAD_PARAMETER),
        ('{"usedAt":"2026-01-01T12:00:00"}', BAD_PARAMETER),
        ('{"usedAt":"2026-02-30T12:00:00Z"}', BAD_PARAMETER),
        ('{"storeId":1}', BAD_PARAMETER),
        ('{"storeId":["1"]}', BAD_PARAMETER),
        ('{"storeId":true}', BAD_PARAMETER),
    ],
)
def test_void_bodies(emulator, body, expected):
    """A void's store is text and its time RFC 3339, or they are not there."""
    assert signed(emulator, "POST", "/v3/voucher/A/void", body.encode()) == expected
    assert emulator.voucher("A").status == ("VOID" if expected is GOOD else "ISSUED")


async def test_void_stamps_what_was_sent(emulator):
    """``usedAt`` is kept as it was sent, so that a lost void can be proved."""
    instant = datetime(2026, 1, 1, 12, 0, 0, 123456, UTC)
    async with emulator.client() as client:
        voucher = await client.void("A", used_at=instant)
    assert (voucher.used_at, voucher.status) == (instant, "VOID")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"pin":"123456"}', GOOD),
        ('{"pin":"123456","reason":null}', GOOD),
        ("{}", INCOMPLETE),
        ("null", INCOMPLETE),
        ('{"pin":null}', INCOMPLETE),
        ('{"pin":123456}', BAD_PARAMETER),
        ('{"pin":"123456","reason":5}', BAD_PARAMETER),
        ('{"pin":""}', (400, "USER_PIN_CODE_INVALID")),
        ('{"pin":"0123456"}', (400, "USER_PIN_CODE_INVALID")),
    ],
)
def test_reinstate_bodies(emulator, body, expected):
    """Reinstating takes the PIN, as text, and a reason if there is one."""
    assert signed(emulator, "PATCH", "/v3/voucher/C/reinstate", body.encode()) == expected
    assert emulator.voucher("C").status == ("REDEEMED" if expected is GOOD else "VOID")


async def test_merchant_pin_is_the_emulators():
    """The PIN is an option of the emulator's."""
    async with stocked(merchant_pin="0").client() as client:
        with pytest.raises(InvalidRequestError, match="USER_PIN_CODE_INVALID"):
            await client.reinstate("C", pin="123456")
        assert (await client.reinstate("C", pin="0")).code == "C"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"codes":["A"],"x":1}', GOOD),
        ("", INCOMPLETE),
        ("{}", INCOMPLETE),
        ('{"codes":null}', INCOMPLETE),
        ('{"codes":"A"}', INCOMPLETE),
        ('{"codes":{"A":1}}', INCOMPLETE),
        ('{"codes":["A",null]}', INCOMPLETE),
        ('{"codes":["A",5]}', INCOMPLETE),
        ('{"codes":[["A"]]}', INCOMPLETE),
        ('{"codes":[]}', BAD_PARAMETER),
    ],
)
def test_redeem_bodies(emulator, body, expected):
    """A bulk redeem takes a list of codes, at least one."""
    assert signed(emulator, "POST", "/v3/vouchers/redeem", body.encode()) == expected
    assert emulator.voucher("A").status == ("REDEEMED" if expected is GOOD else "ISSUED")
