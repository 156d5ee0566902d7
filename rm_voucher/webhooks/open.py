"""Opens a store of events in a database: the only place that chooses one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.extras import extra, extra_of
from rm_voucher.runtime import Runtime
from rm_voucher.webhooks.store import EventStore

if TYPE_CHECKING:  # it imports SQLAlchemy, an extra
    from rm_voucher.database.connections import SqlDatabase


def open_event_store(
    database: str | SqlDatabase,
    *,
    namespace: str | None = None,
    patience_s: float = 5.0,
    runtime: Runtime | None = None,
) -> EventStore:
    """Return a store in a database; enter it with ``async with``, or give it to a router.

    ``database`` is a URL, ``sqlite:///events.db`` or ``postgresql://user@host/database``; give the
    application's own database if handlers are to take the transaction. Several processes may use
    either at once; several merchants too, each in a ``namespace`` of its own, such as
    ``client.account``, and in one process with one `SqlDatabase` for all. ``patience_s`` is how
    long a delivery waits for a database that is away, before it is answered with 503. It may be
    made before a fork, and is then opened in each child. Needs the extra ``sql`` or ``postgres``.
    The first call imports SQLAlchemy, which takes some 100 ms: make the store before the
    application serves. Raises `ConfigurationError`.
    """
    with extra(extra_of(database), "A store", ConfigurationError):
        from rm_voucher.webhooks.sql.store import SqlEventStore  # slow to import

    return SqlEventStore(database, namespace=namespace, patience_s=patience_s, runtime=runtime)
