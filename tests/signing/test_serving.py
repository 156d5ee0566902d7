"""What the process does, here in a thread: frames in, signatures out."""

import contextlib
import os
import socket
import struct
import sys
import threading
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.signing_pools import is_of, signer_of

from rm_voucher.signing.process import READY, frames, serve


def framed(*texts):
    return b"".join(struct.pack(">I", len(text)) + text for text in texts)


class Pieces:
    """A connection that gives what it has in pieces of given sizes, then byte by byte."""

    def __init__(self, data, sizes=()):
        self.data = data
        self.sizes = list(sizes)
        self.last = 0  # how much has been given

    def recv(self, most):
        size = self.sizes.pop(0) if self.sizes else 1
        piece = self.data[self.last : self.last + min(size, most)]
        self.last += len(piece)
        return piece


@given(
    st.lists(st.binary(max_size=40), max_size=12),
    st.lists(st.integers(1, 60), max_size=30),
    st.binary(max_size=3),
)
def test_frames_are_the_same_however_they_are_split(texts, sizes, rest):
    """Frames come whole and in order, whatever pieces they come in; each says whether more has
    come behind it; half a frame at the end is none."""
    whole = framed(*texts)
    connection = Pieces(whole + rest, sizes)
    found, end = [], 0
    for frame, is_last in frames(cast("socket.socket", connection)):
        found.append(frame)
        end += 4 + len(frame)
        assert is_last == (end == connection.last)
    assert found == texts


@contextlib.contextmanager
def serving(key, path=()):
    """Give the other end of a `serve` that runs, and expect it to end."""
    ours, theirs = socket.socketpair()
    ended = []

    def run():
        with theirs:
            try:
                serve(theirs)
            except (StopIteration, ConnectionError) as exc:
                ended.append(type(exc))

    thread = threading.Thread(target=run)
    thread.start()
    with ours:
        ours.sendall(framed(os.fsencode("\0".join([*sys.path, *path])), key) if key else b"")
        yield ours
    thread.join()


def read(connection, count):
    data = b""
    while len(data) < count:
        data += connection.recv(count - len(data))
    return data


@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_texts_are_signed_in_their_order(piece):
    """Back come the sign of being ready and each text's signature, in order, however the texts
    were split; more texts than are answered at once too."""
    signer = signer_of(2048)
    texts = [b"%d" % number for number in range(20)]
    data = framed(*texts)
    with serving(signer.private_key_der()) as connection:
        assert read(connection, 1) == READY
        for begin in range(0, len(data), piece):
            connection.sendall(data[begin : begin + piece])
        for text in texts:
            assert is_of(signer, text, read(connection, 256))


def test_the_other_side_may_go_before_the_key():
    """Without a key there is nothing to do, and it ends."""
    with serving(None):
        pass


def test_the_standard_library_stays_in_front(monkeypatch, tmp_path):
    """What the program's path holds comes behind what is there already."""
    monkeypatch.setattr(sys, "path", before := [*sys.path])
    own = len(before)
    with serving(signer_of(2048).private_key_der(), [str(tmp_path)]) as connection:
        assert read(connection, 1) == READY
    assert str(tmp_path) in sys.path[own:]
