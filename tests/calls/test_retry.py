"""Outcomes and waits: what each error proves, and how long the policy waits."""

import attrs
import pytest

from rm_voucher import (
    APIError,
    ClosedError,
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    DecodeError,
    InvalidRequestError,
    OutcomeUnknownError,
    RateLimitError,
    ResponseLostError,
    ResponseTimeoutError,
    RetryPolicy,
    ServerError,
    TransportError,
    VoucherError,
)
from rm_voucher.calls.outcomes import Outcome, Safety, classify, may_repeat
from rm_voucher.calls.retry import Retries
from rm_voucher.wire.error_codes import ERROR_CODES, CodeClass

PROVEN = {Outcome.NOT_SENT, Outcome.THROTTLED, Outcome.TOKEN_REFUSED, Outcome.REFUSED}


@pytest.mark.parametrize("status", [200, 302, 400, 401, 404, 408, 409, 429, 500, 503])
@pytest.mark.parametrize("code", list(ERROR_CODES))
def test_classify_listed_code_decides_whatever_the_status(code, status):
    """RM's error body with a listed code decides."""
    expected = {
        CodeClass.RETRY: Outcome.THROTTLED,
        CodeClass.AUTH: Outcome.TOKEN_REFUSED,
        CodeClass.FIX: Outcome.REFUSED,
        CodeClass.STATE: Outcome.REFUSED,
        CodeClass.UNKNOWN: Outcome.SERVER_FAILED,
    }[ERROR_CODES[code].code_class]
    assert classify(APIError(code, "", status)) is expected


@pytest.mark.parametrize(
    ("status", "without_body", "with_body"),
    [
        (100, Outcome.UNEXPECTED, Outcome.UNEXPECTED),
        (200, Outcome.UNREADABLE, Outcome.UNREADABLE),
        (204, Outcome.UNREADABLE, Outcome.UNREADABLE),
        (301, Outcome.UNEXPECTED, Outcome.UNEXPECTED),
        (307, Outcome.UNEXPECTED, Outcome.UNEXPECTED),
        (400, Outcome.UNEXPECTED, Outcome.REFUSED),
        (401, Outcome.UNAUTHORIZED, Outcome.TOKEN_REFUSED),
        (403, Outcome.UNEXPECTED, Outcome.TOKEN_REFUSED),
        (404, Outcome.UNEXPECTED, Outcome.REFUSED),
        (408, Outcome.SERVER_FAILED, Outcome.SERVER_FAILED),
        (409, Outcome.SERVER_FAILED, Outcome.SERVER_FAILED),
        (429, Outcome.THROTTLED, Outcome.THROTTLED),
        (499, Outcome.UNEXPECTED, Outcome.REFUSED),
        (500, Outcome.SERVER_FAILED, Outcome.SERVER_FAILED),
        (502, Outcome.SERVER_FAILED, Outcome.SERVER_FAILED),
        (599, Outcome.SERVER_FAILED, Outcome.SERVER_FAILED),
    ],
)
def test_classify_status_without_a_listed_code(status, without_body, with_body):
    """Without a listed code the status decides; RM's own body proves a refusal on 4xx only."""
    assert classify(APIError("", "", status)) is without_body
    assert classify(APIError("NEW_CODE", "", status)) is with_body


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ConnectError("x"), Outcome.NOT_SENT),
        (ConnectTimeoutError("x"), Outcome.NOT_SENT),
        (ClosedError("x"), Outcome.REFUSED),
        (ResponseLostError("x"), Outcome.LOST),
        (ResponseTimeoutError("x"), Outcome.LOST),
        (DecodeError("x"), Outcome.UNREADABLE),
        (InvalidRequestError.refused("x"), Outcome.REFUSED),
        (TransportError("x"), Outcome.UNEXPECTED),
        (OutcomeUnknownError("x", operation="issue"), Outcome.UNEXPECTED),
        (VoucherError("x"), Outcome.UNEXPECTED),
        (ConfigurationError("x"), Outcome.REFUSED),
    ],
)
def test_classify_other_errors(error, outcome):
    """What the table does not name is unknown."""
    assert classify(error) is outcome


