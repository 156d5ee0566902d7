"""Two million rows are read, checked, written as they come and again in order, in little memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MANY = int(os.environ.get("TABLE_ROWS", "200000"))
PROGRAM = """
import resource, sys
from pathlib import Path
import rm_voucher.cli.issue, sqlalchemy, rich.progress  # what a run with a ledger has loaded
from rm_voucher import IssuedVoucher
from rm_voucher.bulk.results import issued
from rm_voucher.cli.recipients import Recipients
from rm_voucher.cli.results import ResultFile

count, source, out = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
with source.open("w") as file:
    file.write("Name;E-Mail;City\\r\\n")
    for n in range(count):
        file.write(f"Member {n} of the club;member{n:07}@example.com;Kuala Lumpur\\r\\n")
for _ in range(2):  # the second time the older output is compared with the new one
    with (
        Recipients(source) as recipients,
        ResultFile(
            out, table=recipients.table, unasked=recipients.unasked, is_kept=True
        ) as results,
    ):
        assert len(recipients) == count
        results.begin()
        late = []
        for n, name in enumerate(recipients):
            url = f"https://example.com/qr/{n:010}"
            result = issued(name, IssuedVoucher(code=f"C{n:09}", qr_url=url), 1)
            if n % 100 == 0 and len(late) < 1_000:
                late.append(result)
            else:
                results.add(result)
        for result in reversed(late):
            results.add(result)
with out.open() as file:
    assert next(file).rstrip() == "Name;E-Mail;City;code;qr_url;voucher_status;error"
    for n in range(count):
        assert f";member{n:07}@example.com;Kuala Lumpur;C{n:09};" in next(file)
    assert next(file, "") == ""
if sys.platform == "linux":  # where the other figure begins with that of the process that forked
    (used_kb,) = [
        line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")
    ]
    print(int(used_kb) >> 10)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20)
"""


def most_mb(count: int, folder: Path) -> int:
    """Return the most memory that a process needed, in MB."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(count), folder / "in.csv", folder / "out.csv"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert sorted(path.name for path in folder.iterdir()) == ["in.csv", "out.csv"]
    return int(ended.stdout)


@pytest.mark.parametrize("count", [5_000, pytest.param(MANY, marks=pytest.mark.long)])
def test_memory(tmp_path: Path, count: int) -> None:
    """Each row costs some tens of bytes, the final sort and the comparison included: two million,
    which is ``TABLE_ROWS=2000000``, need less than 300 MB."""
    assert most_mb(count, tmp_path) < 140 + 80 * count / 1_000_000
