"""What a ledger keeps, watched: after each transaction its promises must hold."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from rm_voucher import IssuedVoucher
from rm_voucher.ledger.memory import MemoryTables
from rm_voucher.ledger.rules.records import (
    OPEN,
    AttemptState,
    Code,
    CodeOrigin,
    CodeState,
    IssueAttempt,
    IssueRequest,
    RequestState,
)
from rm_voucher.ledger.rules.unit_of_work import Row

_OURS = (CodeState.SPARE, CodeState.ASSIGNED)
_FINAL = (AttemptState.CONFIRMED, AttemptState.REJECTED, AttemptState.WRITTEN_OFF)


class BrokenPromiseError(Exception):
    """The ledger did what it must never do."""


class Books(MemoryTables):
    """Tables that outlives processes, and what is known of the server besides.

    `check` looks at the rows that a transaction touched, and at sums that cost nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.issued: dict[str, str] = {}
        """The batch of each code that the server issued, to whomever."""
        self.not_ours: set[str] = set()
        """The codes that were issued before the ledger began, or to somebody else."""
        self.may_have_issued: Counter[str] = Counter()
        """How many requests of each attempt the server executed, or is going to."""
        self.surplus: Counter[str] = Counter()
        """How many codes came to each batch's ledger after their request had gone on without them.

        By so many may the codes that are there and that can come outnumber those who wait.
        """
        self.seen: dict[str, str] = {}
        """The code that a caller got for each request."""
        self.in_hand: dict[str, str] = {}
        """The code that a caller got with an error, because the ledger could not keep it."""
        self.arrived: dict[tuple[str, str], str] = {}
        """By process and request, the code that came while somebody waited for it there."""
        self.hinted: dict[str, str] = {}
        """By attempt, the code that an error held, be it issued or not."""
        self.evidence: dict[str, str] = {}
        """Those of which the ledger has kept that their outcome is unknown."""
        self.callers: Counter[tuple[str, str]] = Counter()
        """By process and request, how many wait for it."""
        self.left_sending_at: dict[str, float] = {}
        """When each attempt came out of SENDING."""
        self.now: Callable[[], float] = float
        self.broken: list[str] = []
        # The rows that a transaction changes, as they were before it.
        self._requests_before: dict[str, IssueRequest | None] = {}
        self._attempts_before: dict[str, IssueAttempt | None] = {}
        self._codes_before: dict[str, Code | None] = {}

    def put(self, row: Row) -> None:
        if isinstance(row, IssueRequest):
            self._requests_before.setdefault(row.id, self.requests.get(row.id))
        elif isinstance(row, IssueAttempt):
            self._attempts_before.setdefault(row.id, self.attempts.get(row.id))
        elif isinstance(row, Code):
            self._codes_before.setdefault(row.code, self.codes.get(row.code))
        super().put(row)

    def check(self, kinds: Sequence[str]) -> None:
        """Look at what a transaction of these transitions changed."""
        batches: dict[str, None] = {}
        for name, old_request in self._requests_before.items():
            request = self.requests[name]
            batches[request.batch] = None
            self._check_request(old_request, request)
        for name, old_attempt in self._attempts_before.items():
            attempt = self.attempts[name]
            batches[attempt.batch] = None
            self._check_attempt(old_attempt, attempt)
            if old_attempt is None and list(kinds) == ["ask"]:
                self._check_start(attempt.batch)
            was_told = name in self.hinted and "end" in kinds and "recover" not in kinds
            if was_told and attempt.state is AttemptState.AMBIGUOUS:
                self.evidence[name] = self.hinted[name]
        for name, old_code in self._codes_before.items():
            code = self.codes[name]
            batches[code.batch] = None
            self._check_code(old_code, code)
        for batch in batches:
            self._check_sums(batch)
        self._requests_before.clear()
        self._attempts_before.clear()
        self._codes_before.clear()

    def saw(self, request_id: str, code: str) -> None:
        """Note what a caller got."""
        self.must(self.code_of.get(request_id) == code, "a caller saw a code that is not durable")
        self.must(self.seen.setdefault(request_id, code) == code, "a caller saw two codes")

    def was_told(self, request_id: str, code: str) -> None:
        """Note what a caller got that the ledger could not keep: from now on it is theirs."""
        self.must(self.issued.get(code) is not None, "a code that nobody issued was told")
        known = self.in_hand.setdefault(request_id, code)
        self.must(known == code == self.seen.get(request_id, code), "a caller saw two codes")

    def leave(self, process: str, request_id: str, unkept: Mapping[str, IssuedVoucher]) -> None:
        """Hold that the last who waited for a request was told the code that came.

        Or that the ledger has it, be it in the memory of its process.
        """
        waits = process, request_id
        self.callers[waits] -= 1
        if not self.callers[waits] and (came := self.arrived.pop(waits, None)) is not None:
            row, still = self.codes.get(came), unkept.get(request_id)
            is_kept = row is not None and row.state in _OURS
            is_told = self.in_hand.get(request_id) == came
            is_known = still is not None and still.code == came
            self.must(is_kept or is_told or is_known, "a code in hand was dropped")

    def check_hands(self, *, is_alone: bool) -> None:
        """Hold that in the end all that was told is so, and errors' codes are their attempts'.

        Another process may have taken a code that is not kept for another lost answer of ours,
        where the ledger is the only issuer: so it is to be handed on only when it is kept.
        """
        for request_id, code in self.in_hand.items():
            given = self.code_of.get(request_id)
            traded = not is_alone and given is not None and self.codes[code].state in _OURS
            self.must(given == code or traded, "what was told is somebody else's")
        for attempt_id, code in self.evidence.items():
            row = self.codes.get(code)
            if code in self.issued:
                own = row is not None and row.attempt_id == attempt_id
                self.must(own, "the code of an error is another attempt's")
            else:
                self.must(row is None, "the code of an error was taken, and nobody issued it")

    def must(self, is_so: bool, otherwise: str) -> None:
        if not is_so:
            self.broken.append(otherwise)

    def raise_broken(self) -> None:
        if self.broken:
            raise BrokenPromiseError("; ".join(dict.fromkeys(self.broken)))

    def open_attempts(self, batch: str) -> int:
        groups = itertools.product(OPEN, (True, False))
        return sum(len(self.groups[IssueAttempt, batch, *group]) for group in groups)

    def waiting(self, batch: str) -> int:
        group = IssueRequest, batch, RequestState.WAITING
        return sum(len(self.groups[*group, has_claim]) for has_claim in (True, False))

    def spare(self, batch: str) -> int:
        return len(self.groups[Code, batch, CodeState.SPARE, False])

    def _check_request(self, old: IssueRequest | None, row: IssueRequest) -> None:
        code = self.codes.get(self.code_of.get(row.id, ""))
        if row.state is RequestState.ASSIGNED:
            self.must(
                code is not None and code.request_id == row.id and row.attempt_id is None,
                "a request is assigned, and has no code",
            )
        else:
            self.must(code is None, "a request has a code, and is not assigned")
        if old is not None and old.state is RequestState.ASSIGNED:
            self.must(row.state is RequestState.ASSIGNED, "an assigned request is so no more")
        if old is not None and old.attempt_id not in (None, row.attempt_id):
            attempt = self.attempts[old.attempt_id]
            still = attempt.state in OPEN and attempt.request_id == row.id
            self.must(not still, "an open attempt is nobody's, and not detached")
        if row.attempt_id is not None:
            attempt = self.attempts[row.attempt_id]
            self.must(attempt.request_id == row.id, "two requests claim one attempt")
            held = row.state is RequestState.UNRESOLVED
            wanted = (AttemptState.UNRESOLVED,) if held else OPEN
            self.must(attempt.state in wanted, "a request claims an attempt that has ended")

    def _check_attempt(self, old: IssueAttempt | None, row: IssueAttempt) -> None:
        if old is not None and old.state is AttemptState.SENDING is not row.state:
            self.left_sending_at[row.id] = self.now()
        if old is not None and old.state in _FINAL and old.state is not row.state:
            late = old.state is AttemptState.WRITTEN_OFF and row.state is AttemptState.CONFIRMED
            self.must(late, "an attempt that had ended came to another end")
        if row.state is AttemptState.REJECTED:
            self.must(not self.may_have_issued[row.id], "what may have issued counts as refused")
        if row.state in OPEN and row.request_id is not None:
            request = self.requests[row.request_id]
            self.must(request.attempt_id == row.id, "an open attempt is nobody's, and not detached")

    def _check_start(self, batch: str) -> None:
        detached = any(self.groups[IssueAttempt, batch, state, False] for state in OPEN)
        self.must(not detached, "an attempt was started, though a detached one was there")
        self.must(not self.spare(batch), "an attempt was started, though a spare was there")

    def _check_code(self, old: Code | None, row: Code) -> None:
        ours = row.state in _OURS
        if ours:
            self.must(self.issued.get(row.code) == row.batch, "a code was not issued by the server")
            self.must(row.code not in self.not_ours, "a code of somebody else's was taken")
        if row.state is CodeState.ASSIGNED:
            assert row.request_id is not None
            self.must(self.code_of.get(row.request_id) == row.code, "a request has two codes")
            request = self.requests[row.request_id]
            self.must(request.state is RequestState.ASSIGNED, "a code is assigned to who waits")
            self.must(request.batch == row.batch, "a code is of another batch than asked for")
        if old is not None and old.state is CodeState.ASSIGNED:
            same = (row.state, row.request_id) == (old.state, old.request_id)
            self.must(same, "an assigned code was taken away")
        if old is not None and old.state is CodeState.BASELINE:
            self.must(row.state is CodeState.BASELINE, "a code of the baseline came into use")
        if ours and old is not None and old.state in _OURS and old.attempt_id != row.attempt_id:
            before = self._attempts_before.get(row.attempt_id or "")
            self.surplus[row.batch] += before is not None and before.state not in OPEN
        if ours and (old is None or old.state not in _OURS):
            self.surplus[row.batch] += self._is_unawaited(row) or row.origin is CodeOrigin.LATE

    def _is_unawaited(self, row: Code) -> bool:
        """Return whether no request waited for the attempt that brought a code."""
        attempt = self._attempts_before.get(row.attempt_id or "")
        if attempt is None or attempt.state is not AttemptState.UNRESOLVED:
            return False
        if attempt.request_id is None:
            return True
        request = self._requests_before.get(attempt.request_id)
        return request is None or request.attempt_id != attempt.id

    def _check_sums(self, batch: str) -> None:
        coming = self.open_attempts(batch) + self.spare(batch)
        self.must(
            coming <= self.waiting(batch) + self.surplus[batch],
            "more codes are there or can come than requests wait for",
        )
