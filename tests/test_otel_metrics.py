"""OpenTelemetry's metrics: what is measured, by few attributes, and gauges of what is there."""

import gc
import sys
import threading

import pytest
from support.answers import ISSUED, rm_error
from support.command import PATIENCE_S
from support.scripted_server import ScriptedServer
from support.telemetry import Telemetry

from rm_voucher import (
    ConnectError,
    FlowPolicy,
    Gauge,
    Observer,
    OutcomeUnknownError,
    ResponseLostError,
    bulk_issue,
)
from rm_voucher.otel import OpenTelemetryHook

NOT_SENT = ConnectError("x: no connection")
LOST = ResponseLostError("x: the server closed the connection")


@pytest.fixture
def telemetry():
    return Telemetry()


async def test_calls_and_attempts_are_measured(make_client, telemetry):
    """By operation, client and outcome; attempts by status too. A batch is no attribute."""
    server = ScriptedServer([ISSUED, NOT_SENT, rm_error("TOO_MANY_REQUESTS", 429), ISSUED, LOST])
    client = make_client(server, hooks=[telemetry.hook], name="till 3")
    await client.issue("KEY")
    await client.issue("KEY")
    with pytest.raises(OutcomeUnknownError):
        await client.issue("KEY")
    same = {("rm_voucher.operation", "issue"), ("rm_voucher.client", "till 3")}
    assert telemetry.points("call.duration") == {
        frozenset({*same, ("rm_voucher.outcome", "done")}): 2,
        frozenset(
            {*same, ("rm_voucher.outcome", "unknown"), ("error.type", "OutcomeUnknownError")}
        ): 1,
    }
    attempts = telemetry.points("attempt.duration")
    assert sum(attempts.values()) == 5
    throttled = {
        *same,
        ("rm_voucher.outcome", "throttled"),
        ("error.type", "RateLimitError"),
        ("http.response.status_code", 429),
    }
    assert attempts[frozenset(throttled)] == 1


async def test_flow_is_read_when_metrics_are_collected(make_client, telemetry, time):
    """The rate, who waits, and an outage; nothing of what is not known."""
    client = make_client(
        ScriptedServer([ISSUED]),
        hooks=[telemetry.hook],
        name="till 3",
        flow=FlowPolicy(rate_per_s=50),
    )
    assert telemetry.one("flow.rate", client="till 3") == 50
    assert telemetry.one("flow.outage", client="till 3") == 0
    assert telemetry.one("flow.waiting", client="till 3") == 0
    assert telemetry.points("flow.processes") == {}
    client.caller.flow.pause_until(time.clock() + 30)
    assert telemetry.one("flow.retry_after", client="till 3") == 30


async def test_clients_of_one_name_are_one(make_client, telemetry):
    """Counts are added, and of rates and times the larger is shown."""
    kept = [make_client(ScriptedServer([]), flow=FlowPolicy(rate_per_s=n)) for n in (50, 80)]
    for client in kept:
        telemetry.hook.source("b", client.caller.flow)
        telemetry.hook.source("b", client.caller.flow)  # told twice, it is there once
    assert telemetry.one("flow.rate", client="b") == 80
    assert len([name for name, _ in telemetry.hook._sources if name == "b"]) == 2


async def test_client_that_is_gone_is_not_shown(make_client, telemetry):
    """Nothing is kept for it."""
    make_client(ScriptedServer([]), hooks=[telemetry.hook], name="gone")
    gc.collect()
    assert telemetry.points("flow.waiting") == {}
    make_client(ScriptedServer([]), hooks=[telemetry.hook], name="next")
    assert all(name != "gone" for name, _ in telemetry.hook._sources)


async def test_source_that_fails_hides_no_other(make_client, telemetry):
    """It may change while another thread reads it."""

    class Broken:
        def gauges(self):
            raise RuntimeError("dictionary changed size during iteration")

    broken = Broken()
    telemetry.hook.source("broken", broken)
    client = make_client(ScriptedServer([]), hooks=[telemetry.hook], name="whole")
    assert list(telemetry.points("flow.waiting").values()) == [0]
    assert client.name == "whole"


def test_sources_of_several_event_loops(telemetry):
    """Each in a thread of its own, they tell one hook of what they have, and none is lost."""

    class Source:
        def gauges(self):
            return [Gauge("flow.waiting", 1)]

    sources = [[Source() for _ in range(100)] for _ in range(8)]
    begin = threading.Barrier(len(sources) + 1)

    def tell(some):
        begin.wait(PATIENCE_S)
        for source in some:
            telemetry.hook.source("many", source)

    switches_after_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=tell, args=[some]) for some in sources]
        for thread in threads:
            thread.start()
        begin.wait(PATIENCE_S)
        while any(thread.is_alive() for thread in threads):
            telemetry.points("flow.waiting")  # as an exporter's thread does
    finally:
        sys.setswitchinterval(switches_after_s)
    assert telemetry.one("flow.waiting", client="many") == 800


async def test_signing_of_a_bulk_issue(make_client, telemetry):
    """While it runs."""
    client = make_client(lambda request: ISSUED, hooks=[telemetry.hook], name="till 3")
    async with bulk_issue(client, "KEY", range(3)) as run:
        assert telemetry.one("signing.waiting", client="till 3") == 0
        assert telemetry.one("signing.processes", client="till 3") == 0
        assert len([result async for result in run]) == 3


def test_hook_is_an_observer():
    """Clients and routers tell it of all work."""
    assert isinstance(OpenTelemetryHook(), Observer)
