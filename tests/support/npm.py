"""Packages of npm's registry for a test, as a lock file has them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

# With these there is no registry; with any other of its errors npm says that something is wrong.
UNREACHABLE = r"E(NOTFOUND|AI_AGAIN|CONNREFUSED|CONNRESET|NETUNREACH|HOSTUNREACH|TIMEDOUT)"
NPM_S = 120
INSTALL = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")


def install(source: Path, folder: Path) -> None:
    """Install into a folder what the lock file in another one says, with the digest of each file.

    Without npm, or without its registry, the test is skipped.
    """
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("there is no node, or no npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(source / name, folder)
    done = subprocess.run(
        [npm, *INSTALL, "--fetch-retries=1", "--fetch-retry-mintimeout=1000"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=NPM_S,
        check=False,
    )
    if done.returncode and re.search(rf"code {UNREACHABLE}\b", done.stderr):
        pytest.skip("npm can't reach its registry")
    assert done.returncode == 0, done.stderr
