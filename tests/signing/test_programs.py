"""Whatever program a run is in, its processes start, run nothing of it, and end with it."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from support.command import PATIENCE_S
from support.files import TESTS

HERE = Path(__file__).parent
DONE = "200 issued, 2 signed, none left\n"
STRICT = ("-X", "dev", "-W", "error")
ISSUE = "import asyncio, signing_run\nprint(asyncio.run(signing_run.issue()))\n"


@contextlib.contextmanager
def popen(*arguments, **options):
    """Give a program that runs; it ends with the block at the latest."""
    variables = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{TESTS}", "PYTHON_BASIC_REPL": "1"}
    pipe = subprocess.PIPE
    command = [sys.executable, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=variables, **options
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run(*arguments, text="", **options):
    """Return what a program wrote; it must end well and complain of nothing."""
    with popen(*arguments, **options) as process:
        out, err = process.communicate(text, timeout=2 * PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    return out


def test_a_script_without_a_guard_is_imported_once(tmp_path):
    """A script that does everything at import does it once."""
    path = tmp_path / "script.py"
    path.write_text("print('imported')\n" + ISSUE)
    assert run(*STRICT, path) == "imported\n" + DONE


@pytest.mark.long
@pytest.mark.parametrize("arguments", [("-c", ISSUE), ("-",)])
def test_a_program_without_a_file(arguments):
    """A program from the command line or standard input has processes as any other."""
    text = ISSUE if arguments == ("-",) else ""
    assert run(*STRICT, *arguments, text=text) == DONE


@pytest.mark.long
def test_a_repl():
    """So has what a person types."""
    with popen("-q", "-i") as process:
        out, _ = process.communicate(ISSUE + "exit()\n", timeout=2 * PATIENCE_S)
    assert (process.returncode, out) == (0, DONE)


NOTEBOOK = """
import asyncio, sys, threading, types
import signing_run
sys.modules["__main__"] = types.ModuleType("__main__")  # without a file
loop = asyncio.new_event_loop()
thread = threading.Thread(target=loop.run_forever)
thread.start()
out = [asyncio.run_coroutine_threadsafe(signing_run.issue(), loop).result()]
loop.call_soon_threadsafe(loop.stop)
thread.join()
loop.close()
print(*out)
"""


@pytest.mark.long
def test_a_notebook():
    """So has a loop that has been running in another thread, in a program without a main file."""
    assert run(*STRICT, "-c", NOTEBOOK) == DONE


SHADOWED = """
import asyncio, pathlib, signing_run
for name in ("signing", "signer_process", "socket", "struct", "datetime", "enum", "typing"):
    pathlib.Path(f"{name}.py").write_text("raise SystemExit(1)")
print(asyncio.run(signing_run.issue()))
"""


@pytest.mark.long
@pytest.mark.parametrize("arguments", [(), ("-P",)])
def test_files_around_shadow_nothing(tmp_path, arguments):
    """Files in the directory of a program take the place of no module of a process, be they named
    as one of the standard library or of this package."""
    assert run(*STRICT, *arguments, "-c", SHADOWED, cwd=tmp_path) == DONE


SERVED = """
import signing_run, socket, uvicorn

async def app(scope, receive, send):
    text = await signing_run.issue()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})

listening = socket.socket()
listening.bind(("127.0.0.1", 0))
listening.listen()
print(listening.getsockname()[1], flush=True)
server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning"))
with listening:
    server.run(sockets=[listening])
"""


@pytest.mark.long
def test_a_web_application():
    """A request may issue in bulk, and the next again, under uvicorn."""
    with popen("-c", SERVED) as process:
        port = int(process.stdout.readline())
        for _ in range(2):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=2 * PATIENCE_S) as got:
                assert got.read().decode() + "\n" == DONE
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert "ERROR" not in err
    assert "WARNING" not in err


INTERRUPTED = """
import asyncio, signing_run
try:
    asyncio.run(signing_run.issue(on_request=signing_run.interrupt))
except KeyboardInterrupt:
    print("interrupted,", signing_run.children())
"""


def test_ctrl_c_leaves_nothing():
    """Ctrl-C in the middle of a run ends it and its processes, and leaves nothing open."""
    assert run(*STRICT, "-c", INTERRUPTED) == "interrupted, none left\n"


ABANDONED = """
import asyncio, logging, signing_run

logging.disable(logging.WARNING)  # it says which calls are in doubt, as it must

async def main():
    reached = asyncio.Event()
    def reach(transport):
        if transport.count == 150:
            reached.set()
    asyncio.create_task(signing_run.issue(on_request=reach), name="abandoned")
    await reached.wait()

asyncio.run(main())
print(signing_run.children())
"""


@pytest.mark.long
def test_the_end_of_the_event_loop_leaves_nothing():
    """A run in a task that the program forgets ends with the event loop, and so do its
    processes."""
    assert run(*STRICT, "-c", ABANDONED) == "none left\n"


HELD = """
import asyncio, signing_run

def hold(transport):
    if transport.count == 50:
        print(*transport.pids, flush=True)
        sys.stdin.read()

import sys
asyncio.run(signing_run.issue(on_request=hold))
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for processes of another one")
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
def test_a_killed_program_leaves_no_process(number):
    """Processes see the end of a program that could not say so, and end."""
    with popen("-c", HELD) as process:
        files = [os.pidfd_open(int(pid)) for pid in process.stdout.readline().split()]
        assert len(files) == 2
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == -number
    for file in files:
        assert select.select([file], [], [], PATIENCE_S)[0], "a process is left"
        os.close(file)


LOOPS = """
import asyncio, signing_run, uvloop
print(uvloop.run(signing_run.issue()))
"""


def test_another_event_loop():
    """Processes serve uvloop as well, where it is installed."""
    pytest.importorskip("uvloop")
    assert run("-W", "error", "-c", LOOPS) == DONE
