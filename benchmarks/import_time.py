"""How long importing the client takes, as a ratio to ``import aiohttp``, in fresh processes.

Importing the library must stay cheaper than importing the HTTP
client that it loads only when it is needed.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from common import Row, at_most, compared, main, say

BAR = at_most(0.6)
ROUNDS = 15
OURS = "from rm_voucher import VoucherClient, bulk_issue"


def seconds(statement: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - begin


def measure() -> Iterator[Row]:
    for statement in (OURS, "import aiohttp"):  # fill the byte-code caches
        seconds(statement)
    empty, ours, theirs = [], [], []
    for _ in range(ROUNDS):  # by turns, so that a busy machine troubles all three alike
        empty.append(seconds("pass"))
        ours.append(seconds(OURS))
        theirs.append(seconds("import aiohttp"))
    start = statistics.median(empty)
    say(f"an empty program takes {start * 1e3:.0f} ms, which is taken off")
    own, peer = ([(each - start) * 1e3 for each in times] for times in (ours, theirs))
    yield compared(f"`{OURS}`", own, ("`import aiohttp`", peer), "{:.0f} ms", BAR)


if __name__ == "__main__":
    main(measure)
