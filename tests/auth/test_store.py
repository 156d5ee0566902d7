"""A file in which processes share their token: whole, private, and one writer at a time."""

import asyncio
import contextlib
import os
import stat
import subprocess
import sys
import time

import pytest
from support.answers import ISSUED, ok
from support.scripted_server import ScriptedServer

from rm_voucher import ConfigurationError, ConnectError, FileTokenStore
from rm_voucher.emulator import Emulator
from rm_voucher.emulator.server import serve

TOKEN = ok({"accessToken": "token", "expiresIn": 10_000, "refreshToken": "refresh"})
HOLDER = """
import asyncio, sys
from pathlib import Path
from rm_voucher import FileTokenStore

async def hold():
    async with FileTokenStore(Path(sys.argv[1])).lock():
        print("locked", flush=True)
        sys.stdin.read()

asyncio.run(hold())
"""


async def taken(seconds):
    raise AssertionError("the lock is still taken")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "token"


@pytest.fixture
def store(path):
    return FileTokenStore(path, sleep=taken)


def turns():
    """Return a sleep that gives others a turn, but not for ever: the file is read in threads."""
    until = time.monotonic() + 30

    async def sleep(seconds):
        assert time.monotonic() < until, "the lock is never free"
        await asyncio.sleep(0)

    return sleep


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


async def test_file_is_the_owners_alone(store, path):
    """File and lock are readable by nobody else, whatever the umask and the file before were."""
    path.write_bytes(b"old")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        async with store.lock():
            await store.save(b"new")
    finally:
        os.umask(before)
    assert (mode(path), mode(path.with_name("token.lock"))) == (0o600, 0o600)
    assert await store.load() == b"new"


async def test_file_that_is_not_there(store, path):
    """Before the first save there is nothing to load, and looking makes no file."""
    assert await store.load() is None
    assert not path.exists()


async def test_file_is_replaced_as_a_whole(store, path):
    """Who reads while another saves has the old content, whole; nothing else is left behind."""
    await store.save(b"old, and longer")
    with path.open("rb") as reader:
        await store.save(b"new")
        assert reader.read() == b"old, and longer"
    assert await store.load() == b"new"
    assert [file.name for file in path.parent.iterdir()] == ["token"]


async def test_file_survives_a_save_that_fails(store, path, monkeypatch):
    """A save that fails before its end leaves what there was."""
    await store.save(b"old")

    def full(descriptor, *args):
        os.close(descriptor)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(OSError, match="No space"):
        await store.save(b"new")
    monkeypatch.undo()
    assert await store.load() == b"old"


async def test_file_with_a_leftover(store, path):
    """What a killed process left half-written, readable by all, is not in the way."""
    leftover = path.with_name("token.new")
    leftover.write_bytes(b"half")
    leftover.chmod(0o666)
    await store.save(b"whole")
    assert (await store.load(), mode(path), leftover.exists()) == (b"whole", 0o600, False)


async def test_file_that_is_far_too_large(store, path):
    """What is no token is not read without bound."""
    path.write_bytes(b"x" * 1_000_000)
    assert len(await store.load() or b"") == 64 * 1024


@contextlib.contextmanager
def holder_of(path):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"locked\n"
        yield child
        child.kill()


@pytest.mark.parametrize("end", ["let go", "killed"])
async def test_lock_excludes_another_process(path, end):
    """The lock is waited for while another process has it, and is free when that one ends."""
    waits = []
    with holder_of(path) as child:

        async def sleep(seconds):
            waits.append(seconds)
            assert len(waits) <= 3
            if len(waits) == 3:
                child.stdin.close() if end == "let go" else child.kill()
                child.wait()

        async with FileTokenStore(path, sleep=sleep).lock():
            assert child.returncode == (0 if end == "let go" else -9)
    assert waits == [0.05] * 3


async def test_lock_excludes_another_task(path):
    """Two stores of one file exclude each other within a process, too."""
    inside = []
    sleep = turns()

    async def enter(name):
        async with FileTokenStore(path, sleep=sleep).lock():
            inside.append(name)
            for _ in range(5):
                await asyncio.sleep(0)
            inside.append(name)

    await asyncio.gather(*(enter(name) for name in "abc"))
    assert len(inside) == 6
    assert inside[::2] == inside[1::2]


async def test_lock_that_is_waited_for_in_vain(path):
    """Cancelling the wait takes the lock from nobody, and leaves no file open."""
    waiting = asyncio.Event()

    async def sleep(seconds):
        waiting.set()
        await asyncio.Future()

    async def enter():
        async with FileTokenStore(path, sleep=sleep).lock():
            raise AssertionError("another has it")

    async with FileTokenStore(path).lock():
        task = asyncio.create_task(enter())
        waiter = asyncio.create_task(waiting.wait())
        await asyncio.wait([task, waiter], return_when=asyncio.FIRST_COMPLETED)
        assert waiting.is_set()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    async with FileTokenStore(path, sleep=taken).lock():
        pass


async def test_lock_is_released_by_an_error(path):
    """What fails under the lock does not keep it."""
    store = FileTokenStore(path, sleep=taken)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            async with store.lock():
                raise ZeroDivisionError


