"""SQLite and PostgreSQL as the ledger and the event store use them. Needs the extra ``sql``.

`SqlDatabase` is one that several merchants share, `Transaction` what a callback's handler may take.
"""

from rm_voucher.extras import extra

with extra("sql", __name__):
    from rm_voucher.database.connections import SqlDatabase
    from rm_voucher.database.transaction import Transaction

__all__ = ["SqlDatabase", "Transaction"]
