"""OpenTelemetry: a span of each call under that of whoever calls, and its attempts below it."""

import asyncio
import contextvars
from typing import cast

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_current_span
from support.answers import ISSUED, ok, payload, rm_error
from support.scripted_server import ScriptedServer

from rm_voucher import (
    ClosedError,
    ConnectError,
    NotFoundError,
    OutcomeUnknownError,
    Response,
    ResponseLostError,
    StaticToken,
    Timeout,
    VoucherClient,
    VoucherError,
    __version__,
    bulk_issue,
)
from rm_voucher.otel import OpenTelemetryHook

NOT_SENT = ConnectError("x: no connection")
LOST = ResponseLostError("x: the server closed the connection")
TOKEN = ok({"accessToken": "token", "expiresIn": 10_000})


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


@pytest.fixture
def hook(provider):
    return OpenTelemetryHook(provider)


def tree(spans):
    """Return the spans, each with the name of the one above it."""
    names = {span.context.span_id: span.name for span in spans}
    return [(span.name, span.parent and names[span.parent.span_id]) for span in spans]


ISSUE = "POST /v3/voucher-batch/{key}/issue"


async def test_spans_of_a_success(make_client, hook, exporter):
    """A client span below that of the call, with what is known and no more."""
    await make_client(ScriptedServer([ISSUED]), hooks=[hook], name="till 3").issue("KEY")
    attempt, call = exporter.get_finished_spans()
    assert tree([attempt, call]) == [(ISSUE, "rm_voucher issue"), ("rm_voucher issue", None)]
    assert (attempt.kind, call.kind) == (SpanKind.CLIENT, SpanKind.INTERNAL)
    attributes = dict(attempt.attributes)
    assert len(attributes.pop("rm_voucher.attempt_id")) == 16
    assert attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "server.address": "sb-open.revenuemonster.my",
        "server.port": 443,
        "url.scheme": "https",
        "url.template": "/v3/voucher-batch/{key}/issue",
        "rm_voucher.operation": "issue",
        "rm_voucher.batch_key": "KEY",
    }
    assert dict(call.attributes) == {
        "rm_voucher.operation": "issue",
        "rm_voucher.client": "till 3",
    }
    for span in (attempt, call):
        assert span.status.status_code is StatusCode.UNSET
        assert span.events == ()
        scope = span.instrumentation_scope
        assert (scope.name, scope.version) == ("rm_voucher", __version__)


async def test_call_is_a_child_of_the_current_span(make_client, hook, exporter, provider):
    """A call stands under the caller's span, which is told nothing; a token request in the call."""
    server = ScriptedServer([TOKEN, NOT_SENT, ISSUED])
    client = make_client(server, hooks=[hook], token_source=None)
    with provider.get_tracer("test").start_as_current_span("caller") as parent:
        await client.issue("KEY")
        assert get_current_span() is parent
    spans = exporter.get_finished_spans()
    assert tree(spans) == [
        ("POST /v1/token", "rm_voucher issue"),
        (ISSUE, "rm_voucher issue"),
        (ISSUE, "rm_voucher issue"),
        ("rm_voucher issue", "caller"),
        ("caller", None),
    ]
    assert len({span.context.trace_id for span in spans}) == 1
    outer = spans[-1]
    assert (dict(outer.attributes), outer.events) == ({}, ())
    assert outer.status.status_code is StatusCode.UNSET


async def test_span_of_an_error_leaves_the_parent_alone(make_client, hook, exporter, provider):
    """An error is on attempt and call; whether their parent failed is the caller's business."""
    client = make_client(ScriptedServer([rm_error("VOUCHER_NOT_FOUND", 404)]), hooks=[hook])
    with provider.get_tracer("test").start_as_current_span("caller"):
        try:
            await client.get("X")
        except NotFoundError as exc:
            refused = exc
    assert refused.code == "VOUCHER_NOT_FOUND"
    attempt, call, outer = exporter.get_finished_spans()
    for span in (attempt, call):
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes["error.type"] == "VOUCHER_NOT_FOUND"
    assert (outer.status.status_code, outer.events) == (StatusCode.UNSET, ())


def deny(request):
    raise AssertionError("it was sent")


def in_a_pause(client):
    client.caller.flow.pause_until(client.caller.runtime.monotonic() + 1000)
    return client.get("A", timeout=Timeout(total_s=20))


