"""The pytest plugin, each time in a pytest of its own: a folder with one file, no conftest and no
settings, where every warning is an error."""

import asyncio
import importlib.metadata
import os
import re
import subprocess
import sys
import textwrap
import unittest

import aiohttp
import pytest
from support.files import PUBLIC_KEY_FILE

from rm_voucher import OutcomeUnknownError, VoucherError
from rm_voucher.emulator import Fault
from rm_voucher.testing import emulated, requests

# What is installed beside it and is not needed only takes time to load.
ALONE = tuple(f"-pno:{name}" for name in ("anyio", "hypothesispytest", "pytest_cov", "socket"))
ALONE = (*ALONE, "-pno:randomly")
PLAIN = (*ALONE, "-pno:asyncio", "-pno:xdist")
# Without its scope pytest-asyncio itself warns.
ASYNCIO = (*ALONE, "-oasyncio_mode=auto", "-oasyncio_default_fixture_loop_scope=function")

EVERY_FIXTURE = """
    @pytest.mark.rm_emulator(batches={"TEA": 3})
    async def test_client(rm_emulator, rm_client, rm_callbacks, rm_requests):
        issued = await rm_client.issue("TEA")
        await rm_client.void(issued.code)
        assert rm_emulator.issued("TEA") == (issued.code,)
        assert await rm_callbacks.deliver_all() == 1
        assert [voucher.code for voucher in rm_callbacks.vouchers] == [issued.code]
        assert rm_requests.of("void").count == 1

    @pytest.mark.rm_emulator(batches={"TEA": 3})
    async def test_server(rm_emulator, rm_client, rm_server):
        from rm_voucher import VoucherClient

        credentials, environment = rm_emulator.credentials, rm_server.environment
        async with VoucherClient(credentials, environment=environment) as client:
            issued = await client.issue("TEA")
        assert (await rm_client.get(issued.code)).status == "ISSUED"
"""


@pytest.fixture
def run_pytest(tmp_path):
    """Run pytest on one file; return how many passed, failed and so on, and all that was said."""

    def run(source, *arguments):
        path = tmp_path / "test_it.py"
        path.write_text("import asyncio\nimport pytest\n" + textwrap.dedent(source))
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-m", "pytest", *arguments, path.name],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if "PYTEST" not in name},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        *said, last = done.stdout.splitlines()
        found = re.findall(r"(\d+) (passed|failed|error|warning)", last)
        return {word: int(number) for number, word in found}, "\n".join([*said, last])

    return run


def without_plugin(source):
    """Return async tests as plain ones that use `asyncio.run`."""
    plain = r"def \1(\2):\n        asyncio.run(_\1(\2))\n\n    async def _\1(\2):\n"
    return re.sub(r"async def (test_\w+)\((.*)\):\n", plain, source)


@pytest.mark.parametrize(
    ("source", "arguments"),
    [
        pytest.param(without_plugin(EVERY_FIXTURE), PLAIN, id="plain"),
        pytest.param(
            without_plugin(EVERY_FIXTURE),
            (*ALONE, "-pno:asyncio", "-n2"),
            id="xdist",
            marks=pytest.mark.long,
        ),
        pytest.param(EVERY_FIXTURE, (*ASYNCIO, "-pno:xdist"), id="asyncio"),
        pytest.param(EVERY_FIXTURE, (*ASYNCIO, "-n2"), id="asyncio-xdist", marks=pytest.mark.long),
    ],
)
def test_every_fixture_without_a_conftest(run_pytest, source, arguments):
    """The fixtures are there by themselves, with and without other plugins, and warn of nothing."""
    counts, said = run_pytest(source, *arguments)
    assert counts == {"passed": 2}, said


@pytest.mark.long
def test_marker_is_known(run_pytest):
    """The marker needs no registering, and ``pytest --markers`` explains it."""
    source = """
        @pytest.mark.rm_emulator(batches={"TEA": 1})
        def test_marked(rm_emulator):
            assert rm_emulator.batch("TEA").quantity == 1
    """
    counts, said = run_pytest(source, *PLAIN, "--strict-markers")
    assert counts == {"passed": 1}, said
    _, said = run_pytest(source, *PLAIN, "--markers")
    assert "@pytest.mark.rm_emulator(**arguments): what the fixture rm_emulator gives to" in said


