"""The paths of RM's API, and a handler for each: a request's parts in, RM's JSON out."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

import attrs

from rm_voucher.converters import parse_time
from rm_voucher.emulator.guesses import Check, Guesses, LastPage
from rm_voucher.emulator.paths import NAME_PLACES, OPERATIONS, TOKEN, operations
from rm_voucher.emulator.records import Member
from rm_voucher.emulator.state import VoucherState
from rm_voucher.emulator.stock import RefusedError
from rm_voucher.jsontext import read_json

_MAX_QUERY_FIELDS = 20
__all__ = ["OPERATIONS", "TOKEN", "Input", "Route", "Routes"]

_LAST_CURSORS = {LastPage.NULL: None, LastPage.EMPTY_TEXT: ""}

Handler = Callable[["Input"], dict[str, Any]]


@attrs.frozen
class Input:
    """A handler's input: the path's variable part, the query, the body's JSON object."""

    name: str
    query: Mapping[str, str]
    body: Mapping[str, Any]
    delay_s: float


@attrs.frozen
class Route:
    """The target of a request. ``operation`` is the client's name for it, too."""

    operation: str
    methods: Collection[str]
    name: str
    handler: Handler

    def answer(self, query: str, body: object, *, delay_s: float = 0.0) -> dict[str, Any]:
        """Do the work. Raises `RefusedError`."""
        try:
            fields = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS)
        except ValueError:
            raise RefusedError("INVALID_PARAMETER") from None
        return self.handler(Input(self.name, dict(fields), _object(body), delay_s))


