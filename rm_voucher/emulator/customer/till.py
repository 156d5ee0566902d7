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
from rm_voucher.emulator.customer.words import show, why_not_used
from rm_voucher.emulator.merchant import Merchant
from rm_voucher.emulator.records import Record
from rm_voucher.emulator.stock import RefusedError
from rm_voucher.models import VoucherStatus
from rm_voucher.worth import moment

_PAGE, _VERDICT, _SELL = read("till.html"), read("verdict.html"), read("sell.html")
_QR_URL = re.compile(r"/qr/([0-9]{1,9})/voucher/([^/?#]+)")
_ANOTHERS = "It is a voucher of another merchant."
_MOST_CHARS, _MOST_CODE_CHARS, _MOST_STORE_CHARS = 2_000, 60, 100
_MOST_SALES = 1_000


@attrs.frozen(kw_only=True)
class Verdict:
    """What a cashier is told of a voucher. An empty text is not shown."""

    mood: str
    """The class of its colours: ``ready``, ``done`` or ``gone``."""
    title: str
    sentence: str = ""
    worth: str = ""
    terms: str = ""
    facts: Mapping[str, str] = attrs.field(factory=dict)
    form: Html = attrs.field(factory=Html)
    """The button that uses the voucher, where that can be done."""
    rm_code: str = ""
    """RM's code, where the API would refuse to use it."""

    def html(self) -> Html:
        """Return it as a part of the page. Where there is a button, the keyboard is next to it."""
        facts = [{"name": name, "text": text} for name, text in self.facts.items() if text]
        return fill(
            _VERDICT,
            mood=self.mood,
            title=self.title,
            focus=Html(' tabindex="-1" autofocus' if self.form else ""),
            sentence=when(self.sentence, '<p class="why">{text}</p>\n'),
            worth=when(self.worth, '<p class="amount">{text}</p>\n'),
            terms=when(self.terms, '<p class="terms">{text}</p>\n'),
            facts=each("<div><dt>{name}</dt><dd>{text}</dd></div>\n", facts),
            form=self.form,
            refusal=when(
                self.rm_code, '<p class="help">The API refuses it with <code>{text}</code>.</p>\n'
            ),
        )


@attrs.define(eq=False)
class Till:
    """The till of all merchants of an emulator."""

    _emulator: Emulator
    _sales: deque[tuple[str, str, Record]] = attrs.field(
        factory=lambda: deque(maxlen=_MOST_SALES), init=False
    )
    """The last sales: the look that each followed and the code, so that a second click on its
    button is no second sale, and shows the same."""

    def page(self, form: Mapping[str, str]) -> Html:
        """Return the page: empty, with a verdict, or with what became of a sale."""
        merchant = self._emulator.find_merchant(form.get("merchant", "")) or self._emulator
        store = form.get("store", "").strip()[:_MOST_STORE_CHARS]
        given = form.get("code", "").strip()[:_MOST_CHARS]
        verdict = self._answer(merchant, given, store, form) if given else None
        is_ready = verdict is not None and bool(verdict.form)
        return fill(
            _PAGE,
            merchants=_merchants(self._emulator, merchant),
            stores=_stores(merchant, store),
            code=_code_in(given)[1] if is_ready else "",
            focus=Html("" if is_ready else " autofocus"),
            verdict_id="" if verdict is None else " verdict-title",
            verdict=Html() if verdict is None else verdict.html(),
        )

    def _answer(
        self, merchant: Merchant, given: str, store: str, form: Mapping[str, str]
    ) -> Verdict:
        number, code = _code_in(given)
        others = [one.number for one in self._emulator.merchants if one is not merchant]
        if number in others:
            return _refuse(_ANOTHERS, code)
        if form.get("do") == "void":
            return self._void(merchant, code, store, form.get("sale", "")[:_MOST_STORE_CHARS])
        return _refusal(merchant, code, store) or _ready(merchant, code, store)

    def _void(self, merchant: Merchant, code: str, store: str, sale: str) -> Verdict:
        for look, sold_code, record in self._sales:
            if sale and (look, sold_code) == (sale, code) and record.kept is VoucherStatus.VOID:
                return _done(record, merchant, store)
        refusal = _refusal(merchant, code, store)
        if refusal is not None:
            return refusal
        record = merchant.state.void(code, store_id=store or None)
        self._sales.append((sale, code, record))
        self._emulator.site.changes += 1
        return _done(record, merchant, store)


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
            {"value": value, "text": text, "chosen": Html(" selected" if is_chosen else "")}
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


def _ready(merchant: Merchant, code: str, store: str) -> Verdict:
    shown = show(merchant.state.get(code), merchant)
    return Verdict(
        mood="ready",
        title="Can be used",
        worth=shown.worth,
        terms=shown.terms,
        facts={"Voucher": shown.label, "Until": shown.until},
        form=fill(_SELL, sale=secrets.token_hex(8), code=code, merchant=merchant.name, store=store),
    )


def _done(record: Record, merchant: Merchant, store: str) -> Verdict:
    shown = show(record, merchant)
    used = "" if record.used_at is None else moment(record.used_at)
    return Verdict(
        mood="done",
        title="Done: the voucher is used up",
        worth=shown.worth,
        terms=shown.terms,
        facts={"Voucher": shown.label, "Used": used, "Store": store},
    )


def _refusal(merchant: Merchant, code: str, store: str) -> Verdict | None:
    """Return why a voucher can't be used, or None."""
    state = merchant.state
    try:
        record = state.get(code)
    except RefusedError as exc:
        is_unknown = exc.code == "VOUCHER_NOT_FOUND"
        return _refuse("No voucher has this code." if is_unknown else _ANOTHERS, code, exc.code)
    try:
        if state.usable(code, store_id=store or None).kept is not VoucherStatus.VOID:
            return None
        rm_code = ""  # to void it again does nothing, and is no error
    except RefusedError as exc:
        rm_code = exc.code
    sentence = why_not_used(record, merchant, rm_code)
    return _refuse(sentence, code, rm_code, label=show(record, merchant).label)


def _refuse(sentence: str, code: str, rm_code: str = "", *, label: str = "") -> Verdict:
    return Verdict(
        mood="gone",
        title="Cannot be used",
        sentence=sentence,
        facts={"Voucher": label, "Code": code[:_MOST_CODE_CHARS]},
        rm_code=rm_code,
    )