@pytest.mark.parametrize(
    ("call", "error", "outcome"),
    [
        (lambda c: c.issue("a/b"), "InvalidRequestError", "refused"),
        (lambda c: c.vouchers("a/b"), "InvalidRequestError", "refused"),
        (lambda c: c.batches(status=7), "InvalidRequestError", "refused"),
        (lambda c: c.redeem([]), "InvalidRequestError", "refused"),
        (lambda c: c.member("x", "1").get("A"), "InvalidRequestError", "refused"),
        (lambda c: c.member("x", "1").vouchers(), "InvalidRequestError", "refused"),
        (in_a_pause, "ConnectTimeoutError", "not sent"),
    ],
    ids=["key", "listing", "filter", "no codes", "member", "member's", "deadline"],
)
async def test_span_of_a_call_that_is_not_sent(make_client, hook, exporter, call, error, outcome):
    """What is refused before an attempt is seen all the same."""
    with pytest.raises(VoucherError):
        await call(make_client(deny, hooks=[hook]))
    (span,) = exporter.get_finished_spans()
    assert span.kind is SpanKind.INTERNAL
    assert (span.attributes["error.type"], span.attributes["rm_voucher.outcome"]) == (
        error,
        outcome,
    )


async def test_span_of_a_call_of_a_closed_client(make_client, hook, exporter, credentials):
    """Its own transport sends nothing any more."""
    client = VoucherClient(credentials, token_source=StaticToken("token"), hooks=[hook])
    await client.aclose()
    with pytest.raises(ClosedError):
        await client.get("A")
    assert exporter.get_finished_spans()[-1].attributes["error.type"] == "ClosedError"


@pytest.mark.parametrize(
    ("answer", "expected", "description"),
    [
        (
            rm_error("VOUCHER_BATCH_NOT_FOUND", 404, "no NAklEfbVdV"),
            ("VOUCHER_BATCH_NOT_FOUND", 404, "refused"),
            "NotFoundError",
        ),
        (Response(status=502), ("ServerError", 502, "server failed"), "ServerError"),
        (LOST, ("ResponseLostError", None, "answer lost"), "ResponseLostError"),
        (ok({}), ("DecodeError", 200, "answer unreadable"), "DecodeError"),
        (ZeroDivisionError("x"), ("ZeroDivisionError", None, "failed"), "ZeroDivisionError"),
    ],
)
async def test_span_of_an_error(make_client, hook, exporter, answer, expected, description):
    """RM's code or the class, the status if one came, what it proves; no text of the server's."""
    client = make_client(ScriptedServer([answer]), hooks=[hook])
    with pytest.raises(Exception):  # noqa: B017 - each case has its own
        await client.issue("KEY")
    span, call = exporter.get_finished_spans()
    assert call.status.status_code is StatusCode.ERROR
    names = "error.type", "http.response.status_code", "rm_voucher.outcome"
    assert tuple(span.attributes.get(name) for name in names) == expected
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == description
    assert span.events == ()


async def test_span_of_a_cancellation(make_client, hook, exporter):
    """A call that is cancelled in flight still ends its span."""
    arrived = asyncio.Event()

    async def hang(request):
        arrived.set()
        await asyncio.Future()

    task = asyncio.create_task(make_client(hang, hooks=[hook]).get("X"))
    await arrived.wait()
    task.cancel()
    await asyncio.wait([task])
    for span in exporter.get_finished_spans():
        assert span.attributes["error.type"] == "CancelledError"
        assert span.attributes["rm_voucher.outcome"] == "cancelled"
        assert "rm_voucher.batch_key" not in span.attributes


async def test_span_counts_repeats(make_client, hook, exporter):
    """The repeats of a call are numbered, and those of the read back apart from them."""
    issued = payload("get-voucher")["item"] | {"status": "ISSUED"}
    still = ok({"item": issued, "code": "SUCCESS"})
    done = ok({"item": issued | {"status": "VOID"}, "code": "SUCCESS"})
    server = ScriptedServer([NOT_SENT, LOST, LOST, still, done])
    await make_client(server, hooks=[hook]).void("NAklEfbVdV")
    *spans, call = exporter.get_finished_spans()
    void, get = "POST /v3/voucher/{code}/void", "POST /v3/voucher/{code}"
    assert [(s.name, s.attributes.get("http.request.resend_count")) for s in spans] == [
        (void, None),
        (void, 1),
        (get, None),
        (get, 1),
        (void, 2),
    ]
    assert len({span.attributes["rm_voucher.attempt_id"] for span in spans}) == 5
    assert call.name == "rm_voucher void"
    assert {span.parent.span_id for span in spans} == {call.context.span_id}


