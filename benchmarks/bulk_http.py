"""Bulk issue over loopback HTTP, as a ratio to a loop by hand with aiohttp and cryptography.

Both sign each request with the same RSA-2048 key and talk to the same server, in another process
(`issue_server`), which verifies the signatures. The loop by hand has no retries, no time-outs of
its own, no models and no checks. Fails when the ratio of the throughputs is under LIMIT.
"""

import asyncio
import base64
import contextlib
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp
import orjson
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from rm_voucher import Credentials, Environment, StaticToken, VoucherClient, bulk_issue

LIMIT = 0.85
ROUNDS = 30
CALLS = 700  # a round, of each: short turns, so that a busy machine troubles both alike
CONCURRENCY = 64
TOKEN = "bench-token"  # the server does not look at it
Issue = Callable[[int], Awaitable[list[str]]]


async def by_hand(
    session: aiohttp.ClientSession, url: str, key: rsa.RSAPrivateKey, calls: int
) -> list[str]:
    """Issue as an engineer would without a library: as many workers as calls at once."""
    codes: list[str] = []
    left = iter(range(calls))

    async def work() -> None:
        for _ in left:
            nonce, timestamp = secrets.token_hex(16), str(int(time.time()))
            text = (
                f"method=post&nonceStr={nonce}&requestUrl={url}"
                f"&signType=sha256&timestamp={timestamp}"
            )
            signature = key.sign(text.encode(), padding.PKCS1v15(), SHA256())
            headers = {
                "Authorization": f"Bearer {TOKEN}",
                "Content-Type": "application/json",
                "X-Nonce-Str": nonce,
                "X-Signature": f"sha256 {base64.b64encode(signature).decode()}",
                "X-Timestamp": timestamp,
            }
            async with session.post(url, data=b"{}", headers=headers) as response:
                response.raise_for_status()
                answer = orjson.loads(await response.read())
            codes.append(answer["item"]["code"])

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    return codes


async def by_library(client: VoucherClient, calls: int) -> list[str]:
    codes: list[str] = []
    async with bulk_issue(client, "BENCH", range(calls), concurrency=CONCURRENCY) as run:
        async for result in run:
            if result.voucher is None:
                sys.exit(f"not issued: {result.error}")
            codes.append(result.voucher.code)
    return codes


async def calls_a_second(issue: Issue, seen: set[str], calls: int = CALLS) -> float:
    begin = time.perf_counter()
    codes = await issue(calls)
    elapsed_s = time.perf_counter() - begin
    if len(codes) != calls or len(seen.union(codes)) != len(seen) + calls:
        sys.exit("not as many distinct codes as calls")
    seen.update(codes)
    return calls / elapsed_s


async def measure(port: int, key: rsa.RSAPrivateKey) -> tuple[list[float], list[float]]:
    """Return the throughputs of each round, ours and those of the loop by hand."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    base = f"http://127.0.0.1:{port}"
    client = VoucherClient(
        Credentials("bench", "bench", pem),
        environment=Environment.at(base),
        token_source=StaticToken(TOKEN),
    )
    ours, theirs, seen = [], [], set[str]()
    async with client, aiohttp.ClientSession() as session:
        url = f"{base}/v3/voucher-batch/BENCH/issue"
        for number in range(ROUNDS + 1):
            own = await calls_a_second(lambda calls: by_library(client, calls), seen)
            other = await calls_a_second(lambda calls: by_hand(session, url, key, calls), seen)
            if number:  # the first opens the connections
                ours.append(own)
                theirs.append(other)
    return ours, theirs


@contextlib.contextmanager
def server(key: rsa.RSAPrivateKey) -> Iterator[int]:
    """Run the server; give its port."""
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    program = Path(__file__).with_name("issue_server.py")
    with tempfile.NamedTemporaryFile() as file:
        file.write(public)
        file.flush()
        with subprocess.Popen(
            [sys.executable, str(program), file.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            yield int(process.stdout.readline())
            # Leaving closes its standard input, which ends it.


def main() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with server(key) as port:
        ours, theirs = asyncio.run(measure(port, key))
    ratio = statistics.median(own / other for own, other in zip(ours, theirs, strict=True))
    own, other = statistics.median(ours), statistics.median(theirs)
    print(f"median of {ROUNDS} rounds: bulk_issue {own:.0f} calls/s, by hand {other:.0f} calls/s")
    print(f"ratio {ratio:.2f} (limit {LIMIT})")
    if ratio < LIMIT:
        sys.exit("bulk issue is too slow")


if __name__ == "__main__":
    main()
