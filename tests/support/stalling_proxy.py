"""A way to a server that can be cut, or come to a standstill while TCP still acknowledges all."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class StallingProxy:
    """Passes bytes on to a server, for each connection until it is frozen."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._frozen: set[socket.socket] = set()
        self._ports: dict[socket.socket, int] = {}
        self.freezes_new = False
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Pass nothing on any more for the connections that there are."""
        self._frozen.update(self._sockets)

    def is_frozen(self, port: int) -> bool:
        """Return whether the connection that comes from a port of this machine is frozen."""
        return any(self._ports.get(each) == port for each in self._frozen.copy())

    def cut(self) -> None:
        """End the connections that there are."""
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.freezes_new = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, (_, port) = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._server)
            except OSError:  # it is down: whoever asks is refused, too
                client.close()
                continue
            self._ports[client] = port
            pair = (client, server)
            self._sockets += pair
            if self.freezes_new:
                self._frozen.update(pair)
            for source, sink in (pair, pair[::-1]):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        how = socket.SHUT_WR
        try:
            while data := source.recv(65536):
                if source not in self._frozen:
                    sink.sendall(data)
        except OSError:  # it was reset: the other side must not wait for what never comes
            how = socket.SHUT_RDWR
        if source not in self._frozen:
            with contextlib.suppress(OSError):
                sink.shutdown(how)