@pytest.mark.long
def test_marker_arguments_reach_the_emulator(run_pytest):
    """What the marker names is the emulator's, its credentials included; the rest has defaults."""
    source = f"""
        from pathlib import Path

        CLIENT = dict(client_id="me", client_secret="hush", seed=7)

        @pytest.mark.rm_emulator(batches={{"TEA": 2}}, merchant_pin="000", **CLIENT)
        def test_client(rm_emulator, rm_client, rm_server):
            assert rm_server.variables["RM_CLIENT_ID"] == rm_emulator.credentials.client_id == "me"
            assert rm_server.variables["RM_CLIENT_SECRET"] == "hush"

            async def main():
                code = (await rm_client.issue("TEA")).code
                await rm_client.void(code)
                assert (await rm_client.reinstate(code, pin="000")).status == "REDEEMED"
                return code

            from rm_voucher.emulator import Emulator

            other = Emulator(seed=7, batches={{"TEA": 2}}).client()
            assert asyncio.run(main()) == asyncio.run(other.issue("TEA")).code

        @pytest.mark.rm_emulator(public_key=Path({str(PUBLIC_KEY_FILE)!r}).read_bytes())
        def test_public_key(rm_emulator, rm_server):
            assert rm_emulator.known_credentials is None
            assert "RM_PRIVATE_KEY" not in rm_server.variables

        @pytest.mark.rm_emulator(batches={{"A": 1}})
        class TestInner:
            def test_class(self, rm_emulator):
                assert rm_emulator.batch("A").quantity == 1

            @pytest.mark.rm_emulator(batches={{"B": 1}})
            def test_closest(self, rm_emulator):
                assert [batch.key for batch in rm_emulator.state.stock.ours()] == ["B"]

        def test_none(rm_emulator):
            assert rm_emulator.state.stock.ours() == []
    """
    counts, said = run_pytest(source, *PLAIN)
    assert counts == {"passed": 5}, said


def test_marker_with_a_mistake(run_pytest):
    """A mistake in the marker is an error that names it, and is never passed over."""
    mistakes = {
        "(batch={'TEA': 1})": "TypeError: .*unexpected keyword argument 'batch'",
        "({'TEA': 1})": "TypeError: the marker rm_emulator takes keyword arguments only",
        "(batches={'TEA': -1})": "ValueError: quantity is a whole number",
    }
    source = "".join(
        f"@pytest.mark.rm_emulator{marker}\ndef test_{number}(rm_client): pass\n"
        for number, marker in enumerate(mistakes)
    )
    counts, said = run_pytest(source, *PLAIN)
    assert counts == {"error": 3}, said
    for sentence in mistakes.values():
        assert re.search(rf"^E +{sentence}", said, re.MULTILINE)


@pytest.mark.long
def test_tests_share_nothing(run_pytest):
    """Each test has an emulator of its own, from the same seed, and its fixtures share that one."""
    source = """
        import time

        CODES = []

        @pytest.mark.parametrize("number", range(2))
        @pytest.mark.rm_emulator(batches={"TEA": 1})
        def test_same(rm_emulator, rm_client, rm_server, rm_callbacks, request, number):
            assert request.getfixturevalue("rm_emulator") is rm_emulator
            assert rm_emulator.callbacks.url == "https://merchant.invalid/callback"
            assert rm_callbacks.requests == []
            assert rm_emulator.virtual_clock.now() < 10_000 + time.time()
            assert not rm_emulator.requests and not rm_emulator.faults.rate
            CODES.append(asyncio.run(rm_client.issue("TEA")).code)
            rm_callbacks.refuse_next(times=9)
            rm_emulator.add_batch("x", key=f"x{number}", quantity=1)
            rm_emulator.fail_next("issue", "INTERNAL_ERROR", times=9)
            rm_emulator.advance(1_000_000)

        def test_end():
            assert len(CODES) == 2 and len(set(CODES)) == 1
    """
    counts, said = run_pytest(source, *PLAIN)
    assert counts == {"passed": 3}, said


