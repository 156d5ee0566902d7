"""OpenTelemetry: a client span of each attempt, under the span of whoever calls."""

import asyncio

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_current_span
from support.answers import ISSUED, ok, payload, rm_error
from support.scripted_server import ScriptedServer

from rm_voucher import (
    ConnectError,
    NotFoundError,
    OutcomeUnknownError,
    Response,
    ResponseLostError,
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
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


@pytest.fixture
def hook(provider):
    return OpenTelemetryHook(provider)


async def test_span_of_a_success(make_client, hook, exporter):
    """One client span, named after the operation, with what is known and no more."""
    await make_client(ScriptedServer([ISSUED]), hooks=[hook]).issue("KEY")
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.kind) == ("rm_voucher issue", SpanKind.CLIENT)
    attributes = dict(span.attributes)
    assert len(attributes.pop("rm_voucher.attempt_id")) == 16
    assert attributes == {
        "http.request.method": "POST",
        "http.request.resend_count": 0,
        "http.response.status_code": 200,
        "server.address": "sb-open.revenuemonster.my",
        "rm_voucher.operation": "issue",
        "rm_voucher.batch_key": "KEY",
    }
    assert span.status.status_code is StatusCode.UNSET
    assert span.events == ()
    scope = span.instrumentation_scope
    assert (scope.name, scope.version) == ("rm_voucher", __version__)


async def test_span_is_a_child_of_the_current_one(make_client, hook, exporter, provider):
    """Attempts, token requests too, stand under the caller's span, which is told nothing."""
    server = ScriptedServer([TOKEN, NOT_SENT, ISSUED])
    client = make_client(server, hooks=[hook], token_source=None)
    with provider.get_tracer("test").start_as_current_span("caller") as parent:
        await client.issue("KEY")
        assert get_current_span() is parent
    *children, outer = exporter.get_finished_spans()
    assert [span.name for span in children] == [
        "rm_voucher token",
        "rm_voucher issue",
        "rm_voucher issue",
    ]
    for span in children:
        assert span.parent.span_id == outer.context.span_id
        assert span.context.trace_id == outer.context.trace_id
    assert (dict(outer.attributes), outer.events) == ({}, ())
    assert outer.status.status_code is StatusCode.UNSET


async def test_span_of_an_error_leaves_the_parent_alone(make_client, hook, exporter, provider):
    """An error is recorded on the attempt; whether its parent failed is the caller's business."""
    client = make_client(ScriptedServer([rm_error("VOUCHER_NOT_FOUND", 404)]), hooks=[hook])
    with provider.get_tracer("test").start_as_current_span("caller"):
        try:
            await client.get("X")
        except NotFoundError as exc:
            refused = exc
    assert refused.code == "VOUCHER_NOT_FOUND"
    child, outer = exporter.get_finished_spans()
    assert child.status.status_code is StatusCode.ERROR
    assert (outer.status.status_code, outer.events) == (StatusCode.UNSET, ())


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
        (ZeroDivisionError("x"), ("ZeroDivisionError", None, None), "ZeroDivisionError"),
    ],
)
async def test_span_of_an_error(make_client, hook, exporter, answer, expected, description):
    """RM's code or the class, the status if one came, what it proves; no text of the server's."""
    client = make_client(ScriptedServer([answer]), hooks=[hook])
    with pytest.raises(Exception):  # noqa: B017 - each case has its own
        await client.issue("KEY")
    (span,) = exporter.get_finished_spans()
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
    (span,) = exporter.get_finished_spans()
    assert span.attributes["error.type"] == "CancelledError"
    assert "rm_voucher.batch_key" not in span.attributes


async def test_span_counts_repeats(make_client, hook, exporter):
    """The repeats of a call are numbered, and those of the read back apart from them."""
    issued = payload("get-voucher")["item"] | {"status": "ISSUED"}
    still = ok({"item": issued, "code": "SUCCESS"})
    done = ok({"item": issued | {"status": "VOID"}, "code": "SUCCESS"})
    server = ScriptedServer([NOT_SENT, LOST, LOST, still, done])
    await make_client(server, hooks=[hook]).void("NAklEfbVdV")
    spans = exporter.get_finished_spans()
    assert [(s.name, s.attributes["http.request.resend_count"]) for s in spans] == [
        ("rm_voucher void", 0),
        ("rm_voucher void", 1),
        ("rm_voucher get", 0),
        ("rm_voucher get", 1),
        ("rm_voucher void", 2),
    ]
    assert len({span.attributes["rm_voucher.attempt_id"] for span in spans}) == 5


async def test_span_of_a_token(make_client, hook, exporter):
    """A token request has a span with the OAuth server's name, and no batch."""
    client = make_client(ScriptedServer([TOKEN, ISSUED]), hooks=[hook], token_source=None)
    await client.issue("KEY")
    span, _ = exporter.get_finished_spans()
    assert span.attributes["server.address"] == "sb-oauth.revenuemonster.my"
    assert span.attributes["rm_voucher.operation"] == "token"
    assert "rm_voucher.batch_key" not in span.attributes


async def test_span_is_never_the_current_one(make_client, hook, provider):
    """What the transport makes of spans is not under ours, and none is left behind."""
    seen = []

    def handler(request):
        seen.append(get_current_span())
        return ISSUED

    client = make_client(handler, hooks=[hook])
    with provider.get_tracer("test").start_as_current_span("caller") as parent:
        await client.issue("KEY")
    assert seen == [parent]
    assert not get_current_span().get_span_context().is_valid


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
    assert [span.name for span in spans] == ["rm_voucher issue"] * 5
    assert {span.parent.span_id for span in spans} == {campaign.context.span_id}
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
