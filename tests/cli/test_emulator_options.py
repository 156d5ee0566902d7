"""What the options of ``rm-voucher emulator`` do to a client, and what is said of a mistake."""

import queue
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs
import orjson
import pytest
from support.command import PATIENCE_S

from rm_voucher import (
    RateLimitError,
    ResponseTimeoutError,
    Runtime,
    ServerError,
    StaticToken,
    Timeout,
    VoucherError,
)
from rm_voucher.emulator import Check, Fault, FaultPlan
from rm_voucher.emulator.keys import new_private_key
from rm_voucher.signing import RsaSigner, RsaVerifier, canonical_json, string_to_sign


async def outcome(awaitable):
    """Return a voucher's code, or the name of an error."""
    try:
        return (await awaitable).code
    except VoucherError as exc:
        return type(exc).__name__


async def test_seed(emulated):
    """The same seed gives the same codes and faults, another one others."""
    runs = []
    for seed in (5, 5, 6):
        emulator = emulated(
            "--batch",
            "TEA=30",
            "--seed",
            seed,
            "--fault-rate",
            0.5,
            "--fault-kinds",
            "throttle-bare",
        )
        async with emulator.client() as client:
            runs.append([await outcome(client.issue("TEA")) for _ in range(20)])
    assert runs[0] == runs[1]
    throttled = [[code == "RateLimitError" for code in run] for run in runs]
    assert throttled[1] != throttled[2]
    assert 3 < sum(throttled[0]) < 17
    assert set(runs[0]) & set(runs[2]) == {"RateLimitError"}


async def test_fault_kinds(emulated):
    """Every request but a token's meets one of the kinds that are named, and no other."""
    emulator = emulated("--fault-rate", 1, "--fault-kinds", "throttle-bare, error-before-commit")
    async with emulator.client() as client:
        for _ in range(20):
            with pytest.raises((RateLimitError, ServerError)):
                await client.batches()
    (operation, met), *more = emulator.control("faults")["met"].items()
    assert (operation, more) == ("batches", [])
    assert met.keys() == {"throttle-bare", "error-before-commit"}
    assert sum(met.values()) == 20


async def test_fault_rate(emulated):
    """A share of the requests fails, by default of any kind that needn't be asked for."""
    emulator = emulated("--batch", "TEA=1", "--fault-rate", 0.4, "--seed", 1)
    async with emulator.client() as client:
        for _ in range(30):
            await outcome(client.get("NONE"))
    faults = emulator.control("faults")
    assert set(faults["kinds"]) == set(FaultPlan().kinds)
    assert faults["rate"] == 0.4
    assert 3 < sum(faults["met"]["get"].values()) < 27


async def test_no_faults_by_default(emulated):
    """Nothing fails unless it is asked for."""
    emulator = emulated("--batch", "TEA=40")
    async with emulator.client() as client:
        codes = Counter([await outcome(client.issue("TEA")) for _ in range(40)])
    assert [len(codes), emulator.control("faults")["met"]] == [40, {}]


async def test_rate_limit(emulated):
    """More requests than that are throttled, the token's included."""
    emulator = emulated("--batch", "TEA=5", "--rate-limit", 0.001)
    async with emulator.client() as client:
        with pytest.raises(RateLimitError):
            await client.issue("TEA")
    assert emulator.end() == [
        "POST /v1/token 200",
        "POST /v3/voucher-batch/TEA/issue 429",
    ]


async def test_latency(emulated):
    """Each request takes that much longer, and one that would be too long is not answered."""
    emulator = emulated("--latency", 0.25, "--batch", "TEA=1")
    async with emulator.client() as client:
        began = time.monotonic()
        await client.issue("TEA")
        assert time.monotonic() - began >= 0.5  # the token's, and its own
    slow = emulated("--latency", 60)
    timeout = Timeout(connect_s=0.4, attempt_s=0.5)
    async with slow.client(token_source=StaticToken("x"), timeout=timeout) as client:
        with pytest.raises(ResponseTimeoutError):
            await client.get("NONE")
    assert slow.control("batches") == []  # what is no part of RM's API is not slowed down


class Receiver(ThreadingHTTPServer):
    """A merchant's URL. It gives the statuses that it is told, and then 200."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answering)
        self.received = queue.Queue[tuple[str, dict[str, str], bytes]]()
        self.statuses: list[int] = []


class Answering(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        statuses = self.server.statuses
        self.send_response(statuses.pop(0) if statuses else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.server.received.put((self.path, dict(self.headers), body))

    def log_message(self, *arguments):
        pass


@pytest.fixture
def receiver():
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("signs_url", [False, True])
async def test_callbacks(emulated, receiver, signs_url):
    """A void is told to the URL, signed, again after the interval, until the first 200."""
    receiver.statuses = [500, 204]
    url = f"http://127.0.0.1:{receiver.server_port}/told?by=rm"
    options = ["--callback-url", url, "--callback-interval", 0.01]
    options += ["--callback-signs-url"] if signs_url else []
    emulator = emulated("--batch", "TEA=2", *options)
    codes = []
    async with emulator.client() as client:
        for times in (3, 1):
            codes.append((await client.issue("TEA")).code)
            await client.void(codes[-1])
            told = [receiver.received.get(timeout=PATIENCE_S) for _ in range(times)]
            path, headers, body = told[0]
            assert told == [told[0]] * times
            assert path == "/told?by=rm"
            assert orjson.loads(body)["item"]["code"] == codes[-1]
            assert orjson.loads(body)["item"]["status"] == "VOID"
            text = string_to_sign(
                method="POST",
                url=url if signs_url else None,
                nonce=headers["X-Nonce-Str"],
                timestamp=headers["X-Timestamp"],
                body=canonical_json(orjson.loads(body)),
            )
            key = RsaVerifier.from_pem(emulator.control("callbacks")["public_key"].encode())
            assert key.verify(text.encode(), headers["X-Signature"])
    emulator.end()
    assert receiver.received.empty()


async def test_callback_interval_by_default(emulated):
    """Without the options nothing is told, and a repeat would come after RM's minute."""
    callbacks = emulated().control("callbacks")
    assert (callbacks["url"], callbacks["interval_s"]) == (None, 60.0)