@pytest.mark.long
def test_client_waits_on_the_emulators_clock(run_pytest):
    """Throttles and time-outs cost no time: the emulator's clock moves instead, deadlines too."""
    source = """
        import time

        from rm_voucher import RateLimitError, Timeout
        from rm_voucher.emulator import Fault, FaultPlan

        pytestmark = pytest.mark.rm_emulator(batches={"TEA": 9})

        def run(emulator, coroutine):
            began, ahead = time.monotonic(), emulator.virtual_clock.now()
            try:
                result = asyncio.run(coroutine)
            except RateLimitError as exc:
                result = exc
            took = time.monotonic() - began
            assert took < 30
            # What the clock was set ahead by, but for a second of doubt.
            return result, round(emulator.virtual_clock.now() - ahead - took)

        def test_throttled(rm_emulator, rm_client):
            rm_emulator.faults = FaultPlan(retry_after_s=60)
            rm_emulator.fail_next("issue", Fault.THROTTLE, times=3)
            issued, ahead_s = run(rm_emulator, rm_client.issue("TEA"))
            assert rm_emulator.issued("TEA") == (issued.code,)
            assert 180 <= ahead_s < 240 and rm_emulator.requests["issue"] == 4

        def test_timed_out(rm_emulator, rm_client):
            rm_emulator.fail_next("batches", Fault.TIMEOUT_BEFORE_COMMIT, times=5)

            async def first():
                return await rm_client.batches()

            page, ahead_s = run(rm_emulator, first())
            assert [batch.key for batch in page.items] == ["TEA"]
            assert rm_emulator.requests["batches"] == 6 and 0 < ahead_s < 60

        def test_deadline(rm_emulator, rm_client):
            rm_emulator.faults = FaultPlan(retry_after_s=60)
            rm_emulator.fail_next("issue", Fault.THROTTLE, times=9)
            timeout = Timeout(total_s=150)
            error, ahead_s = run(rm_emulator, rm_client.issue("TEA", timeout=timeout))
            assert isinstance(error, RateLimitError)
            assert rm_emulator.requests["issue"] == 3 and 120 <= ahead_s <= 150
    """
    counts, said = run_pytest(source, *PLAIN)
    assert counts == {"passed": 3}, said


@pytest.mark.long
def test_server_for_others(run_pytest):
    """A synchronous test, another process and the control API all meet the test's emulator."""
    source = """
        import base64
        import json
        import os
        import subprocess
        import sys
        from urllib.request import Request, urlopen

        def ask(url, wire=None, **headers):
            data = None if wire is None else json.dumps(wire).encode()
            with urlopen(Request(url, data, headers)) as answer:
                return json.load(answer)

        CHECKS = ["signature", "nonce", "timestamp"]

        @pytest.mark.rm_emulator(batches={"TEA": 2}, disabled_checks=CHECKS)
        def test_synchronous(rm_emulator, rm_server):
            given = rm_server.variables
            identity = f"{given['RM_CLIENT_ID']}:{given['RM_CLIENT_SECRET']}".encode()
            basic = "Basic " + base64.b64encode(identity).decode()
            asked = {"grantType": "client_credentials"}
            token = ask(f"{rm_server.url}/v1/token", asked, Authorization=basic)["accessToken"]
            path = f"{rm_server.url}/v3/voucher-batch/TEA/issue"
            issued = ask(path, {}, Authorization=f"Bearer {token}")
            assert rm_emulator.issued("TEA") == (issued["item"]["code"],)

        @pytest.mark.rm_emulator(batches={"TEA": 2})
        def test_process(rm_emulator, rm_server):
            command = [sys.executable, "-m", "rm_voucher.cli", "issue", "TEA", "--count", "1"]
            env = {**os.environ, **rm_server.variables}
            issued = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
            (code,) = rm_emulator.issued("TEA")
            assert code in issued.stdout

        @pytest.mark.rm_emulator(batches={"TEA": 2})
        def test_control(rm_emulator, rm_server):
            ask(f"{rm_server.url}/_emulator/batches", {"key": "B", "quantity": 3})
            assert rm_emulator.batch("B").quantity == 3
            rm_emulator.add_batch("x", key="C", quantity=4)
            batches = ask(f"{rm_server.url}/_emulator/batches")
            assert [batch["key"] for batch in batches] == ["TEA", "B", "C"]
    """
    counts, said = run_pytest(source, *PLAIN)
    assert counts == {"passed": 3}, said


