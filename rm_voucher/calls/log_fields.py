"""The fields of log records: who reads logs by machine finds a call's records by them."""

from __future__ import annotations


def log_fields(
    *,
    operation: str,
    attempt: str | None = None,
    batch: str | None = None,
    client: str = "",
    event: str = "",
) -> dict[str, str]:
    """Return the ``extra`` of a log record. A field that says nothing is empty, but there."""
    return {
        "rm_operation": operation,
        "rm_attempt": attempt or "",
        "rm_batch": batch or "",
        "rm_client": client,
        "rm_event": event,
    }
