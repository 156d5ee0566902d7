"""How long importing takes, as a ratio to ``import aiohttp``, in fresh processes.

``import rm_voucher`` loads next to nothing: names are loaded when they are first used. So what an
application does is measured too. It must stay cheaper than the HTTP client, which is loaded only
when the first client is made.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from common import Row, at_most, compared, main, say

BARS = {
    "import rm_voucher": at_most(0.6),
    "from rm_voucher import VoucherClient, bulk_issue": at_most(0.75),
}
PEER = "import aiohttp"
ROUNDS = 15


def seconds(statement: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - begin


def measure() -> Iterator[Row]:
    statements = ["pass", PEER, *BARS]
    for statement in statements:  # fill the byte-code caches
        seconds(statement)
    # By turns, so that a busy machine troubles all alike.
    rounds = [{statement: seconds(statement) for statement in statements} for _ in range(ROUNDS)]
    start = statistics.median(each["pass"] for each in rounds)
    say(f"an empty program takes {start * 1e3:.0f} ms, which is taken off")
    took = {
        statement: [(each[statement] - start) * 1e3 for each in rounds] for statement in statements
    }
    for statement, bar in BARS.items():
        peer = (f"`{PEER}`", took[PEER])
        yield compared(f"`{statement}`", took[statement], peer, "{:.0f} ms", bar)


if __name__ == "__main__":
    main(measure)
