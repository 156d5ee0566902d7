"""The process that signs texts which come over a socket. It is run alone: ``python -I -S``.

It imports nothing of this package, nor of the program that wants the signatures. The socket brings
frames, each a length (4 bytes, big-endian) and so many bytes: the paths to import from, separated
by zeros; the key, PKCS#8 DER; then texts. It answers ``READY``, and then a signature for each text,
in their order. It ends with the socket.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator

READY = b"+"
FRAME = struct.Struct(">I")
_AT_ONCE = 8
_NICE = 15


def frames(connection: socket.socket) -> Iterator[tuple[bytes, bool]]:
    """Iterate over the frames, each with whether it is the last that has come so far."""
    received = b""
    while data := connection.recv(65_536):
        received += data
        begin = 0
        while len(received) - begin >= FRAME.size:
            end = begin + FRAME.size + FRAME.unpack_from(received, begin)[0]
            if len(received) < end:
                break
            frame, begin = received[begin + FRAME.size : end], end
            yield frame, begin == len(received)
        received = received[begin:]


def serve(connection: socket.socket) -> None:
    """Sign until the other side closes."""
    incoming = frames(connection)
    # At the end, so that nothing there takes the place of the standard library.
    sys.path += os.fsdecode(next(incoming)[0]).split("\0")
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    key = load_der_private_key(next(incoming)[0], password=None)
    assert isinstance(key, RSAPrivateKey)  # noqa: S101 - for the type checker
    padding, digest = PKCS1v15(), SHA256()
    connection.sendall(READY)
    made = b""
    size = (key.key_size + 7) // 8
    for text, is_last in incoming:
        made += key.sign(text, padding, digest)
        if is_last or len(made) >= _AT_ONCE * size:
            connection.sendall(made)
            made = b""


# The two below run in the process itself, where no line is counted: it has no site packages.


def main() -> None:  # pragma: no cover - see above
    """Sign for the other end of standard input, and end with it.

    The process has no session of its own, to which Linux would give as much time as to the whole
    program. So signals to all processes of a terminal or service come here too. They are ignored,
    because the program itself handles them and may need signatures to the end.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICE)
    with socket.socket(fileno=sys.stdin.fileno()) as connection:
        serve(connection)


if __name__ == "__main__":  # pragma: no cover - see above
    with contextlib.suppress(ConnectionError, StopIteration):  # the program has ended
        main()
