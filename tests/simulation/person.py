"""A person who resolves what a ledger holds, and knows what else was issued."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rm_voucher import LedgerError
from rm_voucher.ledger.rules.records import CodeState

if TYPE_CHECKING:
    from simulation.campaign import Campaign


async def decide(campaign: Campaign, ledger: Any, report: Any) -> None:
    """Resolve all that is held: each code of ours to an attempt that may have issued it."""
    books = campaign.books
    choices = {
        held.attempt_id: [code for code in held.candidates if _is_lost(books, code)]
        for held in report.held
    }
    if campaign.seams.clock_off_s:  # the person knows, and looks at no times
        every = list(dict.fromkeys(code for codes in choices.values() for code in codes))
        choices = dict.fromkeys(choices, every)
    for attempt_id in choices:
        known = books.evidence.get(attempt_id)
        books.must(known is None or known not in books.issued, "an error's code did not count")
    adopted = _match(choices)
    if report.open == 0 and campaign.settle_s >= campaign.late_s + campaign.lag_s:
        lost = {code for codes in choices.values() for code in codes}
        books.must(len(adopted) == len(lost), "a lost code fits no attempt that is held")
    for attempt_id in choices:
        try:
            if attempt_id in adopted:
                await ledger.resolve(attempt_id, adopt=adopted[attempt_id])
            else:
                await ledger.resolve(attempt_id, reissue=True)
        except LedgerError as exc:
            campaign.world.event("resolve", type(exc).__name__)


def _is_lost(books: Any, code: str) -> bool:
    known = books.codes.get(code)
    return code not in books.not_ours and (known is None or known.state is CodeState.FOREIGN)


def _match(choices: dict[str, list[str]]) -> dict[str, str]:
    """Return as many pairs as there can be."""
    taken: dict[str, str] = {}

    def find(attempt_id: str, tried: set[str]) -> bool:
        for code in choices[attempt_id]:
            if code not in tried:
                tried.add(code)
                if code not in taken or find(taken[code], tried):
                    taken[code] = attempt_id
                    return True
        return False

    for attempt_id in choices:
        find(attempt_id, set())
    return {attempt_id: code for code, attempt_id in taken.items()}
