"""A till: what a voucher is worth and whether it can be used, and the sale itself."""

from __future__ import annotations

import re
import secrets
from collections import deque
from collections.abc import Mapping
from urllib.parse import unquote

import attrs

from rm_voucher.emulator.app import Emulator
from rm_voucher.emulator.customer.markup import Html, each, fill, read, when
from rm_voucher.emulator.customer.words import Shown, show, why_not_used
from rm_voucher.emulator.merchant import Merchant
from rm_voucher.emulator.records import Record
from rm_voucher.emulator.stock import RefusedError
from rm_voucher.models import VoucherStatus
from rm_voucher.worth import moment

_PAGE, _VERDICT, _SELL = read("till.html"), read("verdict.html"), read("sell.html")
_QR_URL = re.compile(r"/qr/([0-9]{1,9})/voucher/([^/?#]+)")
_MOST_CHARS = 2_000
_MOST_SALES = 1_000


@attrs.define(eq=False)
class Till:
    """The till of all merchants of an emulator."""

    _emulator: Emulator
    _sales: deque[tuple[str, Record]] = attrs.field(
        factory=lambda: deque(maxlen=_MOST_SALES), init=False
    )
    """The last sales, by the look before each, so that a second click on the button is no other."""

    def page(self, form: Mapping[str, str]) -> Html:
        """Return the page: empty, with a verdict, or with what became of a sale."""
        merchant = self._emulator.find_merchant(form.get("merchant", "")) or self._emulator
        store = form.get("store", "").strip()[:100]
        given = form.get("code", "").strip()[:_MOST_CHARS]
        if not given:
            return self._page(merchant, store)
        number, code = _code_in(given)
        others = [one.number for one in self._emulator.merchants if one is not merchant]
        if number in others:
            verdict = _cannot("It is a voucher of another merchant.", code)
        elif form.get("do") == "void":
            verdict = self._void(merchant, code, store, form.get("sale", ""))
        else:
            verdict = _look(merchant, code, store)
        is_done = form.get("do") == "void"
        return self._page(
            merchant, store, code="" if is_done else code, verdict=verdict, is_done=is_done
        )

    def _void(self, merchant: Merchant, code: str, store: str, sale: str) -> Html:
        sold = next((record for name, record in self._sales if name == sale), None)
        if sold is not None and sold.kept is VoucherStatus.VOID and sold.code == code:
            return _done(sold, merchant, store)
        verdict = _refusal(merchant, code, store)
        if verdict is not None:
            return verdict
        record = merchant.state.void(code, store_id=store or None)
        self._sales.append((sale, record))
        self._emulator.site.changes += 1
        return _done(record, merchant, store)

    def _page(
        self,
        merchant: Merchant,
        store: str,
        *,
        code: str = "",
        verdict: Html | None = None,
        is_done: bool = False,
    ) -> Html:
        return fill(
            _PAGE,
            merchants=_merchants(self._emulator, merchant),
            stores=_stores(merchant, store),
            code=code,
            focus=Html(" autofocus") if verdict is None or is_done else Html(),
            verdict_id=" verdict-title" if is_done else "",
            verdict=Html() if verdict is None else verdict,
        )


def _code_in(given: str) -> tuple[int | None, str]:
    """Return the code that was typed, or that of an address with the merchant's number."""
    found = _QR_URL.search(given)
    return (int(found[1]), unquote(found[2])) if found else (None, given)


def _merchants(emulator: Emulator, chosen: Merchant) -> Html:
    if len(emulator.merchants) == 1:
        return Html()
    rows = [(one.name, one.name, one is chosen) for one in emulator.merchants]
    return _select("merchant", "Merchant", rows)


def _stores(merchant: Merchant, store: str) -> Html:
    stores = merchant.state.stores()
    if not stores:
        return fill(
            '<label for="store">Store, if the sale is to name one</label>\n'
            '<input id="store" name="store" maxlength="100" autocomplete="off" value="{store}">\n',
            store=store,
        )
    rows = [("", "No store", not store)]
    for store_id, is_authorised in stores.items():
        name = store_id if is_authorised else f"{store_id} (not authorised)"
        rows.append((store_id, name, store_id == store))
    return _select("store", "Store", rows)


def _select(name: str, title: str, rows: list[tuple[str, str, bool]]) -> Html:
    options = each(
        '<option value="{value}"{chosen}>{text}</option>',
        (
            {"value": value, "text": text, "chosen": Html(" selected") if is_chosen else ""}
            for value, text, is_chosen in rows
        ),
    )
    return fill(
        '<label for="{name}">{title}</label>\n'
        '<select id="{name}" name="{name}">{options}</select>\n',
        name=name,
        title=title,
        options=options,
    )


def _look(merchant: Merchant, code: str, store: str) -> Html:
    refusal = _refusal(merchant, code, store)
    if refusal is not None:
        return refusal
    record = merchant.state.get(code)
    form = fill(_SELL, sale=secrets.token_hex(8), code=code, merchant=merchant.name, store=store)
    return _verdict("ready", "Can be used", show(record, merchant), form=form)


def _refusal(merchant: Merchant, code: str, store: str) -> Html | None:
    """Return why a voucher can't be used, or None."""
    state = merchant.state
    try:
        record = state.get(code)
    except RefusedError as exc:
        is_unknown = exc.code == "VOUCHER_NOT_FOUND"
        sentence = "No voucher has this code." if is_unknown else "It is of another merchant."
        return _cannot(sentence, code, rm_code=exc.code)
    try:
        record = state.usable(code, store_id=store or None)
    except RefusedError as exc:
        refusal = exc.code
    else:
        if record.kept is not VoucherStatus.VOID:
            return None
        refusal = ""
    sentence = why_not_used(record, merchant, refusal)
    return _cannot(sentence, code, shown=show(record, merchant), rm_code=refusal)


def _cannot(sentence: str, code: str, *, shown: Shown | None = None, rm_code: str = "") -> Html:
    return _verdict("gone", "Cannot be used", shown, sentence=sentence, code=code, rm_code=rm_code)


def _done(record: Record, merchant: Merchant, store: str) -> Html:
    facts = {"Store": store} if store else {}
    used = "" if record.used_at is None else moment(record.used_at)
    return _verdict(
        "done",
        "Done: the voucher is used up",
        show(record, merchant),
        facts={"Used": used, **facts},
        focuses=False,
    )


def _verdict(
    mood: str,
    title: str,
    shown: Shown | None,
    *,
    sentence: str = "",
    code: str = "",
    rm_code: str = "",
    facts: Mapping[str, str] | None = None,
    form: Html | None = None,
    focuses: bool = True,
) -> Html:
    said = dict(facts or {})
    if shown is not None:
        said = {"Voucher": shown.label, "Valid": shown.expiry.removeprefix("Valid "), **said}
    elif code:
        said = {"Code": code[:40], **said}
    return fill(
        _VERDICT,
        mood=mood,
        title=title,
        focus=Html(' tabindex="-1" autofocus') if focuses else Html(),
        sentence=when(sentence, '<p class="why">{text}</p>\n'),
        worth=when("" if shown is None else shown.worth, '<p class="amount">{text}</p>\n'),
        terms=when("" if shown is None else shown.terms, '<p class="terms">{text}</p>\n'),
        facts=each(
            "<div><dt>{name}</dt><dd>{text}</dd></div>\n",
            ({"name": name, "text": text} for name, text in said.items() if text),
        ),
        form=Html() if form is None else form,
        refusal=when(rm_code, '<p class="help">The API refuses it with <code>{text}</code>.</p>\n'),
    )
