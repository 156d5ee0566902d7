"""Pools whose processes are ready, signatures that are checked, and a server for bulk runs."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from support.answers import ok
from support.command import PATIENCE_S

from rm_voucher import BulkIssue
from rm_voucher.signing import RsaSigner, RsaVerifier, format_signature, string_to_sign
from rm_voucher.signing.pool import SigningPool


@functools.cache
def signer_of(bits: int) -> RsaSigner:
    return RsaSigner(rsa.generate_private_key(public_exponent=65537, key_size=bits))


def is_of(signer: RsaSigner, text: bytes, signature: bytes) -> bool:
    verifier = RsaVerifier.from_pem(signer.public_key_pem())
    return verifier.verify(text, format_signature(signature))


async def started(pool: SigningPool) -> None:
    """Let the pool start its processes, and wait until it has, or can't."""
    await pool.sign(b"the first")
    async with asyncio.timeout(PATIENCE_S):
        assert pool._starting is not None
        await pool._starting


@contextlib.asynccontextmanager
async def at_work(signer: RsaSigner, processes: int = 2) -> AsyncIterator[SigningPool]:
    """Give a pool whose processes sign; needs the fixture `at_once`."""
    pool = SigningPool(signer, processes=processes)
    try:
        await started(pool)
        assert pool.processes == processes
        yield pool
    finally:
        await pool.aclose()
        assert is_over(pool)


async def sign_all(pool: SigningPool, signer: RsaSigner, count: int) -> None:
    """Sign so many texts at once, and check each."""
    texts = [b"text %d" % number for number in range(count)]
    async with asyncio.timeout(2 * PATIENCE_S):
        signatures = await asyncio.gather(*map(pool.sign, texts))
    assert all(map(functools.partial(is_of, signer), texts, signatures))


def processes_of(pool: SigningPool) -> list[int]:
    return [worker._process.pid for worker in pool._workers if worker._process is not None]


def is_over(pool: SigningPool) -> bool:
    """Return whether no process, not even a dead one, and no connection is left."""
    return all(
        worker._transport is None
        and (worker._process is None or worker._process.returncode is not None)
        for worker in pool._workers
    )


class Issuer:
    """A server that checks each signature, and answers once the run's processes are ready."""

    def __init__(self, signer: RsaSigner) -> None:
        self.signer = signer
        self.run: BulkIssue[int] | None = None
        self.count = 0
        self.nonces: set[str] = set()
        self.on_request: Callable[[int], Any] = lambda count: None

    async def __call__(self, request):
        text = string_to_sign(
            method=request.method,
            url=str(request.url),
            nonce=request.headers["X-Nonce-Str"],
            timestamp=request.headers["X-Timestamp"],
            body=request.body,
        )
        verifier = RsaVerifier.from_pem(self.signer.public_key_pem())
        assert verifier.verify(text.encode(), request.headers["X-Signature"])
        self.nonces.add(request.headers["X-Nonce-Str"])
        self.count += 1
        number = self.count
        assert self.run is not None
        if (starting := self.run._pool._starting) is not None:
            await asyncio.wait([starting])
        self.on_request(number)
        return ok({"item": {"code": f"CODE{number:06}"}, "code": "SUCCESS"})
