"""A load of HTTP requests that were written beforehand, and the signing that writes them.

It keeps connections, has one request on each at a time, and reads of an answer what tells its
status and its end, so that a server in Python is slower than it.
"""

import base64
import concurrent.futures
import os
import re
import secrets
import selectors
import socket
import time
from collections.abc import Iterable, Sequence

import attrs

from rm_voucher.signing import RsaSigner, format_signature, string_to_sign

CONNECTIONS = 32
WARM_UP_S = 0.5
HOST = "emulator.bench"  # what is signed, so that the requests are good at any port
SILENCE_S = 10.0
_OK = b"HTTP/1.1 200 "
_TOKEN = b"<token>"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


@attrs.frozen
class Signed:
    """An issue, but for its token; ``text`` and ``signature`` are for verifying by itself."""

    raw: bytes
    text: bytes
    signature: str

    def with_token(self, token: str) -> bytes:
        return self.raw.replace(_TOKEN, token.encode(), 1)


def _sign(pem: bytes, path: str, count: int) -> list[Signed]:
    signer = RsaSigner.from_pem(pem)
    signed = []
    for _ in range(count):
        nonce, timestamp = secrets.token_hex(16), str(int(time.time()))
        text = string_to_sign(
            method="POST", url=f"http://{HOST}{path}", nonce=nonce, timestamp=timestamp
        ).encode()
        signature = format_signature(signer.sign(text))
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nAccept: */*\r\n"
            f"Accept-Encoding: gzip, deflate\r\nUser-Agent: bench\r\n"
            f"Content-Type: application/json\r\nAuthorization: Bearer {_TOKEN.decode()}\r\n"
            f"X-Nonce-Str: {nonce}\r\nX-Signature: {signature}\r\nX-Timestamp: {timestamp}\r\n"
            "Content-Length: 2\r\n\r\n{}"
        )
        signed.append(Signed(head.encode(), text, signature))
    return signed


def signed_issues(pem: bytes, batch_key: str, count: int) -> list[Signed]:
    """Return so many signed issues, each with a nonce of its own, made on all cores."""
    path = f"/v3/voucher-batch/{batch_key}/issue"
    chunk = 500
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
        parts = [
            pool.submit(_sign, pem, path, min(chunk, count - begun))
            for begun in range(0, count, chunk)
        ]
        return [one for part in parts for one in part.result()]


def token_request(client_id: str, client_secret: str) -> bytes:
    identity = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
    body = '{"grantType":"client_credentials"}'
    return (
        f"POST /v1/token HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Basic {identity}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def ask(port: int, request: bytes) -> tuple[int, bytes]:
    """Return the status and the body of one answer."""
    with socket.create_connection(("127.0.0.1", port), SILENCE_S) as connection:
        connection.sendall(request)
        received = b""
        while not _is_whole(received):
            received += _read(connection)
    return int(received.split(maxsplit=2)[1]), received.partition(b"\r\n\r\n")[2]


@attrs.frozen
class Outcome:
    """``per_s`` is without the warm-up; ``cpu_share`` is of one core, the load's own."""

    per_s: float
    cpu_share: float


def load(port: int, requests: Sequence[bytes]) -> Outcome:
    """Send all requests; the answer to each must be a 200."""
    begin_cpu_s, begin = time.process_time(), time.perf_counter()
    answered_at = list(_answered_at(port, requests))
    cpu_s, end = time.process_time() - begin_cpu_s, time.perf_counter()
    if len(answered_at) != len(requests):
        raise SystemExit(f"{len(answered_at)} answers to {len(requests)} requests")
    counted = sum(at >= begin + WARM_UP_S for at in answered_at)
    return Outcome(counted / (end - begin - WARM_UP_S), cpu_s / (end - begin))


def _answered_at(port: int, requests: Iterable[bytes]) -> Iterable[float]:
    left = iter(requests)
    received: dict[socket.socket, bytes] = {}
    with selectors.DefaultSelector() as selector:
        for _, request in zip(range(CONNECTIONS), left, strict=False):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(connection, selectors.EVENT_READ, connection)
            received[connection] = b""
            connection.sendall(request)
        while received:
            ready = selector.select(SILENCE_S)
            if not ready:
                raise SystemExit(f"no answer for {SILENCE_S:.0f} s")
            for key, _ in ready:
                connection = key.data
                received[connection] += _read(connection)
                if not _is_whole(received[connection]):
                    continue
                if not received[connection].startswith(_OK):
                    raise SystemExit(f"not a 200: {received[connection][:400]!r}")
                yield time.perf_counter()
                received[connection] = b""
                following = next(left, None)
                if following is not None:
                    connection.sendall(following)
                    continue
                del received[connection]
                selector.unregister(connection)
                connection.close()


def _read(connection: socket.socket) -> bytes:
    data = connection.recv(65_536)
    if not data:
        raise SystemExit("the server closed a connection")
    return data


def _is_whole(answer: bytes) -> bool:
    head_end = answer.find(b"\r\n\r\n")
    if head_end < 0:
        return False
    length = _LENGTH.search(answer, 0, head_end)
    if length is None:
        raise SystemExit(f"an answer without a length: {answer[:400]!r}")
    return len(answer) >= head_end + 4 + int(length[1])
