"""Runs programs at once, each in a process of its own that shares what all of them import.

``python program_runner.py FILE…``. What a program writes goes to files beside it, ``FILE.out`` and
``FILE.err``; the exit code of the last process that failed is that of the run.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import aiohttp  # noqa: F401 - what takes long
import sqlalchemy  # noqa: F401

import rm_voucher.emulator
import rm_voucher.ledger
import rm_voucher.signing
import rm_voucher.transport.aiohttp
import rm_voucher.webhooks  # noqa: F401

AT_ONCE = 3


def start(path: Path) -> bool:
    """Start a process for a program; return whether this is it."""
    if os.fork():
        return False
    for descriptor, suffix in ((1, ".out"), (2, ".err")):
        file = os.open(f"{path}{suffix}", os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(file, descriptor)
        os.close(file)
    os.chdir(path.parent)
    return True


def wait() -> int:
    """Wait until a process has ended; return its exit code."""
    return os.waitstatus_to_exitcode(os.wait()[1])


def run_all(paths: list[Path]) -> int:
    """Run the programs; return an exit code. In the process of a program, run that."""
    code = 0
    for number, path in enumerate(paths):
        if number >= AT_ONCE:
            code = wait() or code
        if start(path):
            runpy.run_path(str(path), run_name="__main__")
            return 0
    for _ in paths[:AT_ONCE]:
        code = wait() or code
    return code


if __name__ == "__main__":
    sys.exit(run_all([Path(each) for each in sys.argv[1:]]))
