"""SQLite and PostgreSQL as the ledger and the event store use them. Needs the extra ``sql``.

`Transaction` is what a callback's handler may take.
"""

from rm_voucher.database.transaction import Transaction

__all__ = ["Transaction"]
