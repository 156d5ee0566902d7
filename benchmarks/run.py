"""All benchmarks, one after another, as one table: ratios to peers and limits on this machine.

Each script runs in a process of its own. A missed bar stops nothing; it exits 1 at the end if there
was one. It writes ``benchmarks/RESULTS.md``, with the plots; ``python benchmarks/run.py decode
stall`` runs those scripts only, and writes nothing.
"""

import datetime as dt
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from common import AS_JSON, HERE, Row, say, table

SCRIPTS = (
    "bulk_http",
    "shared_rate",
    "single",
    "observe",
    "stall",
    "decode",
    "import_time",
    "startup",
    "flow",
    "soak",
    "bulk_ledger",
    "ledger",
    "webhooks",
    "emulator",
    "emulator_page",
    "plots",
)
RESULTS = HERE / "RESULTS.md"
LIBRARIES = (
    "rm-voucher",
    "aiohttp",
    "attrs",
    "cattrs",
    "cryptography",
    "msgspec",
    "orjson",
    "psycopg",
    "pydantic",
    "rmsdk",
    "SQLAlchemy",
    "uvloop",
    "yarl",
)
PLOTS = {"concurrency": "calls at once", "latency": "the latency of the server"}


def rows_of(script: str) -> Iterator[Row]:
    """Run a script; give its rows as they come, and one more where it broke."""
    say(f"{script} ({SCRIPTS.index(script) + 1} of {len(SCRIPTS)})")
    command = [sys.executable, str(HERE / f"{script}.py"), AS_JSON]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield Row(**json.loads(line))
    if process.returncode:
        yield Row(f"`{script}.py`", "it ended early", ok=False)


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def machine() -> str:
    """Return what the figures depend on: no name of the machine, and no path."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    python = f"{platform.python_implementation()} {platform.python_version()}"
    lines = [
        f"{cores} cores, {cpu_model()}",
        f"{platform.system()} {platform.machine()}, {python}",
        ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES),
        *filter(None, (version("openssl", "version"), version("node", "--version", name="Node "))),
    ]
    return "\n".join(f"- {line}" for line in lines)


def version(*command: str, name: str = "") -> str | None:
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return name + done.stdout.partition("(")[0].strip()


def results(rows: list[Row]) -> str:
    day = dt.datetime.now(dt.UTC).date()
    missed = sum(row.ok is False for row in rows)
    held = sum(row.ok is True for row in rows)
    plots = "\n\n".join(
        f"![Issues a second against {words}](plots/{name}.svg)" for name, words in PLOTS.items()
    )
    return f"""# Results of the benchmarks

Written by `nox -s bench`, all of it in one run on one machine, {day}. Ratios are the medians of
rounds in which both sides took turns. Bars held: {held}; missed: {missed}. What is measured, and
how, is said at the top of each script.

{table(rows)}

## Machine

{machine()}

## Plots

{plots}
"""


def main() -> None:
    chosen = sys.argv[1:]
    if unknown := set(chosen) - set(SCRIPTS):
        sys.exit(f"no such script: {', '.join(sorted(unknown))}; they are {', '.join(SCRIPTS)}")
    rows = [row for script in chosen or SCRIPTS for row in rows_of(script)]
    print(table(rows))
    if not chosen:
        RESULTS.write_text(results(rows), encoding="utf-8")
    missed = sum(row.ok is False for row in rows)
    if missed:
        sys.exit(f"missed bars: {missed}")


if __name__ == "__main__":
    main()
