"""An HTTP server that answers each issue with a code of its own, as cheaply as Python can.

Run as a process of its own; it prints its port, and ends when its standard input does. It shares
the machine with those that are measured, so it reads of a request what it must: the length, and the
nonce, which may come once. The code that it gives is the number of nonces so far. Only every 16th
request has its signature verified; a bad one gets a 401. That is enough for the requests to be
real: who does not sign is found out at once.

``--any-signature`` verifies as often, and then takes any, for a client that shall not sign.
``--latency-ms 50`` answers so much later. It reads HTTP of clients that keep connections or not,
and give Content-Length. Listings, which a ledger reads before it begins, are empty; a token is for
whoever asks.
"""

import argparse
import asyncio
import re
import sys
from pathlib import Path

from rm_voucher.signing import RsaVerifier, string_to_sign

VERIFY_EVERY = 16
_HEADER = re.compile(rb"\r\n([A-Za-z-]+): *([^\r]*)")
_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
_REFUSED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
_REPEATED = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
_LISTING = b'{"items":[],"code":"SUCCESS"}'
_TOKEN = (
    b'{"accessToken":"bench","tokenType":"Bearer","expiresIn":2591999,'
    b'"refreshToken":"bench","refreshTokenExpiresIn":2591999}'
)
_ITEM = b'{"item":{"code":"CODE%08d","qrUrl":"https://qr.invalid/%08d"},"code":"SUCCESS"}'
_ISSUED = _JSON % (len(_ITEM % (0, 0)), _ITEM)


class Books:
    """What all connections share."""

    def __init__(self, verifier: RsaVerifier, *, takes_any: bool, latency_s: float) -> None:
        self.nonces: set[bytes] = set()
        self.latency_s = latency_s
        self._verifier = verifier
        self._takes_any = takes_any

    def answer(self, head: bytes, lowered: bytes, body: bytes) -> bytes:
        nonce = _field(lowered, b"\r\nx-nonce-str: ")
        if not nonce:
            is_token = head.startswith(b"POST /v1/token ")
            return _JSON % (len(_TOKEN), _TOKEN) if is_token else _REFUSED
        before = len(self.nonces)
        self.nonces.add(nonce)
        number = len(self.nonces)
        if number == before:
            return _REPEATED
        if number % VERIFY_EVERY == 0 and not (self._is_signed(head, body) or self._takes_any):
            return _REFUSED
        if head.startswith(b"GET "):
            return _JSON % (len(_LISTING), _LISTING)
        return _ISSUED % (number, number)

    def _is_signed(self, head: bytes, body: bytes) -> bool:
        method, path, _ = head.decode().split(" ", 2)
        headers = {name.lower(): value.decode() for name, value in _HEADER.findall(head)}
        text = string_to_sign(
            method=method,
            url=f"http://{headers[b'host']}{path}",
            nonce=headers[b"x-nonce-str"],
            timestamp=headers[b"x-timestamp"],
            body=body,
        )
        return self._verifier.verify(text.encode(), headers[b"x-signature"])


class IssueServer(asyncio.Protocol):
    """One connection."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._received + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head = data[: end + 2]
            lowered = head.lower()
            whole = end + 4 + int(_field(lowered, b"\r\ncontent-length: ") or 0)
            if len(data) < whole:
                break
            answer = self._books.answer(head, lowered, data[end + 4 : whole])
            data = data[whole:]
            if self._books.latency_s:
                loop = asyncio.get_running_loop()
                loop.call_later(self._books.latency_s, self._transport.write, answer)
            else:
                self._transport.write(answer)
        self._received = data


def _field(lowered: bytes, name: bytes) -> bytes:
    """Return what follows a name, to the end of its line; nothing where there is none."""
    begin = lowered.find(name)
    return lowered[begin + len(name) : lowered.find(b"\r", begin + 2)] if begin >= 0 else b""


async def serve(books: Books) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: IssueServer(books), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("public_key", type=Path)
    parser.add_argument("--any-signature", action="store_true")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    given = parser.parse_args()
    verifier = RsaVerifier.from_pem(given.public_key.read_bytes())
    latency_s = given.latency_ms / 1e3
    asyncio.run(serve(Books(verifier, takes_any=given.any_signature, latency_s=latency_s)))


if __name__ == "__main__":
    main()
