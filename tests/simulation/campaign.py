"""A campaign: many requests issued through a ledger, whatever fails and crashes meanwhile."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import Any

import attrs
from simulation.books import Books, BrokenPromiseError
from simulation.disk import ATTEMPT, Disk, open_ledger
from simulation.loop import LIFE, CrashError, Life
from simulation.person import decide
from simulation.seams import Seams, duplicate, failed_with, item_of, item_of_nobody, without_date
from simulation.world import KINDS, Network, World

from rm_voucher import (
    IssuedVoucher,
    LedgerError,
    OutcomeUnknownError,
    Request,
    Response,
    Transport,
    VoucherError,
)
from rm_voucher.bulk.issue import bulk_issue
from rm_voucher.bulk.results import BulkStatus
from rm_voucher.database.group_commit import UnavailableError
from rm_voucher.emulator import Fault, Guesses, RefusedError
from rm_voucher.emulator.reply import Reply
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.rules.records import AttemptState, CodeState, RequestState

_MOST_UNCRASHED = 36
_CHECK_TO_BYTE_S = 1.0  # the longest time between an attempt's last look at itself, and its sending


@attrs.define(kw_only=True)
class Campaign:
    """What is to happen, all of it by the seed; `run` lets it happen, and raises what is broken.

    Attributes:
        crashes: so many processes crash, at an instant or at a commit; the next ones end.
        duplicates: how many requests are asked for again at once, as a share.
        cancels: how many callers lose patience, as a share.
        foreign: so many vouchers are issued by somebody else meanwhile.
        baseline: so many were issued before.
        batches: so many there are, each with ``quantity``.
        wall_step_s: by so much the machine's clock is set ahead while a process lives.
        resets: how many processes read a new baseline, as a share.
        pace_s: the longest time that a worker waits before the next request.
        looks_s: so often the listing is read while requests come in; 0 for when the ledger likes.
        finishes: whether who reads it then issues again to whom it was nothing.
        conflicts: how often an id is asked for again with another content, as a share.
        ledger: settings of the ledger besides.
        person: whether somebody resolves what is held.
        ledgers: so many processes share the disk at a time. A crash ends all of them.
        kills: so many of them are killed, each time, while the others go on.
        stops: so often one stands still, for up to ``stop_s``, and goes on.
        seams: how what surrounds them gives way.
        retry_after_s: the wait that the server asks for where it throttles.
        calm_after_s: after so long the server meets no more faults.
    """

    seed: int
    requests: int = 500
    fault_rate: float = 0.3
    crashes: int = 4
    workers: int = 32
    mode: str = "exclusive"
    settle_s: float = 45.0
    late_s: float = 30.0
    lag_s: float = 5.0
    quantity: int = 100_000
    batches: int = 1
    duplicates: float = 0.1
    cancels: float = 0.05
    foreign: int = 0
    baseline: int = 5
    bulk: bool = False
    wall_step_s: float = 0.0
    resets: float = 0.0
    kinds: tuple[Fault, ...] = KINDS
    pace_s: float = 0.0
    looks_s: float = 0.0
    finishes: bool = False
    conflicts: float = 0.02
    ledger: dict[str, Any] = attrs.field(factory=dict)
    person: bool = True
    lost_rate: float = 0.02
    failed_rate: float = 0.003
    shows_assigned_at: bool = True
    ledgers: int = 1
    kills: int = 0
    stops: int = 0
    stop_s: float = 90.0
    seams: Seams = attrs.field(factory=Seams)
    retry_after_s: int = 1
    calm_after_s: float | None = None

    books: Books = attrs.field(init=False, factory=Books, repr=False)
    world: WatchedWorld = attrs.field(init=False, repr=False)
    disk: Disk = attrs.field(init=False, repr=False)
    rows: dict[str, str] = attrs.field(init=False, factory=dict)
    """The code that came last with an error, for each request: what a command would write."""
    alarms: list[str] = attrs.field(init=False, factory=list)
    finished: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.world = WatchedWorld(
            self.books,
            self.seed,
            seams=self.seams,
            fault_rate=self.fault_rate,
            kinds=self.kinds,
            late_s=self.late_s,
            lag_s=self.lag_s,
            batches=dict.fromkeys(self.keys, self.quantity),
            guesses=Guesses(listing_delay_s=self.lag_s, shows_assigned_at=self.shows_assigned_at),
            retry_after_s=self.retry_after_s,
        )
        self.books.now = self.world.clock.monotonic
        self.disk = Disk(
            self.world, self.books, lost_rate=self.lost_rate, failed_rate=self.failed_rate
        )

    @property
    def keys(self) -> list[str]:
        return [f"B{number}" for number in range(self.batches)]

    def run(self) -> Campaign:
        """Let it happen; raises `BrokenPromiseError`."""
        world, chance = self.world, self.world.random("campaign")
        for key in self.keys:
            for _ in range(self.baseline):
                world.issue_to_somebody_else(key)
        world.clock.run_for(2 * self.lag_s + 1)
        if self.calm_after_s is not None:
            world.clock.after(self.calm_after_s, world.calm_down)
        for _ in range(self.foreign):
            world.clock.after(
                chance.uniform(0.5, 60), world.issue_to_somebody_else, chance.choice(self.keys)
            )
        for number in range(self.crashes + _MOST_UNCRASHED):
            crash_after_s = self.disk.crash_in = None
            if number < self.crashes:
                if chance.random() < 0.5:
                    crash_after_s = chance.choice((2.0, 10.0, 100.0)) * chance.random()
                else:
                    self.disk.crash_in = chance.randrange(1, 400)
            self._begin_process(has_trouble=number < self.seams.troubles)
            try:
                world.run(self._process, crash_after_s=crash_after_s)
            except CrashError:
                world.clock.run_for(chance.choice((0, 1, 20)) * chance.random())
            self.books.raise_broken()
            if number >= self.crashes and self.finished:
                break
        else:
            raise BrokenPromiseError(f"it never ends: {self._state()}")
        world.settle(self.late_s + self.lag_s + 70)
        self.finished = False
        while not self.finished:
            self._begin_process()
            world.run(self._last_look)
        self.books.check_hands(is_alone=self.ledgers == 1)
        self.books.raise_broken()
        return self

    def _state(self) -> dict[str, int]:
        states = [request.state for request in self.books.requests.values()]
        return {state: states.count(state) for state in RequestState}

    def _begin_process(self, *, has_trouble: bool = False) -> None:
        """Set the clock of the next process's machine, and let happen to its disk what is to."""
        clock, disk, chance = self.world.clock, self.disk, self.world.random("process")
        clock.step_wall(clock.true_wall() + self.seams.clock_off_s - clock.wall())
        if self.wall_step_s:
            clock.after(chance.uniform(0.5, 20), clock.step_wall, self.wall_step_s)
        self.books.callers.clear()
        self.books.arrived.clear()
        disk.stores.clear()
        disk.recover()
        if has_trouble:
            trouble, begins_s, lasts_s = self.seams.trouble(self.world.random("trouble"))
            clock.after(begins_s, disk.fall_ill, trouble, lasts_s)
        for _ in range(self.seams.cuts):
            cut = chance.randrange(self.ledgers), chance.uniform(0, self.seams.cut_s)
            clock.after(chance.choice((2.0, 10.0, 60.0)) * chance.random(), disk.cut, *cut)

    async def _process(self) -> None:
        lives = [Life() for _ in range(self.ledgers)]
        ends = [asyncio.Event() for _ in lives]
        tasks = []
        for number, (life, end) in enumerate(zip(lives, ends, strict=True)):
            context = copy_context()
            context.run(LIFE.set, life)
            # Who resolves what is held is outside of them all, and sits where nobody is killed.
            has_person = self.person and number == self.ledgers - 1
            task = asyncio.create_task(self._use_ledger(has_person=has_person), context=context)

            def over(_: object, end: asyncio.Event = end) -> None:
                end.set()

            task.add_done_callback(over)
            tasks.append(task)
        self._disturb(lives, ends)
        for end in ends:
            await end.wait()
        for task in tasks:
            if task.done():
                task.result()
        self.finished = self._is_done() or bool(self.alarms)

    def _disturb(self, lives: list[Life], ends: list[asyncio.Event]) -> None:
        """Let some of the processes be killed, and some stand still, while the others go on."""
        world, chance = self.world, self.world.random("lives")
        loop = world.loop
        assert loop is not None

        def kill(number: int) -> None:
            if not (loop.dead or ends[number].is_set()):
                world.log("killed", number)
                lives[number].kill()
                ends[number].set()

        def stop(number: int, lasts_s: float) -> None:
            if not (loop.dead or ends[number].is_set()):
                world.log("stopped", number)
                lives[number].stop()
                world.clock.after(lasts_s, go_on, number)

        def go_on(number: int) -> None:
            if not loop.dead:
                lives[number].go_on(loop)

        for number in range(min(self.kills, self.ledgers - 1)):
            world.clock.after(chance.choice((2.0, 10.0, 60.0)) * chance.random(), kill, number)
        for _ in range(self.stops):
            at_s = chance.choice((2.0, 10.0, 60.0)) * chance.random()
            world.clock.after(
                at_s, stop, chance.randrange(self.ledgers), self.stop_s * chance.random()
            )

    async def _use_ledger(self, *, has_person: bool) -> None:
        chance, ledger = self.world.random("process"), self._ledger()
        try:
            async with ledger:
                client = self._client()
                await self._keep_what_is_in_hand(ledger)
                if chance.random() < self.resets:
                    await ledger.baseline(client, chance.choice(self.keys))
                await (self._issue_in_bulk if self.bulk else self._issue_all)(ledger, client)
                for key in self.keys:
                    await self._finish(ledger, client, key, has_person=has_person)
        except VoucherError as exc:
            self.world.event("process", type(exc).__name__)
        for name, voucher in ledger.unkept.items():
            self._was_told(name, voucher.code)

    async def _keep_what_is_in_hand(self, ledger: Any) -> None:
        """Give the ledger what came with errors, as the command does with rows of its output."""
        for name, code in list(self.rows.items()):
            if name not in self.books.seen:
                await self._keep(ledger, name, IssuedVoucher(code=code))

    async def _keep(self, ledger: Any, name: str, voucher: IssuedVoucher) -> None:
        try:
            await ledger.keep(self._key(int(name[1:])), name, voucher)
        except LedgerError as exc:
            if isinstance(exc.__cause__, UnavailableError):
                raise  # nothing may be issued before all is kept
            self.world.event("not kept", name, type(exc).__name__)

    def _ledger(self) -> Ledger:
        return open_ledger(self.disk, mode=self.mode, settle_s=self.settle_s, **self.ledger)

    def _client(self) -> Any:
        return self.world.client(transport=WatchedWire(self.world))

    def _key(self, number: int) -> str:
        return self.keys[number % self.batches]

    def _is_done(self) -> bool:
        return len(self.books.requests) == self.requests and all(
            request.state is RequestState.FAILED or request.id in self.books.seen
            for request in self.books.requests.values()
        )

    def _jobs(self) -> list[int]:
        """Return whom to issue to: who saw no code, and besides some of all, for a second time."""
        chance = self.world.random("jobs")
        refused = {
            request.id
            for request in self.books.requests.values()
            if request.state is RequestState.FAILED
        }
        wanted = [n for n in range(self.requests) if f"r{n}" not in refused]
        jobs = [n for n in wanted if f"r{n}" not in self.books.seen]
        if jobs:
            jobs += [n for n in wanted if chance.random() < self.duplicates]
        chance.shuffle(jobs)
        return jobs

    async def _issue_all(self, ledger: Ledger, client: Any) -> None:
        jobs = self._jobs()

        async def work() -> None:
            while jobs:
                number = jobs.pop()
                if self.pace_s:
                    await asyncio.sleep(self.world.random("pace").uniform(0, self.pace_s))
                await self._issue(ledger, client, number)

        async with asyncio.TaskGroup() as workers:
            if self.looks_s:
                workers.create_task(self._look(ledger, client, jobs))
            for _ in range(self.workers):
                workers.create_task(work())

    async def _look(self, ledger: Ledger, client: Any, jobs: list[int]) -> None:
        while jobs:
            await asyncio.sleep(self.looks_s)
            for key in self.keys:
                try:
                    await (ledger.finish if self.finishes else ledger.reconcile)(client, key)
                except VoucherError as exc:
                    self.world.event("look", type(exc).__name__)

    async def _issue(self, ledger: Ledger, client: Any, number: int) -> None:
        chance, name = self.world.random("worker"), f"r{number}"
        request = self.books.requests.get(name)
        known = request is not None and request.state is not RequestState.FAILED
        if chance.random() < self.conflicts and known:
            await self._ask_for_another(ledger, client, number)
            return
        patience_s = chance.uniform(0, 0.6) if chance.random() < self.cancels else None
        waits = ledger.store.owner, name
        self.books.callers[waits] += 1
        try:
            async with asyncio.timeout(patience_s):
                voucher = await ledger.issue(client, self._key(number), name)
        except TimeoutError:
            self.books.arrived.pop(waits, None)
            self.world.event("not yet", number, "TimeoutError")
        except VoucherError as exc:
            self._not_yet(name, exc)
        else:
            self._saw(name, voucher.code)
        self.books.leave(*waits, ledger.unkept)

    async def _ask_for_another(self, ledger: Ledger, client: Any, number: int) -> None:
        try:
            await ledger.issue(client, self._key(number), f"r{number}", content="another")
        except VoucherError as exc:
            self.world.event("refused", number, type(exc).__name__)
        else:
            self.books.must(False, "one id was taken for two contents")

    def _not_yet(self, name: str, error: Any) -> None:
        """Note what a caller got in a voucher's place."""
        self.world.event("not yet", name, type(error).__name__)
        books = self.books
        if not isinstance(error, OutcomeUnknownError):
            return
        told = None if error.voucher is None else error.code
        if told is not None:
            self.rows[name] = told
        if isinstance(error.__cause__, LedgerError):
            if told is not None:
                self._was_told(name, told)
        elif error.attempt_id in books.evidence and error.__cause__ is None:
            # Who asks again, unless the ledger could not even be asked. The first may have been
            # told nothing, where that could not be kept.
            is_told = told == books.hinted[error.attempt_id]
            books.must(is_told or self.seams.troubles > 0, "an error's code was not told")

    def _was_told(self, name: str, code: str) -> None:
        """Note a code that is in hand, and not in the ledger."""
        self.rows[name] = code
        self.books.was_told(name, code)

    def _saw(self, name: str, code: str) -> None:
        self.books.saw(name, code)
        self.world.event("saw", name, code)

    async def _issue_in_bulk(self, ledger: Ledger, client: Any) -> None:
        chance = self.world.random("bulk")
        for key in self.keys:
            jobs = [number for number in self._jobs() if self._key(number) == key]
            left, leaves_after = len(jobs), None
            if chance.random() < self.cancels:
                leaves_after = chance.randrange(self.requests)
            self.books.callers.update((ledger.store.owner, f"r{number}") for number in jobs)
            async with bulk_issue(
                client, key, jobs, concurrency=self.workers, ledger=ledger, request_id="r{}".format
            ) as run:
                async for result in run:
                    left -= 1
                    self._take(ledger, result)
                    if leaves_after == left:
                        break
            for result in run.undelivered:
                self._take(ledger, result)
            if leaves_after is None:
                self.books.must(left == 0, "a recipient has no result, or two")

    def _take(self, ledger: Ledger, result: Any) -> None:
        name = f"r{result.recipient}"
        if result.status is BulkStatus.ISSUED:
            self._saw(name, result.voucher.code)
        else:
            self._not_yet(name, result.error)
        self.books.leave(ledger.store.owner, name, ledger.unkept)

    async def _finish(self, ledger: Ledger, client: Any, key: str, *, has_person: bool) -> None:
        try:
            counts = await ledger.finish(client, key, concurrency=self.workers)
            if counts.unresolved and has_person:
                await decide(self, ledger, await ledger.reconcile(client, key, wait=True))
        except VoucherError as exc:
            self.world.event("finish", key, type(exc).__name__)
        self._note_alarm(key)

    def _note_alarm(self, key: str) -> None:
        alarm = self.books.batches[key].stop_reason if key in self.books.batches else None
        if alarm is not None and not alarm.startswith("its new baseline"):
            self.alarms.append(alarm)

    async def _last_look(self) -> None:
        try:
            async with self._ledger() as ledger:
                for key in self.keys:
                    await ledger.reconcile(self._client(), key, wait=True)
                    self._note_alarm(key)
                counts = await ledger.counts()
        except VoucherError as exc:
            self.world.event("last look", type(exc).__name__)
            return
        self.finished = True
        self._check_counts(counts)

    def _check_counts(self, counts: Any) -> None:
        state, must = self._state(), self.books.must
        codes = [code.state for code in self.books.codes.values()]
        attempts = [attempt.state for attempt in self.books.attempts.values()]
        must(counts.asked == len(self.books.requests), "the counts forget a request")
        must(counts.assigned == state["assigned"], "the counts forget a code")
        must(counts.waiting + counts.ambiguous == state["waiting"], "the counts don't add up")
        must(counts.unresolved == state["unresolved"], "the counts don't add up")
        must(counts.spare == codes.count(CodeState.SPARE), "the counts forget a spare")
        must(counts.foreign == codes.count(CodeState.FOREIGN), "the counts forget a foreign code")
        must(
            counts.written_off == attempts.count(AttemptState.WRITTEN_OFF),
            "the counts forget what was written off",
        )
        for name, code in self.books.seen.items():
            must(self.books.code_of.get(name) == code, "what a caller saw is there no more")

    # What is held against the server when all is over.

    def over_issued(self) -> int:
        """Return how many vouchers were issued for nobody."""
        books = self.books
        issued = sum(len(self.world.emulator.issued(key)) for key in self.keys)
        return issued - len(books.not_ours) - len(books.code_of)

    def spare(self) -> int:
        return sum(self.books.spare(key) for key in self.keys)

    def settled(self) -> bool:
        """Return whether each request has its code, or was refused."""
        return self._is_done() and not any(self.books.open_attempts(key) for key in self.keys)


