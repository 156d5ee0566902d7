"""The rule: a code that arrived is kept, also in an answer that is an error, or no JSON.

Such an answer proves neither success nor refusal, whatever its status and code say: the outcome is
unknown, nothing is sent again, and the voucher is attached to the error. No log, text or pickle has
the code.
"""

from __future__ import annotations

import copy
import logging
import pickle
import traceback

import pytest
from support.answers import ok
from support.scripted_server import ScriptedServer

from rm_voucher import (
    APIError,
    BulkStatus,
    DecodeError,
    IssuedVoucher,
    OutcomeUnknownError,
    Response,
    VoucherStateError,
    bulk_issue,
)

ITEM = {"code": "IN-HAND-0001", "qrUrl": "https://qr.invalid/IN-HAND-0001"}
INTERNAL = {"error": {"code": "INTERNAL_ERROR", "message": "x"}}


def spoilt(
    member: bytes, *, status: int = 200, before: bytes = b"", behind: bytes = b""
) -> Response:
    """Return a success with another member in it, which may be no JSON."""
    body = ok({"item": ITEM, "code": "SUCCESS"}).body
    return Response(status=status, body=before + body[:-1] + b"," + member + b"}" + behind)


ANSWERS = {
    "500": ok({**INTERNAL, "item": ITEM}, 500),
    "500, success": ok({"item": ITEM, "code": "SUCCESS"}, 500),
    "500, no error": ok({"item": ITEM}, 500),
    "502": ok({**INTERNAL, "item": ITEM}, 502),
    "503, retry later": ok({**INTERNAL, "item": ITEM}, 503, retry_after="1"),
    "504": ok({"item": ITEM, "code": "SUCCESS"}, 504),
    "429": ok({"error": {"code": "TOO_MANY_REQUEST_PER_SECOND"}, "item": ITEM}, 429),
    "429, success": ok({"item": ITEM, "code": "SUCCESS"}, 429),
    "400": ok({"error": {"code": "VALIDATION_ERROR"}, "item": ITEM}, 400),
    "401": ok({"error": {"code": "TOKEN_INVALID"}, "item": ITEM}, 401),
    "401, success": ok({"item": ITEM, "code": "SUCCESS"}, 401),
    "403": ok({"error": {"code": "NEW_CODE"}, "item": ITEM}, 403),
    "404": ok({"error": {"code": "VOUCHER_BATCH_NOT_FOUND"}, "item": ITEM}, 404),
    "409": ok({"error": {"code": "DUPLICATE_REQUEST"}, "item": ITEM}, 409),
    "301": ok({"item": ITEM, "code": "SUCCESS"}, 301, location="/"),
    "200, an error": ok({**INTERNAL, "item": ITEM}),
    "200, both": ok({**INTERNAL, "item": ITEM, "code": "SUCCESS"}),
    "200, an empty error": ok({"error": {}, "item": ITEM, "code": "SUCCESS"}),
    "200, an error of text": ok({"error": "x", "item": ITEM, "code": "SUCCESS"}),
    "200, failed": ok({"item": ITEM, "code": "FAILED"}),
    "200, no code": ok({"item": ITEM}),
    "200, a code of another case": ok({"item": ITEM, "code": "success"}),
    "202, pending": ok({"item": ITEM, "code": "PENDING"}, 202),
    "500, a byte order mark": Response(
        status=500, body=b"\xef\xbb\xbf" + ok({**INTERNAL, "item": ITEM}).body
    ),
    "200, a byte that is no UTF-8": spoilt(b'"label":"Caf\xe9"'),
    "200, half an emoji": spoilt(b'"label":"\\ud83d"'),
    "200, a line break in a text": spoilt(b'"label":"a\nb"'),
    "200, no number": spoilt(b'"amount":NaN'),
    "200, a script behind it": spoilt(b'"x":1', behind=b"<script></script>"),
    "200, a line before it": spoilt(b'"x":1', before=b")]}',\n"),
    "429, a byte that is no UTF-8": spoilt(b'"error":{"code":"\xe9"}', status=429),
    "500, a byte that is no UTF-8": spoilt(b'"error":{"code":"\xe9"}', status=500),
}
each_answer = pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)


