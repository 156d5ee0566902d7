"""A person's decisions about many attempts at once: a file to fill in, looked at, carried out.

``ledger reconcile --output`` writes the file, with a row for each attempt that is held. In its
column ``decision`` a person writes what becomes of it; a row without one is left as it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import attrs

from rm_voucher import ConfigurationError, LedgerError, Voucher, VoucherClient, VoucherStatus
from rm_voucher.cli.screen import say, tell
from rm_voucher.cli.tables.model import Problems
from rm_voucher.cli.tables.read import Table, open_table
from rm_voucher.cli.tables.write import open_writer
from rm_voucher.converters import format_time
from rm_voucher.exceptions import NotFoundError
from rm_voucher.ledger import AttemptState, Ledger, Reconciliation
from rm_voucher.ledger.rules.records import IssueAttempt
from rm_voucher.ledger.rules.unit_of_work import UnitOfWork
from rm_voucher.models import IssuedVoucher, mask
from rm_voucher.text import counted

COLUMNS = ("attempt", "recipient", "sent_at", "candidates", "decision", "code")
ADOPT, REISSUE, WRITE_OFF = "adopt", "reissue", "write-off"
_ENDS = {
    ADOPT: AttemptState.ADOPTED,
    REISSUE: AttemptState.NOT_ISSUED,
    WRITE_OFF: AttemptState.WRITTEN_OFF,
}
_OPEN = (AttemptState.AMBIGUOUS, AttemptState.UNRESOLVED)
_BETWEEN = ", "  # of candidates
_SHOWN = 3


@attrs.frozen(kw_only=True)
class Decision:
    """What a person decided about an attempt; ``voucher`` is the one that it issued."""

    line: int
    attempt: str
    word: str
    code: str = attrs.field(default="", repr=mask)
    candidates: tuple[str, ...] = attrs.field(default=(), repr=False)
    recipient: str = ""
    sent_at: str = ""
    voucher: IssuedVoucher | None = None

    @property
    def in_words(self) -> str:
        """What is shown before it is carried out; codes are the owner's to see."""
        done = {
            ADOPT: f"gets {self.code}",
            REISSUE: "waits again: a new voucher is issued to it",
            WRITE_OFF: "is given up: nothing is issued for it",
        }[self.word]
        among = "" if self.word != ADOPT or self.code in self.candidates else " (no candidate)"
        codes = _BETWEEN.join(self.candidates[:_SHOWN]) or "no code"
        if (more := len(self.candidates) - _SHOWN) > 0:
            codes += f" or one of {more:,} more"
        who = self.recipient or "nobody (a call that nobody waits for)"
        return f"{who}, sent {self.sent_at}, may have {codes}: {done}{among}"


async def write_held(ledger: Ledger, report: Reconciliation, batch_key: str, path: Path) -> None:
    """Write the attempts that are held, for a person to decide. Raises `ConfigurationError`."""
    held = await ledger.attempts(batch_key, (AttemptState.UNRESOLVED,))
    recipients = {each.id: each.request_id for each in held}
    try:
        with open_writer(path, COLUMNS, exact={"candidates", "code"}) as writer:
            for each in report.held:
                writer.add(
                    [
                        each.attempt_id,
                        recipients.get(each.attempt_id),
                        _time(each.sent_at),
                        _BETWEEN.join(each.candidates),
                        None,
                        None,
                    ]
                )
    except OSError as exc:
        raise ConfigurationError(f"{path} can't be written: {exc.strerror}.") from exc


def read_decisions(path: Path) -> tuple[list[Decision], Problems]:
    """Return the rows in which a decision stands, and what is wrong with the others of them.

    Raises `ConfigurationError` for what is no such file, or has no decision.
    """
    with open_table(path, names=()) as table:
        places = _places(table)
        decided, seen = [], dict[tuple[str, str], int]()
        for row in table:
            cells = {name: row.text(place) for name, place in places.items()}
            if not cells["decision"]:
                continue
            word = re.sub(r"[\s_-]+", "-", cells["decision"].casefold())
            decision = Decision(
                line=row.line,
                attempt=cells["attempt"],
                word=word,
                code=cells["code"],
                candidates=tuple(filter(None, cells.get("candidates", "").split(_BETWEEN))),
            )
            for what in (("attempt", decision.attempt), ("code", decision.code)):
                if what[1] and what in seen:
                    table.problem(row.line, f"the {what[0]} of line {seen[what]:,} again")
                seen.setdefault(what, row.line)
            if problem := _problem_of(decision):
                table.problem(row.line, problem)
            else:
                decided.append(decision)
        problems = table.problems
    if not (decided or problems.count):
        raise ConfigurationError(
            f"{path} has no decisions: write {ADOPT}, {REISSUE} or {WRITE_OFF} into the column "
            "'decision'."
        )
    return decided, problems


