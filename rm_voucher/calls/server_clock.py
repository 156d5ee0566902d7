"""How far RM's clock is off this machine's, from the ``Date`` of each answer."""

from __future__ import annotations

import logging
from datetime import UTC

_log = logging.getLogger("rm_voucher")

WORTH_A_WARNING_S = 5.0
"""A difference that spoils timestamps, or what is concluded from times, in the end."""


class ServerClock:
    """Knows the offset of RM's clock, as far as the latest answer proves it.

    ``Date`` is in whole seconds, and was written at some time between the request and its answer.
    So the offset is known as a range; what counts is the end of it that is next to zero.
    """

    def __init__(self) -> None:
        self._date: str | None = None
        self._warned = False
        self.offset_s: float | None = None
        """RM's clock less ours, in seconds, 0 where nothing proves a difference; None before the
        first answer with a date."""

    def is_news(self, date: str) -> bool:
        """Return whether a ``Date`` is another than the latest: a second has many answers."""
        return date != self._date

    def note(self, date: str, *, sent_at: float, received_at: float) -> None:
        """Take note of an answer's ``Date``, and of the two instants by our clock, in unix seconds.

        Warns once of a difference that spoils timestamps and what is concluded from times.
        """
        self._date = date
        offset_s = proven_offset_s(date, sent_at=sent_at, received_at=received_at)
        if offset_s is None:
            return
        self.offset_s = offset_s
        if abs(offset_s) > WORTH_A_WARNING_S and not self._warned:
            self._warned = True
            _log.warning(
                "RM's clock and this machine's differ by %.0f s or more: set this machine's, or "
                "timestamps are refused and a ledger can't tell times",
                abs(self.offset_s),
            )


def proven_offset_s(date: str, *, sent_at: float, received_at: float) -> float | None:
    """Return how far a server's clock is provably ahead of ours, behind if negative, in seconds.

    ``date`` is its answer's ``Date``; the two instants are by our clock, in unix seconds. None for
    what is no date.
    """
    from email.utils import parsedate_to_datetime  # slow to import, and once a second at most

    try:
        written = parsedate_to_datetime(date)
        # Without a zone, or with -0000, it is in UTC, and not in this machine's.
        written_at = written.replace(tzinfo=written.tzinfo or UTC).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    least_s, most_s = written_at - received_at, written_at + 1 - sent_at
    return least_s if least_s > 0 else min(most_s, 0.0)