async def test_span_of_a_token(make_client, hook, exporter):
    """A token request has a span with the OAuth server's name, and no batch."""
    client = make_client(ScriptedServer([TOKEN, ISSUED]), hooks=[hook], token_source=None)
    await client.issue("KEY")
    span, *_ = exporter.get_finished_spans()
    assert span.attributes["server.address"] == "sb-oauth.revenuemonster.my"
    assert span.attributes["rm_voucher.operation"] == "token"
    assert "rm_voucher.batch_key" not in span.attributes


async def test_span_of_an_attempt_is_never_the_current_one(make_client, hook, provider):
    """What the transport makes of spans is under the call's, and none is left behind."""
    seen = []

    def handler(request):
        seen.append(cast("ReadableSpan", get_current_span()).name)
        return ISSUED

    client = make_client(handler, hooks=[hook])
    with provider.get_tracer("test").start_as_current_span("caller") as parent:
        await client.issue("KEY")
        assert get_current_span() is parent
    assert seen == ["rm_voucher issue"]
    assert not get_current_span().get_span_context().is_valid


async def test_span_of_a_request_of_the_users_own(make_client, hook, exporter):
    """Its path may have a code: neither name nor attribute has any of it."""
    server = ScriptedServer([ok({"code": "SUCCESS"})])
    await make_client(server, hooks=[hook]).request("GET", "/v3/stores/NAklEfbVdV")
    attempt, call = exporter.get_finished_spans()
    assert (attempt.name, call.name) == ("GET", "rm_voucher request")
    assert "url.template" not in attempt.attributes


async def test_nothing_of_a_trace_is_sent(make_client, hook):
    """No header tells RM of it."""
    server = ScriptedServer([ISSUED])
    await make_client(server, hooks=[hook]).issue("KEY")
    (request,) = server.requests
    assert not {name.lower() for name in request.headers} & {"traceparent", "tracestate", "baggage"}


async def test_span_of_a_call_that_is_thrown_away(make_client, hook, exporter, caplog):
    """A coroutine that ends in another context ends its span, and says nothing."""

    async def hang(request):
        await asyncio.Future()

    call = make_client(hang, hooks=[hook]).get("X")
    contextvars.copy_context().run(call.send, None)
    call.close()
    assert [span.name for span in exporter.get_finished_spans()][-1] == "rm_voucher get"
    assert caplog.text == ""


async def test_spans_of_a_bulk_run(make_client, hook, exporter, provider):
    """A bulk run's attempts stand under the span in which it was entered; results tally."""
    answers = iter([ISSUED, LOST, ISSUED, LOST, ISSUED])

    def handler(request):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise ResponseLostError("x")
        return answer

    client = make_client(handler, hooks=[hook])
    with provider.get_tracer("test").start_as_current_span("campaign"):
        async with bulk_issue(client, "KEY", range(5), concurrency=3) as run:
            errors = [result.error async for result in run if result.error is not None]
    *spans, campaign = exporter.get_finished_spans()
    calls = [span for span in spans if span.kind is SpanKind.INTERNAL]
    assert [span.name for span in calls] == ["rm_voucher issue"] * 5
    assert {span.parent.span_id for span in calls} == {campaign.context.span_id}
    assert {span.attributes["rm_voucher.batch_key"] for span in calls} == {"KEY"}
    assert [span.attributes.get("rm_voucher.outcome") for span in calls].count("unknown") == 2
    spans = [span for span in spans if span.kind is SpanKind.CLIENT]
    failed = [span for span in spans if span.status.status_code is StatusCode.ERROR]
    assert len(failed) == len(errors) == 2
    unknown = [error for error in errors if isinstance(error, OutcomeUnknownError)]
    assert unknown == errors
    assert {error.attempt_id for error in unknown} == {
        span.attributes["rm_voucher.attempt_id"] for span in failed
    }


async def test_hook_without_a_provider_uses_the_global_one(make_client):
    """Without a provider nothing is needed, and without an SDK nothing is recorded."""
    client = make_client(ScriptedServer([ISSUED]), hooks=[OpenTelemetryHook()])
    assert (await client.issue("KEY")).code == "NAklEfbVdV"
