"""An HTTP server that answers each issue with a code of its own, as cheaply as Python can.

Run as a process of its own; it prints its port, and ends when its standard input does. It reads
just enough HTTP for clients that keep connections and give Content-Length. Every signature is
verified (about 0.03 ms), so that what is measured is real; a request that fails gets a 401.
"""

import asyncio
import itertools
import re
import sys
from pathlib import Path

from rm_voucher.signing import RsaVerifier, string_to_sign

_HEADER = re.compile(rb"\r\n([A-Za-z-]+): *([^\r]*)")
_REFUSED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


class IssueServer(asyncio.Protocol):
    """One connection."""

    def __init__(self, verifier: RsaVerifier, numbers: "itertools.count[int]") -> None:
        self._verifier = verifier
        self._numbers = numbers
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end]
            headers = {name.lower(): value.decode() for name, value in _HEADER.findall(head)}
            whole = end + 4 + int(headers.get(b"content-length", "0"))
            if len(self._received) < whole:
                return
            body, self._received = self._received[end + 4 : whole], self._received[whole:]
            self._transport.write(self._answer(head, headers, body))

    def _answer(self, head: bytes, headers: dict[bytes, str], body: bytes) -> bytes:
        method, path, _ = head.decode().split(" ", 2)
        text = string_to_sign(
            method=method,
            url=f"http://{headers[b'host']}{path}",
            nonce=headers[b"x-nonce-str"],
            timestamp=headers[b"x-timestamp"],
            body=body,
        )
        if not self._verifier.verify(text.encode(), headers[b"x-signature"]):
            return _REFUSED
        if method == "GET":  # the listings that a ledger reads before it begins
            return _found('{"items":[],"code":"SUCCESS"}')
        number = next(self._numbers)
        item = f'{{"code":"CODE{number:08}","qrUrl":"https://qr.invalid/{number}"}}'
        return _found(f'{{"item":{item},"code":"SUCCESS"}}')


def _found(answer: str) -> bytes:
    return (
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(answer)}\r\n\r\n{answer}"
    ).encode()


async def serve(verifier: RsaVerifier) -> None:
    numbers = itertools.count()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: IssueServer(verifier, numbers), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(RsaVerifier.from_pem(Path(sys.argv[1]).read_bytes())))
