"""The log of ``rm-voucher emulator``, a line for each request, and how the command ends."""

import signal
import socket
import time
from urllib.parse import urlsplit

import pytest
from support.command import PATIENCE_S
from support.doubles import NoSigner

from rm_voucher import NotFoundError, Runtime, SignatureError, VoucherStateError

PROMPT_S = 5  # within which it ends, on a machine that does much else; what it cuts short is longer


async def use(emulator):
    """Issue, look up, void twice, list and look for what is not there; return the code."""
    async with emulator.client() as client:
        code = (await client.issue("TEA")).code
        await client.get(code)
        await client.void(code)
        with pytest.raises(VoucherStateError):
            await client.void(code)
        await client.vouchers("TEA")
        with pytest.raises(NotFoundError):
            await client.get("short")
    return code


async def test_log(emulating):
    """Each request is a line with what came of it. Codes are masked; the control API has none."""
    emulator = emulating("--batch", "TEA=1")
    code = await use(emulator)
    emulator.control("batches")
    masked = f"{code[:2]}…"
    assert emulator.end() == [
        "POST /v1/token 200",
        "POST /v3/voucher-batch/TEA/issue 200",
        f"POST /v3/voucher/{masked} 200",
        f"POST /v3/voucher/{masked}/void 200",
        f"POST /v3/voucher/{masked}/void 400 VOUCHER_NOT_ALLOW_VOID",
        "GET /v3/voucher-batch/TEA/vouchers 200",
        "POST /v3/voucher/… 404 VOUCHER_NOT_FOUND",
    ]


async def test_quiet(emulated):
    """With --quiet nothing is written but where it listens."""
    emulator = emulated("--batch", "TEA=1", "--quiet")
    await use(emulator)
    assert emulator.end() == []


async def test_log_of_a_refused_signature(emulated):
    """The text that should have been signed stands below its request, to compare with one's own."""
    now = time.time()
    emulator = emulated("--disable-check", "token")
    signed = []

    class Signer(NoSigner):
        def sign(self, text):
            signed.append(text.decode())
            return super().sign(text)

    runtime = Runtime(clock=lambda: now, make_nonce=lambda: "n" * 32)
    async with emulator.client(runtime=runtime, signer=Signer()) as client:
        with pytest.raises(SignatureError):
            await client.redeem(["CODE-1"])
        with pytest.raises(SignatureError):
            await client.get("rms@xR43u4bRhUU")
    body = "data=eyJjb2RlcyI6WyJDT0RFLTEiXX0="
    url = emulator.url
    rest = f"&signType=sha256&timestamp={int(now)}"
    assert signed == [
        f"{body}&method=post&nonceStr={'n' * 32}&requestUrl={url}/v3/vouchers/redeem{rest}",
        f"method=post&nonceStr={'n' * 32}&requestUrl={url}/v3/voucher/rms@xR43u4bRhUU{rest}",
    ]
    wrong = "(X-Signature is not by the client's key)"
    assert emulator.end() == [
        "POST /v1/token 200",
        f"POST /v3/vouchers/redeem 401 INVALID_REQUEST_SIGNATURE {wrong}",
        f"  expected the signature of: {signed[0]}",
        f"POST /v3/voucher/rm… 401 INVALID_REQUEST_SIGNATURE {wrong}",
        f"  expected the signature of: {signed[1]}",
    ]


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ("drop-after-commit", "(reset)"),
        ("truncated", "(cut)"),
        ("slow-body", "(slow)"),
        ("html-page", "502"),
        ("throttle", "429"),
        ("late-commit", "(reset)"),
    ],
)
def test_log_of_a_fault(emulated, fault, word):
    """What the line says of a fault is what became of the answer; a client may be gone by then."""
    checks = ("token", "timestamp", "signature", "nonce")
    disabled = [argument for check in checks for argument in ("--disable-check", check)]
    emulator = emulated("--fault-rate", 1, "--fault-kinds", fault, *disabled)
    ask(emulator, "GET", "/v3/voucher-batches").close()
    assert emulator.said.get(timeout=PATIENCE_S) == (
        f"GET /v3/voucher-batches {word}, fault {fault}\n"
    )
    assert emulator.end() == []


def ask(emulator, method, path):
    """Send a request, and return its connection without waiting for an answer."""
    url = urlsplit(emulator.url)
    connection = socket.create_connection((url.hostname, url.port), timeout=PATIENCE_S)
    connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
    return connection


def end(emulator):
    """End it; return what was written and whether it was prompt."""
    began = time.monotonic()
    return emulator.end(), time.monotonic() - began < PROMPT_S


def is_broken(connection):
    """Return whether the other side ended a connection without a word."""
    with connection:
        try:
            return connection.recv(1) == b""
        except ConnectionResetError:
            return True


def test_client_leaves_in_the_middle_of_its_body(emulated):
    """A client that goes before its request is whole gets no line, and nothing else is said."""
    emulator = emulated()
    url = urlsplit(emulator.url)
    with socket.create_connection((url.hostname, url.port), timeout=PATIENCE_S) as connection:
        head = f"POST /v1/token HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: 9\r\n\r\n"
        connection.sendall(head.encode() + b"{")
    assert emulator.control("batches") == []
    assert emulator.end() == []


def test_ctrl_c_during_requests(emulating):
    """Requests in flight are broken off, and it ends at once, without a word."""
    emulator = emulating("--latency", 60)
    connections = [ask(emulator, "GET", "/v3/voucher-batches") for _ in range(5)]
    emulator.control("batches")  # it has read what came before
    began = time.monotonic()
    assert emulator.end(signal.SIGINT) == []
    assert time.monotonic() - began < PROMPT_S
    assert [is_broken(connection) for connection in connections] == [True] * 5


def test_end_while_faults_hold(emulated):
    """Connections that a fault holds are broken off as well."""
    kinds = "timeout-before-commit,timeout-after-commit,slow-body"
    emulator = emulated("--fault-rate", 1, "--fault-kinds", kinds, "--seed", 3)
    connections = [ask(emulator, "GET", "/v3/voucher-batches") for _ in range(9)]
    lines = {emulator.said.get(timeout=PATIENCE_S) for _ in connections}
    words = {line.split(", fault ")[0] for line in lines}
    assert words == {f"GET /v3/voucher-batches ({word})" for word in ("stalled", "slow")}
    assert end(emulator) == ([], True)
    for connection in connections:
        connection.close()


async def test_end_with_callbacks(emulated):
    """Callbacks under way, and those that wait for their repetition, are given up at once."""
    with socket.create_server(("127.0.0.1", 0)) as merchant:
        merchant.settimeout(PATIENCE_S)
        url = f"http://127.0.0.1:{merchant.getsockname()[1]}/"
        emulator = emulated("--batch", "TEA=2", "--callback-url", url, "--quiet")
        connections = []
        async with emulator.client() as client:
            for _ in range(2):
                await client.void((await client.issue("TEA")).code)
                connections.append(merchant.accept()[0])
        refused, unanswered = connections
        refused.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        while refused.recv(1 << 16):
            pass
        refused.close()
        assert end(emulator) == ([], True)
        unanswered.close()


async def test_nobody_reads_the_log(emulating):
    """A log that can't be written any more does not stop the server."""
    emulator = emulating("--batch", "TEA=1")
    emulator.process.stderr.close()
    emulator.process.stderr = None
    await use(emulator)
    assert [batch["void"] for batch in emulator.control("batches")] == [1]
    emulator.process.send_signal(signal.SIGTERM)
    assert emulator.process.wait(PATIENCE_S) == 130
