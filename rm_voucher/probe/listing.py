"""Experiments with listings, the balance, and a batch's stock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rm_voucher.converters import structure
from rm_voucher.exceptions import NotFoundError
from rm_voucher.models import Origin, Voucher, VoucherStatus
from rm_voucher.probe.budget import Cost
from rm_voucher.probe.experiment import GRID_S, Decision, Experiment, Notes, Watch
from rm_voucher.probe.findings import NotDecided
from rm_voucher.probe.options import option_in_words
from rm_voucher.probe.session import MAX_PAGES, PageRead, Session, UnclearError, words_of
from rm_voucher.text import counted

_READ = Cost(calls=MAX_PAGES)
_BALANCE = Cost(calls=MAX_PAGES + 1)


def _vouchers(pages: Iterable[PageRead]) -> list[Voucher]:
    return [
        structure(item, Voucher) for page in pages for item in page.items if isinstance(item, dict)
    ]


async def _before(session: Session) -> None:
    pages, is_whole = await session.read_listing()
    valid = [one for one in _vouchers(pages) if one.status is VoucherStatus.VALID]
    session.notes["listing.valid"] = bool(valid) or (False if is_whole else None)
    if valid and valid[-1].code:
        session.vouchers["valid"] = valid[-1].code


async def _issue(session: Session) -> None:
    session.notes["balance.before"] = (await session.read_batch()).balance_quantity
    await session.issue_as("first")
    await _watch_listing(session, session.voucher("first"))
    session.notes["balance.issued"] = (await session.read_batch()).balance_quantity


async def _watch_listing(session: Session, code: str) -> None:
    """Look for a voucher in the listing until it is there, issued."""
    watch = Watch(session, since=session.runtime.monotonic())
    failed = None
    async with watch.turns() as turns:
        async for _ in turns:
            try:
                if await _is_settled(session, code, watch):
                    return
            except UnclearError as exc:
                failed = exc
            else:
                failed = None
                watch.is_absent()
    if failed is not None:
        raise failed
    session.notes["listing.delay_s"] = NotDecided(f"it was not listed within {GRID_S[-1]:.0f} s")


async def _is_settled(session: Session, code: str, watch: Watch) -> bool:
    """Read the listing once; return whether no further look is needed."""
    notes = session.notes
    pages, is_whole = await session.read_listing()
    _note_pages(session, pages, is_whole=is_whole)
    shown = [(one, page.at) for page in pages for one in _vouchers([page]) if one.code == code]
    if shown and shown[0][0].status is not VoucherStatus.VALID:
        voucher, at = shown[0]
        notes["listing.delay_s"] = watch.seen("the voucher", at=at)
        notes["listing.assigned_at"] = voucher.assigned_at is not None
    elif not is_whole:
        notes["listing.delay_s"] = NotDecided(
            f"the listing has more than {MAX_PAGES} pages: name a smaller batch"
        )
    return "listing.delay_s" in notes


def _note_pages(session: Session, pages: list[PageRead], *, is_whole: bool) -> None:
    notes = session.notes
    sizes = [len(page.items) for page in pages]
    *full, last = [size for size in sizes if size] or [0]
    if full:
        same = len(set(full)) == 1 and last <= full[0]
        notes["listing.page_size"] = full[0] if same else NotDecided("pages are not of one size")
    elif not is_whole:
        notes["listing.page_size"] = NotDecided("its pages are empty")
    else:
        notes["listing.page_size"] = NotDecided(
            f"one page has all that are listed, {counted(sizes[0], 'voucher')}: name a batch of "
            "which more are listed"
        )
    if not is_whole:
        notes["listing.last"] = NotDecided(
            f"the listing has more than {MAX_PAGES} pages: name a smaller batch"
        )
    elif not sizes[0]:
        notes["listing.last"] = NotDecided("the listing is empty")
    elif sizes[-1] == 0:
        is_full = bool(full) and last == full[0]
        notes["listing.last"] = (
            NotDecided("its last page with vouchers is full: try again")
            if is_full
            else "empty-page"
        )
    else:
        notes["listing.last"] = _mark_of(pages[-1].meta)


def _mark_of(meta: Mapping[str, Any]) -> object:
    """Return how the last page is marked."""
    if "cursor" not in meta:
        return "no-cursor"
    if meta["cursor"] is None:
        return "null"
    return "empty-text" if meta["cursor"] == "" else NotDecided("its cursor is no text, nor null")


async def _uploaded(session: Session) -> None:
    pages, is_whole = await session.read_listing(session.options.uploaded_batch)
    batch = await session.read_batch(session.options.uploaded_batch)
    valid = [one.code for one in _vouchers(pages) if one.status is VoucherStatus.VALID and one.code]
    if valid:
        session.notes["uploaded.valid"] = True
        session.vouchers.setdefault("valid", valid[-1])
    elif is_whole and batch.balance_quantity and not any(page.items for page in pages):
        session.notes["uploaded.valid"] = False
    else:
        raise UnclearError("the uploaded batch may have nothing left: name a fresh one")


async def _issue_elsewhere(session: Session, key: str, what: str) -> None:
    answer = await session.issue(key)
    if answer.succeeded:
        session.notes[f"{what}.code"] = ""
    elif answer.is_error(NotFoundError):
        raise UnclearError(f"the {what} batch: {words_of(answer)}")
    else:
        session.notes[f"{what}.code"] = answer.code


async def _static(session: Session) -> None:
    await _issue_elsewhere(session, session.options.static_batch, "static")


async def _sold_out(session: Session) -> None:
    await _issue_elsewhere(session, session.options.sold_out_batch, "sold_out")


async def _expired(session: Session) -> None:
    await _issue_elsewhere(session, session.options.expired_batch, "expired")


def _lists_valid(notes: Notes) -> object:
    if notes["listing.valid"]:
        return True
    if notes["batch.origin"] == Origin.SELF and notes["listing.valid"] is False:
        return False if notes["issue.ok"] else NotDecided("the batch had nothing left")
    if "uploaded.valid" in notes:
        return notes["uploaded.valid"]
    return NotDecided(
        "no VALID voucher is listed, and there may be none: give "
        f"{option_in_words('uploaded_batch')}"
    )


def _codes_up_front(notes: Notes) -> object:
    if notes["batch.origin"] == Origin.SELF:
        return NotDecided("the batch's codes were uploaded, so they always exist: name another one")
    if notes["listing.valid"]:
        return True
    if _lists_valid(notes) is True and notes["listing.valid"] is False:
        return False
    return NotDecided("no VALID voucher is listed, whether there is one or not")


def _used_from(notes: Notes) -> object:
    """Return the first change by which the balance went down, by one."""
    for status, before, after in (
        ("ISSUED", "balance.before", "balance.issued"),
        ("REDEEMED", "balance.unredeemed", "balance.redeemed"),
        ("VOID", "balance.redeemed", "balance.void"),
    ):
        if notes[before] is None or notes[after] is None:
            return NotDecided("the batch shows no balance")
        step = notes[before] - notes[after]
        if step == 1:
            return status
        if step:
            return NotDecided("the balance moved by itself: somebody else uses the batch")
    return NotDecided("the balance stayed the same")


def _lists_assigned_at(notes: Notes) -> object:
    if not notes["get.assigned_at"]:
        return NotDecided("vouchers don't show when they were issued, listed or not")
    return notes["listing.assigned_at"]


def _refusal(what: str) -> Decision:
    def seen(notes: Notes) -> object:
        code = notes[f"{what}.code"]
        return code or NotDecided("a voucher was issued: the batch is not of this kind")

    return Decision(f"{what}_code", seen)


LISTING = Experiment(
    name="listing",
    asks="Are vouchers that nobody has yet listed?",
    observe=_before,
    decides=(),
    cost=_READ,
)
ISSUE = Experiment(
    name="issue",
    asks="How soon is an issued voucher listed, how are pages cut, what does the balance count?",
    observe=_issue,
    decides=(
        Decision(
            "listing_delay_s",
            lambda notes: notes["listing.delay_s"],
            "Ledger.open(settle_s=…), as the profile has it",
        ),
        Decision("page_size", lambda notes: notes["listing.page_size"]),
        Decision("last_page", lambda notes: notes["listing.last"]),
    ),
    cost=Cost(calls=1, vouchers=1) + _BALANCE + _BALANCE + Cost(calls=len(GRID_S) * MAX_PAGES),
)
UPLOADED = Experiment(
    name="uploaded",
    asks="Are VALID vouchers of an uploaded batch listed?",
    observe=_uploaded,
    decides=(),
    cost=_READ + _BALANCE,
    needs="uploaded_batch",
)


async def _look_back(session: Session) -> None:
    """Look at what the other experiments saw."""
    session.notes["issue.ok"] = "balance.issued" in session.notes


STOCK = Experiment(
    name="stock",
    asks="Do codes exist before they are issued, and which vouchers count as used?",
    observe=_look_back,
    decides=(
        Decision("lists_valid", _lists_valid),
        Decision("codes_up_front", _codes_up_front),
        Decision(
            "used_from",
            _used_from,
            "Ledger.open(check_balance=False), where an issue does not lower the balance",
        ),
        Decision("lists_assigned_at", _lists_assigned_at),
    ),
)
OTHER_BATCHES = (
    Experiment(
        name="static",
        asks="What answers an issue from a static batch?",
        observe=_static,
        decides=(Decision("static_issue_code", lambda notes: notes["static.code"]),),
        cost=Cost(calls=1, vouchers=1),
        needs="static_batch",
    ),
    Experiment(
        name="sold-out",
        asks="What answers an issue from a batch with nothing left?",
        observe=_sold_out,
        decides=(_refusal("sold_out"),),
        cost=Cost(calls=1, vouchers=1),
        needs="sold_out_batch",
    ),
    Experiment(
        name="expired",
        asks="What answers an issue from a batch that has ended?",
        observe=_expired,
        decides=(_refusal("expired"),),
        cost=Cost(calls=1, vouchers=1),
        needs="expired_batch",
    ),
)
