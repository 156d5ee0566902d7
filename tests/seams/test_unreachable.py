"""The rule: a run that never had an answer ends within 15 s, with one sentence. Patience is for an
outage in the middle.

A wrong URL, a name that does not resolve, a network that is not there: all fail for ever. Time is
virtual, and everything that waits is the real thing.
"""

from __future__ import annotations

import asyncio

import pytest
from support.answers import HTML, LOST, NOT_SENT, ok
from support.virtual_runs import run

from rm_voucher import (
    BulkStatus,
    ConnectError,
    ConnectTimeoutError,
    Timeout,
)

TOKEN = ok({"accessToken": "t", "expiresIn": 10_000})
ADVICE = "check the URL, the network, its proxy and DNS"
SENTENCE = "no answer at all from https://sb-open.revenuemonster.my, so the run was ended"


def issue(network):
    number = len(network.requests)
    return ok({"item": {"code": f"CODE{number}"}, "code": "SUCCESS"})


def refused(network, request):
    return 0.001, NOT_SENT


def no_name(network, request):
    return 2.0, ConnectError("x: the name can't be resolved")


def black_hole(network, request):
    return request.timeout.connect_s, ConnectTimeoutError("x: no connection in time")


def no_token(network, request):
    return black_hole(network, request) if request.operation == "token" else (0.01, issue(network))


def another_site(network, request):
    return 0.1, HTML


def only_the_api_is_away(network, request):
    return (0.1, TOKEN) if request.operation == "token" else refused(network, request)


def cut(network, request):
    return (0.1, TOKEN) if request.operation == "token" else (0.1, LOST)


NEVER = [refused, no_name, black_hole, no_token, another_site, only_the_api_is_away, cut]


@pytest.mark.parametrize("count", [1, 3, 500])
@pytest.mark.parametrize("meet", NEVER)
def test_run_without_any_answer_ends_soon(credentials, signer, meet, count):
    results, raised, network = run(credentials, signer, meet, range(count))
    assert raised is None
    assert network.seconds <= 15.5
    assert len(results) == count
    unsent = BulkStatus.UNRESOLVED if meet is cut else BulkStatus.FAILED
    assert {result.status for result in results} <= {BulkStatus.FAILED, unsent}
    if count == 500:
        assert SENTENCE in str(results[-1].error)
        assert len([r for r in results if SENTENCE in str(r.error)]) > 400


@pytest.mark.parametrize("meet", [no_name, black_hole, no_token])
def test_sentence_is_everybodys(credentials, signer, meet):
    """Who was waiting when the run was ended has the same error as who never had a turn."""
    results, _, _ = run(credentials, signer, meet, range(3))
    assert len({str(result.error) for result in results}) == 1
    for result in results:
        assert isinstance(result.error, ConnectError)
        assert SENTENCE in str(result.error)


def test_sentence_names_the_last_trouble(credentials, signer):
    results, _, _ = run(credentials, signer, only_the_api_is_away, range(3))
    ends = {str(result.error) for result in results}
    assert ends <= {
        "x: no connection",  # its attempts were spent before
        f"issue: {SENTENCE}: {ADVICE} (last: x: no connection)",
    }
    assert {result.status for result in results} == {BulkStatus.FAILED}


@pytest.mark.parametrize("meet", [refused, no_name, black_hole, no_token, only_the_api_is_away])
def test_run_with_a_ledger_ends_soon_too(credentials, signer, meet):
    """Its first request is for the batch's listing."""
    results, raised, network = run(credentials, signer, meet, range(3), has_ledger=True)
    assert results == []
    assert isinstance(raised, ConnectError)
    assert network.seconds <= 15.5
    assert SENTENCE in str(raised) or meet in (refused, only_the_api_is_away)


def test_slow_first_answer_is_waited_for(credentials, signer):
    """A server that took the request and is slow is not one that does not answer."""

    def slow(network, request):
        return (0.1, TOKEN) if request.operation == "token" else (25.0, issue(network))

    results, _, _ = run(credentials, signer, slow, range(3))
    assert {result.status for result in results} == {BulkStatus.ISSUED}


def test_network_that_comes_up_in_time(credentials, signer):
    def comes(network, request):
        if network.seconds < 6:
            return refused(network, request)
        return 0.1, TOKEN if request.operation == "token" else issue(network)

    results, _, _ = run(credentials, signer, comes, range(50))
    assert {result.status for result in results} == {BulkStatus.ISSUED}


def test_outage_in_the_middle_is_waited_out(credentials, signer):
    def breaks(network, request):
        if request.operation == "token":
            return 0.1, TOKEN
        is_away = len(network.requests) > 200 and network.seconds < 900
        return refused(network, request) if is_away else (0.01, issue(network))

    results, _, network = run(credentials, signer, breaks, range(500))
    assert {result.status for result in results} == {BulkStatus.ISSUED}
    assert network.seconds > 900


def test_connect_time_of_ones_own_is_kept(credentials, signer):
    """Whoever gives a connection 40 s means it: the run ends with the first that failed."""
    timeout = Timeout(connect_s=40)
    results, _, network = run(credentials, signer, black_hole, range(3), timeout=timeout)
    assert {SENTENCE in str(result.error) for result in results} == {True}
    assert 15 <= network.seconds <= 42


def test_recipients_that_come_late_are_no_outage(credentials, signer):
    async def late():
        for number in range(3):
            await asyncio.sleep(30)
            yield number

    def works(network, request):
        return 0.1, TOKEN if request.operation == "token" else issue(network)

    results, _, _ = run(credentials, signer, works, late())
    assert {result.status for result in results} == {BulkStatus.ISSUED}
