"""The two that are compared: `bulk_issue`, and a loop by hand with aiohttp and cryptography.

Both sign each request with the same RSA-2048 key and talk to the same server, in another process
(`issue_server`). The loop by hand has no retries, no time-outs of its own, no models and no checks.
"""

import asyncio
import base64
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import aiohttp
import attrs
import orjson
from common import serving
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from rm_voucher import (
    Credentials,
    Environment,
    Limits,
    StaticToken,
    VoucherClient,
    bulk_issue,
)
from rm_voucher.shared import SharedStore

BATCH = "BENCH"
CONCURRENCY = 64
SKIP_S = 0.5  # of each run: connections open, signing processes start
TOKEN = "bench-token"  # the server does not look at it


class Tally:
    """The codes of one run as they come. ``seen`` are those of all runs on the same server."""

    def __init__(self, seen: set[str]) -> None:
        self._seen = seen
        self._ends: list[float] = []
        self._begin = time.perf_counter()

    def add(self, code: str) -> None:
        if code in self._seen:
            sys.exit(f"{code} came twice")
        self._seen.add(code)
        self._ends.append(time.perf_counter())

    def per_s(self, skip_s: float = SKIP_S) -> float:
        """Return how many came in a second, without the beginning."""
        begin = self._begin + skip_s
        counted = sum(end >= begin for end in self._ends)
        if not counted:
            sys.exit("the run was over before it was measured")
        return counted / (self._ends[-1] - begin)


def for_seconds(seconds: float) -> Iterator[int]:
    """Count, for so long."""
    begin, number = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        yield number
        number += 1


@attrs.frozen
class Target:
    """A server, and the key whose signatures it takes."""

    port: int
    key: rsa.RSAPrivateKey

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pem(self) -> bytes:
        return private_pem(self.key)

    def client(
        self, connections: int = CONCURRENCY, shared: SharedStore | None = None
    ) -> VoucherClient:
        return VoucherClient(
            Credentials("bench", "bench", self.pem),
            environment=Environment.at(self.url),
            token_source=StaticToken(TOKEN),
            limits=Limits(max_connections=connections),
            shared=shared,
        )

    def session(self, connections: int = CONCURRENCY) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections))

    @property
    def issue_url(self) -> str:
        return f"{self.url}/v3/voucher-batch/{BATCH}/issue"

    def sign(self, nonce: str, timestamp: str) -> str:
        """Return the header X-Signature of an issue."""
        text = (
            f"method=post&nonceStr={nonce}&requestUrl={self.issue_url}"
            f"&signType=sha256&timestamp={timestamp}"
        )
        signature = self.key.sign(text.encode(), padding.PKCS1v15(), SHA256())
        return f"sha256 {base64.b64encode(signature).decode()}"


async def by_hand(
    session: aiohttp.ClientSession,
    target: Target,
    work: Iterable[int],
    tally: Tally,
    *,
    concurrency: int = CONCURRENCY,
    sign: Callable[[str, str], str] | None = None,
) -> None:
    """Issue as an engineer would without a library: as many workers as calls at once."""
    left, url, sign = iter(work), target.issue_url, sign or target.sign

    async def call() -> str:
        nonce, timestamp = secrets.token_hex(16), str(int(time.time()))
        headers = {
            "Authorization": f"Bearer {TOKEN}",
            "Content-Type": "application/json",
            "X-Nonce-Str": nonce,
            "X-Signature": sign(nonce, timestamp),
            "X-Timestamp": timestamp,
        }
        async with session.post(url, data=b"{}", headers=headers) as response:
            response.raise_for_status()
            answer = orjson.loads(await response.read())
        code: str = answer["item"]["code"]
        return code

    async def worker() -> None:
        for _ in left:
            tally.add(await call())

    await asyncio.gather(*(worker() for _ in range(concurrency)))


async def by_library(
    client: VoucherClient,
    work: Iterable[int],
    tally: Tally,
    *,
    concurrency: int = CONCURRENCY,
    signers: int | None = None,
) -> None:
    run = bulk_issue(client, BATCH, work, concurrency=concurrency, signers=signers)
    async with run:
        async for result in run:
            if result.voucher is None:
                sys.exit(f"not issued: {result.error}")
            tally.add(result.voucher.code)


def new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def private_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@contextmanager
def server(key: rsa.RSAPrivateKey, *options: str) -> Iterator[Target]:
    """Run the server."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(public_pem(key))
        file.flush()
        with serving("issue_server.py", file.name, *options) as (port, _):
            yield Target(port, key)


async def watch(late_ms: list[float]) -> None:
    """Wake every millisecond; note how late it was."""
    while True:
        begin = time.perf_counter()
        await asyncio.sleep(0.001)
        late_ms.append((time.perf_counter() - begin) * 1000 - 1)


def percentile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[int(len(ordered) * share)]
