"""Answers a browser for the pages of customers and of the till.

They lack the guard of the control API, so that a telephone can scan a voucher. So they do nothing
but what is on them, and nothing for a form on another site's page.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

import attrs
from aiohttp import web

from rm_voucher.emulator.app import Emulator
from rm_voucher.emulator.control.access import PREFIX, refuses
from rm_voucher.emulator.customer import voucher_page
from rm_voucher.emulator.customer.markup import Html, fill, read
from rm_voucher.emulator.customer.till import Till
from rm_voucher.emulator.merchant import Merchant
from rm_voucher.emulator.pages import SAFETY, read_files, send_file
from rm_voucher.emulator.records import Record
from rm_voucher.emulator.stock import RefusedError

TILL = f"{PREFIX}/till"
_PUBLIC = "/qr"
_VOUCHER = re.compile(r"/qr/([0-9]{1,9})/voucher/([^/]{1,2000})")
_FRAME, _MISSING, _REFUSED = read("frame.html"), read("missing.html"), read("refused.html")
# A browser says the origin of a form's page, unless no referrer is to be told to anybody.
_HEADERS = {**SAFETY, "Referrer-Policy": "same-origin", "Content-Type": "text/html; charset=utf-8"}
_MOST_BYTES = 16 * 1024
_MOST_PHONE_CHARS = 60
_FORM = "application/x-www-form-urlencoded"


@attrs.define(eq=False)
class Front:
    """The side of an emulator that people see who have no account."""

    _emulator: Emulator
    _allowed_hosts: Collection[str]
    _till: Till = attrs.field(init=False)
    _files: Mapping[str, tuple[bytes, str]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._till = Till(self._emulator)
        found = read_files("rm_voucher.emulator.customer", _PUBLIC)
        icon = read_files("rm_voucher.emulator.page", _PUBLIC)[f"{_PUBLIC}/icon.svg"]
        self._files = {path: file for path, file in found.items() if file[1] != "text/html"}
        self._files = {**self._files, f"{_PUBLIC}/icon.svg": icon}

    def answer(self, http: web.BaseRequest, body: bytes) -> web.Response | None:
        """Answer a request for one of the pages, None for another one."""
        path = http.raw_path.partition("?")[0]
        is_till = path == TILL
        if not is_till and not path.startswith(f"{_PUBLIC}/"):
            return None
        if http.method not in ("GET", "HEAD", "POST"):
            return _refuse(405, "The method is GET or POST.", Allow="GET, HEAD, POST")
        if path in self._files:
            return send_file(http, *self._files[path])
        form: dict[str, str] | None = None
        if http.method == "POST":
            if _is_foreign(http):
                return _refuse(403, "The form is on another site's page.")
            if http.content_type != _FORM or len(body) > _MOST_BYTES:
                return _refuse(400, "This is not the page's form.")
            form = dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
        if is_till:
            return _page(200, "Till", self._till.page(form or {}), kind="till")
        return self._voucher(http, path, form)

    def _voucher(
        self, http: web.BaseRequest, path: str, form: Mapping[str, str] | None
    ) -> web.Response:
        found = self._find(path)
        if found is None:
            return _page(404, "Nothing here", fill(_MISSING), kind="voucher")
        merchant, record = found
        # Members' numbers are for who may see them in the control API.
        is_near = (
            refuses(
                peer=http.remote, host=http.host, origin=None, allowed_hosts=self._allowed_hosts
            )
            is None
        )
        phone, problem = "", ""
        if form is not None:
            phone = form.get("phone", "")[:_MOST_PHONE_CHARS]
            problem = voucher_page.collect(record.code, merchant, phone)
            if not problem:
                self._emulator.site.changes += 1
                # Relative, so that it is right behind a proxy with a path of its own.
                return web.Response(status=303, headers={**_HEADERS, "Location": "?added"})
        main = voucher_page.page(
            voucher_page.find(merchant, record.code),
            merchant,
            is_added=form is None and http.query_string == "added",
            problem=problem,
            phone=phone,
            lists_members=is_near,
        )
        return _page(422 if problem else 200, "Your voucher", main, kind="voucher")

    def _find(self, path: str) -> tuple[Merchant, Record] | None:
        found = _VOUCHER.fullmatch(path)
        if found is None:
            return None
        number, code = found.groups()
        for merchant in self._emulator.merchants:
            if merchant.number == int(number):
                try:
                    return merchant, voucher_page.find(merchant, unquote(code))
                except RefusedError:
                    break
        return None


def _is_foreign(http: web.BaseRequest) -> bool:
    """Return whether a form's page has another host; a proxy may have changed the scheme."""
    origins = http.headers.getall("Origin", [])
    own = {f"http://{http.host}", f"https://{http.host}"}
    return bool(origins) and (len(origins) > 1 or origins[0] not in own)


def _refuse(status: int, sentence: str, **headers: str) -> web.Response:
    return _page(status, "Not done", fill(_REFUSED, sentence=sentence), kind="voucher", **headers)


def _page(status: int, title: str, main: Html, *, kind: str, **headers: Any) -> web.Response:
    head = Html('<script src="/qr/till.js" defer></script>\n' if kind == "till" else "")
    text = fill(_FRAME, title=title, head=head, kind=kind, main=main)
    return web.Response(status=status, text=text, headers={**_HEADERS, **headers})