def _places(table: Table) -> dict[str, int]:
    places = {name: table.header.index(name) for name in COLUMNS if name in table.header}
    missing = [name for name in ("attempt", "decision", "code") if name not in places]
    if missing:
        raise ConfigurationError(
            f"{table.title} has no column {missing[0]!r}: 'rm-voucher ledger reconcile --output' "
            "writes the file that is filled in."
        )
    return places


def _problem_of(decision: Decision) -> str | None:
    if not decision.attempt:
        return "a decision, and no attempt"
    if decision.word not in _ENDS:
        return f"a decision is {ADOPT}, {REISSUE} or {WRITE_OFF}, and this is something else"
    if (decision.word == ADOPT) != bool(decision.code):
        return f"a code stands with {ADOPT}, and with nothing else"
    return None


@attrs.frozen(kw_only=True)
class Plan:
    """What is to be done, and what was done already, by a run that was broken off, say."""

    decisions: Sequence[Decision]
    done: int

    def show(self) -> None:
        """Show it all to a person."""
        for each in self.decisions:
            tell(f"attempt {each.attempt}: {each.in_words}")
        words = Counter(each.word for each in self.decisions)
        parts = [f"{number:,} {word}" for word, number in sorted(words.items())]
        say(f"{counted(len(self.decisions), 'decision')}: {', '.join(parts) or 'none is left'}.")
        if self.done:
            say(f"{self.done:,} more are carried out already.")


async def make_plan(
    ledger: Ledger,
    client: VoucherClient | None,
    path: Path,
    decided: Iterable[Decision],
    problems: Problems,
) -> Plan:
    """Look at each decision, and its code; change nothing. May be repeated.

    Raises `TableError` with all that is wrong, the ``problems`` of the file before.
    """
    plan, done = [], 0
    for each in decided:
        found = await _attempt(ledger, each.attempt)
        problem, voucher = None, None
        if found is None:
            problem = "the ledger has no such attempt"
        elif found.state is _ENDS[each.word]:
            done += 1
            continue
        elif found.state not in _OPEN:
            problem = f"nothing is to be decided, this attempt is {found.state}"
        elif each.word == ADOPT:
            assert client is not None  # noqa: S101 - whoever adopts has one
            problem, voucher = await _looked_up(client, each.code, found.batch)
        if problem is not None:
            problems.add(each.line, problem)
        elif found is not None:
            named = attrs.evolve(
                each,
                recipient=found.request_id or "",
                sent_at=_time(found.sent_at),
                voucher=voucher,
            )
            plan.append(named)
    if problems.count:
        say("Nothing was changed.")
    problems.refuse(str(path))
    return Plan(decisions=plan, done=done)


TO_ISSUE = "Who waits again gets a voucher in the next 'rm-voucher issue' with this ledger."


async def _attempt(ledger: Ledger, attempt_id: str) -> IssueAttempt | None:
    def load(unit: UnitOfWork) -> list[IssueAttempt]:
        return unit.load(IssueAttempt, [attempt_id])

    found = await ledger.store.read(load)
    return found[0] if found else None


async def _looked_up(
    client: VoucherClient, code: str, batch_key: str
) -> tuple[str | None, IssuedVoucher | None]:
    """Return what is wrong with a code that an attempt of the batch may have issued, or it."""
    try:
        voucher = await client.get(code)
    except NotFoundError:
        return "the server knows no such code", None
    problem = problem_of_code(voucher, batch_key)
    return problem, None if problem else IssuedVoucher(code=code, qr_url=voucher.qr_url or "")


def problem_of_code(voucher: Voucher, batch_key: str | None) -> str | None:
    """Return why a voucher can't be what an attempt of a batch has issued, if it can't."""
    if voucher.misfits.keys() & {"batch_key", "status"}:
        return "the batch or status of this code can't be read"
    if batch_key is not None and voucher.batch_key not in (None, batch_key):
        return "this code is of another batch than the attempt"
    if voucher.status is VoucherStatus.VALID:  # it is somebody's yet to come
        return "this code has not been issued"
    return None


async def carry_out(ledger: Ledger, plan: Plan) -> int:
    """Carry the decisions out, each in a transaction of its own; return how many were refused.

    Broken off, it goes on where it was when the same file is given again.
    """
    refused = again = 0
    for each in plan.decisions:
        try:
            await ledger.resolve(
                each.attempt,
                adopt=each.voucher,
                reissue=each.word == REISSUE,
                write_off=each.word == WRITE_OFF,
            )
        except LedgerError as exc:
            if exc.__cause__ is not None:  # the database can't be used
                raise
            refused += 1
            say(f"line {each.line:,}: {exc}")
        else:
            again += each.word == REISSUE
    carried = len(plan.decisions) - refused
    say(f"{counted(carried, 'decision')} carried out, {refused:,} refused.")
    if again:
        say(TO_ISSUE)
    return refused


def _time(seconds: float) -> str:
    return format_time(datetime.fromtimestamp(seconds, UTC))
