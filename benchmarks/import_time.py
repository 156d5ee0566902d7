"""How long ``import rm_voucher`` takes, as a ratio to ``import aiohttp``, in fresh processes.

Fails when the ratio is over LIMIT: importing the library must stay cheaper than importing the HTTP
client that it loads only when it is needed.
"""

import statistics
import subprocess
import sys
import time

LIMIT = 0.8
ROUNDS = 15


def seconds(statement: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - begin


def main() -> None:
    for statement in ("import rm_voucher", "import aiohttp"):  # fill the byte-code caches
        seconds(statement)
    empty, ours, theirs = [], [], []
    for _ in range(ROUNDS):  # by turns, so that a busy machine troubles all three alike
        empty.append(seconds("pass"))
        ours.append(seconds("import rm_voucher"))
        theirs.append(seconds("import aiohttp"))
    start = statistics.median(empty)
    own = statistics.median(ours) - start
    peer = statistics.median(theirs) - start
    ratio = own / peer
    print(f"import rm_voucher {own * 1e3:.0f} ms, import aiohttp {peer * 1e3:.0f} ms")
    print(f"ratio {ratio:.2f} (limit {LIMIT})")
    if ratio > LIMIT:
        sys.exit("importing rm_voucher takes too long")


if __name__ == "__main__":
    main()
