"""A void whose answer is lost: done by us, by another till, not done, or done late."""

import traceback
from datetime import UTC, datetime

import pytest
from support.answers import HTML, LOST, NOT_SENT, THROTTLED, ok, rm_error, voucher
from support.scripted_server import ScriptedServer

from rm_voucher import (
    ConnectError,
    OutcomeUnknownError,
    RetryPolicy,
    Voucher,
    VoucherError,
    VoucherStateError,
)

OURS = datetime(2026, 11, 20, 10, 0, 0, 123456, UTC)


VOID_BY_US = voucher("VOID", "2026-11-20T10:00:00.123456Z")
VOID_BY_ANOTHER = voucher("VOID", "2026-11-20T10:00:00.123457Z")
STILL_ISSUED = voucher("ISSUED")
ALREADY_VOID = rm_error("VOUCHER_NOT_ALLOW_VOID", 400)
VOID, GET = "POST /v3/voucher/X/void", "POST /v3/voucher/X"


async def void(make_client, *answers, used_at=OURS, **options):
    server = ScriptedServer(answers)
    client = make_client(server, **options)
    try:
        return await client.void("X", store_id="7", used_at=used_at), server
    except VoucherError as exc:
        return exc, server


async def test_void_sends_store_and_instant(make_client):
    """The body has what was given, each time it is sent."""
    result, server = await void(make_client, THROTTLED, VOID_BY_US)
    assert result.status == "VOID"
    body = b'{"storeId":"7","usedAt":"2026-11-20T10:00:00.123456Z"}'
    assert [request.body for request in server.requests] == [body, body]


@pytest.mark.parametrize("unknown", [LOST, HTML, ok({}), rm_error("INTERNAL_ERROR", 500)])
async def test_void_lost_done_by_us(make_client, time, unknown):
    """The answer was lost, and the voucher carries our instant: a success."""
    result, server = await void(make_client, unknown, VOID_BY_US)
    assert result.used_at == OURS
    assert (server.paths, time.slept) == ([VOID, GET], [])


@pytest.mark.parametrize("used_at", [OURS, None])
async def test_void_lost_done_by_another_till(make_client, used_at):
    """Void, but not provably by us: unknown, with the voucher. Honouring it twice is a loss."""
    result, server = await void(make_client, LOST, VOID_BY_ANOTHER, used_at=used_at)
    assert isinstance(result, OutcomeUnknownError)
    assert isinstance(result.voucher, Voucher)
    assert result.voucher.status == "VOID"
    assert (result.operation, result.code) == ("void", "X")
    assert server.paths == [VOID, GET]


async def test_void_lost_not_done_is_sent_again(make_client, time):
    """The voucher is unchanged: sent again, after a wait."""
    result, server = await void(make_client, LOST, STILL_ISSUED, VOID_BY_US)
    assert result.status == "VOID"
    assert (server.paths, time.slept) == ([VOID, GET, VOID], [0.5])


async def test_void_lost_done_late(make_client):
    """The first request arrives after the look: the repeat is refused, and a second look proves
    that it was ours."""
    result, server = await void(make_client, LOST, STILL_ISSUED, ALREADY_VOID, VOID_BY_US)
    assert result.used_at == OURS
    assert server.paths == [VOID, GET, VOID, GET]


async def test_void_lost_then_another_till(make_client):
    """The repeat is refused because another till was quicker: unknown, not ours."""
    result, _ = await void(make_client, LOST, STILL_ISSUED, ALREADY_VOID, VOID_BY_ANOTHER)
    assert isinstance(result, OutcomeUnknownError)
    assert isinstance(result.__cause__, VoucherStateError)


@pytest.mark.parametrize(
    "code", ["VOUCHER_NOT_REDEEMED", "VOUCHER_NOT_ALLOW_VOID", "INVALID_TIMESTAMP"]
)
async def test_void_lost_then_refused_stays_in_doubt(make_client, code):
    """A refusal is of the repeat; the first request may still arrive, so the doubt stays."""
    answers = LOST, STILL_ISSUED, rm_error(code, 400), STILL_ISSUED
    result, server = await void(make_client, *answers)
    assert type(result) is OutcomeUnknownError
    assert isinstance(result.voucher, Voucher)
    assert result.voucher.status == "ISSUED"
    assert server.paths == [VOID, GET, VOID, GET]


async def test_void_lost_unchanged_then_unreadable(make_client):
    """What an earlier look showed says nothing of a later attempt."""
    policy = RetryPolicy(max_attempts=3)
    answers = LOST, STILL_ISSUED, LOST, rm_error("VOUCHER_NOT_FOUND", 404)
    result, server = await void(make_client, *answers, retry=policy)
    assert type(result) is OutcomeUnknownError
    assert server.paths == [VOID, GET, VOID, GET]


@pytest.mark.parametrize("answer", [STILL_ISSUED, ok({"item": {}, "code": "SUCCESS"})])
async def test_void_success_without_a_void_voucher_is_read_back(make_client, answer):
    """A success that does not show the voucher void is no proof."""
    result, server = await void(make_client, answer, VOID_BY_US)
    assert result.used_at == OURS
    assert server.paths == [VOID, GET]


async def test_void_lost_and_unreadable(make_client):
    """When the voucher can't be read back either, the outcome is unknown, without a voucher."""
    policy = RetryPolicy(max_attempts=2)
    result, _ = await void(make_client, LOST, LOST, LOST, retry=policy)
    assert isinstance(result, OutcomeUnknownError)
    assert result.voucher is None


async def test_void_lost_again_and_again(make_client):
    """Lost and unchanged to the last attempt: it may still arrive, so it is unknown."""
    policy = RetryPolicy(max_attempts=2)
    result, server = await void(make_client, LOST, STILL_ISSUED, LOST, STILL_ISSUED, retry=policy)
    assert isinstance(result, OutcomeUnknownError)
    assert isinstance(result.voucher, Voucher)
    assert result.voucher.status == "ISSUED"
    assert server.paths == [VOID, GET, VOID, GET]


async def test_void_lost_then_not_sent(make_client):
    """A doubt does not go away because a later attempt was not sent."""
    policy = RetryPolicy(max_attempts=2)
    result, _ = await void(make_client, LOST, STILL_ISSUED, NOT_SENT, STILL_ISSUED, retry=policy)
    assert isinstance(result, OutcomeUnknownError)


async def test_void_refused_at_once_is_definite(make_client):
    """A first refusal says that somebody else voided it: nothing is read back."""
    result, server = await void(make_client, ALREADY_VOID)
    assert type(result) is VoucherStateError
    assert server.paths == [VOID]


async def test_void_not_sent_gives_up_definitely(make_client):
    """Never sent: not unknown, and nothing is read back."""
    policy = RetryPolicy(max_attempts=2)
    result, server = await void(make_client, NOT_SENT, NOT_SENT, retry=policy)
    assert type(result) is ConnectError
    assert server.paths == [VOID, VOID]


async def test_void_unknown_hides_the_code(make_client):
    """The error names the operation, not the voucher."""
    result, _ = await void(make_client, LOST, VOID_BY_ANOTHER)
    assert "NAklEfbVdV" not in "".join(traceback.format_exception(result))


async def test_void_lost_and_another_voucher_read_back(make_client):
    """A look that shows another voucher proves nothing about this one."""
    other = voucher("VOID", "2026-11-20T10:00:00.123456Z", code="ANOTHER")
    result, _ = await void(make_client, LOST, other)
    assert isinstance(result, OutcomeUnknownError)
