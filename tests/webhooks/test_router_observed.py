"""What observers are told of callbacks, and what `on_error` gets of a handler that fails."""

import asyncio
import traceback
from typing import Any

import pytest
import sentry_sdk
from sentry_sdk.transport import Transport
from support.telemetry import Telemetry
from support.webhook_routers import (
    CODE,
    Shop,
    body,
    deliver,
    event,
    give_make_world,  # noqa: F401 - a fixture
    give_quiet,  # noqa: F401 - a fixture
    make_router,
    sign,
)

from rm_voucher import ConfigurationError, VoucherStatus
from rm_voucher.webhooks import MemoryEventStore


@pytest.fixture
def store(time):
    return MemoryEventStore(runtime=time.runtime)


@pytest.fixture
def telemetry():
    return Telemetry()


def routed(store, handler, **settings):
    router = make_router(store, **settings)
    router.on(VoucherStatus.VOID)(handler)
    return router


async def test_delivery_is_a_span_with_its_answer(store, telemetry):
    """Under the current span, and what the handler does under it."""
    tracer = telemetry.tracers.get_tracer("test")

    async def handler(event):
        with tracer.start_as_current_span("work of the handler"):
            pass

    async with routed(store, handler, hooks=[telemetry.hook]) as router:
        with tracer.start_as_current_span("POST /callbacks/rm"):
            assert await deliver(router) == 200
    assert telemetry.tree() == [
        ("work of the handler", "rm_voucher callback"),
        ("rm_voucher callback", "POST /callbacks/rm"),
        ("POST /callbacks/rm", None),
    ]
    span = telemetry.spans[1]
    assert span.kind.name == "CONSUMER"
    assert dict(span.attributes) == {
        "rm_voucher.operation": "receive",
        "http.response.status_code": 200,
        "rm_voucher.outcome": "handled",
    }


async def test_each_answer_is_counted(store, telemetry, caplog):
    """By what became of it; a server's error is one of the span."""
    caplog.set_level("CRITICAL", "rm_voucher")

    async def too_slow():
        await asyncio.Future()
        yield b""

    settings = {"hooks": [telemetry.hook], "read_timeout_s": 0.01}
    async with routed(store, Shop(ZeroDivisionError).handle, **settings) as router:
        assert await deliver(router) == 500
        assert await deliver(router) == 200
        assert await deliver(router) == 200
        assert await deliver(router, status="ISSUED") == 200
        content = body()
        assert await router.receive({}, content) == 400
        assert await router.receive(sign(content), b"x" * 1_000_000) == 413
        assert await router.receive(sign(content), too_slow()) == 408
        await router.dispatch(event("other"))
    counts = {
        (dict(key)["rm_voucher.operation"], dict(key)["rm_voucher.outcome"]): count
        for key, count in telemetry.points("callback.duration").items()
    }
    assert counts == {
        ("receive", "failed"): 1,
        ("receive", "handled"): 1,
        ("receive", "repeat"): 1,
        ("receive", "ignored"): 1,
        ("receive", "refused"): 1,
        ("receive", "too large"): 1,
        ("receive", "too slow"): 1,
        ("dispatch", "handled"): 1,
    }
    failed, *others = telemetry.spans
    assert failed.attributes["error.type"] == "failed"
    assert failed.status.status_code.name == "ERROR"
    assert {span.status.status_code.name for span in others} == {"UNSET"}


async def test_callback_has_the_name_of_the_client_that_confirms(make_world, store, telemetry):
    """A router has no account of its own."""
    world = make_world(store)
    router = routed(
        store, Shop().handle, confirm=world.client, hooks=[telemetry.hook, lambda attempt: None]
    )
    async with router:
        await deliver(router)
    (span,) = telemetry.spans
    assert span.attributes["rm_voucher.client"] == world.client.name


def fails_with(code):
    """Fail as a driver does: with the code in texts, causes and locals."""
    try:
        raise KeyError(code)
    except KeyError as exc:
        raise ValueError(f"row of {code} is locked") from exc


async def test_on_error_gets_a_likeness_without_the_code(store, caplog):
    """Its class by name, its lines and causes; no code, and no local that could be one."""
    got: list[Exception] = []

    async def handler(event):
        fails_with(event.code)

    async with routed(store, handler, on_error=got.append) as router:
        assert await deliver(router) == 500
    (error,) = got
    assert type(error).__name__ == "ValueError"
    assert type(error.__cause__).__name__ == "KeyError"
    shown = "".join(
        traceback.TracebackException(
            type(error), error, error.__traceback__, capture_locals=True
        ).format()
    )
    assert CODE not in shown + repr(error) + repr(error.__cause__)
    assert 'raise ValueError(f"row of {code} is locked") from exc' in shown
    assert "in fails_with" in shown
    assert "in handler" in shown
    assert "router.py" not in shown
    assert "code =" not in shown
    (record,) = [one for one in caplog.records if one.levelname == "ERROR"]
    assert vars(record)["rm_operation"] == "callback"
    assert vars(record)["rm_event"] in record.getMessage()


async def test_on_error_that_fails_changes_nothing(store, caplog):
    """It is logged, without its text, which may have anything."""

    def broken(error):
        raise ZeroDivisionError(str(error))

    async with routed(store, Shop(ValueError("x")).handle, on_error=broken) as router:
        assert await deliver(router) == 500
        assert await deliver(router) == 200
    assert "on_error failed (ZeroDivisionError)" in caplog.messages[1]


def test_on_error_that_is_no_function(store):
    """It is a mistake at once, and not at the first failure."""
    with pytest.raises(ConfigurationError, match="on_error"):
        make_router(store, on_error="sentry")


async def test_on_error_is_told_of_a_time_out(store):
    """A handler that takes too long has failed."""
    got: list[Exception] = []

    async def hang(event):
        await asyncio.Future()

    async with routed(store, hang, on_error=got.append, handler_timeout_s=0.01) as router:
        assert await deliver(router) == 500
    assert [type(error).__name__ for error in got] == ["TimeoutError"]


async def test_sentry_takes_the_likeness(store):
    """It finds class, text, module and line, and no local that has a code."""
    sent: list[Any] = []

    class Keep(Transport):
        def capture_envelope(self, envelope):
            sent.append(envelope.get_event())

    reporter = sentry_sdk.Client(
        "https://key@sentry.invalid/1", transport=Keep, default_integrations=False
    )

    async def handler(event):
        fails_with(event.code)

    with sentry_sdk.new_scope() as scope:
        scope.set_client(reporter)
        async with routed(store, handler, on_error=sentry_sdk.capture_exception) as router:
            await deliver(router)
    reporter.close()
    ((cause, error),) = [event["exception"]["values"] for event in sent]
    assert (cause["type"], error["type"]) == ("KeyError", "ValueError")
    assert error["value"].startswith("row of ")
    frames = error["stacktrace"]["frames"]
    assert [one["function"] for one in frames] == ["handler", "fails_with"]
    assert {one["module"] for one in frames} == {__name__}
    assert "raise ValueError" in frames[-1]["context_line"]
    assert CODE not in repr(sent)
