"""What the faults are on the wire, and how the server ends with some of them under way."""

import asyncio
import socket
import subprocess
import sys
import textwrap

import pytest
from support.fault_stage import ME, SHORT, listens, stage, until

from rm_voucher import OutcomeUnknownError, RetryPolicy, StaticToken, VoucherClient
from rm_voucher.emulator import Emulator, Fault, FaultPlan, Window
from rm_voucher.emulator.server import serve

ONCE = RetryPolicy(max_attempts=1)
ASK = b"POST /v3/voucher-batch/B/issue HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"


async def raw(on):
    """Send a request that may not pass, over a bare socket."""
    port = int(on.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(ASK)
    return reader, writer


async def head(reader):
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
    fields = dict(line.lower().split(": ", 1) for line in lines[1:-1])
    return int(lines[0].split()[1]), fields


@pytest.fixture
async def on():
    async with stage("http", retry=ONCE) as made:
        yield made


async def test_whole_answer(on):
    """Without a fault the connection stays, and the next request is answered over it."""
    reader, writer = await raw(on)
    for _ in range(2):
        status, fields = await head(reader)
        body = await reader.readexactly(int(fields["content-length"]))
        assert (status, b"UNAUTHORIZED" in body) == (401, True)
        writer.write(ASK)
    writer.close()


@pytest.mark.parametrize(
    ("fault", "plan"),
    [
        (Fault.DROP_BEFORE_COMMIT, FaultPlan()),
        (Fault.DROP_AFTER_COMMIT, FaultPlan()),
        (Fault.TIMEOUT_BEFORE_COMMIT, FaultPlan(stall_s=0.01)),
        (Fault.TIMEOUT_AFTER_COMMIT, FaultPlan(stall_s=0.01)),
    ],
)
async def test_reset_is_a_reset(on, fault, plan):
    """A dropped connection is a TCP reset, not an orderly end, and no byte comes before it."""
    on.emulator.faults = plan
    on.emulator.fail_next("issue", fault)
    reader, writer = await raw(on)
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    writer.close()


async def test_truncated_answer(on):
    """A truncated answer announces its whole length, and ends in an orderly way after half."""
    on.emulator.fail_next("issue", Fault.TRUNCATED)
    reader, writer = await raw(on)
    status, fields = await head(reader)
    body = await reader.read()
    writer.close()
    assert status == 401
    assert len(body) == int(fields["content-length"]) // 2
    assert body.startswith(b'{"error":')


async def test_slow_body_comes_in_pieces(on):
    """A slow answer takes its time, whatever its length: piece by piece until it is whole."""
    on.emulator.faults = FaultPlan(slow_body_s=0.2)
    on.emulator.fail_next("issue", Fault.SLOW_BODY)
    reader, writer = await raw(on)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    _, fields = await head(reader)
    left, pieces = int(fields["content-length"]), 0
    while left:
        left -= len(await reader.read(left))
        pieces += 1
    assert loop.time() - begun >= 0.19
    assert pieces > 5
    writer.close()


@pytest.mark.parametrize(
    ("fault", "status", "type", "asked"),
    [
        (Fault.THROTTLE, 429, "application/json", "1"),
        (Fault.THROTTLE_NO_RETRY_AFTER, 429, "application/json", None),
        (Fault.THROTTLE_NO_BODY, 429, None, "1"),
        (Fault.THROTTLE_BARE, 429, None, None),
        (Fault.ERROR_BEFORE_COMMIT, 500, "application/json", None),
        (Fault.HTML_PAGE, 502, "text/html", None),
    ],
)
async def test_answers_instead_of_the_work(on, fault, status, type, asked):
    """A refusal or a gateway's page has its own status, type and Retry-After; of no type there is
    no body either."""
    on.emulator.fail_next("issue", fault)
    reader, writer = await raw(on)
    got, fields = await head(reader)
    assert (got, fields.get("retry-after")) == (status, asked)
    if type is None:
        assert fields["content-length"] == "0"
        assert "json" not in fields.get("content-type", "")
    else:
        assert int(fields["content-length"]) > 0
        assert fields["content-type"].startswith(type)
    writer.close()


async def test_client_that_leaves_a_slow_body(on):
    """A voucher whose answer the client does not wait for is undelivered, as soon as the server
    sees that the client has gone, and once."""
    on.emulator.faults = FaultPlan(slow_body_s=6000)  # the next piece would come too late to tell
    on.emulator.fail_next("issue", Fault.SLOW_BODY)
    with pytest.raises(OutcomeUnknownError):
        await on.client.issue("B", timeout=SHORT)
    await until(lambda: on.emulator.undelivered)
    assert on.emulator.undelivered == [on.emulator.state.issued("B")[1]]


@pytest.mark.parametrize("fault", [Fault.SLOW_BODY, Fault.TIMEOUT_AFTER_COMMIT])
async def test_block_left_while_clients_wait(fault):
    """Once the block is left the books are right, no task of the server's runs on, and nothing
    listens; and leaving it takes no longer than a moment."""
    emulator = Emulator(seed=1, credentials=ME, batches={"B": 10})
    emulator.faults = FaultPlan(slow_body_s=60, stall_s=60)
    emulator.fail_next("issue", fault, times=5)
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    serving = serve(emulator)
    server = await serving.__aenter__()
    async with VoucherClient(ME, environment=server.environment, retry=ONCE) as client:
        calls = [asyncio.create_task(client.issue("B")) for _ in range(5)]
        await until(lambda: emulator.requests["issue"] == 5)
        begun = loop.time()
        await serving.__aexit__(None, None, None)
        assert loop.time() - begun < 20  # a moment, on a machine that does much else
        assert sorted(emulator.undelivered) == sorted(emulator.state.issued("B"))
        assert not listens(server.url)
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(end) for end in ends} == {OutcomeUnknownError}
    assert asyncio.all_tasks() == before