@pytest.mark.long
def test_server_stops_with_its_test(run_pytest):
    """A test that fails leaves no server and no thread; one that can't listen fails at once."""
    source = """
        import socket
        import threading
        from urllib.parse import urlsplit

        URLS = []

        def test_failing(rm_server):
            URLS.append(urlsplit(rm_server.url))
            socket.create_connection((URLS[0].hostname, URLS[0].port)).close()
            raise AssertionError("meant")

        def test_stopped():
            assert threading.active_count() == 1
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((URLS[0].hostname, URLS[0].port))

        def test_no_port(rm_emulator, request, monkeypatch):
            def serve(emulator):
                raise OSError("no port left")

            monkeypatch.setattr("rm_voucher.emulator.server.serve", serve)
            with pytest.raises(OSError, match="no port left"):
                request.getfixturevalue("rm_server")
    """
    counts, said = run_pytest(source, *PLAIN)
    assert counts == {"failed": 1, "passed": 2}, said
    assert "AssertionError: meant" in said


@pytest.mark.long
def test_callbacks(run_pytest):
    """What is delivered can be seen, refused and hurried: five attempts, a minute apart."""
    source = """
        pytestmark = pytest.mark.rm_emulator(batches={"TEA": 3})

        async def void(client):
            return (await client.void((await client.issue("TEA")).code)).code

        async def test_delivered(rm_emulator, rm_client, rm_callbacks):
            assert await rm_callbacks.deliver() == 0
            one, two = await void(rm_client), await void(rm_client)
            assert rm_callbacks.vouchers == []
            assert await rm_callbacks.deliver() == 2
            assert [(v.code, v.status) for v in rm_callbacks.vouchers] == [
                (one, "VOID"), (two, "VOID")
            ]
            assert "X-Signature" in rm_callbacks.requests[0].headers
            assert await rm_callbacks.deliver_all() == 0

        async def test_refused(rm_emulator, rm_client, rm_callbacks):
            rm_callbacks.refuse_next()
            rm_callbacks.refuse_next(times=1, status=404)
            await void(rm_client)
            before = rm_emulator.virtual_clock.now()
            assert await rm_callbacks.deliver() == 1
            assert await rm_callbacks.deliver() == 0
            assert await rm_callbacks.deliver_all() == 2
            assert 119 < rm_emulator.virtual_clock.now() - before < 180
            first, *more = rm_callbacks.requests
            assert [request.body for request in more] == [first.body] * 2
            assert (rm_emulator.callbacks.delivered, rm_emulator.callbacks.given_up) == (1, 0)

        async def test_given_up(rm_emulator, rm_client, rm_callbacks):
            rm_callbacks.refuse_next(times=9)
            await void(rm_client)
            before = rm_emulator.virtual_clock.now()
            assert await rm_callbacks.deliver_all() == 5
            assert 239 < rm_emulator.virtual_clock.now() - before < 300
            assert len(rm_callbacks.vouchers) == 5
            assert (rm_emulator.callbacks.delivered, rm_emulator.callbacks.given_up) == (0, 1)

        async def test_with_server(rm_emulator, rm_client, rm_server, rm_callbacks):
            # Its thread delivers by itself.
            rm_callbacks.refuse_next()
            code = await void(rm_client)
            assert [voucher.code for voucher in rm_callbacks.wait_for(1)] == [code]
            with pytest.raises(TimeoutError, match="1 of 2 callbacks came"):
                rm_callbacks.wait_for(2, timeout_s=0.01)
            while rm_emulator.callbacks.next_due() is None:  # until it has seen the refusal
                await asyncio.sleep(0)
            rm_emulator.advance(60)
            assert [voucher.code for voucher in rm_callbacks.wait_for(2)] == [code] * 2
    """
    counts, said = run_pytest(source, *ASYNCIO, "-pno:xdist")
    assert counts == {"passed": 4}, said


