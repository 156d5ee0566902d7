"""A campaign that is killed and started again until it is done, and what must be true then."""

from __future__ import annotations

import asyncio
import csv
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import orjson
from kills.killer import ENVIRONMENT
from support.command import COMMAND, PATIENCE_S, Emulating

from rm_voucher import VoucherClient

LAUNCHER = Path(__file__).with_name("launcher.py")
KILLED = -signal.SIGKILL
BEFORE = 120
"""Vouchers that the batch has issued before the campaign, so that there is a baseline to read."""
_STARTS = 12
_RUN_S = 300
_POLL_S = 0.005


@attrs.frozen
class Scale:
    """How large a campaign is, and how late the emulator may be; ``settle_s`` is real time."""

    recipients: int
    settle_s: float
    faults: dict[str, float]


@attrs.define
class Campaign:
    """``rm-voucher issue`` with a ledger, against an emulator with faults."""

    emulating: Emulating
    ledger: str
    folder: Path
    scale: Scale
    options: tuple[str, ...] = ()
    """More options of the command."""
    kills: int = 0

    @property
    def output(self) -> Path:
        return self.folder / "issued.csv"

    def begin(self) -> None:
        """Issue some before the campaign, without faults, and then begin with them."""

        async def issue() -> None:
            async with self.emulating.client() as client:
                await asyncio.gather(*(client.issue("B") for _ in range(BEFORE)))

        self._put_faults(rate=0.0)
        asyncio.run(issue())
        self._put_faults(rate=0.3, **self.scale.faults)

    def start(self, point: str | None = None) -> subprocess.Popen[str]:
        """Start the command; with a point it kills itself there."""
        command = COMMAND if point is None else (sys.executable, str(LAUNCHER), point)
        options = ("--exclusive", "--settle", str(self.scale.settle_s))
        count = ("--count", str(self.scale.recipients), "--output", str(self.output))
        return subprocess.Popen(
            [*command, "issue", "B", "--ledger", self.ledger, *options, *count, *self.options],
            env={**os.environ, **ENVIRONMENT, **self.emulating.variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill_at(self, point: str) -> None:
        """Run it until it kills itself at a point."""
        out, err, code = _end(self.start(point))
        assert code == KILLED, f"{point} was not reached: {code}, {out[-300:]} {err[-600:]}"
        self.kills += 1

    def kill_after(self, requests: int) -> None:
        """Run it, and kill it when the emulator has had so many more requests."""
        target = self._requests() + requests
        process = self.start()
        while self._requests() < target:
            try:
                process.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                continue
            break
        process.kill()
        _, err, code = _end(process)
        assert code == KILLED, f"it ended before {requests} requests: {code}, {err[-600:]}"
        self.kills += 1

    def run_to_the_end(self) -> str:
        """Start it until its exit code is 0; return what it said then."""
        said = []
        for _ in range(_STARTS):
            out, err, code = _end(self.start())
            assert out == ""
            if code == 0:
                return err
            said.append(f"{code}: {err[-600:]}")
        raise AssertionError("it never came to an end:\n" + "\n".join(said))

    def check(self) -> None:
        """Hold that nobody has two vouchers or none, and that no voucher is unknown."""
        self._put_faults(rate=0.0)
        self._advance(self.scale.faults["late_s"])
        status = self.status()
        rows = list(csv.DictReader(self.output.read_text().splitlines()))
        codes = [row["code"] for row in rows]
        names = sorted(int(row["recipient"]) for row in rows)
        assert names == list(range(1, self.scale.recipients + 1))
        assert {row["voucher_status"] for row in rows} == {"issued"}
        assert len(set(codes)) == len(codes)
        listed = asyncio.run(self._listed())
        assert set(codes) <= listed
        (batch,) = self.emulating.control("batches")
        assert batch["issued"] == len(listed)
        assert status["assigned"] == status["asked"] == self.scale.recipients
        assert batch["issued"] - BEFORE == status["assigned"] + status["spare"]
        assert status["spare"] == 0  # nothing was late, so nobody was issued to twice
        assert (status["attempts"], status["stopped"], status["foreign"]) == ([], {}, 0)
        assert dict(self.export()) == {row["recipient"]: row["code"] for row in rows}
        left = {path.name for path in self.folder.iterdir()}
        assert not [name for name in left if name.endswith((".partial", ".new", ".csv.1"))]

    def status(self) -> dict[str, Any]:
        """Return what ``ledger status`` shows; its exit code is 0."""
        shown: dict[str, Any] = orjson.loads(self._ledger("status", "--json"))
        return shown

    def export(self) -> Iterator[tuple[str, str]]:
        """Iterate over requests and codes as the ledger has them."""
        for row in csv.DictReader(self._ledger("export").splitlines()):
            yield row["request"], row["code"]

    def _ledger(self, command: str, *options: str) -> str:
        return subprocess.run(
            [*COMMAND, "ledger", command, self.ledger, *options],
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        ).stdout

    async def _listed(self) -> set[str]:
        async with self.emulating.client() as client:
            return {code async for code in _codes(client)}

    def _requests(self) -> int:
        return sum(self.emulating.control("requests").values())

    def _put_faults(self, **plan: float) -> None:
        self._send("PUT", "faults", plan)

    def _advance(self, seconds: float) -> None:
        self._send("POST", "clock", {"advance_s": seconds})

    def _send(self, method: str, path: str, body: dict[str, float]) -> None:
        url = f"{self.emulating.url}/_emulator/{path}"
        asked = urllib.request.Request(url, orjson.dumps(body), method=method)
        urllib.request.urlopen(asked).close()


async def _codes(client: VoucherClient):
    async for voucher in client.vouchers("B"):
        yield voucher.code


def _end(process: subprocess.Popen[str]) -> tuple[str, str, int]:
    with process:
        try:
            out, err = process.communicate(timeout=_RUN_S)
        except BaseException:
            process.kill()
            raise
    return out, err, process.returncode


def run(campaign: Campaign, points: Sequence[str]) -> None:
    """Kill a campaign at each of these points, one after the other; then see how it ends."""
    campaign.begin()
    for point in points:
        campaign.kill_at(point)
    campaign.run_to_the_end()
    campaign.check()
