"""Install the wheel with each extra alone, and run what the README says that it is for.

    python .ci/extras.py dist/rm_voucher-….whl

It needs uv beside it. What needs PostgreSQL or Redis is left out, with a word, where nothing
answers at RM_TEST_POSTGRES_URL or RM_TEST_REDIS_URL.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import zipfile
from email import message_from_bytes
from pathlib import Path
from urllib.parse import urlsplit

POSTGRES = os.environ.get("RM_TEST_POSTGRES_URL", "postgresql://root@127.0.0.1/test")
REDIS = os.environ.get("RM_TEST_REDIS_URL", "redis://127.0.0.1:6379/15")
UV = Path(sys.executable).with_name("uv")

ISSUE = """
import asyncio
import warnings
warnings.simplefilter("error")
from rm_voucher.emulator import Emulator
{imports}
async def main():
    emulator = Emulator(batches={{"TEA": 5}})
    async with emulator.client({options}) as client:
        {work}
    assert len(emulator.issued("TEA")) == 1
asyncio.run(main())
"""
CLIENT = ISSUE.format(imports="", options="", work='assert (await client.issue("TEA")).code')
LEDGER = ISSUE.format(
    imports="from rm_voucher.ledger import Ledger",
    options="",
    work="""async with Ledger.open(URL, namespace=ID) as ledger:
            first = await ledger.issue(client, "TEA", ID)
            assert await ledger.issue(client, "TEA", ID) == first""",
)
EVENTS = """
import asyncio
from rm_voucher.webhooks import open_event_store
async def main():
    async with open_event_store(URL):
        pass
asyncio.run(main())
"""
SHARED = """
import asyncio
from rm_voucher.shared import Lease, open_shared_store
async def main():
    async with open_shared_store(URL) as store:
        lease = Lease(store, ID, duration_s=60)
        assert await lease.acquire()
        await lease.release()
asyncio.run(main())
"""
TRACED = ISSUE.format(
    imports="from rm_voucher.otel import OpenTelemetryHook",
    options="hooks=[OpenTelemetryHook()]",
    work='await client.issue("TEA")',
)
TABLE = """
from openpyxl import load_workbook
from xlsxwriter import Workbook
from charset_normalizer import from_bytes
"""
NO_COMMAND = """
import subprocess, sys
done = subprocess.run([sys.executable, "-m", "rm_voucher"], capture_output=True, text=True)
assert done.returncode == 1 and "pip install 'rm-voucher[cli]'" in done.stderr, done
"""

COMMAND = [
    "rm-voucher --version",
    "python -m rm_voucher --help",
    "rm-voucher emulator --help",
    "rm-voucher probe --help",
    "rm-voucher doctor --help",
    "rm-voucher issue TEA --environment memory --count 3 --output vouchers.csv",
    "rm-voucher issue TEA --environment memory --count 3 --output vouchers.xlsx",
    "rm-voucher qr vouchers.csv --dir codes",
    "rm-voucher sheet vouchers.csv --output cards.html",
]


def at(url: str, program: str) -> str:
    """Return a program that has a URL, and an id that no other run has."""
    return f"import secrets\nURL, ID = {url!r}, secrets.token_hex(8)\n{program}"


SQLITE = [at("sqlite:///ledger.db", LEDGER), at("sqlite:///events.db", EVENTS)]
PROMISES: dict[str, list[str]] = {
    "": [CLIENT, NO_COMMAND],
    "cli": [*COMMAND, *SQLITE],
    "otel": [TRACED],
    "postgres": [at(POSTGRES, LEDGER), at(POSTGRES, EVENTS), at(POSTGRES, SHARED), *SQLITE],
    "print": [*COMMAND, "rm-voucher sheet vouchers.csv --output cards.pdf"],
    "redis": [at(REDIS, SHARED)],
    "sql": [*SQLITE, at("sqlite:///shared.db", SHARED)],
    "tables": [TABLE],
    "worker": ["rm-voucher worker --environment memory --batch TEA", *SQLITE],
    "all": [CLIENT, *COMMAND],
}


def answers(url: str) -> bool:
    """Return whether something listens at a URL."""
    where = urlsplit(url)
    port = where.port or {"postgresql": 5432, "redis": 6379}[where.scheme]
    try:
        socket.create_connection((where.hostname or "127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def extras_of(wheel: Path) -> set[str]:
    """Return the extras that a wheel says it has."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return set(message_from_bytes(archive.read(name)).get_all("Provides-Extra", ()))


def hold(wheel: Path, extra: str, folder: Path) -> None:
    """Install an extra in an environment of its own, and run what it is for. Exit if one fails."""
    python = folder / "venv" / "bin" / "python"
    wanted = f"{wheel}[{extra}]" if extra else str(wheel)
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
    subprocess.run([UV, "pip", "install", "--quiet", "--python", python, wanted], check=True)
    missing = tuple(f"URL, ID = {url!r}" for url in (POSTGRES, REDIS) if not answers(url))
    environment = {"HOME": str(folder), "PATH": f"{python.parent}:{os.environ['PATH']}"}
    for promise in PROMISES[extra]:
        if any(url in promise for url in missing):
            print(f"{extra}: left out, as nothing answers there")
            continue
        command = ["python", "-c", promise] if "\n" in promise else promise.split()
        done = subprocess.run(
            [shutil.which(command[0], path=environment["PATH"]) or command[0], *command[1:]],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{extra or 'no extra'}: {promise}\n{done.stdout}{done.stderr}")
    print(f"{extra or 'no extra'}: {len(PROMISES[extra])} promises held", flush=True)


def main() -> None:
    wheel = Path(sys.argv[1]).resolve()
    if unknown := (extras_of(wheel) | {""}) ^ PROMISES.keys():
        sys.exit(f"The wheel's extras are not those that are tried here: {sorted(unknown)}")
    for extra in PROMISES:
        with tempfile.TemporaryDirectory() as folder:
            hold(wheel, extra, Path(folder))


if __name__ == "__main__":
    main()
