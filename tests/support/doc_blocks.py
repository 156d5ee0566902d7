"""The Python blocks of the README and the pages, as files that a type checker reads.

``python tests/support/doc_blocks.py`` checks them all, and the examples, with ``mypy --strict`` and
with pyright in strict mode.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# After "```python" stands what kind of block it is. A block that names no kind is a program.
PROGRAM = ""
TEST_FILE = "test"
SIGNATURE = "signature"  # shows how something is called; neither run nor checked

_BLOCK = re.compile(r"^```python(?P<kind>[^\n]*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A Python block of a page."""

    page: Path
    number: int  # among the page's Python blocks, from 0
    line: int  # the page's line that the code begins at, from 1
    kind: str
    code: str

    @property
    def name(self) -> str:
        """Its page and number."""
        return f"{self.page.relative_to(ROOT)}-{self.number}"


def blocks_of(page: Path) -> list[Block]:
    """Return the Python blocks of a page, in order."""
    text = page.read_text()
    blocks = []
    for number, match in enumerate(_BLOCK.finditer(text)):
        line = text.count("\n", 0, match.start("code")) + 1
        kind = match["kind"].strip()
        assert kind in (PROGRAM, TEST_FILE, SIGNATURE), f"{page}:{line - 1}: no kind {kind!r}"
        blocks.append(Block(page, number, line, kind, match["code"]))
    return blocks


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def write_files(folder: Path) -> list[Path]:
    """Write each block to a file of its own, where its lines have the page's numbers."""
    files = []
    for block in BLOCKS:
        if block.kind != SIGNATURE:
            files.append(folder / (re.sub(r"\W", "_", block.name) + ".py"))
            files[-1].write_text("\n" * (block.line - 1) + block.code)
    return files


EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
MYPY = ("-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(ROOT / ".mypy_cache"))
PYRIGHT = ("-m", "pyright", "--pythonpath", sys.executable, "--project")


def check_types() -> list[subprocess.CompletedProcess[str]]:
    """Check the blocks and the examples with mypy and pyright, as files of somebody's own."""
    with tempfile.TemporaryDirectory() as folder:
        files = [*write_files(Path(folder)), *EXAMPLES]
        return [run_mypy(files), run_pyright(files)]


def run_mypy(files: Iterable[Path]) -> subprocess.CompletedProcess[str]:
    """Check files with ``mypy --strict`` and no settings else."""
    return _run(*MYPY, *map(str, files))


def run_pyright(files: Iterable[Path], *options: str) -> subprocess.CompletedProcess[str]:
    """Check files with pyright in strict mode and no settings else."""
    with tempfile.TemporaryDirectory() as folder:
        for file in files:  # it takes none from outside of a project
            shutil.copy(file, folder)
        project = Path(folder) / "pyrightconfig.json"
        project.write_text(json.dumps({"typeCheckingMode": "strict"}))
        return _run(*PYRIGHT, str(project), *options)


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as elsewhere:
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            cwd=elsewhere,
            check=False,
        )


if __name__ == "__main__":
    checks = check_types()
    for done in checks:
        sys.stdout.write(done.stdout + done.stderr)
    sys.exit(any(done.returncode for done in checks))
