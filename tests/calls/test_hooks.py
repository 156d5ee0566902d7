"""Hooks: they see every attempt before and after, and nothing that they do changes a call."""

import asyncio
from datetime import UTC, datetime

import attrs
import pytest
from support.answers import ISSUED, ok, payload, rm_error, voucher
from support.doubles import FakeTime
from support.scripted_server import ScriptedServer

from rm_voucher import (
    Attempt,
    AttemptResult,
    ConnectError,
    DecodeError,
    Observer,
    Outcome,
    OutcomeUnknownError,
    Response,
    ResponseLostError,
    Safety,
    VoucherError,
    bulk_issue,
)
from rm_voucher.calls import hooks

NOT_SENT = ConnectError("x: no connection")
LOST = ResponseLostError("x: the server closed the connection")
FOUND = ok(payload("get-voucher"))
TOKEN = ok({"accessToken": "token", "expiresIn": 10_000})


class Recorder:
    """A hook that keeps all that it is told."""

    def __init__(self):
        self.before = []
        self.after = []
        self.order = []

    def __call__(self, attempt):
        self.before.append(attempt)
        self.order.append(("before", attempt.operation, attempt.number))

        def then(result):
            self.after.append(result)
            self.order.append(("after", result.attempt.operation, result.attempt.number))

        return then

    @property
    def operations(self):
        return [(one.operation, one.method, one.number) for one in self.before]


@pytest.fixture
def recorder():
    return Recorder()


async def test_hook_sees_an_attempt_before_and_after(make_client, time, recorder):
    """What is about to be sent, and how it ended, with nothing that could be a code."""
    arrived = []

    def handler(request):
        arrived.append(list(recorder.order))
        time.now += 2.5
        return ISSUED

    await make_client(handler, hooks=[recorder], name="till 3").issue("KEY")
    assert arrived == [[("before", "issue", 1)]]
    (attempt,), (result,) = recorder.before, recorder.after
    assert attempt == Attempt(
        operation="issue",
        method="POST",
        scheme="https",
        host="sb-open.revenuemonster.my",
        port=443,
        template="/v3/voucher-batch/{key}/issue",
        number=1,
        attempt_id=attempt.attempt_id,
        batch_key="KEY",
        client="till 3",
        started_at=datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
    )
    assert result == AttemptResult(attempt=attempt, duration_s=2.5, http_status=200)
    assert result.attempt is attempt


async def test_hook_details_are_frozen(make_client, recorder):
    """No hook can change what the next one, or the call, sees."""
    await make_client(ScriptedServer([ISSUED]), hooks=[recorder]).issue("KEY")
    for details in (recorder.before[0], recorder.after[0]):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            details.number = 7


async def test_hook_sees_every_retry(make_client, recorder):
    """Each attempt has a number, an id and an end of its own, one after the other."""
    server = ScriptedServer([NOT_SENT, rm_error("OVERLOAD", 503), ISSUED])
    await make_client(server, hooks=[recorder]).issue("KEY")
    assert recorder.order == [
        (when, "issue", number) for number in (1, 2, 3) for when in ("before", "after")
    ]
    assert len({attempt.attempt_id for attempt in recorder.before}) == 3
    starts = [attempt.started_at.timestamp() - 1_700_000_000 for attempt in recorder.before]
    assert starts == [0.0, 0.5, 1.5]


async def test_hook_sees_the_id_of_the_error(make_client, recorder):
    """The id is the one that an unknown outcome is reported with."""
    with pytest.raises(OutcomeUnknownError) as caught:
        await make_client(ScriptedServer([LOST]), hooks=[recorder]).issue("KEY")
    assert recorder.before[0].attempt_id == caught.value.attempt_id


async def test_hook_sees_token_requests(make_client, recorder):
    """A token request is an attempt, also one that is repeated, and has no batch."""
    server = ScriptedServer([NOT_SENT, TOKEN, ISSUED])
    client = make_client(server, hooks=[recorder], token_source=None)
    await client.issue("KEY")
    assert recorder.operations == [
        ("token", "POST", 1),
        ("token", "POST", 2),
        ("issue", "POST", 1),
    ]
    first, second, _ = recorder.before
    assert (first.host, first.batch_key) == ("sb-oauth.revenuemonster.my", None)
    assert first.attempt_id != second.attempt_id
    assert [result.error for result in recorder.after] == ["ConnectError", None, None]


async def test_hook_sees_the_attempt_with_a_new_token(make_client, recorder):
    """A refused token: the same call goes on counting after the token's own request."""
    refused = rm_error("TOKEN_EXPIRED", 401)
    server = ScriptedServer([TOKEN, refused, TOKEN, ISSUED])
    await make_client(server, hooks=[recorder], token_source=None).issue("KEY")
    assert recorder.operations == [
        ("token", "POST", 1),
        ("issue", "POST", 1),
        ("token", "POST", 1),
        ("issue", "POST", 2),
    ]
    assert recorder.after[1].outcome is Outcome.TOKEN_REFUSED


