"""The key goes over the socket and nowhere else, and the process is nobody's but the run's."""

import asyncio
import base64
import logging
import os
import signal
from pathlib import Path

import pytest
from support.files import KEY_FILE
from support.signing_pools import at_work, processes_of, sign_all

pytestmark = [
    pytest.mark.usefixtures("at_once"),
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc"),
]


def traces(signer):
    """Return what would give a piece of the key away."""
    der = signer.private_key_der()
    middle = der[len(der) // 2 :][:60]
    lines = KEY_FILE.read_text().splitlines()[1:-1]
    return [middle, middle.hex().encode(), base64.b64encode(middle), *map(str.encode, lines)]


async def test_arguments_and_environment_hold_no_key(signer, monkeypatch):
    """Neither the arguments nor the environment of a process hold the key, even where the
    program has it from its own environment, nor any other setting."""
    monkeypatch.setenv("RM_PRIVATE_KEY", KEY_FILE.read_text())
    monkeypatch.setenv("RM_CLIENT_SECRET", "hush")
    async with at_work(signer) as pool:
        for number in processes_of(pool):
            place = Path(f"/proc/{number}")
            arguments, variables = (
                (place / "cmdline").read_bytes(),
                (place / "environ").read_bytes(),
            )
            assert b"signing/process.py" in arguments
            assert b"PATH=" in variables
            assert b"RM_" not in variables
            assert not [t for t in traces(signer) if t in arguments or t in variables]


async def test_a_process_inherits_its_connection_only(signer, tmp_path):
    """Of the program's files and connections a process has none but its own, and no file is
    written for it."""
    with (tmp_path / "open.txt").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        async with at_work(signer) as pool:
            for number in processes_of(pool):
                place = Path(f"/proc/{number}/fd")
                found = {int(one.name): str(one.readlink()) for one in place.iterdir()}
                assert set(found) == {0, 1, 2}
                assert found[0].startswith("socket:")
                assert {found[1], found[2]} == {os.devnull}


async def test_a_process_ends_by_no_signal_of_the_program_and_waits_for_the_others(signer):
    """Ctrl-C, and what a service manager sends to all, end no process whose signatures the
    program's last calls may need; and it yields to what is more urgent, within one session, where
    Linux shares out time by priority."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    theirs = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT
    async with at_work(signer) as pool:
        for number in processes_of(pool):
            assert os.getsid(number) == os.getsid(0)
            assert os.getpriority(os.PRIO_PROCESS, number) == min(own + 15, 19)
            for signal_number in theirs:
                os.kill(number, signal_number)
        await sign_all(pool, signer, 50)
        assert pool.processes == 2


async def test_reprs_and_logs_hold_no_key(signer, caplog):
    """Nothing that is shown of a pool, its tasks or its processes holds a piece of the key, and in
    debug mode the event loop logs none."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    async with at_work(signer) as pool:
        shown = [pool, pool._starting, *pool._workers, *map(vars, pool._workers)]
        await sign_all(pool, signer, 50)
        os.kill(processes_of(pool)[0], 9)
        await sign_all(pool, signer, 50)
        text = (repr(shown) + caplog.text).encode()
    assert not [trace for trace in traces(signer) if trace in text]


async def test_errors_of_a_start_hold_no_key(signer, monkeypatch, caplog):
    """A start that fails after the key was read says what kind of error it was, and no more: no
    error is left over for the event loop to report with its frames."""
    monkeypatch.setattr("rm_voucher.signing.worker._frame", lambda data: 1 / 0)
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    with pytest.raises(AssertionError):
        async with at_work(signer):
            pass
    assert [record.getMessage() for record in caplog.records] == [
        "signing: no process for it (ZeroDivisionError, ZeroDivisionError)"
    ]
    assert reported == []


async def test_a_process_imports_nothing_from_a_relative_place(signer, monkeypatch, tmp_path):
    """Where the program's path has the working directory and that has changed since, nothing in it
    is run in a process, which has the key."""
    package = tmp_path / "cryptography"
    package.mkdir()
    (package / "__init__.py").write_text("open('ran', 'w').close()")
    monkeypatch.chdir(tmp_path)
    for place in (".", ""):
        monkeypatch.syspath_prepend(place)
    async with at_work(signer) as pool:
        await sign_all(pool, signer, 20)
    assert not (tmp_path / "ran").exists()