@pytest.mark.parametrize(
    ("check", "code"),
    [
        (Check.CLIENT, "INVALID_CLIENT"),
        (Check.TOKEN, "TOKEN_INVALID"),
        (Check.SIGNATURE, "INVALID_REQUEST_SIGNATURE"),
        (Check.TIMESTAMP, "INVALID_TIMESTAMP"),
        (Check.PIN, "USER_PIN_CODE_INVALID"),
    ],
)
async def test_disable_check(emulated, check, code):
    """A check that is disabled is not made, and all others are."""
    by_check: dict[Check, dict[str, Any]] = {
        Check.TOKEN: {"token_source": StaticToken("mine")},
        Check.SIGNATURE: {"signer": RsaSigner.from_pem(new_private_key())},
        Check.TIMESTAMP: {"runtime": Runtime(clock=lambda: 1_000_000_000.0)},
    }
    options = by_check.get(check, {})

    async def use(emulator):
        if check is Check.CLIENT:
            emulator = attrs.evolve(
                emulator, variables={**emulator.variables, "RM_CLIENT_SECRET": "no"}
            )
        async with emulator.client(**options) as client:
            voucher = await client.void((await client.issue("TEA")).code)
            pin = "no" if check is Check.PIN else "123456"
            return await client.reinstate(voucher.code, pin=pin)

    others = [
        argument for other in Check if other is not check for argument in ("--disable-check", other)
    ]
    with pytest.raises(VoucherError, match=code):
        await use(emulated("--batch", "TEA=1", *others))
    assert (
        await use(
            emulated("--batch", "TEA=1", "--disable-check", Check.CURSOR, "--disable-check", check)
        )
    ).status == "REDEEMED"


KINDS = ", ".join(fault for fault in Fault if fault is not Fault.CLOSED)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--fault-kinds", "storm"), f"--fault-kinds 'storm': the kinds are {KINDS}."),
        (("--fault-kinds", "closed"), f"--fault-kinds 'closed': the kinds are {KINDS}."),
        (("--fault-kinds", "throttle,"), f"--fault-kinds 'throttle,': the kinds are {KINDS}."),
        (("--rate-limit", "0"), "--rate-limit is more than 0; leave it out for none."),
        (("--rate-limit", "-1"), "--rate-limit is more than 0; leave it out for none."),
        (("--rate-limit", "nan"), "--rate-limit is more than 0; leave it out for none."),
        (("--latency", "inf"), "--latency is a number of seconds."),
        (("--callback-interval", "0"), "--callback-interval is more than 0, in seconds."),
        (("--callback-interval", "inf"), "--callback-interval is more than 0, in seconds."),
        (
            ("--batch", "A/B=1"),
            "--batch 'A/B=1': refused before sending: batch_key has a slash.",
        ),
        (("--disable-check", "law"), f"--disable-check 'law': the checks are {', '.join(Check)}."),
        *(
            (("--callback-url", url), f"--callback-url {url!r} is no http or https URL.")
            for url in (
                "merchant",
                "ftp://merchant.invalid/",
                "http://",
                "http://[",
                "http://merchant.invalid:99999/",
                "http://merchant.invalid:0/",
                "http://merchant.invalid/a b",
                "http://merchant.invalid/é",
            )
        ),
    ],
)
def test_mistakes(rm, stopped, arguments, sentence):
    """What it can't use is a mistake: exit 2 and a sentence, before anything is served."""
    ended = rm("emulator", *arguments)
    assert (ended.code, ended.out, ended.err) == (2, "", f"Error: {sentence}\n")
    assert stopped == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--seed", "five"),
        ("--seed", "1.5"),
        ("--fault-rate", "1.01"),
        ("--fault-rate", "-0.1"),
        ("--fault-rate", "nan"),
        ("--latency", "-1"),
        ("--latency", "nan"),
        ("--callback-interval", "-1"),
        ("--callback-interval", "nan"),
        ("--callback-interval", "soon"),
    ],
)
def test_numbers_that_are_none(rm, stopped, arguments):
    """A number out of its range is a mistake, and what is said names the option."""
    ended = rm("emulator", *arguments)
    assert (ended.code, ended.out, stopped) == (2, "", [])
    assert f"Invalid value for '{arguments[0]}': " in ended.err