async def test_hook_sees_a_read_back(make_client, recorder):
    """What is read back after a lost answer is a call of its own, after the lost attempt ended."""
    server = ScriptedServer([LOST, FOUND])
    with pytest.raises(OutcomeUnknownError):
        await make_client(server, hooks=[recorder]).void("NAklEfbVdV")
    assert recorder.order == [
        ("before", "void", 1),
        ("after", "void", 1),
        ("before", "get", 1),
        ("after", "get", 1),
    ]


async def test_hook_sees_the_look_ups_of_a_redeem(make_client, recorder):
    """Each code that is in doubt is looked up, and each look-up is seen."""

    def handler(request):
        if request.operation == "redeem":
            raise ResponseLostError("x")
        return voucher("VOID", code=request.url.name)

    with pytest.raises(OutcomeUnknownError):
        await make_client(handler, hooks=[recorder]).redeem(["a", "b"])
    assert sorted(recorder.operations) == [("get", "POST", 1)] * 2 + [("redeem", "POST", 1)]


async def test_hook_sees_the_fallback_of_get(make_client, recorder):
    """The other method is a call of its own: numbered from 1, with its own method."""
    server = ScriptedServer([Response(status=405), FOUND])
    await make_client(server, hooks=[recorder]).get("NAklEfbVdV")
    assert recorder.operations == [("get", "POST", 1), ("get", "GET", 1)]
    assert [result.http_status for result in recorder.after] == [405, 200]


async def test_hook_sees_each_page(make_client, recorder):
    """Each page of a listing is one call."""
    batches = payload("list-batches")
    server = ScriptedServer([ok({**batches, "meta": {"cursor": "2"}}), LOST, ok(batches)])
    pager = make_client(server, hooks=[recorder]).batches()
    assert len([page async for page in pager.pages()]) == 2
    assert recorder.operations == [
        ("batches", "GET", 1),
        ("batches", "GET", 1),
        ("batches", "GET", 2),
    ]


async def test_hook_sees_requests_and_members(make_client, recorder):
    """`request` and a member's operations are seen as every other is."""
    server = ScriptedServer([ok({}), FOUND])
    client = make_client(server, hooks=[recorder])
    await client.request("PUT", "/v3/secret/path", safety=Safety.READ)
    await client.member("60", "123456789").get("NAklEfbVdV")
    assert recorder.operations == [("request", "PUT", 1), ("member get", "GET", 1)]
    assert "123456789" not in repr(recorder.before)
    assert "path" not in repr(recorder.before)


async def test_hook_sees_a_bulk_run(make_client, recorder):
    """Each recipient's call is seen, though they run at once."""
    client = make_client(lambda request: ISSUED, hooks=[recorder])
    async with bulk_issue(client, "KEY", range(5), concurrency=3) as run:
        assert len([result async for result in run]) == 5
    assert recorder.operations == [("issue", "POST", 1)] * 5
    assert [result.attempt for result in recorder.after] == recorder.before


ENDS = {
    "refused": (
        rm_error("VOUCHER_BATCH_NOT_FOUND", 404),
        (404, "NotFoundError", "VOUCHER_BATCH_NOT_FOUND", Outcome.REFUSED),
    ),
    "unlisted": (
        rm_error("NEW_CODE", 500),
        (500, "ServerError", "NEW_CODE", Outcome.SERVER_FAILED),
    ),
    "page": (Response(status=502), (502, "ServerError", None, Outcome.SERVER_FAILED)),
    "redirect": (Response(status=302), (302, "APIError", None, Outcome.UNEXPECTED)),
    "lost": (LOST, (None, "ResponseLostError", None, Outcome.LOST)),
    "unreadable": (ok({}), (200, "DecodeError", None, Outcome.UNREADABLE)),
    "wrong": (
        ok({"code": "SUCCESS", "item": {"code": 5}}),
        (200, "DecodeError", None, Outcome.UNREADABLE),
    ),
    "defect": (ZeroDivisionError("x"), (None, "ZeroDivisionError", None, None)),
}


@pytest.mark.parametrize("end", ENDS)
async def test_hook_sees_how_it_ended(make_client, time, recorder, end):
    """Status, class, RM's code and what it proves: of the attempt, whatever the call raises."""
    answer, expected = ENDS[end]

    def handler(request):
        time.now += 3
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises((VoucherError, ZeroDivisionError)):
        await make_client(handler, hooks=[recorder]).issue("KEY")
    (result,) = recorder.after
    assert (result.http_status, result.error, result.error_code, result.outcome) == expected
    assert result.duration_s == 3


async def test_hook_sees_a_cancellation(make_client, time, recorder):
    """A call that is cancelled in flight ends for the hook, and proves nothing."""
    arrived = asyncio.Event()

    async def hang(request):
        arrived.set()
        await asyncio.Future()

    task = asyncio.create_task(make_client(hang, hooks=[recorder]).issue("KEY"))
    await arrived.wait()
    time.now += 4
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (result,) = recorder.after
    assert (result.error, result.http_status, result.outcome) == ("CancelledError", None, None)
    assert result.duration_s == 4


