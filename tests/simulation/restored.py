"""A ledger's files that are copied, killed, lost and put back, in whatever order; of a seed.

The files are real ones; server and time are not.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random

import attrs
from support.doubles import FakeTime
from support.fault_stage import ME
from support.ledger_clients import client_of

from rm_voucher import LedgerError, VoucherClient
from rm_voucher.emulator import Emulator
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.sql.store import SqlLedgerStore
from rm_voucher.runtime import Runtime

_BATCHES = ("B0", "B1", "B2")
_NAMES = 12
_STEPS = 9
_ENDINGS = ("", "-wal", "-shm", ".lock")


@attrs.define
class History:
    """What happens to a ledger's files, and who saw which code.

    Without ``spoils`` processes are only killed.
    """

    seed: int
    folder: Path
    spoils: bool = True
    seen: dict[str, str] = attrs.field(factory=dict)
    steps: list[str] = attrs.field(factory=list)
    refused: int = 0
    chance: Random = attrs.field(init=False)
    time: FakeTime = attrs.field(init=False, factory=FakeTime)
    emulator: Emulator = attrs.field(init=False)
    _copies: list[Path] = attrs.field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self.chance = Random(self.seed)
        self.folder.mkdir()
        self.emulator = Emulator(
            seed=self.seed,
            credentials=ME,
            clock=self.time.clock,
            batches=dict.fromkeys(_BATCHES, 100),
        )

    @property
    def file(self) -> Path:
        return self.folder / "ledger.db"

    async def run(self) -> History:
        """Let it happen. Raises `AssertionError` when a request has two codes."""
        async with client_of(self.emulator, self.time) as client:
            await self._work(client)
            for _ in range(_STEPS):
                if self.spoils:
                    self._spoil()
                await self._work(client)
        assert sum(len(self.emulator.issued(key)) for key in _BATCHES) == len(self.seen), self.steps
        return self

    async def _work(self, client: VoucherClient) -> None:
        """Issue to some in a process, which ends or is killed, at which it may have been copied."""
        self.time.now += 1
        batches = self.chance.sample(_BATCHES, self.chance.randint(1, 2))
        names = [(key, self.chance.randrange(_NAMES)) for key in batches for _ in range(3)]
        is_killed = self.chance.random() < 0.5
        self.steps.append(f"{'killed' if is_killed else 'worked'} {names}")
        try:
            async with self._ledger() as ledger:
                for key, number in names:
                    await self._issue(ledger, client, key, f"{key} {number}")
                    if self.chance.random() < 0.1:
                        self._copy()
                if is_killed:
                    self._copy()
            if is_killed:
                self._put_back(self._copies.pop(), _ENDINGS, in_place=True)
        except LedgerError:
            self.steps.append("refused")
            self.refused += 1

    def _ledger(self) -> Ledger:
        clock = self.time.clock
        runtime = Runtime(clock=clock, monotonic=clock, sleep=self.time.sleep)
        store = SqlLedgerStore(f"sqlite:///{self.file}", runtime=runtime)
        return Ledger(store, runtime=runtime, mode="exclusive", settle_s=1)

    async def _issue(self, ledger: Ledger, client: VoucherClient, key: str, name: str) -> None:
        try:
            code = (await ledger.issue(client, key, name)).code
        except LedgerError:
            self.refused += 1
        else:
            assert self.seen.setdefault(name, code) == code, self.steps

    def _copy(self) -> None:
        """Copy all files as they are: what a kill at this instant would leave."""
        copy = self.folder / f"copy {len(self._copies)} {len(self.steps)} {self.time.now}"
        copy.mkdir(exist_ok=True)
        for ending in _ENDINGS:
            path = self._path(ending)
            if path.exists():
                shutil.copy2(path, copy / path.name)
        self._copies.append(copy)
        self.steps.append("copied")

    def _path(self, ending: str) -> Path:
        return self.file.with_name(self.file.name + ending)

    def _put_back(self, copy: Path, endings: Sequence[str], *, in_place: bool) -> None:
        """Give files the contents that they had; those that were not there are removed.

        ``in_place`` they are the same files for the system, as after a kill or with ``cp``.
        """
        for ending in endings:
            path = self._path(ending)
            kept = copy / path.name
            if not kept.exists() or not in_place:
                path.unlink(missing_ok=True)
            if kept.exists():
                path.write_bytes(kept.read_bytes())

    def _spoil(self) -> None:
        """Do to the files what people, backups and crashed disks do."""
        step = self.chance.choice(
            [
                self._copy_at_rest,
                self._restore,
                self._restore,
                self._lose_the_log,
                self._empty_the_file,
                self._lose_the_file,
                self._do_nothing,
            ]
        )
        self.steps.append(step.__name__)
        step()

    def _do_nothing(self) -> None:
        pass

    def _copy_at_rest(self) -> None:
        if self.file.exists():
            self._copy()

    def _restore(self) -> None:
        """Put an older copy back, all but the lock file, which nobody knows of."""
        if self._copies:
            has_log = self.chance.random() < 0.5
            self._lose_the_log()
            endings = ("", "-wal", "-shm") if has_log else ("",)
            in_place = self.chance.random() < 0.5
            self._put_back(self.chance.choice(self._copies), endings, in_place=in_place)

    def _lose_the_log(self) -> None:
        for ending in ("-wal", "-shm"):
            self._path(ending).unlink(missing_ok=True)

    def _empty_the_file(self) -> None:
        self._lose_the_log()
        self.file.write_bytes(b"")

    def _lose_the_file(self) -> None:
        self._lose_the_log()
        self.file.unlink(missing_ok=True)
