"""The error tree: who is under whom, and that errors survive being pickled."""

import pickle
import subprocess
import sys
from datetime import UTC, datetime

import pytest

import rm_voucher
from rm_voucher import (
    APIError,
    BatchStoppedError,
    CallbackError,
    ClosedError,
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    DecodeError,
    EventStoreError,
    IdempotencyConflictError,
    InvalidRequestError,
    LedgerError,
    OutcomeUnknownError,
    PoolTimeoutError,
    ResponseLostError,
    ResponseTimeoutError,
    Retryable,
    SharedStoreError,
    TransportError,
    Voucher,
    VoucherError,
)
from rm_voucher.redaction import hide_locals

ALL = [
    value
    for value in vars(rm_voucher).values()
    if isinstance(value, type) and issubclass(value, BaseException)
]


@pytest.mark.parametrize("error", ALL)
def test_error_is_in_the_tree(error):
    """One `except VoucherError` catches everything that the library raises on purpose."""
    assert issubclass(error, VoucherError)


def test_tree_of_transport_errors():
    """What was provably not sent and what may have been executed are told apart by class."""
    assert ConnectTimeoutError.__mro__[1:4] == (ConnectError, TransportError, VoucherError)
    assert PoolTimeoutError.__mro__[1] is ConnectTimeoutError
    assert ResponseTimeoutError.__mro__[1:4] == (ResponseLostError, TransportError, VoucherError)


def doubtful_redeem():
    error = OutcomeUnknownError(
        "void: unknown",
        operation="void",
        code="NAklEfbVdV",
        nonce="n",
        attempt_id="a",
        sent_at=datetime(2026, 1, 1, tzinfo=UTC),
        voucher=Voucher(code="NAklEfbVdV"),
    )
    error.codes = ("NAklEfbVdV",)
    error.vouchers = error.redeemed = (Voucher(code="NAklEfbVdV"),)
    return error


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (APIError("SPAM", "of NAklEfbVdV", 403, "hint", retry_after_s=2.5), {"message": ""}),
        (
            doubtful_redeem(),
            {"code": None, "codes": (), "voucher": None, "vouchers": (), "redeemed": ()},
        ),
        (ConnectError("get: no connection"), {}),
    ],
)
def test_error_pickles(error, lost):
    """An error crosses a process boundary with its attributes, but for what may hold a code."""
    pickled = pickle.dumps(error)
    copy = pickle.loads(pickled)
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == {**vars(error), **lost}
    assert b"NAklEfbVdV" not in pickled


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (ConfigurationError("no key"), Retryable.NEVER),
        (InvalidRequestError.refused("code is empty."), Retryable.NEVER),
        (CallbackError("signature", "refused"), Retryable.NEVER),
        (IdempotencyConflictError("another batch"), Retryable.NEVER),
        (BatchStoppedError("a person looks"), Retryable.NEVER),
        (LedgerError("no database"), Retryable.AFTER_WAIT),
        (LedgerError("not open", is_final=True), Retryable.NEVER),
        (DecodeError("expected text @ $.item.code"), Retryable.AFTER_WAIT),
        (DecodeError("missing @ $.code", is_final=True), Retryable.NEVER),
        (EventStoreError("no database"), Retryable.AFTER_WAIT),
        (EventStoreError("not open", is_final=True), Retryable.NEVER),
        (SharedStoreError("no Redis"), Retryable.AFTER_WAIT),
        (PoolTimeoutError("too many"), Retryable.AFTER_WAIT),
        (ClosedError("closed"), Retryable.NEVER),
        (doubtful_redeem(), Retryable.READ_BACK),
    ],
)
def test_error_says_whether_to_repeat_the_call(error, retryable):
    """`retryable` holds for what no attempt raises, too, and for an error out of a pickle."""
    assert error.retryable is retryable
    assert pickle.loads(pickle.dumps(error)).retryable is retryable


def test_retryable_needs_nothing_but_the_error():
    """A process that only unpickles errors can ask."""
    code = "from rm_voucher.exceptions import RateLimitError as E; print(E('SPAM').retryable)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "never\n"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (APIError("SPAM", "words", 403, "Ask RM."), "SPAM (HTTP 403): Ask RM."),
        (APIError("", "", 502), "not RM's error format (HTTP 502)"),
        (InvalidRequestError.refused("code is empty."), "refused before sending: code is empty."),
    ],
)
def test_api_error_says_what_to_do(error, text):
    """The text has code, status and remedy, but not the server's words, which may hold a code."""
    assert str(error) == text


def test_outcome_unknown_hides_the_code():
    """Neither text nor repr nor args show the voucher's code."""
    error = OutcomeUnknownError("void: unknown", operation="void", code="NAklEfbVdV")
    assert "NAklEfbVdV" not in str(error) + repr(error) + repr(error.args)
    assert error.code == "NAklEfbVdV"


async def test_bare_leaves_what_the_caller_handles_alone():
    """An error that the user was handling keeps its traceback and its place as the context."""

    @hide_locals
    async def fails():
        raise ConnectError("get: no connection")

    try:
        raise ConnectError("the user's own")
    except ConnectError as own:
        with pytest.raises(ConnectError) as caught:
            await fails()
        assert caught.value.__context__ is own
        assert own.__traceback__ is not None


async def test_bare_ends_with_an_error_that_is_its_own_context():
    """One instance raised again and again, while another is handled, makes a ring of contexts."""
    again = ConnectError("get: no connection")

    @hide_locals
    async def fails():
        try:
            raise again
        except ConnectError:
            raise OutcomeUnknownError("void: unknown", operation="void") from again

    with pytest.raises(OutcomeUnknownError) as first:
        await fails()
    again.__context__ = first.value
    with pytest.raises(OutcomeUnknownError):
        await fails()
