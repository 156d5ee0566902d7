"""One transaction's view of a ledger: rows are loaded, changed, and written back together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, ParamSpec, TypeVar

from rm_voucher.ledger.rules.records import (
    AttemptState,
    Backlog,
    Batch,
    Code,
    CodeState,
    Counts,
    IssueAttempt,
    IssueRequest,
    RequestState,
)

P = ParamSpec("P")
R = TypeVar("R", Batch, IssueRequest, IssueAttempt, Code)

Row = Batch | IssueRequest | IssueAttempt | Code
Page = list[tuple[int, IssueRequest, Code | None]]
Tally = Counter[tuple[type[Row], str, bool]]
KEYS: dict[type[Row], str] = {Batch: "key", IssueRequest: "id", IssueAttempt: "id", Code: "code"}
"""The field that is the key of each kind of row."""


class NeedsExclusiveError(Exception):
    """A transaction that shares its batches' locks met what it may change only without others."""


class UnitOfWork(ABC):
    """Loads each row once, so that all steps of a transaction see each other's changes.

    A store implements the loading and the writing. Nothing here decides: `transitions` do.
    Unless it ``is_shared``, a transaction is alone with its batches.
    """

    is_shared = False

    def __init__(self) -> None:
        self._loaded: dict[type[Row], dict[str, Any]] = {kind: {} for kind in KEYS}
        # Looked for and not found: each item of a transition would look again.
        self._absent: dict[type[Row], set[str]] = {kind: set() for kind in KEYS}
        self._new: dict[type[Row], dict[str, Any]] = {kind: {} for kind in KEYS}
        self._changed: dict[type[Row], dict[str, Any]] = {kind: {} for kind in KEYS}
        self.assigned: list[Code] = []
        """The codes that this transaction gave to requests."""

    def be_alone(self) -> None:
        """Go on only if no other transaction changes these batches meanwhile.

        Raises `NeedsExclusiveError` if others may: then the store runs the transaction again.
        """
        if self.is_shared:
            raise NeedsExclusiveError

    def batch(self, key: str) -> Batch:
        """Return a batch; if it is missing, it is added."""
        (found,) = self.batches([key])
        return found

    def batches(self, keys: Iterable[str]) -> list[Batch]:
        """Return batches, locked for this transaction; those that are missing are added."""
        wanted = sorted(set(keys))  # one order for all, or two workers could wait for each other
        loaded = self._loaded[Batch]
        missing = [key for key in wanted if key not in loaded]
        if missing:
            self._keep(self.lock_batches(missing))
        return [loaded[key] for key in wanted]

    def get(self, kind: type[R], keys: Iterable[str]) -> dict[str, R]:
        """Return the rows of a kind that exist among these keys."""
        wanted = dict.fromkeys(keys)
        loaded, absent = self._loaded[kind], self._absent[kind]
        missing = [key for key in wanted if key not in loaded and key not in absent]
        if missing:
            self._keep(self.load(kind, missing))
            absent.update(missing)
        return {key: loaded[key] for key in wanted if key in loaded}

    def request(self, request_id: str) -> IssueRequest:
        """Return a request that exists."""
        found: IssueRequest | None = self._loaded[IssueRequest].get(request_id)
        return found or self.get(IssueRequest, [request_id])[request_id]

    def attempt(self, attempt_id: str) -> IssueAttempt:
        """Return an attempt that exists."""
        found: IssueAttempt | None = self._loaded[IssueAttempt].get(attempt_id)
        return found or self.get(IssueAttempt, [attempt_id])[attempt_id]

    def code(self, code: str) -> Code | None:
        """Return a code's row, if it exists."""
        found: Code | None = self._loaded[Code].get(code)
        if found is None and code not in self._absent[Code]:
            found = self.get(Code, [code]).get(code)
        return found

    def query(self, find: Callable[P, list[R]], *args: P.args, **kwargs: P.kwargs) -> list[R]:
        """Return the rows of a `find_…` method, which sees all changes so far."""
        self.flush()
        return self._keep(find(*args, **kwargs))

    def add(self, row: Row) -> None:
        """Add a new row."""
        key = getattr(row, KEYS[type(row)])
        self._loaded[type(row)][key] = self._new[type(row)][key] = row

    def save(self, row: Row) -> None:
        """Keep the changes of a row that this transaction loaded or added."""
        kind = type(row)
        key = getattr(row, KEYS[kind])
        if key not in self._new[kind]:
            self._changed[kind][key] = row

    def flush(self) -> None:
        """Write the new and changed rows into the transaction."""
        for rows_of, write in ((self._new, self.insert), (self._changed, self.update)):
            for kind, rows in rows_of.items():
                if rows:
                    write(kind, list(rows.values()))
                    rows.clear()

    def counts(self, batch: str | None) -> Counts:
        """Return the counts of the ledger, or of one batch of it."""
        tally = self.tally(batch)

        def number(kind: type[Row], state: str) -> int:
            return tally[kind, state, False] + tally[kind, state, True]

        return Counts(
            asked=sum(number(IssueRequest, state) for state in RequestState),
            assigned=number(IssueRequest, RequestState.ASSIGNED),
            waiting=tally[IssueRequest, RequestState.WAITING, False],
            ambiguous=tally[IssueRequest, RequestState.WAITING, True],
            unresolved=number(IssueRequest, RequestState.UNRESOLVED),
            failed=number(IssueRequest, RequestState.FAILED),
            cancelled=number(IssueRequest, RequestState.CANCELLED),
            spare=number(Code, CodeState.SPARE),
            foreign=number(Code, CodeState.FOREIGN),
            written_off=number(IssueAttempt, AttemptState.WRITTEN_OFF),
        )

    def _keep(self, rows: Iterable[Any]) -> list[Any]:
        """Return the rows, each as the one object that this transaction has for it."""
        kept = []
        for row in rows:
            kind = type(row)
            kept.append(self._loaded[kind].setdefault(getattr(row, KEYS[kind]), row))
        return kept

    # A store implements these. They return new objects, and need not know of unflushed rows.

    @abstractmethod
    def lock_batches(self, keys: Sequence[str]) -> list[Batch]:
        """Lock these batches until the end of the transaction.

        Insert those that are missing, with the ledger's `stop_reason`.
        """

    @abstractmethod
    def load(self, kind: type[R], keys: Sequence[str]) -> list[R]:
        """Return the rows of a kind that exist among these keys."""

    @abstractmethod
    def insert(self, kind: type[Row], rows: Sequence[Any]) -> None:
        """Write new rows of one kind. Fails if one is there."""

    @abstractmethod
    def update(self, kind: type[Row], rows: Sequence[Any]) -> None:
        """Write changed rows of one kind."""

    @abstractmethod
    def now(self) -> float | None:
        """Return the time by the database's own clock, in seconds since 1970, if it has one."""

    @abstractmethod
    def dead_owners(self, owners: Collection[str]) -> set[str]:
        """Return the owners among these whose lease has run out."""

    @abstractmethod
    def find_codes(self, request_ids: Collection[str]) -> list[Code]:
        """Return the codes that these requests have."""

    @abstractmethod
    def find_spares(self, batch: str, limit: int) -> list[Code]:
        """Return spare codes, the oldest first."""

    @abstractmethod
    def find_detached(self, batch: str, limit: int) -> list[IssueAttempt]:
        """Return open attempts that no request claims."""

    @abstractmethod
    def find_unserved(self, batch: str, limit: int) -> list[IssueRequest]:
        """Return waiting requests whose code is not on its way.

        First come the oldest that claim no attempt, then the oldest with an ambiguous one.
        """

    @abstractmethod
    def stop_reason(self) -> str | None:
        """Return why the whole ledger is stopped, and with it each batch that has no row yet."""

    @abstractmethod
    def find_attempts(
        self, batch: str | None, states: Collection[AttemptState]
    ) -> list[IssueAttempt]:
        """Return the attempts in these states, the first sent first."""

    @abstractmethod
    def find_seen(self, code: str) -> list[IssueAttempt]:
        """Return the attempts that ended with an error which came with this code."""

    # For reading only

    @abstractmethod
    def find_batches(self) -> list[Batch]:
        """Return all batches."""

    @abstractmethod
    def find_foreign(self, batch: str, begin: float, end: float) -> list[Code]:
        """Return the FOREIGN codes that were issued in that time, or at an unknown time."""

    @abstractmethod
    def known(self, codes: Sequence[str]) -> set[str]:
        """Return the codes among these that the ledger has, in whatever state."""

    @abstractmethod
    def tally(self, batch: str | None) -> Tally:
        """Count rows by kind, state, and whether a request claims an attempt.

        Of attempts only those that are WRITTEN_OFF need be counted.
        """

    @abstractmethod
    def backlog(self, batch: str | None) -> Backlog:
        """Return what is not finished. It looks at no row that is."""

    @abstractmethod
    def has_unknown(self, batch: str) -> bool:
        """Return whether a waiting request of the batch claims an attempt."""

    @abstractmethod
    def page(self, batch: str | None, after: int, limit: int) -> Page:
        """Return requests after a number, in order, each with its number and its code."""
