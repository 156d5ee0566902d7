"""The port to a ledger's database. `sql.store` and `memory` implement it; it decides nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rm_voucher.exceptions import LedgerError
from rm_voucher.ledger.rules.records import AttemptState, Code, IssueAttempt
from rm_voucher.ledger.rules.unit_of_work import UnitOfWork
from rm_voucher.runtime import ProcessName

I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")
T = TypeVar("T")

Transition = Callable[[UnitOfWork, Sequence[I]], Sequence[R]]
Reading = Callable[[UnitOfWork], R]
Listener = Callable[[Sequence[Code]], None]


class LedgerStore(ABC):
    """A database that a ledger is kept in.

    ``owner`` names this process; by default it is a random name, another in each forked child.
    """

    read_only = False

    def __init__(self, *, owner: str | None = None) -> None:
        self._owner = owner or ProcessName()
        self._listeners: set[Listener] = set()
        self._is_open = False  # between `open` and `close`

    @property
    def owner(self) -> str:
        """The name of this process in the attempts that it sends."""
        return str(self._owner)

    @abstractmethod
    async def open(self) -> None:
        """Connect. After an error nothing is left open. Raises `LedgerError`."""

    @abstractmethod
    async def close(self) -> None:
        """Finish the commits under way, and disconnect."""

    def check_open(self) -> None:
        """Raise `LedgerError` unless it is open: for all that comes from outside."""
        if not self._is_open:
            raise LedgerError("The ledger is not open: use it with 'async with'.", is_final=True)

    def hurry(self) -> None:  # noqa: B027 - a store may never wait
        """Wait for a database in trouble for some seconds at most: the ledger is being closed."""

    @abstractmethod
    async def commit(self, transition: Transition[I, R], item: I) -> R:
        """Run one item of a transition; return its result when that is durable.

        Cancelling this must not take the transition back, nor keep it from being run.
        Codes that were given to requests are then told to `notify`. Raises `LedgerError`: one with
        a cause where the database can't be used, whatever the item; without one, the item is wrong.
        """

    async def doubt(self) -> str | None:
        """Return why the whole ledger would be stopped if it were opened to write, else None.

        For a store that is ``read_only``, which can't stop it: an older copy was put back, say.
        """
        return None

    @abstractmethod
    async def read(self, reading: Reading[R]) -> R:
        """Run a reading, beside transactions. Raises `LedgerError`."""

    @abstractmethod
    async def account(self) -> str | None:
        """Return the account that the namespace belongs to, if it is anybody's yet."""

    @abstractmethod
    async def namespaces(self) -> dict[str, str]:
        """Return the namespaces of the database that are somebody's, each with its account."""

    @abstractmethod
    async def claim(self, account: str, *, rebind: bool = False) -> None:
        """Let the namespace be an account's, if it is nobody's.

        ``rebind`` takes it from the account that it belongs to. May be repeated. Raises
        `LedgerError` where it is another's, or the account has another namespace.
        """

    async def attempts(
        self, batch_key: str | None, states: Iterable[AttemptState]
    ) -> list[IssueAttempt]:
        """Return the attempts in these states, the first sent first."""
        wanted = tuple(states)
        return await self.read(lambda unit: unit.find_attempts(batch_key, wanted))

    async def take_lease(self, name: str, lasts_s: float) -> bool:
        """Take a lease for this process, or renew its own; return False while another has it.

        It runs out by the database's clock. Where one process alone has the database, it always
        has the lease. Raises `LedgerError`.
        """
        return True

    async def end_lease(self, name: str) -> None:  # noqa: B027 - as `take_lease`
        """End a lease of this process, if it still has it. Raises `LedgerError`."""

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call the listener with codes given to requests, once durable; return what ends that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def notify(self, codes: Sequence[Code]) -> None:
        """Tell the listeners of codes that were given to requests."""
        if codes:
            for listener in tuple(self._listeners):
                listener(codes)


@contextmanager
def sound_rows() -> Iterator[None]:
    """Raise a `LedgerError` where rules meet rows that no ledger has written, or miss some."""
    try:
        yield
        return
    except (LookupError, TypeError, ValueError) as exc:
        kind = type(exc).__name__
    # Outside of the handler: that error may have a code in it, and is no context.
    raise LedgerError(
        f"The ledger's rows contradict each other ({kind}): some were removed or changed by hand, "
        "or are damaged. Put them back, or restore a backup and read a new baseline.",
        is_final=True,
    )


def blocks(rows: Sequence[T], size: int = 200) -> Iterator[Sequence[T]]:
    """Cut rows into blocks that fit a transaction."""
    return (rows[begin : begin + size] for begin in range(0, len(rows), size))
