"""Bulk issue over loopback HTTP through an SQLite ledger, as a ratio to the same without one.

Both sign each request with the same RSA-2048 key and talk to the same server, in another process,
in short turns. The ledger is a file on this machine's disk, with synchronous=FULL. Fails when the
ratio of the throughputs is under LIMIT.
"""

import asyncio
import itertools
import statistics
import sys
import tempfile
from pathlib import Path

from bulk_http import CONCURRENCY, calls_a_second, server
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from rm_voucher import (
    Credentials,
    Environment,
    StaticToken,
    VoucherClient,
    bulk_issue,
)
from rm_voucher.ledger import Ledger

LIMIT = 0.8
ROUNDS = 8
CALLS = 3000  # a round, of each: a campaign, whose beginning and end weigh little


async def measure(port: int, key: rsa.RSAPrivateKey, file: Path) -> tuple[list[float], list[float]]:
    """Return the throughputs of each round, with the ledger and without."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    client = VoucherClient(
        Credentials("bench", "bench", pem),
        environment=Environment.at(f"http://127.0.0.1:{port}"),
        token_source=StaticToken("bench-token"),
    )
    names = itertools.count()
    seen = set[str]()
    kept, bare = [], []

    async with client, Ledger.open(f"sqlite:///{file}", mode="exclusive") as ledger:

        async def issue(calls: int, ledger: Ledger | None) -> list[str]:
            recipients = itertools.islice(names, calls)
            codes = []
            run = bulk_issue(client, "BENCH", recipients, concurrency=CONCURRENCY, ledger=ledger)
            async with run:
                async for result in run:
                    if result.voucher is None:
                        sys.exit(f"not issued: {result.error}")
                    codes.append(result.voucher.code)
            return codes

        for number in range(ROUNDS + 1):
            own = await calls_a_second(lambda calls: issue(calls, ledger), seen, CALLS)
            other = await calls_a_second(lambda calls: issue(calls, None), seen, CALLS)
            if number:  # the first opens the connections
                kept.append(own)
                bare.append(other)
        counts = await ledger.counts()
        if counts.assigned != counts.asked:
            sys.exit(f"not all assigned: {counts}")
    return kept, bare


def main() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with tempfile.TemporaryDirectory() as folder, server(key) as port:
        kept, bare = asyncio.run(measure(port, key, Path(folder, "ledger.db")))
    ratio = statistics.median(own / other for own, other in zip(kept, bare, strict=True))
    own, other = statistics.median(kept), statistics.median(bare)
    print(f"median of {ROUNDS} rounds: with a ledger {own:.0f} issues/s, without {other:.0f}")
    print(f"ratio {ratio:.2f} (limit {LIMIT})")
    if ratio < LIMIT:
        sys.exit("the ledger costs too much")


if __name__ == "__main__":
    main()
