"""The rule: a refusal as a duplicate proves that an earlier copy arrived, and nothing else.

RM refuses a repeated nonce as a duplicate request, with a code that it does not publish. We never
repeat one; a proxy or gateway may, after it lost the first answer. So for anything but a read, a
refusal whose code or words say duplicate, repeated, nonce or already processed is unknown.
"""

from __future__ import annotations

import pickle

import pytest
from support.answers import ok, rm_error
from support.scripted_server import ScriptedServer

from rm_voucher import (
    APIError,
    DuplicateRequestError,
    InvalidRequestError,
    OutcomeUnknownError,
    VoucherStatus,
    bulk_issue,
)
from rm_voucher.emulator import Check, Emulator, Fault, Guesses
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.memory import MemoryLedgerStore

SAYINGS = [
    ("DUPLICATE_REQUEST", ""),
    ("DuplicateRequest", ""),
    ("REQUEST_DUPLICATED", ""),
    ("REPEATED_REQUEST", ""),
    ("NONCE_USED", ""),
    ("INVALID_NONCE", ""),
    ("REPLAY_ATTACK", ""),
    ("REQUEST_ALREADY_PROCESSED", ""),
    ("AlreadyProcessed", ""),
    ("INVALID_REQUEST", "Duplicate request"),
    ("INVALID_REQUEST", "nonceStr has been used"),
    ("VALIDATION_ERROR", "X-Nonce-Str must be unique"),
    ("UNAUTHORIZED", "This is a repeated request."),
    ("NOT_PERMITTED", "request already processed"),
    ("SPAM", "The request has already been received"),
    ("SOMETHING_NEW", "REUSED request"),
    ("SOMETHING_NEW", "The request was processed already"),
    ("SOMETHING_NEW", "Request received twice"),
    ("SUBMITTED_BEFORE", ""),
    ("IDEMPOTENCY_CONFLICT", ""),
    ("OVERLOAD", "duplicated"),
    ("TOO_MANY_REQUEST_PER_SECOND", "duplicate request"),
]
each_saying = pytest.mark.parametrize(("code", "words"), SAYINGS)
each_status = pytest.mark.parametrize("status", [200, 400, 401, 403, 409, 422, 429, 500])


@each_saying
@each_status
async def test_issue_refused_as_a_duplicate_is_unknown(make_client, code, words, status):
    server = ScriptedServer([rm_error(code, status, words)])
    with pytest.raises(OutcomeUnknownError) as caught:
        await make_client(server).issue("K")
    cause = caught.value.__cause__
    assert isinstance(cause, DuplicateRequestError)
    assert (cause.code, cause.message) == (code, words)
    assert len(server.requests) == 1


@each_saying
async def test_void_refused_as_a_duplicate_is_looked_up(make_client, code, words):
    unchanged = ok({"item": {"code": "X", "status": "ISSUED"}, "code": "SUCCESS"})
    done = ok({"item": {"code": "X", "status": "VOID"}, "code": "SUCCESS"})
    server = ScriptedServer([rm_error(code, 400, words), unchanged, done])
    assert (await make_client(server).void("X")).status is VoucherStatus.VOID


@each_saying
async def test_read_refused_as_a_duplicate_is_repeated(make_client, code, words, time):
    found = ok({"item": {"code": "X", "status": "ISSUED"}, "code": "SUCCESS"})
    server = ScriptedServer([rm_error(code, 400, words), found])
    assert (await make_client(server).get("X")).code == "X"
    assert len({request.headers["X-Nonce-Str"] for request in server.requests}) == 2


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("VOUCHER_NOT_ALLOW_VOID", "voucher already used"),
        ("VOUCHER_REDEEMED", "already redeemed"),
        ("VOUCHER_BATCH_NOT_FOUND", "no batch Announcement"),
        ("MARKET_PLACE_VOUCHER_ALREADY_REQUESTED", ""),
        ("NEW_CODE", "the batch is already closed"),
    ],
)
async def test_refusal_about_a_voucher_stays_one(make_client, code, words):
    server = ScriptedServer([rm_error(code, 400, words)])
    with pytest.raises(APIError) as caught:
        await make_client(server).issue("K")
    assert not isinstance(caught.value, DuplicateRequestError)


def test_error_keeps_its_meaning_in_a_pickle():
    """The words are the server's, and a pickle leaves them out; what they proved stays."""
    error = DuplicateRequestError("INVALID_REQUEST", "nonce", 400)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.code, again.message) == (DuplicateRequestError, error.code, "")
    assert not isinstance(again, InvalidRequestError)


async def test_bytes_that_are_sent_again_issue_once():
    """The emulator: the first answer is lost, and a proxy sends the same bytes again."""
    emulator = Emulator(batches={"K": 5})
    emulator.fail_next("issue", Fault.RESENT)
    async with emulator.client() as client:
        with pytest.raises(OutcomeUnknownError) as caught:
            await client.issue("K")
    assert isinstance(caught.value.__cause__, DuplicateRequestError)
    assert (len(emulator.issued("K")), len(emulator.undelivered)) == (1, 1)


async def test_without_the_check_of_nonces_the_work_is_done_once_as_well():
    emulator = Emulator(batches={"K": 5}, disabled_checks=[Check.NONCE])
    emulator.fail_next("issue", Fault.RESENT)
    async with emulator.client() as client:
        with pytest.raises(OutcomeUnknownError):
            await client.issue("K")
    assert (len(emulator.issued("K")), len(emulator.undelivered)) == (1, 1)


@pytest.mark.parametrize("code", ["DUPLICATE_REQUEST", "NONCE_USED", "SOME_REPEATED_THING"])
async def test_exclusive_ledger_issues_no_voucher_twice(code, time):
    """Three requests, of which one is sent twice on the way: three vouchers, and no fourth."""
    emulator = Emulator(batches={"K": 10}, clock=time.clock, guesses=Guesses(duplicate_code=code))
    runtime = time.runtime
    emulator.fail_next("issue", Fault.RESENT)
    async with (
        emulator.client(runtime=runtime) as client,
        Ledger(MemoryLedgerStore(), mode="exclusive", runtime=runtime) as ledger,
        bulk_issue(client, "K", ["a", "b", "c"], ledger=ledger, signers=0) as run,
    ):
        codes = {result.voucher.code async for result in run if result.voucher is not None}
    assert codes == set(emulator.issued("K"))
    assert len(codes) == 3