LEFT_EARLY = """
    import asyncio, time
    from rm_voucher import *
    from rm_voucher.emulator import *
    from rm_voucher.emulator.server import serve

    async def main():
        asyncio.get_running_loop().slow_callback_duration = 600  # of a busy machine no word
        emulator = Emulator(seed=1, batches={"B": 100})
        # Late work is done at a random time within late_s: here none while the server is up.
        emulator.faults = FaultPlan(slow_body_s=90_000, stall_s=90_000, late_s=1_000_000)
        kinds = ["slow-body", "timeout-before-commit", "timeout-after-commit", "late-commit"]
        for kind in kinds * 5:
            emulator.fail_next("issue", kind)
        async with serve(emulator) as server:
            client = VoucherClient(
                emulator.credentials,
                environment=server.environment,
                retry=RetryPolicy(max_attempts=1),
                timeout=Timeout(attempt_s=90_000),
            )
            calls = [asyncio.create_task(client.issue("B")) for _ in range(20)]
            while emulator.requests["issue"] < 20:
                await asyncio.sleep(0)
            begun = time.monotonic()
        print("left", time.monotonic() - begun < 300, len(emulator.undelivered))
        ends = await asyncio.gather(*calls, return_exceptions=True)
        print({type(end).__name__ for end in ends})
        await client.aclose()

    asyncio.run(main())
"""


def test_server_ends_without_a_warning():
    """A server that is left while clients wait for it ends at once, and Python warns of nothing,
    in its development mode either."""
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(LEFT_EARLY)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == ["left True 10", "{'OutcomeUnknownError'}"]
    assert ended.returncode == 0


async def test_latency_comes_before_the_work():
    """Latency is added to every request, before anything is done: a client that leaves meanwhile
    is issued nothing, and its request is in no book."""
    emulator = Emulator(seed=1, credentials=ME, batches={"B": 10}, disabled_checks=["token"])

    def client(server):
        token = StaticToken("x")
        return VoucherClient(ME, environment=server.environment, retry=ONCE, token_source=token)

    loop = asyncio.get_running_loop()
    async with serve(emulator, latency_s=0.1) as server, client(server) as patient:
        begun = loop.time()
        await patient.issue("B")
        assert loop.time() - begun >= 0.09
    async with serve(emulator, latency_s=60) as server, client(server) as hasty:
        with pytest.raises(OutcomeUnknownError):
            await hasty.issue("B", timeout=SHORT)
    assert len(emulator.state.issued("B")) == 1
    assert emulator.requests == {"issue": 1}


async def test_port_that_was_taken_meanwhile():
    """A window ends while something else has the port: the server listens as soon as it can."""
    emulator = Emulator(credentials=ME)
    async with serve(emulator) as server:
        window = Window(fault=Fault.CLOSED, start_s=0, length_s=1000)
        emulator.faults = FaultPlan(windows=[window])
        await until(lambda: not listens(server.url))
        with socket.create_server(("127.0.0.1", int(server.url.rpartition(":")[2]))):
            emulator.faults = FaultPlan()
            await asyncio.sleep(0.01)
        await until(lambda: listens(server.url))