@attrs.define(eq=False)
class Routes:
    """Finds the route of a path, given as its decoded segments."""

    _state: VoucherState
    _guesses: Guesses
    _disabled: Collection[Check]
    _pin: str = attrs.field(repr=False)

    _found: dict[tuple[str | None, ...], tuple[str, Collection[str], Handler]] = attrs.field(
        factory=dict, init=False
    )

    def __attrs_post_init__(self) -> None:
        handlers: dict[str, Handler] = {
            "issue": self._issue,
            "get": self._get,
            "void": self._void,
            "vouchers": self._vouchers,
            "batch": self._batch,
            "batches": self._batches,
            "reinstate": self._reinstate,
            "redeem": self._redeem,
            "member vouchers": self._member_vouchers,
            "member get": self._member_get,
            "member redeem": self._member_redeem,
            TOKEN: lambda given: {},
        }
        for each in operations(self._guesses):
            self._found[each.parts] = each.name, each.methods, handlers[each.name]

    def find(self, path: Sequence[str]) -> Route:
        """Return the route of a path. Raises `RefusedError` where there is none."""
        parts = tuple(path)
        if "" not in parts:
            place = NAME_PLACES.get(len(parts))
            if place is not None:
                found = self._found.get((*parts[:place], None, *parts[place + 1 :]))
                if found is not None:
                    operation, methods, handler = found
                    return Route(operation, methods, parts[place], handler)
            found = self._found.get(parts)
            if found is not None:
                operation, methods, handler = found
                return Route(operation, methods, "", handler)
        # There is none, such as those of a member's rewards.
        raise RefusedError(self._guesses.unknown_path_code)

    def _issue(self, given: Input) -> dict[str, Any]:
        code, qr_url = self._state.issue(given.name)
        return _item({"code": code, "qrUrl": qr_url})

    def _vouchers(self, given: Input) -> dict[str, Any]:
        start, size = self._start(given.query), self._guesses.page_size
        found = self._state.page(given.name, start, size=size + 1, delay_s=given.delay_s)
        return _page(found, start, size, self._guesses.last_page)

    def _batch(self, given: Input) -> dict[str, Any]:
        return _item(self._state.batch_wire(self._state.stock.batch(given.name)))

    def _batches(self, given: Input) -> dict[str, Any]:
        wanted = self._filter(given.query)
        start, size = self._start(given.query), self._guesses.page_size
        matching = [
            batch
            for batch in self._state.stock.ours()
            if wanted.get("status") in (None, batch.status)
            and wanted.get("isStatic") in (None, batch.static_code is not None)
        ]
        found = [self._state.batch_wire(batch) for batch in matching[start : start + size + 1]]
        return _page(found, start, size, self._guesses.last_page)

    def _get(self, given: Input) -> dict[str, Any]:
        return _item(self._state.wire(self._state.get(given.name)))

    def _void(self, given: Input) -> dict[str, Any]:
        record = self._state.void(
            given.name,
            store_id=_text(given.body, "storeId"),
            used_at=_time(given.body, "usedAt"),
            any_store=Check.STORE in self._disabled,
        )
        return _item(self._state.wire(record))

    def _reinstate(self, given: Input) -> dict[str, Any]:
        pin = _text(given.body, "pin")
        _text(given.body, "reason")
        if Check.PIN not in self._disabled:
            if pin is None:
                raise RefusedError("VALIDATION_ERROR", "pin is required")
            if pin != self._pin:
                raise RefusedError(self._guesses.wrong_pin_code)
        return _item(self._state.wire(self._state.reinstate(given.name)))

    def _redeem(self, given: Input) -> dict[str, Any]:
        codes = given.body.get("codes")
        if not isinstance(codes, list) or not all(isinstance(code, str) for code in codes):
            raise RefusedError("VALIDATION_ERROR", "codes is a list of text")
        redeemed = self._state.redeem(codes)
        return {"item": [self._state.wire(record) for record in redeemed], "code": "SUCCESS"}

    def _member_vouchers(self, given: Input) -> dict[str, Any]:
        member = self._member(given.query)
        start, size = self._start(given.query), self._limit(given.query)
        found = [self._state.wire(one) for one in member.vouchers[start : start + size + 1]]
        return _page(found, start, size, self._guesses.last_page)

    def _member_get(self, given: Input) -> dict[str, Any]:
        record = self._state.member_voucher(self._member(given.query), given.name)
        return _item(self._state.wire(record))

    def _member_redeem(self, given: Input) -> dict[str, Any]:
        record = self._state.member_redeem(self._member(given.query), given.name)
        return _item(self._state.wire(record))

    def _member(self, query: Mapping[str, str]) -> Member:
        try:
            return self._state.member(query["countryCode"], query["phoneNumber"])
        except KeyError:
            raise RefusedError(
                "VALIDATION_ERROR", "countryCode and phoneNumber are required"
            ) from None

    def _limit(self, query: Mapping[str, str]) -> int:
        limit = query.get("limit")
        if limit is None:
            return self._guesses.page_size
        if not (limit.isascii() and limit.isdecimal() and len(limit) < 10 and int(limit)):
            raise RefusedError("INVALID_PARAMETER", "limit is a whole number, 1 or more")
        return min(int(limit), self._guesses.page_size)

    def _filter(self, query: Mapping[str, str]) -> dict[str, Any]:
        try:
            wanted = read_json(query.get("filter", "{}"))
        except ValueError:
            wanted = None
        if isinstance(wanted, dict):
            return wanted
        if Check.FILTER in self._disabled:
            return {}
        raise RefusedError("INVALID_PARAMETER", "filter is a JSON object")

    def _start(self, query: Mapping[str, str]) -> int:
        cursor = query.get("cursor")
        if not cursor:
            return 0
        try:
            word, number = base64.b64decode(cursor, b"-_", validate=True).decode().split(" ")
            start = int(number) if word == "from" else 0
        except (binascii.Error, ValueError):  # the text of a decimal may be too long to read
            start = 0
        if start > 0 and cursor == _cursor(start):  # not another spelling of it
            return start
        if Check.CURSOR in self._disabled:
            return 0
        raise RefusedError("INVALID_PARAMETER", "cursor is none that a page gave")


def _cursor(start: int) -> str:
    return base64.urlsafe_b64encode(f"from {start}".encode()).decode()


def _page(
    found: Sequence[Mapping[str, Any]], start: int, size: int, last_page: LastPage
) -> dict[str, Any]:
    """Return a page. ``found`` has one item more than fits when there is another page."""
    items = found[:size]
    meta: dict[str, Any] = {"count": len(items)}
    if len(found) > size or (items and last_page is LastPage.EMPTY_PAGE):
        meta["cursor"] = _cursor(start + len(items))
    elif last_page in _LAST_CURSORS:
        meta["cursor"] = _LAST_CURSORS[last_page]
    return {"items": items, "meta": meta, "code": "SUCCESS"}


def _item(wire: Mapping[str, Any]) -> dict[str, Any]:
    return {"item": wire, "code": "SUCCESS"}


def _object(body: object) -> Mapping[str, Any]:
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise RefusedError("INVALID_REQUEST", "the body is a JSON object")
    return body


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if not isinstance(value, str | None):
        raise RefusedError("INVALID_PARAMETER", f"{name} is text")
    return value


def _time(body: Mapping[str, Any], name: str) -> datetime | None:
    text = _text(body, name)
    try:
        return None if text is None else parse_time(text)
    except ValueError:
        raise RefusedError("INVALID_PARAMETER", f"{name} is an RFC 3339 time") from None
