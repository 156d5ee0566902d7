"""Signatures of processes are right, and each its own text's."""

import asyncio
import os
import random
import signal

import pytest
from support.signing_pools import (
    at_work,
    is_of,
    is_over,
    processes_of,
    sign_all,
    signer_of,
    started,
)

from rm_voucher.signing.pool import SigningPool

pytestmark = pytest.mark.usefixtures("at_once")


@pytest.mark.parametrize(
    "bits",
    [2048, pytest.param(2056, marks=pytest.mark.long), pytest.param(3072, marks=pytest.mark.long)],
)
async def test_signatures_of_every_key_size_verify(bits):
    """A signature of a process is the key's own, whatever its size."""
    signer = signer_of(bits)
    async with at_work(signer) as pool:
        await sign_all(pool, signer, 100)


async def test_thousands_at_once_are_each_its_own(signer):
    """However many wait at once, each gets the signature of its own text."""
    async with at_work(signer) as pool:
        await sign_all(pool, signer, 1_500)


async def test_cancelled_signatures_shift_nothing(signer):
    """A signature that nobody waits for any more changes no other, at a process or before it."""
    chance = random.Random(1)
    async with at_work(signer) as pool:
        futures = {text: pool.sign(text) for text in (b"%d" % number for number in range(600))}
        await asyncio.sleep(0)  # some are sent
        gone = set(chance.sample(sorted(futures), 300))
        for text in gone:
            futures[text].cancel()
        for text, future in futures.items():
            if text not in gone:
                assert is_of(signer, text, await future)


async def test_a_killed_process_loses_no_signature(signer, caplog):
    """What a killed process had not signed, the others sign, and in the end the event loop."""
    async with at_work(signer) as pool:
        for left, number in enumerate(processes_of(pool)):
            signing = asyncio.ensure_future(sign_all(pool, signer, 300))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            os.kill(number, signal.SIGKILL)
            await signing
            while pool.processes != 1 - left:
                await asyncio.sleep(0)
        await sign_all(pool, signer, 20)
    assert [record.getMessage() for record in caplog.records] == [
        "signing: a process ended; 1 are left",
        "signing: a process ended; 0 are left",
    ]


async def test_a_process_that_hangs_is_taken_for_dead(signer, caplog, monkeypatch):
    """A process that owes signatures and sends none for long is ended, so that later signatures
    need not wait for the event loop to help; one that owes nothing may be silent."""
    monkeypatch.setattr("rm_voucher.signing.pool._HUNG_S", 0.1)
    async with at_work(signer, 1) as pool:
        await sign_all(pool, signer, 5)
        await asyncio.sleep(0.2)
        assert pool.processes == 1
        (number,) = processes_of(pool)
        os.kill(number, signal.SIGSTOP)
        while pool.processes:
            assert is_of(signer, b"text", await pool.sign(b"text"))
        await sign_all(pool, signer, 5)
    assert "a process ended; 0 are left" in caplog.text


async def test_what_is_unsigned_at_the_end_is_signed_on_the_loop(signer):
    """Closing a pool leaves nobody waiting, nor does it keep anyone from signing later."""
    async with at_work(signer) as pool:
        futures = [pool.sign(b"%d" % number) for number in range(100)]
        await asyncio.sleep(0)
        await pool.aclose()
        for number, future in enumerate(futures):
            assert is_of(signer, b"%d" % number, await future)
        await sign_all(pool, signer, 3)
        assert pool.processes == 0


async def test_the_loop_signs_for_processes_that_get_no_time(signer):
    """On a machine that is busy with what is more urgent, or with a process that is stopped, a run
    goes on as if it had none; and what such a process signs after all is nobody's."""
    async with at_work(signer, 1) as pool:
        (number,) = processes_of(pool)
        os.kill(number, signal.SIGSTOP)
        await sign_all(pool, signer, 100)
        assert pool.processes == 1
        await sign_all(pool, signer, 5)
        assert len(pool._waiting) == 0
        os.kill(number, signal.SIGCONT)
        while pool._workers[0]._out:
            await asyncio.sleep(0)
        await sign_all(pool, signer, 100)


async def test_runs_share_the_processes_that_pay(monkeypatch, signer):
    """Several runs of a program start no more processes than one; who comes later signs on the
    loop until an earlier run has ended. Who asks for a number gets it."""
    monkeypatch.setattr("rm_voucher.signing.pool.signers_that_pay", lambda: 2)
    first, second = (SigningPool(signer, processes=None) for _ in range(2))
    await started(first)
    await sign_all(second, signer, 50)
    assert (first.processes, second.processes) == (2, 0)
    assert second._starting is None
    async with at_work(signer, processes=1):
        pass
    await first.aclose()
    await started(second)
    assert second.processes == 2
    await sign_all(second, signer, 50)
    await second.aclose()
    assert is_over(first)
    assert is_over(second)