class WatchedWorld(World):
    """Notes what the server does, for whom."""

    def __init__(self, books: Books, seed: int, *, seams: Seams, **options: Any) -> None:
        super().__init__(seed, **options)
        self.books = books
        self.seams = seams
        self.attempt_of: dict[int, tuple[Request, str, bool]] = {}
        self._noted: dict[str, int] = {}

    def answer(self, request: Request) -> Reply:
        self.note_issued()
        before, chance = len(self.books.issued), self.random("seams")
        is_issue = request.operation == "issue"
        fails = is_issue and self.seams.errs_with_code(chance)
        if fails and self.seams.is_rolled_back(chance):
            return Reply(failed_with(item_of_nobody(chance)))
        reply = super().answer(request)
        self.note_issued()
        if is_issue:
            _, attempt_id, _ = self.attempt_of.pop(id(request))
            executed = len(self.books.issued) > before or reply.fault is Fault.LATE_COMMIT
            self.books.may_have_issued[attempt_id] += executed
            item = item_of(reply.response)
            if fails and item is not None:
                reply = attrs.evolve(reply, response=failed_with(item))
            elif executed and self.seams.is_resent(chance):
                reply = duplicate(reply, chance)
        return reply if self.seams.shows_date else without_date(reply)

    def note_issued(self) -> None:
        stock = self.emulator.state.stock  # after late work was done
        for batch in stock.ours():
            listed, noted = batch.listed, self._noted.get(batch.key, 0)
            for record in listed[noted:]:
                self.books.issued[record.code] = batch.key
            self._noted[batch.key] = len(listed)

    def issue_to_somebody_else(self, key: str) -> None:
        try:
            code, _ = self.emulator.state.issue(key)
        except RefusedError:
            return
        self.books.not_ours.add(code)
        self.note_issued()