@pytest.mark.parametrize("is_folder", [False, True])
async def test_client_without_a_usable_file(make_client, caplog, tmp_path, is_folder):
    """A folder that is missing, or a folder in the file's place: logged, and the client works."""
    path = tmp_path if is_folder else tmp_path / "missing" / "token"
    server = ScriptedServer([TOKEN, ISSUED])
    client = make_client(server, token_source=None, token_store=FileTokenStore(path))
    assert (await client.issue("KEY")).code == "NAklEfbVdV"
    reason = "IsADirectoryError" if is_folder else "FileNotFoundError"
    assert f"token: the store failed ({reason}); not shared" in caplog.text
    assert str(tmp_path) not in caplog.text


async def test_client_with_a_store_that_raises_our_errors(make_client, store, monkeypatch):
    """What any method of a store raises is logged, an error of this library's classes too."""

    async def load():
        raise ConnectError("the store: no connection")

    monkeypatch.setattr(store, "load", load)
    server = ScriptedServer([TOKEN, ISSUED])
    client = make_client(server, token_source=None, token_store=store)
    assert (await client.issue("KEY")).code == "NAklEfbVdV"


async def test_client_shares_its_token(make_client, path):
    """What one client bought, another of the same application takes without a request."""
    first = ScriptedServer([TOKEN, ISSUED])
    await make_client(
        first, token_source=None, token_store=FileTokenStore(path, sleep=taken)
    ).issue("KEY")
    second = ScriptedServer([ISSUED])
    await make_client(
        second, token_source=None, token_store=FileTokenStore(path, sleep=taken)
    ).issue("KEY")
    assert second.requests[0].headers["Authorization"] == "Bearer token"
    content = path.read_text()
    assert "client-secret" not in content
    assert "client-id" not in content


async def test_many_clients_share_one_request(make_client, path):
    """20 clients at once in one event loop, each with a store of its own: one token is bought."""
    tokens, sleep = [], turns()

    async def handler(request):
        if request.operation != "token":
            return ISSUED
        tokens.append(request)
        await asyncio.sleep(0)
        return TOKEN

    clients = [
        make_client(handler, token_source=None, token_store=FileTokenStore(path, sleep=sleep))
        for _ in range(20)
    ]
    assert len(await asyncio.gather(*(client.issue("KEY") for client in clients))) == 20
    assert len(tokens) == 1


BUYER = """
import asyncio, sys
from pathlib import Path
from rm_voucher import Credentials, Environment, FileTokenStore, VoucherClient

async def buy(url, path, client_id, client_secret):
    credentials = Credentials(client_id, client_secret, sys.stdin.buffer.read())
    store = FileTokenStore(Path(path))
    async with VoucherClient(
        credentials, environment=Environment.at(url), token_store=store
    ) as client:
        print(len((await client.batches()).items))

asyncio.run(buy(*sys.argv[1:]))
"""


async def test_two_processes_buy_one_token(path):
    """Two processes that begin at once buy exactly one token; a third, later, buys none."""
    emulator = Emulator(seed=1)
    emulator.add_batch("label", quantity=1)
    async with serve(emulator) as server:

        async def start():
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", BUYER, server.url, str(path)),
                *(emulator.client_id, emulator.client_secret),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )

        children = [await start(), await start()]
        key = emulator.credentials.private_key_pem()
        ends = await asyncio.gather(*(child.communicate(key) for child in children))
        assert ends == [(b"1\n", b"")] * 2
        assert await (await start()).communicate(key) == (b"1\n", b"")
    assert emulator.requests == {"token": 1, "batches": 3}


async def test_lock_of_a_stopped_process_is_not_waited_for_for_ever(path, store):
    """After ``lock_wait_s`` the wait ends, and a client goes on with a token of its own."""
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    async with store.lock():
        impatient = FileTokenStore(path, lock_wait_s=1.0, sleep=sleep)
        with pytest.raises(TimeoutError):
            async with impatient.lock():
                pass
    assert sum(waits) == pytest.approx(1.0)


def test_file_store_needs_posix(path, monkeypatch):
    """Where files can't be locked, that is said when the store is made."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="POSIX"):
        FileTokenStore(path)


@pytest.mark.parametrize("wait_s", [-1.0, float("inf"), float("nan")])
def test_lock_wait_must_be_a_time(path, wait_s):
    """A wait that has no end, or none that makes sense, is refused."""
    with pytest.raises(ConfigurationError, match="lock_wait_s"):
        FileTokenStore(path, lock_wait_s=wait_s)


async def test_lock_without_patience_takes_what_is_free(path):
    """No wait at all is one attempt."""
    async with FileTokenStore(path, lock_wait_s=0, sleep=taken).lock():
        pass


FORKER = """
import asyncio, os, signal, sys
from pathlib import Path
from rm_voucher import FileTokenStore

async def main():
    async with FileTokenStore(Path(sys.argv[1])).lock():
        leaving = os.fork()
        if leaving == 0:
            sys.exit()  # leaves the block in the child
        os.waitpid(leaving, 0)
        staying = os.fork()
        if staying == 0:
            signal.pause()
        print("forked", flush=True)
        sys.stdin.readline()
    print("released", flush=True)
    sys.stdin.readline()
    os.kill(staying, signal.SIGKILL)
    os.waitpid(staying, 0)

asyncio.run(main())
"""


async def test_lock_is_the_holders_whoever_it_forks(path):
    """A child's end frees nothing of its parent's, and a child that lives on keeps nothing."""
    with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs in this loop
        [sys.executable, "-c", FORKER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "forked\n"
        with pytest.raises(TimeoutError):
            async with FileTokenStore(path, lock_wait_s=0).lock():
                pass
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert process.stdout.readline() == "released\n"
        async with FileTokenStore(path, lock_wait_s=0).lock():
            pass
        process.stdin.close()
