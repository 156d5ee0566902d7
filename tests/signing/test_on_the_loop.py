"""Where processes don't pay, aren't wanted or can't be, the event loop signs."""

import asyncio
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from support.doubles import NoSigner
from support.signing_pools import is_of, is_over, sign_all, signer_of, started

from rm_voucher import ConfigurationError, bulk_issue
from rm_voucher.signing import RsaSigner
from rm_voucher.signing.pool import SigningPool, signers_that_pay


class Watch:
    """A clock that only signing moves."""

    def __init__(self, monkeypatch):
        self.now = 1_000.0
        self.signed = 0
        monkeypatch.setattr(
            "rm_voucher.signing.pool.time", SimpleNamespace(perf_counter=lambda: self.now)
        )

    def take(self, seconds):
        self.now += seconds
        self.signed += 1


async def test_other_tasks_get_a_turn_every_few_signatures(monkeypatch):
    """However many signatures wait, everything else has its turn after those of two
    milliseconds."""
    watch = Watch(monkeypatch)

    class Slow(NoSigner):
        def sign(self, text):
            watch.take(0.0005)
            return text

    pool = SigningPool(Slow(), processes=2)
    futures = [pool.sign(b"%d" % number) for number in range(256)]
    most, before = 0, 0
    while not all(future.done() for future in futures):
        await asyncio.sleep(0)
        most, before = max(most, watch.signed - before), watch.signed
    assert 1 < most <= 5
    assert [future.result() for future in futures] == [b"%d" % number for number in range(256)]
    await pool.aclose()


async def test_few_signatures_start_no_process(signer, monkeypatch):
    """Signing that takes less than a tenth of any second starts no process; more does."""
    watch = Watch(monkeypatch)
    sign = RsaSigner.sign
    monkeypatch.setattr(RsaSigner, "sign", lambda *given: watch.take(0.003) or sign(*given))
    pool = SigningPool(signer, processes=1)
    for _ in range(3):
        await sign_all(pool, signer, 30)
        watch.now += 2.0
    assert pool._starting is None
    await sign_all(pool, signer, 40)
    assert pool._starting is not None
    await pool.aclose()


@pytest.mark.usefixtures("at_once")
async def test_no_process_unless_wanted(signer, caplog):
    """With 0 signers nothing is started, nor said."""
    pool = SigningPool(signer, processes=0)
    await sign_all(pool, signer, 20)
    assert (pool._starting, caplog.text) == (None, "")
    await pool.aclose()


class Other(RsaSigner):
    """Signs otherwise than its key."""

    def sign(self, text):
        return b"by other means"


def replaced():
    signer = RsaSigner(signer_of(2048)._key)
    signer.sign = lambda text: b"by other means"  # type: ignore[method-assign] # as a user may
    return signer


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("make", [lambda: Other(signer_of(2048)._key), replaced])
async def test_a_signer_of_the_users_own_is_never_bypassed(make):
    """A subclass, or a signer whose method was replaced, makes every signature itself."""
    pool = SigningPool(make(), processes=2)
    assert set(await asyncio.gather(*(pool.sign(b"x") for _ in range(50)))) == {b"by other means"}
    assert pool._starting is None
    await pool.aclose()


@pytest.mark.parametrize("error", [ValueError, StopIteration, KeyboardInterrupt])
async def test_who_waits_gets_the_signers_error(error):
    """What a signer raises reaches who waits for that signature, and nobody else waits longer."""

    class Failing(NoSigner):
        def sign(self, text):
            if text == b"bad":
                raise error
            return text

    pool = SigningPool(Failing(), processes=0)
    bad, good = pool.sign(b"bad"), pool.sign(b"good")
    assert await good == b"good"
    expected = RuntimeError if error is StopIteration else error
    assert isinstance(bad.exception(), expected)
    await pool.aclose()


@pytest.fixture
def no_quota(monkeypatch, tmp_path):
    """No share of the cores that this machine itself may have been given."""
    monkeypatch.setattr("rm_voucher.signing.pool._CPU_QUOTA", tmp_path / "missing")


@pytest.mark.usefixtures("no_quota")
@pytest.mark.parametrize(
    ("cores", "processes"), [({0}, 0), ({0, 5}, 2), ({1, 2, 3}, 3), (set(range(64)), 3)]
)
async def test_processes_that_pay(monkeypatch, signer, cores, processes):
    """One core has none to spare; more have as many as one event loop can keep busy. It is what a
    run takes that is told no number."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores, raising=False)
    assert signers_that_pay() == processes
    assert SigningPool(signer, processes=None)._processes == processes


@pytest.mark.usefixtures("no_quota")
@pytest.mark.parametrize(("cores", "processes"), [(None, 0), (1, 0), (2, 2), (8, 3)])
def test_processes_that_pay_where_cores_are_only_counted(monkeypatch, cores, processes):
    """Systems that don't tell which cores the program may use tell how many there are, or not."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert signers_that_pay() == processes