@each_answer
async def test_code_in_an_error_is_attached(make_client, answer, caplog):
    caplog.set_level(logging.DEBUG)
    server = ScriptedServer([answer])
    with pytest.raises(OutcomeUnknownError) as caught:
        await make_client(server).issue("K")
    error = caught.value
    assert isinstance(error.voucher, IssuedVoucher)
    assert (error.voucher.code, error.code) == ("IN-HAND-0001", "IN-HAND-0001")
    assert error.voucher.qr_url == ITEM["qrUrl"]
    assert len(server.requests) == 1
    shown = [str(error), repr(error), caplog.text, *traceback.format_exception(error)]
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (again.voucher, again.code) == (None, None)
        shown.append(repr(vars(again)))
    cause = error.__cause__
    assert isinstance(cause, DecodeError)
    shown += [repr(cause), repr(pickle.dumps(error)), repr(pickle.dumps(cause))]
    assert "IN-HAND" not in "".join(shown)


@each_answer
async def test_code_in_an_error_reaches_a_bulk_run(make_client, answer):
    async with bulk_issue(make_client(lambda _: answer), "K", [1], signers=0) as run:
        (result,) = [result async for result in run]
    assert result.status is BulkStatus.UNRESOLVED
    assert isinstance(result.error, OutcomeUnknownError)
    assert result.error.code == "IN-HAND-0001"


@pytest.mark.parametrize(
    "item", [None, {}, [], "X", {"code": ""}, {"code": 5}, [ITEM]], ids=lambda item: repr(item)[:12]
)
async def test_what_is_no_voucher_is_not_attached(make_client, item):
    """An error whose item is none is what its status and code say."""
    server = ScriptedServer([ok({**INTERNAL, "item": item}, 500)])
    with pytest.raises(OutcomeUnknownError) as caught:
        await make_client(server).issue("K")
    assert (caught.value.voucher, caught.value.code) == (None, None)


@pytest.mark.parametrize(
    "body",
    [
        b'{"item":{"code":"X\xe9"},"code":"SUCCESS"}',
        b'{"item":{"code":"X\\ud83d"},"code":"SUCCESS"}',
        b"[" * 60_000,
        b'{"item":' * 8_000,
        b"{" + b"9" * 5_000,
        b"<html>",
    ],
    ids=["no UTF-8", "half an emoji", "lists", "objects", "digits", "html"],
)
async def test_code_that_cannot_be_read_is_not_attached(make_client, body):
    """Half a code would be another code."""
    server = ScriptedServer([Response(status=200, body=body)])
    with pytest.raises(OutcomeUnknownError) as caught:
        await make_client(server).issue("K")
    assert (caught.value.voucher, caught.value.code) == (None, None)


async def test_refusal_without_an_item_stays_a_refusal(make_client):
    server = ScriptedServer([ok({"error": {"code": "VOUCHER_BATCH_NOT_FOUND"}, "item": None}, 404)])
    with pytest.raises(APIError) as caught:
        await make_client(server).issue("K")
    assert caught.value.code == "VOUCHER_BATCH_NOT_FOUND"


async def test_change_that_is_refused_with_an_item_is_looked_up(make_client):
    """A void: the same answer proves neither there, and the voucher itself is asked."""
    item = {"code": "X", "status": "VOID", "usedAt": "2026-11-20T10:00:00Z"}
    refused = ok({"error": {"code": "TOO_MANY_REQUEST_PER_SECOND"}, "item": item}, 429)
    looked = ok({"item": item, "code": "SUCCESS"})
    server = ScriptedServer([refused, looked])
    with pytest.raises(OutcomeUnknownError) as caught:
        await make_client(server).void("X")
    assert not isinstance(caught.value.__cause__, VoucherStateError)
    assert [path.split("/")[-1] for path in server.paths] == ["void", "X"]


async def test_code_whose_url_is_no_text(make_client):
    """The code is kept; the URL, which nothing could write, is not."""
    body = ok({"item": {**ITEM, "qrUrl": "X"}, **INTERNAL}).body.replace(b'"X"', rb'"\ud800"')
    client = make_client(ScriptedServer([Response(status=500, body=body)]))
    async with client:
        with pytest.raises(OutcomeUnknownError) as caught:
            await client.issue("B")
    assert caught.value.voucher == IssuedVoucher(code=ITEM["code"])
