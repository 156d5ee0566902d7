"""How soon the command is there: ``rm-voucher --help``, and the same with all commands imported.

CPU seconds of fresh processes, by turns: a busy machine troubles both alike.
"""

import resource
import subprocess
import sys
from collections.abc import Iterator

from common import Row, at_most, compared, main

BAR = at_most(0.5)
ROUNDS = 15
HELP = "import sys; sys.argv = ['rm-voucher', '--help']; from rm_voucher.cli import main; main()"
EAGER = (
    "from importlib import import_module\n"
    "from rm_voucher import *\n"
    "from rm_voucher.cli.app import COMMANDS\n"
    "for each in COMMANDS:\n"
    "    import_module(f'rm_voucher.cli.{each.module}')\n"
)


def cpu_ms(program: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent_s * 1e3


def measure() -> Iterator[Row]:
    eager = EAGER + HELP
    for program in (HELP, eager):  # fill the byte-code caches
        cpu_ms(program)
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(cpu_ms(HELP))
        theirs.append(cpu_ms(eager))
    peer = ("all commands imported", theirs)
    yield compared("`rm-voucher --help`, CPU time", ours, peer, "{:.0f} ms", BAR)


if __name__ == "__main__":
    main(measure)