@pytest.mark.long
def test_loading_it_loads_little(run_pytest):
    """A test run that uses none of it has loaded neither the emulator nor what that needs."""
    source = """
        import sys

        def test_modules():
            assert "rm_voucher.testing" in sys.modules
            heavy = {"aiohttp", "cryptography", "typer", "rm_voucher.emulator"}
            assert not heavy & sys.modules.keys()
    """
    counts, said = run_pytest(source, *PLAIN)
    assert counts == {"passed": 1}, said


def test_entry_point():
    """Where it is installed pytest finds it, under the name that ``-p no:rm_voucher`` takes."""
    distribution = importlib.metadata.distribution("rm-voucher")
    (entry,) = distribution.entry_points.select(group="pytest11")
    assert (entry.name, entry.value) == ("rm_voucher", "rm_voucher.testing.plugin")


@pytest.mark.long
def test_requests_scenarios_and_merchants(run_pytest):
    """What came can be counted and looked at, of each merchant; a failing assert shows it."""
    source = """
        @pytest.mark.rm_emulator(batches={"TEA": 3})
        async def test_requests(rm_emulator, rm_client, rm_requests):
            issues = rm_requests.of("issue")
            rm_emulator.fail_next("issue", "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY")
            with pytest.raises(Exception, match="NOT_ENOUGH"):
                await rm_client.issue("TEA")
            code = (await rm_client.issue("TEA")).code
            await rm_client.void(code, store_id="S1")
            assert issues.count == len(issues) == 2
            assert [one.status for one in issues][1:] == [200]
            assert issues.failed[0].code == "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY"
            assert rm_requests.last.json == {"storeId": "S1"}
            assert rm_requests.last.headers["content-type"].startswith("application/json")
            assert code not in repr(rm_requests)
            assert "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY" in repr(issues)
            assert [one.operation for one in rm_requests[:2]] == ["token", "issue"]
            rm_requests.clear()
            assert issues.count == 0
            with pytest.raises(ValueError, match="no operation"):
                rm_requests.of("isue")

        @pytest.mark.rm_emulator(scenario="sells-out")
        async def test_scenario(rm_emulator, rm_client):
            with rm_emulator.snapshot():
                await rm_client.issue("BREAKFAST")
            assert len(rm_emulator.issued("BREAKFAST")) == 980

        async def test_merchants(rm):
            cafe = rm.client_of("cafe", batches={"TEA": 1})
            await cafe.issue("TEA")
            assert rm.requests.to("cafe").of("issue").count == 1
            assert rm.requests.to("main").count == 0
            for _ in range(30):
                await cafe.vouchers("TEA")
            assert "and 1" in repr(rm.requests)

        @pytest.mark.rm_emulator(batches={"TEA": 3})
        async def test_fails(rm_client, rm_requests):
            await rm_client.issue("TEA")
            assert rm_requests.of("issue").count == 2
    """
    counts, said = run_pytest(source, *ASYNCIO, "-pno:xdist")
    assert counts == {"passed": 3, "failed": 1}, said
    assert "POST /v3/voucher-batch/TEA/issue 200" in said


@pytest.mark.long
def test_with_anyio(run_pytest):
    """anyio's plugin runs them on asyncio."""
    source = """
        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.anyio
        @pytest.mark.rm_emulator(batches={"TEA": 3})
        async def test_client(rm_client, rm_requests):
            await rm_client.issue("TEA")
            assert rm_requests.of("issue").count == 1
    """
    without = [option for option in PLAIN if option != "-pno:anyio"]
    counts, said = run_pytest(source, *without)
    assert counts == {"passed": 1}, said


async def test_emulated():
    """All parts in this process and over HTTP, until the block ends."""
    with emulated(batches={"TEA": 5}) as rm:
        code = (await rm.client.issue("TEA")).code
        rm.callbacks.refuse_next()
        await rm.client.void(code)
        assert await rm.callbacks.deliver_all() == 2
        assert rm.client is rm.client
        url = rm.server.url
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{url}/_emulator/health") as answer:
                assert answer.status == 200
            async with session.get(f"{url}/v3/nowhere") as answer:
                assert answer.status == 404
        assert rm.requests.last.operation == ""
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(url)


