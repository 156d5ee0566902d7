"""examples/celery_app.py: one voucher for each order, whatever repeats its task."""

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading

import pytest
from redis import Redis
from support.command import PATIENCE_S
from support.example_modules import load_example
from support.files import EXAMPLES, KEY_FILE
from support.redis import redis_url  # noqa: F401 - a fixture

from rm_voucher import Credentials, OutcomeUnknownError, VoucherClient
from rm_voucher.emulator import Emulator, Fault
from rm_voucher.emulator.server import serve
from rm_voucher.ledger import Ledger

BATCH = "BREAKFAST"
ORDERS = 40


@pytest.fixture
def emulator():
    return Emulator(
        credentials=Credentials("id", "hush", KEY_FILE.read_bytes()), batches={BATCH: 200}
    )


@pytest.fixture
def celery_app(monkeypatch):
    """The example, which sends to a broker in memory."""
    monkeypatch.setenv("CELERY_BROKER_URL", "memory://")
    monkeypatch.setenv("BATCH_KEY", BATCH)
    monkeypatch.syspath_prepend(EXAMPLES)
    return load_example("celery_app")


@pytest.fixture
def handed_on(celery_app, emulator, tmp_path, monkeypatch):
    """What its tasks hand on, with a client of the emulator's."""

    @contextlib.asynccontextmanager
    async def opened():
        ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db", mode="exclusive", settle_s=0.05)
        async with emulator.client() as client, ledger:
            yield celery_app.Ours(client, ledger)

    handed = []
    monkeypatch.setattr(celery_app, "hand_on", lambda *given: handed.append(given))
    background = load_example("background").Background(opened)
    monkeypatch.setattr(celery_app, "VOUCHERS", background)
    yield handed
    celery_app.close()


def test_a_task_that_is_repeated(celery_app, handed_on, emulator):
    """Runs again and at once in several threads, an order's task hands on one voucher."""
    celery_app.issue.apply([1])
    threads = [threading.Thread(target=celery_app.issue.apply, args=[[1]]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    celery_app.issue.apply([2])
    assert len(handed_on) == 5
    assert len(set(handed_on)) == len(emulator.issued(BATCH)) == 2


def test_a_task_whose_answer_is_lost(celery_app, handed_on, emulator):
    """It comes again later, with the same id, and has the voucher that was issued then."""
    emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
    with pytest.raises(OutcomeUnknownError):  # called directly, a retry raises what it is for
        celery_app.issue(1)
    assert handed_on == []
    celery_app.VOUCHERS.run(lambda ours: ours.ledger.finish(ours.client, BATCH))
    celery_app.issue(1)
    (code,) = emulator.issued(BATCH)
    assert [order for order, qr_url in handed_on if code in qr_url] == [1]


def test_a_task_that_can_not_hand_on(celery_app, handed_on, emulator, monkeypatch):
    """It comes again, and hands the same voucher on."""

    def fails(*_):
        raise OSError("the shop is away")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="away"):
        patched.setattr(celery_app, "hand_on", fails)
        celery_app.issue(1)  # called directly, a retry raises what it is for
    celery_app.issue(1)
    assert len(handed_on) == len(emulator.issued(BATCH)) == 1


def test_background_in_a_child():
    """A process that is forked after its first call has a loop of its own."""
    program = (
        "import contextlib, os\n"
        "from background import Background\n"
        "@contextlib.asynccontextmanager\n"
        "async def opened(): yield os.getpid()\n"
        "async def work(pid): return pid\n"
        "background = Background(opened)\n"
        "assert background.run(work) == os.getpid()\n"
        "child = os.fork()\n"
        "assert background.run(work) == os.getpid()\n"
        "background.close()\n"
        "if child: assert os.waitpid(child, 0)[1] == 0\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES)}
    command = [sys.executable, "-W", "ignore", "-c", program]  # 3.12 warns of threads at a fork
    subprocess.run(command, env=environment, check=True, timeout=30)


def test_a_task_keeps_no_result(celery_app, handed_on):
    """A result would keep the code at the broker's."""
    assert celery_app.issue.apply([1]).result is None
    assert celery_app.issue.ignore_result


def test_what_can_not_be_opened_is_tried_again(celery_app):
    """The first error is the caller's, and the next call opens anew."""
    calls = []

    @contextlib.asynccontextmanager
    async def opened():
        calls.append(1)
        if len(calls) == 1:
            raise OSError("away")
        yield "open"

    async def work(what):
        return what

    background = load_example("background").Background(opened)
    background.close()  # nothing was opened
    with pytest.raises(OSError, match="away"):
        background.run(work)
    assert background.run(work) == "open"
    background.close()


@pytest.mark.long
async def test_workers_that_are_killed(
    celery_app,
    emulator,
    redis_url,  # noqa: F811
    postgres_ledger_url,
    tmp_path,
):
    """Each order's task sent twice, the worker killed in the middle: each order has one code."""
    queue = f"rm_test_{secrets.token_hex(6)}"
    log = tmp_path / "worker.log"
    async with serve(emulator) as server:
        env = {
            **os.environ,
            **server.variables,
            "CELERY_BROKER_URL": redis_url,
            "LEDGER_URL": postgres_ledger_url,
            "BATCH_KEY": BATCH,
        }

        def start():
            command = f"-m celery -A celery_app worker -Q {queue} --concurrency 2 --loglevel INFO"
            options = "--without-mingle --without-gossip --without-heartbeat"
            with log.open("ab") as out:
                return subprocess.Popen(
                    [sys.executable, *command.split(), *options.split()],
                    cwd=EXAMPLES,
                    env=env,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )

        def send():
            with celery_app.app.connection_for_write(redis_url) as connection:
                for order in range(ORDERS):
                    celery_app.issue.apply_async([order], queue=queue, connection=connection)

        async def until(condition):
            async with asyncio.timeout(2 * PATIENCE_S):
                while not await condition():
                    await asyncio.sleep(0.05)

        async def some_are_issued():
            return len(emulator.issued(BATCH)) >= ORDERS // 4

        async def all_are_asked():
            async with Ledger.open(postgres_ledger_url, read_only=True) as ledger:
                counts = await ledger.counts(BATCH)
            return counts.assigned + counts.ambiguous == ORDERS

        workers = [start()]
        try:
            await asyncio.to_thread(send)
            await until(some_are_issued)
            os.killpg(workers[0].pid, signal.SIGKILL)
            workers.append(start())
            await asyncio.to_thread(send)
            await until(all_are_asked)
            workers[1].send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(workers[1].wait, PATIENCE_S) == 0
        finally:
            for worker in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
            with Redis.from_url(redis_url) as redis:
                redis.delete(queue, f"_kombu.binding.{queue}", "unacked", "unacked_index")
        client = VoucherClient(emulator.credentials, environment=server.environment)
        ledger = Ledger.open(postgres_ledger_url, mode="exclusive", settle_s=0.1)
        async with client, ledger:
            counts = await ledger.finish(client, BATCH)
    assert counts.asked == counts.assigned == ORDERS
    assert len(emulator.issued(BATCH)) == counts.assigned + counts.spare
    said = log.read_text()
    assert not [code for code in emulator.issued(BATCH) if code in said]
    assert "Traceback" not in said, said
