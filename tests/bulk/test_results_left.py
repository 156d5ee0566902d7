"""Who was not asked for, because the run ended: told from who got nothing though asked for."""

from rm_voucher.bulk.results import BulkStatus, aborted, not_asked
from rm_voucher.exceptions import ConnectError, TransportError


def test_shut_down_before_it_was_sent() -> None:
    """It is a failure to a program, which may ask again, and nobody was asked for."""
    result = aborted("ana", None, "B", None)
    assert (result.status, result.was_asked) == (BulkStatus.FAILED, False)
    assert isinstance(result.error, ConnectError)


def test_crash_is_no_end_of_a_run() -> None:
    """What a crash cut off may have been sent."""
    result = aborted("ana", TransportError("?"), "B", None)
    assert (result.status, result.was_asked) == (BulkStatus.UNRESOLVED, True)


def test_attempts_that_did_nothing() -> None:
    """They are counted, and it is asked for again."""
    assert not_asked("ana", "given up", 2).attempts == 2
