"""SQLite and PostgreSQL as the ledger and the event store use them. Needs the extra ``sql``."""