async def test_hook_duration_is_of_the_monotonic_clock(make_client, time, recorder):
    """A clock that is set back while an attempt runs makes its duration neither wrong nor less."""
    ticks = FakeTime(7.0)

    def handler(request):
        time.now -= 60
        ticks.now += 2
        return ISSUED

    await make_client(handler, hooks=[recorder], monotonic=ticks.clock).issue("KEY")
    assert recorder.after[0].duration_s == 2


async def test_hook_is_not_told_of_what_is_not_sent(make_client, recorder):
    """Input that is refused, or a signature that fails, is no attempt."""

    class Broken:
        def sign(self, text):
            raise ZeroDivisionError

    client = make_client(ScriptedServer([]), hooks=[recorder], signer=Broken())
    for call in (client.issue(""), client.issue("KEY")):
        with pytest.raises(VoucherError):
            await call
    assert recorder.order == []


def fails_before(attempt):
    raise ZeroDivisionError("before")


def fails_after(attempt):
    return lambda result: 1 / 0


def gives_nonsense(attempt):
    return 5


def cancels_after(attempt):
    def end(result):
        raise asyncio.CancelledError

    return end


@pytest.mark.parametrize("broken", [fails_before, fails_after, gives_nonsense, cancels_after])
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (ISSUED, None),
        (LOST, OutcomeUnknownError),
        (ok({}), OutcomeUnknownError),
        (ZeroDivisionError("the handler"), ZeroDivisionError),
    ],
)
async def test_hook_that_raises_changes_nothing(
    make_client, recorder, caplog, broken, answer, error
):
    """The call ends as it would have, the other hooks are told, and the failure is logged."""
    client = make_client(ScriptedServer([answer]), hooks=[broken, recorder])
    if error is None:
        assert (await client.issue("KEY")).code == "NAklEfbVdV"
    else:
        with pytest.raises(error) as caught:
            await client.issue("KEY")
        assert type(caught.value) is error
        assert type(caught.value.__cause__) in (ResponseLostError, DecodeError, type(None))
    assert recorder.order == [("before", "issue", 1), ("after", "issue", 1)]
    (record,) = [one for one in caplog.records if "a hook failed" in one.message]
    assert record.levelname == "WARNING"
    assert record.exc_info[0] in (ZeroDivisionError, TypeError, asyncio.CancelledError)


async def test_hook_that_raises_leaves_the_token_alone(make_client, caplog):
    """A token request survives a hook that raises, too."""
    server = ScriptedServer([TOKEN, ISSUED])
    client = make_client(server, hooks=[fails_before, fails_after], token_source=None)
    assert (await client.issue("KEY")).code == "NAklEfbVdV"
    assert caplog.text.count("a hook failed (ZeroDivisionError)") == 4


@pytest.mark.parametrize("how", ["KeyboardInterrupt", "SystemExit"])
async def test_hook_does_not_swallow_the_end_of_the_process(make_client, how):
    """Only errors are swallowed: what ends the process is not."""
    kind = {"KeyboardInterrupt": KeyboardInterrupt, "SystemExit": SystemExit}[how]

    def stop(attempt):
        raise kind

    with pytest.raises(kind):
        await make_client(ScriptedServer([ISSUED]), hooks=[stop]).issue("KEY")


async def test_hook_may_return_nothing(make_client, recorder):
    """A hook that only counts returns None, and is not called again."""
    counted: list[Attempt] = []
    client = make_client(ScriptedServer([ISSUED]), hooks=[counted.append, recorder])
    await client.issue("KEY")
    assert counted == recorder.before


async def test_hooks_are_called_in_their_order(make_client):
    """Several hooks are told in the order in which they were given, before and after."""
    told = []

    def named(name):
        def hook(attempt):
            told.append(f"{name} before")
            return lambda result: told.append(f"{name} after")

        return hook

    client = make_client(ScriptedServer([ISSUED]), hooks=(named(n) for n in "abc"))
    await client.issue("KEY")
    assert told == ["a before", "b before", "c before", "a after", "b after", "c after"]


async def test_without_hooks_nothing_is_described(make_client, monkeypatch):
    """A client without hooks pays nothing for them: no attempt is ever described."""

    def built(*args, **kwargs):
        raise AssertionError("described for nobody")

    for name in ("Attempt", "AttemptResult", "WorkResult"):
        monkeypatch.setattr(hooks, name, built)
    server = ScriptedServer([TOKEN, ISSUED, DecodeError("x"), FOUND])
    client = make_client(server, token_source=None)
    await client.issue("KEY")
    await client.get("NAklEfbVdV")
    for hook in (lambda attempt: None, Observer()):
        with pytest.raises(AssertionError, match="nobody"):
            await make_client(ScriptedServer([ISSUED]), hooks=[hook]).issue("KEY")
