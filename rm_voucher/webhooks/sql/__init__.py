"""The event store in SQLite and PostgreSQL."""
