"""What a person does next, after a run: to run it again is said only where that helps."""

from pathlib import Path
from typing import Any

import attrs
import pytest

from rm_voucher import (
    AuthenticationError,
    BatchStoppedError,
    BulkSummary,
    IdempotencyConflictError,
    TransportError,
    VoucherError,
)
from rm_voucher.cli.report import Report

URL = "sqlite:///a.db"
AGAIN = "Run it again with the same ledger"
DONE = Report(10, summary=BulkSummary(asked=10, issued=10))


def steps(**given: Any) -> str:
    return " ".join(attrs.evolve(DONE, **given).next_steps())


def counts(**numbers: int) -> BulkSummary:
    return BulkSummary(**numbers)


FAILED = counts(asked=10, issued=8, failed=2)
UNKNOWN = counts(asked=10, issued=8, unresolved=2)
EARLY = counts(asked=6, issued=6)


def test_nothing_is_left_to_do() -> None:
    """After a whole run nothing is said."""
    assert steps() == steps(ledger=URL) == ""


def test_without_a_ledger_it_is_never_run_again() -> None:
    """Whoever has a voucher would get a second one."""
    for summary in (FAILED, UNKNOWN, EARLY):
        said = steps(summary=summary, first_error=TransportError("no"))
        assert "again with" not in said
    assert steps(summary=UNKNOWN).startswith("For the rows that are 'unresolved' a voucher may")
    assert steps(summary=EARLY) == (
        "Those without a voucher, and only those, may be issued to again."
    )


@pytest.mark.parametrize("summary", [FAILED, EARLY])
def test_an_output_is_the_list_of_the_next_run(summary: BulkSummary) -> None:
    """It says who has a voucher. One that could not be written does not."""
    report = attrs.evolve(DONE, summary=summary)
    (said,) = report.next_steps(Path("out.csv"))
    assert said.startswith("To issue to the others, give out.csv as --recipients: ")
    broken = attrs.evolve(report, unwritten=VoucherError("full"))
    assert "--recipients" not in " ".join(broken.next_steps(Path("out.csv")))


@pytest.mark.parametrize("summary", [FAILED, EARLY])
def test_with_a_ledger_it_is_run_again(summary: BulkSummary) -> None:
    """What failed or was not asked for is issued by another run."""
    said = steps(ledger=URL, summary=summary)
    assert said.startswith(AGAIN)
    assert said.endswith(f"'rm-voucher ledger status {URL}' shows what is open.")


def test_held_outcomes_are_a_persons() -> None:
    """In a batch that others issue from too, another run settles nothing."""
    said = steps(ledger=URL, summary=UNKNOWN)
    assert AGAIN not in said
    assert "a person decides" in said
    mixed = counts(asked=9, issued=7, failed=1, unresolved=1)
    assert "To run it again issues to the others only." in steps(ledger=URL, summary=mixed)


@pytest.mark.parametrize(
    "given", [{"is_exclusive": True}, {"interrupted": True}, {"unkept": 2}], ids=lambda g: str(*g)
)
def test_unknown_outcomes_that_a_run_settles(given: dict[str, Any]) -> None:
    """A batch of one's own, calls that an interrupt gave up, codes that the output has."""
    assert steps(ledger=URL, summary=UNKNOWN, **given).startswith(AGAIN)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BatchStoppedError("stopped"), "Don't read a new baseline"),
        (IdempotencyConflictError("taken"), "give each campaign a ledger of its own"),
    ],
)
def test_what_another_run_does_not_mend(error: VoucherError, words: str) -> None:
    """A batch that was stopped, and an id that is taken, are a person's."""
    said = steps(ledger=URL, summary=FAILED, first_error=error)
    assert words in said
    assert AGAIN not in said


def test_a_batch_that_was_stopped_on_the_way() -> None:
    """The ledger says so, whatever the first error was; to run it again is not the advice."""
    said = steps(
        ledger=URL, batch="B", summary=UNKNOWN, is_exclusive=True, stop_reason="others issue"
    )
    assert said.startswith("The batch is stopped: others issue. Don't read a new baseline")
    assert AGAIN not in said
    assert f"'rm-voucher ledger reconcile {URL} B --output held.xlsx --exclusive'" in said


def test_who_is_given_up_or_left_has_not_failed() -> None:
    """A complete campaign with somebody given up is complete; who was left was not asked."""
    given_up = attrs.evolve(DONE, summary=FAILED, given_up=2)
    assert (given_up.exit_code, given_up.next_steps()) == (0, [])
    left = attrs.evolve(DONE, summary=FAILED, left=2, interrupted=True)
    assert (left.asked, left.failed, left.not_asked, left.exit_code) == (8, 0, 2, 130)


def test_refused_credentials() -> None:
    """The way out is named first."""
    said = steps(
        ledger=URL,
        summary=FAILED,
        refused_credentials=True,
        first_error=AuthenticationError("INVALID_CLIENT"),
    )
    assert said.startswith("'rm-voucher doctor' says what is wrong with the settings.")
