"""A voucher as its customer sees it: what it is, its QR code, and a way into their rewards."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from rm_voucher.emulator.customer.markup import Html, each, fill, read, when
from rm_voucher.emulator.customer.phone import readings
from rm_voucher.emulator.customer.words import owner, show, spelled, why_not_added
from rm_voucher.emulator.merchant import Merchant
from rm_voucher.emulator.records import Member, Record
from rm_voucher.emulator.stock import RefusedError
from rm_voucher.models import VoucherStatus

_PAGE, _FORM = read("voucher.html"), read("collect.html")
_CHARS_A_GROUP = 4
_MOST_MEMBERS = 20
_COLLECTABLE = (VoucherStatus.ISSUED, VoucherStatus.VALID)


def find(merchant: Merchant, code: str) -> Record:
    """Return a voucher; of a static code one that is free, if there is one. Refuses."""
    return merchant.state.stock.find(code, _COLLECTABLE)


def page(record: Record, merchant: Merchant, *, added: bool = False, lists_members: bool) -> Html:
    """Return the page. ``added`` says so; ``lists_members`` offers the members' numbers."""
    return _page(record, merchant, added=added, lists_members=lists_members)


def collect(
    record: Record, merchant: Merchant, form: Mapping[str, str], *, lists_members: bool
) -> tuple[int, Html | None]:
    """Add a voucher to the rewards of a phone number. The page is None when it was done.

    Who has it already is told that it was done, so that a second click does no harm. Who is no
    member becomes one, unless the voucher is refused.
    """
    phone = form.get("phone", "")[:60]
    try:
        _collect(record.code, merchant, phone)
    except ValueError as exc:
        status, problem = 422, str(exc)
    except RefusedError as exc:
        now = find(merchant, record.code)
        status, problem = 409, why_not_added(now, merchant, exc.code)
    else:
        return 303, None
    return status, _page(
        record, merchant, problem=problem, phone=phone, lists_members=lists_members
    )


def _collect(code: str, merchant: Merchant, phone: str) -> None:
    state, member = merchant.state, _member(merchant, phone)
    if not _has(member, code, merchant):
        state.collect(code, member)
        state.enrol(member)


def _member(merchant: Merchant, phone: str) -> Member:
    """Return the member with a phone number, or somebody who may become one."""
    able = readings(phone)
    for country_code, number in able:
        try:
            return merchant.state.member(country_code, number)
        except RefusedError as exc:
            if exc.code != "MEMBER_NOT_FOUND":
                raise
    return Member(*able[0], name="", is_ours=True)


def _has(member: Member, code: str, merchant: Merchant) -> bool:
    try:
        record = merchant.state.member_voucher(member, code)
    except RefusedError:
        return False
    return record.status(merchant.virtual_clock.now()) is VoucherStatus.REDEEMED


def _page(
    record: Record,
    merchant: Merchant,
    *,
    added: bool = False,
    problem: str = "",
    phone: str = "",
    lists_members: bool,
) -> Html:
    shown, code = show(record, merchant), record.code
    is_alone = merchant.number == 1
    can_collect = record.status(merchant.virtual_clock.now()) in _COLLECTABLE
    form = _form(merchant, problem, phone, lists_members=lists_members) if can_collect else Html()
    said = "Added to your rewards." if added else ("" if can_collect else problem)
    return fill(
        _PAGE,
        said=fill(
            '<p class="said{kind}" role="status">{text}</p>\n',
            text=said,
            kind="" if added else " problem",
        )
        if said
        else Html(),
        mood=shown.mood,
        merchant=when("" if is_alone else merchant.name, '<p class="merchant">{text}</p>\n'),
        label=shown.label,
        worth=when(shown.worth, '<p class="amount">{text}</p>\n'),
        terms=when(shown.terms, '<p class="terms">{text}</p>\n'),
        status=shown.status,
        owner=when(owner(record), '<p class="owner">Member {text}</p>\n'),
        expiry=when(shown.expiry, '<p class="expiry">{text}</p>\n'),
        qr=_qr(merchant.state.qr_url(code)),
        code=each("<span>{text}</span>", [{"text": text} for text in _groups(code)]),
        spelled=each("<li>{text}</li>", [{"text": text} for text in spelled(code)]),
        form=form,
    )


def _form(merchant: Merchant, problem: str, phone: str, *, lists_members: bool) -> Html:
    members = merchant.state.members()[:_MOST_MEMBERS] if lists_members else ()
    options = each(
        '<option value="+{country} {number}">{name}</option>',
        (
            {"country": one.country_code, "number": one.phone_number, "name": one.name}
            for one in members
        ),
    )
    return fill(
        _FORM,
        problem=when(problem, '<p class="problem" id="problem" role="alert">{text}</p>\n'),
        problem_id=" problem" if problem else "",
        phone=phone,
        list=Html('list="members"') if options else Html(),
        members=Html(f'<datalist id="members">{options}</datalist>\n') if options else Html(),
    )


def _groups(code: str) -> list[str]:
    return [code[start : start + _CHARS_A_GROUP] for start in range(0, len(code), _CHARS_A_GROUP)]


def _qr(url: str) -> Html:
    if importlib.util.find_spec("segno") is None:
        return Html('<p class="help">For a QR code, install the extra <code>cli</code>.</p>')
    from rm_voucher.qr import svg_of

    return Html(svg_of(url))
