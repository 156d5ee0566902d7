"""Draw docs/images/terminal.svg from a real run: ``python docs/terminal_picture.py``."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

DOCS = Path(__file__).parent
PICTURE = DOCS / "images" / "terminal.svg"
COLUMNS = 80
COMMANDS = [
    (
        "rm-voucher issue BREAKFAST --environment memory \\\n"
        "    --recipients examples/recipients.csv --output vouchers.csv"
    ),
    "head -n 4 vouchers.csv | cut -d , -f 1,2,4",
]
# Rich's own frame would load a font from the web.
FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">
<style>
.{unique_id}-matrix {{ font: {char_height}px/{line_height}px Menlo, Consolas, monospace }}
.{unique_id}-title {{ font: bold 18px sans-serif }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def screen_of(command: str, folder: Path) -> str:
    """Run a command in a terminal; return what it leaves on the screen."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    env = {name: value for name, value in os.environ.items() if not name.startswith("RM_")}
    env |= {"TERM": "xterm-256color", "PATH": f"{Path(sys.executable).parent}:{env['PATH']}"}
    process = subprocess.Popen(  # noqa: S602 - the commands above
        command, shell=True, cwd=folder, env=env, stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    shown = b""
    try:
        while piece := os.read(ours, 65_536):
            shown += piece
    except OSError:  # Linux tells the end like this
        pass
    os.close(ours)
    if process.wait():
        raise SystemExit(shown.decode())
    return "\n".join(map(_last, shown.decode().replace("\r\n", "\n").split("\n")))


def _last(line: str) -> str:
    """Return what a line shows in the end: the bar is drawn over itself, and moves down."""
    drawn = [part for part in line.replace("\x1b[J", "").split("\r") if part]
    return drawn[-1] if drawn else ""


def picture() -> str:
    """Return the SVG."""
    console = Console(
        record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="256"
    )
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(DOCS.parent / "examples", Path(folder) / "examples")
        for command in COMMANDS:
            console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
            console.print(Text.from_ansi(screen_of(command, Path(folder)).rstrip()))
    return console.export_svg(
        title="rm-voucher issues 1,000 vouchers", code_format=FRAME, unique_id="terminal"
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    print(f"wrote {PICTURE.name}")