@pytest.mark.parametrize(
    ("quota", "processes"),
    [
        ("max 100000", 3),
        ("100000 100000", 0),
        ("150000 100000", 0),  # the loop alone would have half a core
        ("250000 100000", 2),
        ("900000 100000", 3),
        ("?", 3),
    ],
)
def test_processes_that_pay_in_a_container_with_a_quota(monkeypatch, tmp_path, quota, processes):
    """A container is stopped for a while once it has used its share: no more than that sign."""
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr("rm_voucher.signing.pool._CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert signers_that_pay() == processes


@pytest.mark.parametrize("signers", [-1, 1.5, "2", 33])
def test_a_number_of_signers_is_checked(make_client, signers):
    """What is no number of processes is refused when the run is made."""
    with pytest.raises(ConfigurationError, match="signers"):
        bulk_issue(make_client(None), "B", [], signers=signers)


def script(tmp_path, text):
    path = tmp_path / "python3"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def refuse(*_, **__):
    raise OSError("no more processes")


WORKER = "rm_voucher.signing.worker"
NOT_STARTED = {
    "no interpreter": lambda m, _: m.setattr(sys, "executable", ""),
    "none known": lambda m, _: m.setattr(sys, "executable", None),
    "embedded": lambda m, _: m.setattr(sys, "executable", "/usr/bin/uwsgi"),
    "frozen": lambda m, _: m.setattr(sys, "frozen", True, raising=False),
    "missing": lambda m, path: m.setattr(sys, "executable", str(path / "python3")),
    "ends at once": lambda m, path: m.setattr(sys, "executable", script(path, "exit 0")),
    "never ready": lambda m, path: (
        m.setattr(sys, "executable", script(path, "exec sleep 600")),
        m.setattr(WORKER + "._READY_S", 0.2),
    ),
    "refused by the system": lambda m, _: m.setattr(subprocess, "Popen", refuse),
    "no connection": lambda m, _: m.setattr("socket.socketpair", refuse),
    "not taken by the event loop": lambda m, _: m.setattr(
        asyncio.get_running_loop(), "create_unix_connection", refuse, raising=False
    ),
    "no script": lambda m, path: m.setattr(
        "rm_voucher.signing.worker._SCRIPT", str(path / "none.py")
    ),
    "a key that stays where it is": lambda m, _: m.setattr(RsaSigner, "private_key_der", refuse),
}


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("reason", NOT_STARTED)
async def test_without_a_process_the_loop_signs(monkeypatch, tmp_path, signer, caplog, reason):
    """Where no process can be started every signature is made all the same, a warning says so
    once, and nothing is left behind."""
    NOT_STARTED[reason](monkeypatch, tmp_path)
    pool = SigningPool(signer, processes=2)
    await started(pool)
    await sign_all(pool, signer, 20)
    assert pool.processes == 0
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("signing: no process for it (")
    await pool.aclose()
    assert is_over(pool)


@pytest.mark.usefixtures("at_once")
async def test_one_that_starts_is_used_without_the_other(monkeypatch, signer, caplog):
    """Where only some processes can be started, these sign."""
    popen = subprocess.Popen
    made: list[subprocess.Popen] = []

    def once(*given, **options):
        if made:
            raise OSError
        made.append(popen(*given, **options))
        return made[0]

    monkeypatch.setattr(subprocess, "Popen", once)
    pool = SigningPool(signer, processes=2)
    await started(pool)
    assert pool.processes == 1
    await sign_all(pool, signer, 50)
    assert caplog.text.count("no process for it (OSError)") == 1
    await pool.aclose()
    assert is_over(pool)


@pytest.mark.usefixtures("at_once")
async def test_a_sign_of_readiness_that_comes_too_late_is_ignored(signer):
    """A process that gets ready when it has been given up gets no text."""
    pool = SigningPool(signer, processes=1)
    futures = [pool.sign(b"%d" % number) for number in range(100)]
    while pool._starting is None or not pool._workers or pool._workers[0]._transport is None:
        await asyncio.sleep(0)
    (worker,) = pool._workers
    worker._ready.cancel()
    worker.data_received(b"+")
    assert (pool.processes, len(worker._out)) == (0, 0)
    for number, future in enumerate(futures):
        assert is_of(signer, b"%d" % number, await future)
    await pool.aclose()
    assert is_over(pool)
