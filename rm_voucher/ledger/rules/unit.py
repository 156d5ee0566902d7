"""One transaction's view of a ledger: rows are loaded, changed, and written back together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from rm_voucher.ledger.rules.records import (
    AttemptState,
    Batch,
    Code,
    Counts,
    IssueAttempt,
    IssueRequest,
)

Row = Batch | IssueRequest | IssueAttempt | Code
_KEY = {Batch: "key", IssueRequest: "id", IssueAttempt: "id", Code: "code"}


class UnitOfWork(ABC):
    """Loads each row once, so that all steps of a transaction see each other's changes.

    A store implements the loading and the writing. Nothing here decides: `transitions` do.
    """

    def __init__(self) -> None:
        self._loaded: dict[type[Row], dict[str, Any]] = {kind: {} for kind in _KEY}
        # Looked for and not found: each item of a transition would look again.
        self._absent: dict[type[Row], set[str]] = {kind: set() for kind in _KEY}
        self._new: dict[type[Row], dict[str, Any]] = {kind: {} for kind in _KEY}
        self._changed: dict[type[Row], dict[str, Any]] = {kind: {} for kind in _KEY}
        self.assigned: list[Code] = []
        """The codes that this transaction gave to requests."""

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

    def requests(self, ids: Iterable[str]) -> dict[str, IssueRequest]:
        """Return the requests among these ids that exist."""
        return self._get(IssueRequest, ids, self.load_requests)

    def attempts(self, ids: Iterable[str]) -> dict[str, IssueAttempt]:
        """Return the attempts among these ids that exist."""
        return self._get(IssueAttempt, ids, self.load_attempts)

    def codes(self, codes: Iterable[str]) -> dict[str, Code]:
        """Return the rows of the codes that exist."""
        return self._get(Code, codes, self.load_codes)

    def request(self, request_id: str) -> IssueRequest:
        """Return a request that exists."""
        found: IssueRequest | None = self._loaded[IssueRequest].get(request_id)
        return found or self.requests([request_id])[request_id]

    def attempt(self, attempt_id: str) -> IssueAttempt:
        """Return an attempt that exists."""
        found: IssueAttempt | None = self._loaded[IssueAttempt].get(attempt_id)
        return found or self.attempts([attempt_id])[attempt_id]

    def code(self, code: str) -> Code | None:
        """Return a code's row, if it exists."""
        found: Code | None = self._loaded[Code].get(code)
        if found is None and code not in self._absent[Code]:
            found = self.codes([code]).get(code)
        return found

    def codes_of(self, request_ids: Collection[str]) -> dict[str, Code]:
        """Return the code of each of these requests that has one."""
        if not request_ids:
            return {}
        self.flush()
        return {code.request_id or "": code for code in self._keep(self.find_codes(request_ids))}

    def spares(self, batch: str, limit: int) -> list[Code]:
        """Return spare codes, the oldest first."""
        self.flush()
        return self._keep(self.find_spares(batch, limit))

    def detached(self, batch: str, limit: int) -> list[IssueAttempt]:
        """Return open attempts that no request claims."""
        self.flush()
        return self._keep(self.find_detached(batch, limit))

    def unserved(self, batch: str, limit: int) -> list[IssueRequest]:
        """Return waiting requests whose code is not on its way.

        First come the oldest that claim no attempt, then the oldest with an ambiguous one.
        """
        self.flush()
        return self._keep(self.find_unserved(batch, limit))

    def attempts_in(self, batch: str, states: Collection[AttemptState]) -> list[IssueAttempt]:
        """Return the attempts of a batch in these states, the first sent first."""
        self.flush()
        return self._keep(self.find_attempts(batch, states))

    def add(self, row: Row) -> None:
        """Add a new row."""
        key = getattr(row, _KEY[type(row)])
        self._loaded[type(row)][key] = self._new[type(row)][key] = row

    def save(self, row: Row) -> None:
        """Keep the changes of a row that this transaction loaded or added."""
        kind = type(row)
        key = getattr(row, _KEY[kind])
        if key not in self._new[kind]:
            self._changed[kind][key] = row

    def flush(self) -> None:
        """Write the new and changed rows into the transaction."""
        for kind in _KEY:
            if self._new[kind]:
                self.insert(kind, list(self._new[kind].values()))
                self._new[kind].clear()
        for kind in _KEY:
            if self._changed[kind]:
                self.update(kind, list(self._changed[kind].values()))
                self._changed[kind].clear()

    def _get(self, kind: type[Any], keys: Iterable[str], load: Any) -> dict[str, Any]:
        wanted = dict.fromkeys(keys)
        loaded, absent = self._loaded[kind], self._absent[kind]
        missing = [key for key in wanted if key not in loaded and key not in absent]
        if missing:
            self._keep(load(missing))
            absent.update(missing)
        return {key: loaded[key] for key in wanted if key in loaded}

    def _keep(self, rows: Iterable[Any]) -> list[Any]:
        """Return the rows, each as the one object that this transaction has for it."""
        kept = []
        for row in rows:
            kind = type(row)
            kept.append(self._loaded[kind].setdefault(getattr(row, _KEY[kind]), row))
        return kept

    # A store implements these. They return new objects, and need not know of unflushed rows.

    @abstractmethod
    def lock_batches(self, keys: Sequence[str]) -> list[Batch]:
        """Lock these batches until the end of the transaction; insert those that are missing."""

    @abstractmethod
    def load_requests(self, ids: Sequence[str]) -> list[IssueRequest]:
        """See `requests`."""

    @abstractmethod
    def load_attempts(self, ids: Sequence[str]) -> list[IssueAttempt]:
        """See `attempts`."""

    @abstractmethod
    def load_codes(self, codes: Sequence[str]) -> list[Code]:
        """See `codes`."""

    @abstractmethod
    def find_codes(self, request_ids: Collection[str]) -> list[Code]:
        """See `codes_of`."""

    @abstractmethod
    def find_spares(self, batch: str, limit: int) -> list[Code]:
        """See `spares`."""

    @abstractmethod
    def find_detached(self, batch: str, limit: int) -> list[IssueAttempt]:
        """See `detached`."""

    @abstractmethod
    def find_unserved(self, batch: str, limit: int) -> list[IssueRequest]:
        """See `unserved`."""

    @abstractmethod
    def insert(self, kind: type[Row], rows: Sequence[Any]) -> None:
        """Write new rows of one kind. Fails if one is there."""

    @abstractmethod
    def update(self, kind: type[Row], rows: Sequence[Any]) -> None:
        """Write changed rows of one kind."""

    @abstractmethod
    def dead_owners(self, owners: Collection[str]) -> set[str]:
        """Return the owners among these whose process is gone."""

    # For reading only

    @abstractmethod
    def find_batches(self) -> list[Batch]:
        """Return all batches."""

    @abstractmethod
    def find_attempts(
        self, batch: str | None, states: Collection[AttemptState]
    ) -> list[IssueAttempt]:
        """Return the attempts in these states, the first sent first."""

    @abstractmethod
    def find_foreign(self, batch: str, begin: float, end: float) -> list[Code]:
        """Return the FOREIGN codes that were issued in that time, or at an unknown time."""

    @abstractmethod
    def known(self, codes: Sequence[str]) -> set[str]:
        """Return the codes among these that the ledger has, in whatever state."""

    @abstractmethod
    def counts(self, batch: str | None) -> Counts:
        """Return how the ledger, or one batch of it, stands."""

    @abstractmethod
    def page(
        self, batch: str | None, after: int, limit: int
    ) -> list[tuple[int, IssueRequest, Code | None]]:
        """Return requests after a number, in order, each with its number and its code."""
