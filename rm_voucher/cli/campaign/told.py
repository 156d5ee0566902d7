"""What a campaign's commands say on the screen."""

from __future__ import annotations

import shlex
from pathlib import Path

from rm_voucher.cli.campaign.figures import Figures, is_same, shown_code, shown_time
from rm_voucher.cli.campaign.gather import Sources
from rm_voucher.cli.campaign.page import DIFFERENCES, STRANGERS, reason_in_words
from rm_voucher.cli.campaign.standing import MEANINGS, Difference, Standing
from rm_voucher.cli.options import without_password
from rm_voucher.cli.screen import say, tell
from rm_voucher.text import counted

_MANY = 20  # rows, on a screen


def tell_standings(figures: Figures, sources: Sources) -> None:
    """Tell a person who stands where, and what is next."""
    label = figures.listing.batch.label or sources.batch
    tell(f"{label}: {counted(figures.recipients, 'recipient')}, {figures.with_code:,} with a code")
    shown = {each: number for each in Standing if (number := figures.standings[each])}
    wide = max((len(f"{number:,}") for number in shown.values()), default=0)
    names = max((len(each.value) for each in shown), default=0)
    for each, number in shown.items():
        tell(f"  {number:>{wide},}  {words_of(each):<{names}}  {MEANINGS[each]}")
    for kept in figures.held[:_MANY]:
        since = f", sent {shown_time(kept.sent_at)}" if kept.sent_at is not None else ""
        attempt = f" (attempt {kept.attempt})" if kept.attempt else ""
        tell(f"held: {kept.recipient}{since}: {kept.error}{attempt}")
    if (more := figures.standings[Standing.HELD] - _MANY) > 0:
        tell(f"held: {more:,} more; the report and --output show them")
    for reason, number in figures.refused.most_common(_MANY):
        tell(f"refused: {number:,}: {reason_in_words(reason)}")
    if figures.again:
        tell(f"{figures.again:,} rows name a recipient who stands there already.")
    _tell_listing(figures)
    if not is_same(figures):
        say(
            "Our list and RM's differ. What differs is shown by 'rm-voucher campaign reconcile "
            f"{_named(sources)}'."
        )
    if figures.standings[Standing.HELD] and sources.ledger is not None:
        say(
            "Who is held is settled by 'rm-voucher ledger reconcile', and what that can't tell "
            "by 'rm-voucher ledger resolve'."
        )


def _tell_listing(figures: Figures) -> None:
    listing = figures.listing
    if listing.unreadable:
        tell(
            f"{counted(listing.unreadable, 'voucher')} of RM's listing can't be read: codes that "
            "are not listed may be theirs."
        )
    if figures.is_short:
        tell(
            f"RM lists {figures.issued:,} issued vouchers, and by the batch's balance "
            f"{listing.issued_by_balance:,} are: the listing may not be complete. Try again later."
        )


def tell_differences(figures: Figures, sources: Sources, *, reveal: bool) -> None:
    """Tell a person in what our list and RM's differ."""
    tell(
        f"{figures.issued:,} issued vouchers are listed by RM, and {figures.with_code:,} are on "
        "our list."
    )
    for kind, number in figures.differences.items():
        tell(f"{DIFFERENCES[kind]}: {number:,}")
        rows = [each for each in figures.differing if each.difference is kind]
        for each in rows[:_MANY]:
            who = f", {each.kept.recipient}" if each.kept else ""
            at = each.listed and shown_time(each.listed.assigned_at)
            status = f", {each.listed.status}" if each.listed else ""
            issued = f", issued {at}" if at else ""
            tell(f"  {shown_code(each.code, reveal=reveal)}{who}{status}{issued}")
        if number > _MANY:
            tell(f"  {number - _MANY:,} more; --output writes them all")
    for state, number in figures.strangers.items():
        if state in STRANGERS:
            tell(f"also listed: {number:,} {STRANGERS[state]}")
    _tell_listing(figures)
    if is_same(figures):
        tell("The two lists are the same.")
    elif sources.ledger is not None and figures.differences[Difference.UNKNOWN]:
        say("'rm-voucher ledger reconcile' finds out whose the unknown ones are.")
    if held := figures.standings[Standing.HELD]:
        say(f"{held:,} held: each of them may have one of the vouchers that nobody has.")


def words_of(standing: Standing) -> str:
    """Return a standing as a person reads it."""
    return standing.value.replace("_", " ")


def _named(sources: Sources) -> str:
    """Return the arguments that name the sources, for another command."""
    if sources.ledger is None:
        given = f"--results {shlex.quote(str(sources.results))}"
    else:
        given = f"--ledger {shlex.quote(without_password(sources.ledger))}"
        if sources.namespace is not None:
            given += f" --namespace {shlex.quote(sources.namespace)}"
    return f"{shlex.quote(sources.batch)} {given}"


def issue_command(sources: Sources, file: Path) -> str:
    """Return the command that issues to a list, to be copied."""
    output = file.with_name(f"{file.stem}-vouchers{file.suffix}")
    kept = _named(sources) if sources.ledger is not None else shlex.quote(sources.batch)
    return (
        f"rm-voucher issue {kept} --recipients {shlex.quote(str(file))} "
        f"--output {shlex.quote(str(output))}"
        # Whom the ledger serves is not in this list.
        f"{' --other-people' if sources.ledger is not None else ''}"
    )
