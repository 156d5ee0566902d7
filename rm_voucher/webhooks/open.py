"""Opens a store of events by its URL: the only place that chooses one."""

from __future__ import annotations

from rm_voucher.arguments import check_type
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.runtime import Runtime
from rm_voucher.webhooks.store import EventStore


def open_event_store(url: str, *, runtime: Runtime | None = None) -> EventStore:
    """Return a store in a database; enter it with ``async with``, or give it to a router.

    ``url`` is ``sqlite:///events.db`` or ``postgresql://user@host/database``; give the
    application's own database if handlers are to take the transaction. Several processes may use
    either at once. Needs the extra ``sql`` or ``postgres``. The first call imports SQLAlchemy,
    which takes some 100 ms: make the store before the application serves. Raises
    `ConfigurationError`.
    """
    check_type("url", url, str)
    try:
        from rm_voucher.webhooks.sql.store import SqlEventStore  # an extra, and slow to import

        return SqlEventStore(url, runtime=runtime)
    except ImportError as exc:
        raise ConfigurationError.no_driver("A store", url) from exc
