"""A voucher as its customer sees it: what it is, its QR code, and a way into their rewards."""

from __future__ import annotations

import importlib.util

from rm_voucher.emulator.customer.markup import Html, each, fill, read, when
from rm_voucher.emulator.customer.phone import readings
from rm_voucher.emulator.customer.words import owner, show, spelled, why_not_added
from rm_voucher.emulator.merchant import Merchant
from rm_voucher.emulator.records import Member, Record
from rm_voucher.emulator.stock import RefusedError
from rm_voucher.models import VoucherStatus

_PAGE, _FORM = read("voucher.html"), read("collect.html")
_ADDED = Html('<p class="said" role="status">Added to your rewards.</p>\n')
_PROBLEM = '<p class="problem" id="problem" role="alert">{text}</p>\n'
_MERCHANT = '<p class="merchant">{text}</p>\n'
_CHARS_A_GROUP = 4
_MOST_MEMBERS = 20
_COLLECTABLE = (VoucherStatus.ISSUED, VoucherStatus.VALID)


def find(merchant: Merchant, code: str) -> Record:
    """Return a voucher; of a static code one that is free, if there is one. Refuses."""
    return merchant.state.stock.find(code, _COLLECTABLE)


def page(
    record: Record,
    merchant: Merchant,
    *,
    is_added: bool = False,
    problem: str = "",
    phone: str = "",
    lists_members: bool,
) -> Html:
    """Return the page.

    ``is_added`` says that it was added to rewards, ``problem`` why it was not to those of
    ``phone``. ``lists_members`` offers the members' numbers.
    """
    shown, code = show(record, merchant), record.code
    can_collect = record.status(merchant.virtual_clock.now()) in _COLLECTABLE
    form = _form(merchant, problem, phone, lists_members=lists_members) if can_collect else Html()
    said = _ADDED if is_added else when("" if can_collect else problem, _PROBLEM)
    return fill(
        _PAGE,
        said=said,
        mood=shown.mood,
        merchant=when(merchant.name if merchant.number > 1 else "", _MERCHANT),
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


def collect(code: str, merchant: Merchant, phone: str) -> str:
    """Add a voucher to the rewards of a phone number; return a sentence if that can't be done.

    Who has it already keeps it, so that a second click does no harm. Who is no member becomes one,
    unless the voucher is refused.
    """
    state = merchant.state
    try:
        member = _member(merchant, phone)
        if not _has(member, code, merchant):
            state.collect(code, member)
            state.enrol(member)
    except ValueError as exc:
        return str(exc)
    except RefusedError as exc:
        return why_not_added(find(merchant, code), merchant, exc.code)
    return ""


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
        problem=when(problem, _PROBLEM),
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
