"""Observers: hooks that are told of all work, of which nothing that they do changes anything."""

import asyncio
from contextvars import ContextVar

import attrs
import pytest
from support.answers import ISSUED, ok, rm_error, voucher
from support.scripted_server import ScriptedServer

from rm_voucher import (
    Observer,
    Outcome,
    OutcomeUnknownError,
    OutOfStockError,
    ResponseLostError,
    Work,
    WorkKind,
    WorkResult,
    bulk_issue,
)

LOST = ResponseLostError("x: the server closed the connection")
INSIDE: ContextVar[str] = ContextVar("INSIDE", default="")


class Recorder(Observer):
    """Keeps all that it is told."""

    def __init__(self):
        self.began = []
        self.ended = []
        self.attempts = []
        self.sources = []

    def __call__(self, attempt):
        self.attempts.append((attempt.operation, INSIDE.get()))

    def work(self, work):
        self.began.append(work)
        token = INSIDE.set(work.operation)

        def end(result):
            INSIDE.reset(token)
            self.ended.append(result)

        return end

    def source(self, client, source):
        self.sources.append((client, source))


@pytest.fixture
def observer():
    return Recorder()


async def test_call_is_seen_from_its_arguments_to_its_end(make_client, time, observer):
    """With its duration, and what is below it in its context."""

    def handler(request):
        time.now += 2.5
        return ISSUED

    client = make_client(handler, hooks=[observer], name="till 3")
    await client.issue("KEY")
    (work,) = observer.began
    assert work == Work(kind=WorkKind.CALL, operation="issue", client="till 3")
    assert observer.ended == [WorkResult(work=work, duration_s=2.5)]
    assert observer.attempts == [("issue", "issue")]
    assert INSIDE.get() == ""
    for details in (work, observer.ended[0]):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            details.work = None


async def test_error_of_a_call(make_client, observer):
    """Its class, RM's code and what it proves; an unknown outcome proves nothing."""
    server = ScriptedServer([rm_error("VOUCHER_SOLD_OUT", 400), LOST])
    client = make_client(server, hooks=[observer])
    with pytest.raises(OutOfStockError):
        await client.issue("KEY")
    with pytest.raises(OutcomeUnknownError):
        await client.issue("KEY")
    refused, unknown = observer.ended
    assert (refused.error, refused.outcome) == ("OutOfStockError", Outcome.REFUSED)
    assert refused.error_code == "VOUCHER_SOLD_OUT"
    assert (unknown.error, unknown.outcome) == ("OutcomeUnknownError", None)


async def test_read_back_is_part_of_its_call(make_client, observer):
    """A void that is looked up is one call."""
    server = ScriptedServer([LOST, voucher("ISSUED"), voucher("VOID")])
    await make_client(server, hooks=[observer]).void("X")
    assert [work.operation for work in observer.began] == ["void"]
    assert [name for name, _ in observer.attempts] == ["void", "get", "void"]


@pytest.mark.parametrize("step", ["work", "end", "source"])
async def test_observer_that_fails_changes_nothing(make_client, caplog, step):
    """It is logged, and the call goes on."""

    class Failing(Observer):
        def work(self, work):
            if step == "work":
                raise ZeroDivisionError
            return end

        def source(self, client, source):
            if step == "source":
                raise ZeroDivisionError

    def end(result):
        if step == "end":
            raise ZeroDivisionError

    client = make_client(ScriptedServer([ISSUED]), hooks=[Failing()])
    assert (await client.issue("KEY")).code == "NAklEfbVdV"
    assert caplog.messages == ["a hook failed (ZeroDivisionError)"]


async def test_observer_may_take_note_of_nothing(make_client):
    """Each of its methods may be left as it is."""
    client = make_client(ScriptedServer([ISSUED]), hooks=[Observer()])
    assert (await client.issue("KEY")).code == "NAklEfbVdV"


async def test_calls_of_a_bulk_issue(make_client, observer):
    """Each is a call, with its batch; the run says how its requests are signed."""
    client = make_client(lambda request: ISSUED, hooks=[observer])
    async with bulk_issue(client, "KEY", range(3), concurrency=2) as run:
        assert len([result async for result in run]) == 3
    assert {(work.operation, work.batch_key) for work in observer.began} == {("issue", "KEY")}
    assert len(observer.ended) == 3
    assert [client for client, _ in observer.sources] == [client.name, client.name]
    flow, signing = [source for _, source in observer.sources]
    assert {gauge.name for gauge in flow.gauges()} == {
        "flow.waiting",
        "flow.retry_after",
        "flow.outage",
    }
    assert [tuple(gauge) for gauge in signing.gauges()] == [
        ("signing.waiting", 0, ""),
        ("signing.processes", 0, ""),
    ]


async def test_client_is_named_after_its_account(make_client):
    """Unless it is given a name."""
    client = make_client(ScriptedServer([]))
    assert client.name == client.account
    assert make_client(ScriptedServer([]), name="till 3").name == "till 3"


async def test_pages_are_calls(make_client, observer):
    """Each page of a listing is one."""
    page = ok({"items": [], "meta": {"count": 0, "cursor": "", "total": 0}, "code": "SUCCESS"})
    client = make_client(lambda request: page, hooks=[observer])
    await client.vouchers("KEY")
    await client.batches()
    await client.member("60", "1").vouchers()
    assert [work.operation for work in observer.began] == ["vouchers", "batches", "member vouchers"]


async def test_end_is_told_where_the_work_began(make_client, observer):
    """A call that is cancelled ends in its own task."""
    arrived = asyncio.Event()

    async def hang(request):
        arrived.set()
        await asyncio.Future()

    task = asyncio.create_task(make_client(hang, hooks=[observer]).get("X"))
    await arrived.wait()
    task.cancel()
    await asyncio.wait([task])
    assert [result.error for result in observer.ended] == ["CancelledError"]