@pytest.mark.parametrize("outcome", Outcome)
def test_outcome_proof(outcome):
    """Exactly these outcomes prove that nothing was done."""
    assert outcome.nothing_done is (outcome in PROVEN)
    assert outcome.words


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("safety", Safety)
def test_may_repeat(safety, outcome):
    """A change is sent again only after proof, a read whenever waiting may help."""
    waiting_helps = outcome in {
        Outcome.NOT_SENT,
        Outcome.THROTTLED,
        Outcome.DUPLICATE,
        Outcome.LOST,
        Outcome.SERVER_FAILED,
        Outcome.UNREADABLE,
    }
    expected = waiting_helps and (safety is Safety.READ or outcome in PROVEN)
    assert may_repeat(safety, outcome) is expected


def attempts_of(*errors):
    """Return a coroutine function that fails in that order, then succeeds, and its call count."""
    calls = []

    async def attempt():
        calls.append(1)
        if len(calls) <= len(errors):
            raise errors[len(calls) - 1]
        return "done"

    return attempt, calls


def retries(policy, time, luck=0.0):
    """Return what repeats attempts as the policy says, at a time and chance of the test's."""
    return Retries(policy, attrs.evolve(time.runtime, random=lambda: luck))


async def test_policy_waits_double_up_to_a_limit(time):
    """The waits grow twofold up to the limit; chance takes off at most half."""
    policy = RetryPolicy(max_attempts=6, initial_wait_s=1, max_wait_s=5)
    for luck, expected in ((0.0, [1, 2, 4, 5, 5]), (0.5, [0.75, 1.5, 3, 3.75, 3.75])):
        attempt, calls = attempts_of(*[ServerError()] * 9)
        time.slept.clear()
        with pytest.raises(ServerError):
            await retries(policy, time, luck).run(attempt, repeat_after=lambda _: True)
        assert time.slept == expected
        assert len(calls) == 6


@pytest.mark.parametrize(
    ("asked_s", "waited_s"), [(None, 1.0), (0.5, 1.0), (7.0, 7.0), (10_000.0, 60.0)]
)
async def test_policy_keeps_to_retry_after(time, asked_s, waited_s):
    """A wait that the server asks for is kept, up to a limit, and never shortens ours."""
    policy = RetryPolicy(initial_wait_s=1, max_retry_after_s=60)
    attempt, _ = attempts_of(RateLimitError(retry_after_s=asked_s))
    done = await retries(policy, time).run(attempt, repeat_after=lambda _: True)
    assert done == "done"
    assert time.slept == [waited_s]


async def test_policy_many_attempts_do_not_overflow(time):
    """A patient policy of thousands of attempts still computes its waits."""
    policy = RetryPolicy(max_attempts=2_000, max_wait_s=1)
    attempt, calls = attempts_of(*[ServerError()] * 1_999)
    await retries(policy, time).run(attempt, repeat_after=lambda _: True)
    assert len(calls) == 2_000


@pytest.mark.parametrize("error", [ServerError(), ValueError(), KeyboardInterrupt()])
async def test_policy_raises_what_may_not_be_repeated(time, error):
    """An error that may not be repeated, or is not ours, is raised at once and as it is."""
    attempt, calls = attempts_of(error)
    with pytest.raises(type(error)) as caught:
        await retries(RetryPolicy(), time).run(attempt, repeat_after=lambda _: False)
    assert caught.value is error
    assert (len(calls), time.slept) == (1, [])


def test_remedy_of_an_outcome_is_its_documented_text():
    """A hook compares it with text, as it may have done before there was an enum of it."""
    by_text = {
        "wait": {"NOT_SENT", "THROTTLED", "DUPLICATE", "LOST", "SERVER_FAILED", "UNREADABLE"},
        "token": {"TOKEN_REFUSED", "UNAUTHORIZED"},
        "": {"REFUSED", "UNEXPECTED"},
    }
    for text, names in by_text.items():
        assert {outcome.name for outcome in Outcome if outcome.remedy == text} == names
