"""A server in a thread of its own, which sends and closes while the client's event loop is busy."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
from support.http_servers import http
from yarl import URL

from rm_voucher import Request

PATIENCE_S = 1  # it is only spent when a test fails


@attrs.define
class SilentServer:
    """Answers one request a connection, says what it was told to say after it, and closes or not.

    `wait` blocks the thread of the test, and with it the event loop, until that is done.
    """

    answer: Callable[[int], bytes]
    behind: bytes
    closes: bool
    tls: ssl.SSLContext | None
    requests: int = 0
    connections: int = 0
    done: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))
    listening: socket.socket = attrs.field(factory=lambda: socket.create_server(("127.0.0.1", 0)))
    open: list[socket.socket] = attrs.field(factory=list)

    @property
    def url(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://127.0.0.1:{self.listening.getsockname()[1]}"

    def request(self, method: str = "POST") -> Request:
        url = URL(f"{self.url}/v3/voucher/X", encoded=True)
        body = b"" if method == "GET" else b"{}"
        return Request(operation="issue", method=method, url=url, body=body)

    def wait(self) -> None:
        assert self.done.acquire(timeout=PATIENCE_S)

    def serve(self) -> None:
        with contextlib.suppress(OSError):  # closed at the end
            while True:
                self._serve_one(self.listening.accept()[0])

    def _serve_one(self, raw: socket.socket) -> None:
        self.connections += 1
        connection = self.tls.wrap_socket(raw, server_side=True) if self.tls else raw
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.open.append(connection)
        got = b""
        while b"\r\n\r\n" not in got or not got.endswith((b"{}", b"\r\n\r\n")):
            piece = connection.recv(65536)
            if not piece:
                return
            got += piece
        self.requests += 1
        connection.sendall(http(200, self.answer(self.requests)))
        threading.Thread(target=self._go_on, args=(connection,), daemon=True).start()

    def _go_on(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self.said.acquire(timeout=PATIENCE_S)
            if self.behind:
                connection.sendall(self.behind)
            if self.closes:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()
        self.done.release()

    said: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))

    def go_on(self) -> None:
        """Let it do to the last connection what it does behind an answer; return when it has."""
        self.said.release()
        self.wait()


@contextlib.contextmanager
def silent_server(
    answer: Callable[[int], bytes] = lambda number: b'{"number":%d}' % number,
    *,
    behind: bytes = b"",
    closes: bool = True,
    tls: ssl.SSLContext | None = None,
) -> Iterator[SilentServer]:
    server = SilentServer(answer, behind, closes, tls)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        with contextlib.suppress(OSError):
            server.listening.shutdown(socket.SHUT_RDWR)
        server.listening.close()
        for connection in server.open:
            connection.close()
        thread.join(PATIENCE_S)


@attrs.frozen
class Certificate:
    """A certificate of this machine's own, which is its own authority."""

    path: Path
    server: ssl.SSLContext
    client: ssl.SSLContext


def make_certificate(folder: Path) -> Certificate:
    """Make a certificate for 127.0.0.1, localhost, rm.test and 127.1."""
    subprocess.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -days 2 -subj"
        " /CN=localhost -addext subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:rm.test,DNS:127.1",
        shell=True,
        check=True,
        capture_output=True,
        cwd=folder,
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "c.pem", folder / "k.pem")
    client = ssl.create_default_context(cafile=folder / "c.pem")
    return Certificate(folder / "c.pem", server, client)
