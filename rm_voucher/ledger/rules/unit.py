"""One transaction's view of a ledger: rows are loaded, changed, and written back together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from rm_voucher.ledger.rules.records import Attempt, AttemptState, Batch, Code, Counts, Request

Row = Batch | Request | Attempt | Code
_KEY = {Batch: "key", Request: "id", Attempt: "id", Code: "code"}


class UnitOfWork(ABC):
    """Loads each row once, so that all steps of a transaction see the changes of the others.

    A store implements what loads and what writes. `transitions` decide; nothing here does.
    """

    def __init__(self) -> None:
        self._loaded: dict[type[Row], dict[str, Any]] = {kind: {} for kind in _KEY}
        # Who looks for what is not there looks again, for each item of a transition.
        self._absent: dict[type[Row], set[str]] = {kind: set() for kind in _KEY}
        self._new: dict[type[Row], dict[str, Any]] = {kind: {} for kind in _KEY}
        self._changed: dict[type[Row], dict[str, Any]] = {kind: {} for kind in _KEY}
        self.assigned: list[Code] = []
        """The codes that this transaction gave to requests."""

    def batch(self, key: str) -> Batch:
        """Return a batch; one that is not there yet is added."""
        (found,) = self.batches([key])
        return found

    def batches(self, keys: Iterable[str]) -> list[Batch]:
        """Return batches, locked for this transaction; what is not there yet is added."""
        wanted = sorted(set(keys))  # one order for all, or two workers could wait for each other
        loaded = self._loaded[Batch]
        missing = [key for key in wanted if key not in loaded]
        if missing:
            self._keep(self.lock_batches(missing))
        return [loaded[key] for key in wanted]

    def requests(self, ids: Iterable[str]) -> dict[str, Request]:
        """Return those of these requests that are there."""
        return self._get(Request, ids, self.load_requests)

    def attempts(self, ids: Iterable[str]) -> dict[str, Attempt]:
        """Return those of these attempts that are there."""
        return self._get(Attempt, ids, self.load_attempts)

    def codes(self, codes: Iterable[str]) -> dict[str, Code]:
        """Return those of these codes that are there."""
        return self._get(Code, codes, self.load_codes)

    def request(self, request_id: str) -> Request:
        """Return a request that is there."""
        found: Request | None = self._loaded[Request].get(request_id)
        return found or self.requests([request_id])[request_id]

    def attempt(self, attempt_id: str) -> Attempt:
        """Return an attempt that is there."""
        found: Attempt | None = self._loaded[Attempt].get(attempt_id)
        return found or self.attempts([attempt_id])[attempt_id]

    def code(self, code: str) -> Code | None:
        """Return a code, if it is there."""
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

    def loose(self, batch: str, limit: int) -> list[Attempt]:
        """Return open attempts that no request relies on."""
        self.flush()
        return self._keep(self.find_loose(batch, limit))

    def needy(self, batch: str, limit: int) -> list[Request]:
        """Return waiting requests whose code is not on its way.

        The oldest that rely on no attempt are first, then the oldest with an ambiguous one.
        """
        self.flush()
        return self._keep(self.find_needy(batch, limit))

    def attempts_in(self, batch: str, states: Collection[AttemptState]) -> list[Attempt]:
        """Return the attempts of a batch in these states, the first sent first."""
        self.flush()
        return self._keep(self.find_attempts(batch, states))

    def add(self, row: Row) -> None:
        """Add a new row."""
        key = getattr(row, _KEY[type(row)])
        self._loaded[type(row)][key] = self._new[type(row)][key] = row

    def save(self, row: Row) -> None:
        """Keep the changes of a row that was loaded or added here."""
        kind = type(row)
        key = getattr(row, _KEY[kind])
        if key not in self._new[kind]:
            self._changed[kind][key] = row

    def flush(self) -> None:
        """Write what is new and changed so far into the transaction."""
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
        """Return the rows, each as the one object that stands for it in this transaction."""
        kept = []
        for row in rows:
            kind = type(row)
            kept.append(self._loaded[kind].setdefault(getattr(row, _KEY[kind]), row))
        return kept

    # What a store implements. What it returns is new objects. It need not know of unflushed rows.

    @abstractmethod
    def lock_batches(self, keys: Sequence[str]) -> list[Batch]:
        """Lock these batches until the end of the transaction; insert those that are missing."""

    @abstractmethod
    def load_requests(self, ids: Sequence[str]) -> list[Request]:
        """See `requests`."""

    @abstractmethod
    def load_attempts(self, ids: Sequence[str]) -> list[Attempt]:
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
    def find_loose(self, batch: str, limit: int) -> list[Attempt]:
        """See `loose`."""

    @abstractmethod
    def find_needy(self, batch: str, limit: int) -> list[Request]:
        """See `needy`."""

    @abstractmethod
    def insert(self, kind: type[Row], rows: Sequence[Any]) -> None:
        """Write new rows of one kind. Fails if one is there."""

    @abstractmethod
    def update(self, kind: type[Row], rows: Sequence[Any]) -> None:
        """Write changed rows of one kind."""

    @abstractmethod
    def dead_owners(self, owners: Collection[str]) -> set[str]:
        """Return those of these owners of attempts whose process is gone."""

    # Reading alone

    @abstractmethod
    def find_batches(self) -> list[Batch]:
        """Return all batches."""

    @abstractmethod
    def find_attempts(self, batch: str | None, states: Collection[AttemptState]) -> list[Attempt]:
        """Return the attempts in these states, the first sent first."""

    @abstractmethod
    def find_foreign(self, batch: str, begin: float, end: float) -> list[Code]:
        """Return the FOREIGN codes that the server issued in that time, or nobody knows when."""

    @abstractmethod
    def known(self, codes: Sequence[str]) -> set[str]:
        """Return those of these codes that are in the ledger, in whatever state."""

    @abstractmethod
    def counts(self, batch: str | None) -> Counts:
        """Return how the ledger, or one batch of it, stands."""

    @abstractmethod
    def page(
        self, batch: str | None, after: int, limit: int
    ) -> list[tuple[int, Request, Code | None]]:
        """Return requests in the order they were asked, after a number, with number and code."""
