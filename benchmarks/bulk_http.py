"""Bulk issue over loopback HTTP: against a loop by hand, RM's SDKs, and what two cores allow.

- The loop by hand is `loops.by_hand`, with aiohttp and cryptography.
- `rmsdk` is RM's SDK for Python: synchronous, and it parses the key at each call.
- `rm-api-sdk` is RM's SDK for Node, driven with as many calls at once as ours; npm puts it into a
  temporary folder. Where that is not possible, the row says why.
- Two cores allow 2 / (1/raw + 1/sign) issues a second, if nothing else had to be done: raw is what
  a bare aiohttp client reaches that signs nothing, sign the signatures of one core, by openssl.

All talk to the same kind of server by turns, in rounds. The first half second of each run does not
count. Every code of a server must be another one.
"""

import asyncio
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import attrs
from common import HERE, Process, Row, at_least, compared, main, process, say
from loops import BATCH, CONCURRENCY, Tally, Target, by_hand, by_library, new_key, server

BY_HAND, RMSDK, RM_API_SDK, TWO_CORES = (at_least(limit) for limit in (1.6, 40, 3.5, 0.75))
ROUNDS = 7
CALLS = 12_000  # of ours in a round: enough for signing processes to pay
CALLS_BY_HAND = 6_000
CALLS_UNSIGNED = 24_000
PEER_S = 3.0
NODE_PACKAGE = "rm-api-sdk@1.0.10"
NPM_S = 120.0
FORM = "{:,.0f} issues/s"
WHAT = f"Bulk issue, {CONCURRENCY} at once, RSA-2048"
Turn = Callable[[], float]


async def ours_and_by_hand(target: Target, unsigned: Target, peers: dict[str, Turn]) -> "Figures":
    """Return the throughputs of the rounds."""
    figures = Figures()
    constant = target.sign("", "")
    seen, seen_unsigned = set[str](), set[str]()
    async with target.client() as client, target.session() as session, unsigned.session() as bare:
        for number in range(ROUNDS + 1):
            ours = Tally(seen)
            await by_library(client, range(CALLS), ours)
            hand = Tally(seen)
            await by_hand(session, target, range(CALLS_BY_HAND), hand)
            raw = Tally(seen_unsigned)
            await by_hand(
                bare, unsigned, range(CALLS_UNSIGNED), raw, sign=lambda nonce, timestamp: constant
            )
            found = {"ours": ours.per_s(), "by hand": hand.per_s(), "unsigned": raw.per_s()}
            for name, turn in peers.items():
                found[name] = turn()
            say(f"round {number}: " + ", ".join(f"{name} {x:,.0f}" for name, x in found.items()))
            if number:  # the first opens the connections
                figures.add(found)
    return figures


@attrs.frozen
class Figures:
    by_name: dict[str, list[float]] = attrs.field(factory=dict)

    def add(self, found: dict[str, float]) -> None:
        for name, value in found.items():
            self.by_name.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> list[float]:
        return self.by_name[name]

    def __contains__(self, name: str) -> bool:
        return name in self.by_name


def turn_of(peer: Process, seen: set[str]) -> Turn:
    """Return what makes one run of a peer in a process of its own."""

    def turn() -> float:
        answer = peer.ask(str(PEER_S))
        if len(seen.union(answer["codes"])) != len(seen) + len(answer["codes"]):
            sys.exit("a code came twice")
        seen.update(answer["codes"])
        per_s: float = answer["per_s"]
        return per_s

    return turn


def node_command(folder: str) -> list[str]:
    """Install the SDK for Node; return what runs it. Raises `OSError` or `SubprocessError`."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise FileNotFoundError("there is no node, or no npm")
    say(f"npm installs {NODE_PACKAGE}")
    subprocess.run(
        [npm, "install", "--prefix", folder, "--no-audit", "--no-fund", "--silent", NODE_PACKAGE],
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=NPM_S,
    )
    package = NODE_PACKAGE.partition("@")[0]
    return [node, str(HERE / "rm_api_sdk_peer.js"), f"{folder}/node_modules/{package}"]


def signatures_per_s() -> float:
    """Return what one core signs, by ``openssl speed``."""
    done = subprocess.run(
        ["openssl", "speed", "-seconds", "3", "rsa2048"],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    # rsa 2048 bits 0.000435s 0.000024s 2301.0 41033.0
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("rsa"))
    return 1 / float(line.split()[3].rstrip("s"))


def measure() -> Iterator[Row]:
    key = new_key()
    left_out: dict[str, str] = {}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        key_file = Path(folder, "key.pem")
        target = stack.enter_context(server(key))
        unsigned = stack.enter_context(server(key, "--any-signature"))
        key_file.write_bytes(target.pem)
        arguments = (target.url, key_file)
        rmsdk = stack.enter_context(process(sys.executable, HERE / "rmsdk_peer.py", *arguments))
        seen = set[str]()
        peers = {"rmsdk": turn_of(rmsdk, seen)}
        try:
            command = node_command(folder)
        except (OSError, subprocess.SubprocessError) as exc:
            left_out["rm-api-sdk"] = str(exc).replace(folder, "…")
        else:
            node = stack.enter_context(process(*command, *arguments, BATCH, str(CONCURRENCY)))
            peers["rm-api-sdk"] = turn_of(node, seen)
        if shutil.which("openssl"):
            peers["sign"] = signatures_per_s
        else:
            left_out["sign"] = "there is no openssl"
        figures = asyncio.run(ours_and_by_hand(target, unsigned, peers))
    ours = figures["ours"]
    for name, title, bar in (
        ("by hand", "aiohttp + cryptography by hand", BY_HAND),
        ("rmsdk", "rmsdk 1.0.1", RMSDK),
        ("rm-api-sdk", "rm-api-sdk 1.0.10 (Node)", RM_API_SDK),
    ):
        if name in figures:
            yield compared(WHAT, ours, (title, figures[name]), FORM, bar)
        else:
            yield Row(WHAT, "", f"{title}: left out, because {left_out[name]}", bar=bar.text)
    if "sign" in left_out:
        yield Row(WHAT, "", f"two cores: left out, because {left_out['sign']}", bar=TWO_CORES.text)
        return
    limits = [
        2 / (1 / raw + 1 / sign)
        for raw, sign in zip(figures["unsigned"], figures["sign"], strict=True)
    ]
    raw, sign = (statistics.median(figures[name]) for name in ("unsigned", "sign"))
    say(f"a core: {raw:,.0f} unsigned issues/s, {sign:,.0f} signatures/s")
    yield compared(WHAT, ours, ("two cores' limit", limits), FORM, TWO_CORES)


if __name__ == "__main__":
    main(measure)