async def test_recorded_requests_are_bounded(monkeypatch):
    monkeypatch.setattr(requests, "_MOST", 2)
    with emulated(batches={"TEA": 5}) as rm:
        for _ in range(3):
            await rm.client.issue("TEA")
        with pytest.raises(OverflowError, match="clear them"):
            assert rm.requests.count
        rm.requests.clear()
        assert rm.requests.count == 0


async def test_request_whose_answer_was_lost():
    with emulated(batches={"TEA": 5}) as rm:
        rm.emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
        with pytest.raises(OutcomeUnknownError):
            await rm.client.issue("TEA")
        assert rm.requests.of("issue").last.status is None
        assert "no answer, drop-after-commit" in repr(rm.requests)


async def test_recorded_requests():
    """Chosen by operation, merchant and failure; whole for the test, masked in a repr."""
    with emulated(batches={"TEA": 5}) as rm:
        issues = rm.requests.of("issue")
        rm.emulator.fail_next("issue", "VOUCHER_BATCH_EXPIRED")
        with pytest.raises(VoucherError):
            await rm.client.issue("TEA")
        code = (await rm.client.issue("TEA")).code
        await rm.client.void(code, store_id="S1")
        await rm.client_of("cafe", batches={"TEA": 1}).issue("TEA")
        assert rm.requests.to("cafe").of("issue").count == 1
        assert issues.count == len(issues) == 3
        assert [one.code for one in issues.failed] == ["VOUCHER_BATCH_EXPIRED"]
        last = rm.requests.to("main").last
        assert last.json == {"storeId": "S1"}
        assert code in last.path
        assert code not in repr(rm.requests) + repr(last)
        assert len(rm.requests[1:3]) == 2
        for _ in range(20):
            await rm.client.get(code)
        assert "more" in repr(rm.requests)
        with pytest.raises(ValueError, match="no operation"):
            rm.requests.of("isue")
        rm.requests.clear()
        assert issues.count == 0


def test_emulated_by_a_scenario_and_with_credentials():
    with emulated(scenario="sells-out") as rm:
        assert len(rm.emulator.issued("BREAKFAST")) == 980
    with emulated(public_key=PUBLIC_KEY_FILE.read_bytes(), client_id="i", client_secret="s") as rm:
        assert rm.emulator.known_credentials is None


def test_server_that_can_not_listen(monkeypatch):
    """What keeps the server from listening is raised in the test."""

    def fails(emulator):
        raise OSError("no port is left")

    monkeypatch.setattr("rm_voucher.emulator.server.serve", fails)
    with emulated() as rm, pytest.raises(OSError, match="no port"):
        _ = rm.server


async def test_callbacks_are_waited_for():
    with emulated(batches={"TEA": 5}) as rm:
        callbacks, url = rm.callbacks, rm.server.url
        assert url
        await rm.client.void((await rm.client.issue("TEA")).code)
        assert len(callbacks.wait_for(1)) == 1
        with pytest.raises(TimeoutError, match="1 of 2 callbacks came"):
            callbacks.wait_for(2, timeout_s=0.01)


async def test_time_of_the_client_never_goes_back():
    """A reset sets the emulator's clock back; the client, which has waited meanwhile, goes on."""
    with emulated(batches={"TEA": 50}) as rm:
        await rm.client.issue("TEA")
        with rm.emulator.snapshot():
            rm.emulator.advance(86_400)
            rm.emulator.fail_next("issue", Fault.THROTTLE)
            await rm.client.issue("TEA")
        rm.emulator.fail_next("issue", Fault.THROTTLE)
        async with asyncio.timeout(10):
            await rm.client.issue("TEA")
        rm.emulator.advance(86_400)
        await rm.client.issue("TEA")
        rm.emulator.reset()
        async with asyncio.timeout(10):
            await rm.client.issue("TEA")


class TestInUnittest(unittest.IsolatedAsyncioTestCase):
    """The context manager serves test cases as well."""

    async def asyncSetUp(self) -> None:
        """Make an emulator that ends with the test."""
        self.rm = self.enterContext(emulated(batches={"TEA": 5}))

    async def test_issue(self) -> None:
        """A client issues, and the request is there to look at."""
        await self.rm.client.issue("TEA")
        assert self.rm.requests.of("issue").count == 1
