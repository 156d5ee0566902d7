"""The ledger's store in SQLite and PostgreSQL."""