class WatchedWire(Transport):
    """Holds that what is sent to issue is durable before, and not sent again in doubt."""

    def __init__(self, world: WatchedWorld) -> None:
        assert world.loop is not None
        self._world = world
        self._loop = world.loop
        self._wire = Network(world, world.loop)

    async def send(self, request: Request) -> Response:
        if request.operation != "issue":
            return await self._wire.send(request)
        books, attempt_id = self._world.books, ATTEMPT.get() or ""
        attempt = books.attempts.get(attempt_id)
        books.must(attempt is not None, "a request was sent, and that it is, is not durable")
        ended_at = books.left_sending_at.get(attempt_id)
        books.must(
            ended_at is None or self._loop.time() < ended_at + _CHECK_TO_BYTE_S,
            "a request was sent, and its attempt had ended",
        )
        books.must(not books.may_have_issued[attempt_id], "a request was sent again in doubt")
        self._world.attempt_of[id(request)] = (request, attempt_id, True)
        name = (attempt and attempt.request_id) or ""
        try:
            response = await self._wire.send(request)
        except asyncio.CancelledError:
            if not self._loop.dead:
                books.must(False, "a cancelled caller took a request with it")
            raise
        item = item_of(response)
        if item is not None and response.status == 200:
            waits = attempt.owner if attempt else "", name
            if books.callers[waits] > 0:
                books.arrived[waits] = item["code"]
        elif item is not None:
            books.hinted[attempt_id] = item["code"]
        return response
