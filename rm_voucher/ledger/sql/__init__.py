"""The ledger's store in SQLite and PostgreSQL."""

from rm_voucher.extras import extra

with extra("sql", __name__):
    import rm_voucher.database  # noqa: F401 - only to see whether the extra is there
