"""A campaign that is larger than what memory may take for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

RECIPIENTS = 250_000
MOST_MB = 150  # the page says it of a million, which take no more: all but SQLite's pages is a row

PROGRAM = """
import resource, sys
from datetime import UTC, datetime
from rm_voucher import VoucherBatch
from rm_voucher.cli.campaign.figures import Figures, collect
from rm_voucher.cli.campaign.join import Join
from rm_voucher.cli.campaign.page import render
from rm_voucher.cli.campaign.sources import Listing
from rm_voucher.cli.campaign.standing import Kept, Listed, Mark

count = int(sys.argv[1])
name = "member-{:08}@example.com".format
code, url = "C{:09}".format, "https://rm.example/C{:09}".format
with Join() as join:
    join.add_entries(
        (Kept(recipient=name(n), mark=Mark.ISSUED, code=code(n), qr_url=url(n)), None)
        for n in range(count)
    )
    join.add_people((name(n), n) for n in range(count))
    join.match()
    join.list_vouchers(
        Listed(code=code(n), status=("ISSUED", "VOID")[n % 2], used_at=n, qr_url=url(n))
        for n in range(2 * count)
    )
    figures = Figures(
        listing=Listing(batch=VoucherBatch(), unreadable=0),
        made_at=datetime.now(UTC), zone=UTC, zone_name="UTC", source="",
    )
    collect(join, figures)
    render(figures)
assert (figures.with_code, figures.strangers["unknown"]) == (count, count)
if sys.platform == "linux":
    (used_kb,) = [
        line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")
    ]
    print(int(used_kb) >> 10)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20)
"""


@pytest.mark.long
def test_memory_of_a_large_campaign():
    """It is that of some pages of a file, and not of all recipients and vouchers."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(RECIPIENTS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < MOST_MB
